"""Requests of which only the status matters."""

import json
import urllib.error
import urllib.request

from tests.support.router_process import OPENER, RouterFiles


def ask(router: RouterFiles, model: str, prompt: str = "Hi", session: str = "", **headers: str) -> int:
    """The status of the answer to a request that is not streamed."""
    if session:
        headers["x-claude-code-session-id"] = session
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}]}).encode()
    asked = urllib.request.Request(
        f"{router.url}/v1/messages", body, {"authorization": "Bearer x", **headers}
    )
    try:
        with OPENER.open(asked, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
