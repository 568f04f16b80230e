"""Rules edited while the router runs."""

import json
import time
import urllib.request

import pytest

from tests.support.fake_provider import Upstream
from tests.support.router import Router
from tests.support.router_process import OPENER


def rules(home: Upstream, zai: Upstream, to: str = "zai/glm-1") -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001}}
rules:
  - {{match: "*", to: {to}}}
"""


def ask(router: Router, stream: bool = False) -> tuple[str, bytes]:
    """The model sent upstream, and the answer."""
    body = json.dumps({"model": "claude-haiku-4-5", "stream": stream}).encode()
    request = urllib.request.Request(f"{router.url}/v1/messages", body, method="POST")
    with OPENER.open(request, timeout=10) as answer:
        return answer.headers["x-signalbox-model"], answer.read()


def seen_within_a_second(router: Router, model: str) -> bool:
    """Whether a request sent a second after a save is routed by what was saved; mostly it is there sooner."""
    end = time.monotonic() + 1
    while time.monotonic() < end:
        if ask(router)[0] == model:
            return True
    return ask(router)[0] == model


@pytest.mark.parametrize("replace", [True, False], ids=["by rename", "in place"])
def test_a_saved_edit_is_in_force_within_a_second(start_router, upstream, second, replace):
    router = start_router(upstream.url, rules=rules(upstream, second))
    assert ask(router)[0] == "glm-1"
    for number in range(2, 5):
        router.rules(rules(upstream, second, f"zai/glm-{number}"), replace=replace)
        assert seen_within_a_second(router, f"glm-{number}")
