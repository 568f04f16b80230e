"""No credential is in what mitmweb shows, tells and exports, and in what is saved; the client gets them all.

Answers repeat the caller's login: as text, in pieces, compressed, in cookies and in errors. The request's own
text holds a key of the router's.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.io import FlowReader

from signalbox.anthropic.encoding import decode
from tests.support.answers import compressed, error_json, message_json, message_sse
from tests.support.fake_provider import Upstream
from tests.support.mitmweb import Web
from tests.support.router_process import wait_until

pytestmark = pytest.mark.slow

LOGIN = "sk-ant-oat01-fake-login-of-nobody"
KEY = "zai-key-for-tests-0001"
COOKIE = "cookie-of-nobody-0000001"
SECRETS = [LOGIN, KEY, COOKIE, LOGIN.replace("-", "\\u002d")]


def rules(home: Upstream, zai: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: "{KEY}"}}
rules:
  - {{match: "*haiku*", to: zai/glm}}
  - {{match: "*sonnet*", to: [zai/glm, anthropic]}}
  - {{match: "*", to: anthropic}}
"""


@pytest.fixture
def web(tmp_path: Path, upstream: Upstream, second: Upstream) -> Iterator[Web]:
    saved = ("--set", f"save_stream_file={tmp_path / 'saved.flows'}")
    with Web(tmp_path, upstream.url, rules=rules(upstream, second), options=saved) as router:
        yield router


def ask(
    web: Web, model: str, path: str = "/v1/messages", *, stream: bool = True
) -> tuple[bytes, list[str | None]]:
    """The client's answer, decoded, and its headers that repeat credentials."""
    said = {"role": "user", "content": f"My key is {KEY}"}
    body = json.dumps({"model": model, "stream": stream, "messages": [said]})
    headers = {
        "Authorization": f"Bearer {LOGIN}",
        "Cookie": f"s={COOKIE}",
        "Accept-Encoding": "gzip, br, zstd",
    }
    with closing(HTTPConnection("127.0.0.1", web.ports[0], timeout=10)) as connection:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        said_back = decode(answer.read(), answer.headers.get("content-encoding", ""), 1 << 20)
    return said_back, [answer.headers.get(name) for name in ("set-cookie", "x-echo")]


def everything_shown(web: Web, folder: Path) -> dict[str, bytes]:
    """All that a person or a script can get at, by name."""
    flows: list[dict[str, Any]] = json.loads(web.shown())
    shown = {"list of flows": web.shown(), "log": web.get("/events") + web.log().encode()}
    for flow in flows:
        for part in ("request", "response"):
            if flow.get(part, {}).get("contentLength"):
                told = json.dumps(web.view(flow["id"], part), ensure_ascii=False)
                shown[f"{part} of {flow['id']}"] = web.content(flow["id"], part)
                shown[f"view of the {part} of {flow['id']}"] = told.encode()
    for name, command in (("exported.har", "save.har"), ("exported.flows", "save.file")):
        web.command(command, "@all", str(folder / name))
        shown[name] = (folder / name).read_bytes()
    shown["flows as they are served"] = web.get("/flows/dump")
    return shown


def test_secrets_stand_nowhere_and_the_client_gets_its_answer(web, tmp_path, upstream, second):
    pieces = ["It is ", *(LOGIN[i : i + 5] for i in range(0, len(LOGIN), 5)), "."]
    whole = message_json("claude-opus-4-5", f"It is {LOGIN}.")
    spelled = replace(whole, chunks=(whole.body.replace(b"sk-ant-", b"sk\\u002dant\\u002d"),))
    cookies = (("Set-Cookie", f"session={COOKIE}; Path=/"), ("X-Echo", f"you are {LOGIN}"))
    upstream.answer(
        *(compressed(message_sse("claude-opus-4-5", pieces), coding) for coding in ("gzip", "br", "zstd")),
        message_sse("claude-opus-4-5", pieces),
        replace(spelled, headers=(*spelled.headers, *cookies)),
        error_json(400, "invalid_request_error", f"{LOGIN} is no key"),
        message_sse("claude-sonnet-4-5"),
    )
    second.answer(
        message_sse("glm", [KEY[:9], KEY[9:]]),
        error_json(529, "overloaded_error", f"key {KEY} is busy"),
        message_sse("glm", ["Your login is ", LOGIN]),
    )
    with web.events() as told:
        answers = [ask(web, "claude-opus-4-5") for _ in range(4)]
        assert {answer.count(b"text_delta") for answer, _ in answers} == {len(pieces)}
        answer, repeated = ask(web, "claude-opus-4-5", stream=False)
        assert repeated == [f"session={COOKIE}; Path=/", f"you are {LOGIN}"]
        assert json.loads(answer)["content"][0]["text"] == f"It is {LOGIN}."
        assert LOGIN.encode() in ask(web, "claude-opus-4-5", stream=False)[0]
        assert KEY[9:].encode() in ask(web, "claude-haiku-4-5")[0]
        ask(web, "claude-sonnet-4-5")
        assert LOGIN.encode() in ask(web, "claude-haiku-4-5")[0]
        ask(web, "claude-opus-4-5", "/v1/models")
        wait_until(lambda: len(json.loads(web.shown())) >= 11, 5, lambda: web.shown().decode())
        web.finished(9)
    assert f"My key is {KEY}".encode() in second.requests[0].body
    shown = everything_shown(web, tmp_path) | {"events": "\n".join(told).encode()}
    web.stop()
    saved = (tmp_path / "saved.flows").read_bytes()
    shown |= {"saved flows": saved}
    assert b"My key is ***" in saved
    found = [
        f"{secret} in {name}" for secret in SECRETS for name, text in shown.items() if secret.encode() in text
    ]
    assert not found
    views = [text.decode() for name, text in shown.items() if name.startswith("view of the response")]
    assert sum("It is ***." in view for view in views) == 5
    with (tmp_path / "saved.flows").open("rb") as file:
        texts = [flow.response.content for flow in FlowReader(file).stream()]
    assert all(b"message" in text or b"error" in text for text in texts)
