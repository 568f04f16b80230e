"""A provider that repeats the router's key in an error: whoever has no right to see the key does not."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import chat
from tests.support.answers import Answer, Chunk, error_json, event, json_answer, sse
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller
from tests.support.router import Router

KEY = "up/key.for+tests=01"
ZAI = "zai.key.for.tests"
LOGIN = "fake.login.of.nobody"
STREAM = (("Content-Type", "text/event-stream"),)


@pytest.fixture
def up(second: Upstream) -> Upstream:
    return second


@pytest.fixture
def router(start_router, upstream: Upstream, up: Upstream, tmp_path: Path) -> Router:
    rules = f"""
providers:
  anthropic: {{url: "{upstream.url}", auth: client}}
  up: {{url: "{up.url}/v1", api: openai, key: "{KEY}", circuit: {{open_after: 1000}}}}
  zai: {{url: "{up.url}", key: "{ZAI}", circuit: {{open_after: 1000}}}}
rules:
  - {{match: "up-then-home", to: [up, anthropic]}}
  - {{match: "zai-then-home-*", to: [zai, anthropic]}}
  - {{match: "zai-*", to: zai}}
  - {{match: "home-*", to: anthropic}}
  - {{match: "*", to: up}}
log: {{level: debug}}
"""
    return start_router(upstream.url, rules=rules, options=("-w", str(tmp_path / "router0" / "flows.mitm")))


@pytest.fixture
def caller(router: Router) -> Iterator[Caller]:
    with Caller(router, "masked") as one:
        yield one


def kept(router: Router) -> dict[str, bytes]:
    """All that a router has written by its end."""
    router.stop()
    files: list[Path] = [file for file in router.folder.rglob("*") if file.is_file()]
    written = {file.name: file.read_bytes() for file in files if file != router.rules_file}
    return written | {"log": router.log().encode()}


def assert_nowhere(router: Router, *secrets: str) -> None:
    written = kept(router)
    assert {"flows.mitm", "log", "ledger.sqlite", "requests.jsonl"} <= written.keys()
    for secret in secrets:
        assert [name for name, data in written.items() if secret.encode() in data] == []


def pieces(raw: bytes, secret: str) -> list[Chunk]:
    """Cut in the middle of the secret, in separate network reads."""
    at = raw.index(secret.encode()) + len(secret) // 2
    return [raw[:at], 0.1, raw[at:]]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_an_error_of_chat_completions_is_told_without_the_key(router, caller, up, stream):
    body = json.dumps({"error": {"message": f"Incorrect API key: {KEY}", "code": KEY}})
    escaped = body.replace("/", r"\/").encode()
    page = b"<html>" + b"x" * 280 + b" the key is " + KEY.encode() + b"</html>"
    up.answer(
        chat.error(401, f"Incorrect API key: {KEY}. " + "x" * 180),
        Answer(400, (("Content-Type", "application/json"),), (escaped,)),
        Answer(502, (("Content-Type", "text/html"),), (page,)),
        Answer(200, (("Content-Type", "application/json"),), (escaped,)),
    )
    for _ in range(4):
        caller.ask("up-x", stream)
        said = caller.answer().body
        assert KEY.encode() not in said
        assert KEY[:8].encode() not in said
        assert b"***" in said
    router.records(4)
    assert_nowhere(router, KEY, KEY[:8])


def test_an_error_in_a_stream_is_told_without_the_key_wherever_it_is_cut(router, caller, up):
    fault = b'data: {"error": {"message": "no quota for %b"}}\n\n' % KEY.encode()
    up.answer(chat.stream([chat.chunk({"content": "Hel"}), *pieces(fault, KEY)]))
    caller.ask("up-x")
    said = caller.answer().body
    assert b"no quota for ***" in said
    router.records(1)
    assert_nowhere(router, KEY)


def test_a_failed_attempt_is_recorded_without_the_key(router, caller, up):
    fault = b'data: {"error": {"message": "no quota for %b"}}\n\n' % KEY.encode()
    up.answer(chat.error(429, f"no quota for {KEY}"), chat.stream(pieces(fault, KEY)))
    for _ in range(2):
        caller.ask("up-then-home")
        assert caller.answer().headers["x-signalbox-provider"] == "anthropic"
    router.wait_log(r"no quota for \*\*\*")
    router.records(2)
    assert_nowhere(router, KEY)


def test_an_error_of_another_provider_is_the_clients_as_it_is_and_recorded_without_the_key(
    router, caller, up
):
    busy = event("error", error={"type": "overloaded_error", "message": f"no room for {ZAI}"})
    up.answer(
        error_json(400, "invalid_request_error", f"no such model for {ZAI}"),
        sse(event("message_start", message={"usage": {}}), *pieces(busy, ZAI)),
        error_json(529, "overloaded_error", f"no room for {ZAI}"),
        sse(event("message_start", message={"usage": {}}), *pieces(busy, ZAI)),
    )
    for model in ("zai-1", "zai-2"):
        caller.ask(model)
        assert ZAI.encode() in caller.answer().body
    for model in ("zai-then-home-3", "zai-then-home-4"):
        caller.ask(model)
        assert caller.answer().headers["x-signalbox-attempts"].startswith("zai:")
    router.wait_log(r"no room for \*\*\*")
    router.records(4)
    assert_nowhere(router, ZAI)


def test_the_callers_own_login_is_masked_in_records_too(router, caller, upstream):
    upstream.answer(error_json(401, "authentication_error", f"no such login: {LOGIN}"))
    caller.ask("home-x", x_api_key=LOGIN)
    assert LOGIN.encode() in caller.answer().body
    router.records(1)
    assert_nowhere(router, LOGIN)


def test_a_key_in_what_is_no_http_is_told_nowhere(router, caller, up):
    for raw in (f"{ZAI}\r\n\r\n", f"HTTP/1.1 200 {ZAI}\nno header {ZAI}\r\n\r\n", f"the key is {ZAI}"):
        up.answer(Answer(framing="raw", chunks=(raw.encode(),), cut="close"))
        with Caller(router, "masked") as one:
            one.ask("zai-no-http")
            answer = one.answer()
        assert answer.status == 502
        assert ZAI.encode() not in answer.body
    router.records(3)
    assert_nowhere(router, ZAI)


def test_a_key_is_known_with_its_escapes_and_in_headers(router, caller, up):
    written = KEY.replace("-", "%2D").replace("/", "\\u002f").replace(".", "\\u002E")
    fault = b'{"error": {"message": "no such key: %b", "code": "x"}}' % written.encode()
    json_type = ("Content-Type", "application/json")
    up.answer(Answer(400, (json_type, ("X-Seen", f"Bearer {KEY}")), (fault,)))
    caller.ask("up-x")
    answer = caller.answer()
    assert b"no such key: ***" in answer.body
    assert answer.headers["x-seen"] == "Bearer ***"
    router.records(1)
    assert_nowhere(router, KEY, written)


def test_the_callers_own_login_is_masked_where_no_rule_decided(router, upstream):
    said = LOGIN.replace(".", "\\u002e")
    body = b'{"error": {"message": "no such login: %b"}}' % said.encode()
    upstream.answer(Answer(401, (("Content-Type", "application/json"),), (body,)))
    connection = http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=10)
    headers = {"x-api-key": LOGIN}
    connection.request("POST", f"/v1/messages?key={LOGIN}", b"no JSON", headers)
    assert connection.getresponse().read() == body
    connection.close()
    assert upstream.wait_for(1)[0].path == f"/v1/messages?key={LOGIN}"
    router.wait_log(r"no such login: \*\*\*")
    router.records(1)
    assert_nowhere(router, LOGIN)


def test_a_prompt_that_an_error_quotes_is_kept_in_no_record(router, caller, up, upstream):
    prompt = "the-diary of nobody"
    fault = {"type": "string_type", "loc": ["body", "messages"], "msg": "Input should be a list"}
    detail = {"detail": [{**fault, "input": [{"role": "user", "content": prompt * 5000}]}]}
    up.answer(
        json_answer(detail, 422),
        json_answer({"error": {"message": detail["detail"]}}, 500),
        json_answer(detail, 422),
        sse(event("error", error={"type": "overloaded_error", "message": f"cannot read '{prompt}'"})),
    )
    for model in ("zai-x", "up-then-home", "up-x", "zai-then-home-x"):
        caller.ask(model)
        caller.answer()
    router.records(4)
    router.wait_log("Input should be a list")
    router.stop()
    kept_too = [router.log().encode(), *(f.read_bytes() for f in router.state.rglob("*") if f.is_file())]
    assert not [one for one in kept_too if b"the-diary" in one]
