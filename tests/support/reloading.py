"""Rules that are edited while a router runs, and requests that show which are in force."""

import json
import time
import urllib.request

from tests.support.fake_provider import Upstream
from tests.support.router_process import OPENER, RouterFiles


def rules(home: Upstream, zai: Upstream, to: str = "zai/glm-1") -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001}}
rules:
  - {{match: "*", to: {to}}}
"""


def ask(router: RouterFiles, stream: bool = False) -> tuple[str, bytes]:
    """The model sent upstream, and the answer."""
    body = json.dumps({"model": "claude-haiku-4-5", "stream": stream}).encode()
    request = urllib.request.Request(f"{router.url}/v1/messages", body, method="POST")
    with OPENER.open(request, timeout=10) as answer:
        return answer.headers["x-signalbox-model"], answer.read()


def seen_within_a_second(router: RouterFiles, model: str) -> bool:
    """Whether a request sent a second after a save is routed by what was saved; mostly it is there sooner."""
    end = time.monotonic() + 1
    while time.monotonic() < end:
        if ask(router)[0] == model:
            return True
    return ask(router)[0] == model
