"""A provider that repeats the router's key in an error: whoever has no right to see the key does not."""

import json
from collections.abc import Iterator

import pytest
from mitmproxy import http

from tests.support import chat
from tests.support.answers import Answer, Chunk, error_json, event, json_answer, sse
from tests.support.playbook import Playbook, PlayedRouter, Provider, played
from tests.support.played_wire import Got

KEY = "up/key.for+tests=01"
ZAI = "zai.key.for.tests"
LOGIN = "fake.login.of.nobody"
JSON = ("Content-Type", "application/json")
RULES = f"""
providers:
  anthropic: {{url: "http://home.invalid", auth: client}}
  up: {{url: "http://up.invalid/v1", api: openai, key: "{KEY}", circuit: {{open_after: 1000}}}}
  zai: {{url: "http://up.invalid", key: "{ZAI}", circuit: {{open_after: 1000}}}}
rules:
  - {{match: "up-then-home", to: [up, anthropic]}}
  - {{match: "zai-then-home-*", to: [zai, anthropic]}}
  - {{match: "zai-*", to: zai}}
  - {{match: "home-*", to: anthropic}}
  - {{match: "*", to: up}}
log: {{level: debug}}
"""


@pytest.fixture
def played_router(tmp_path, caplog) -> Iterator[PlayedRouter]:
    """One for each test, which looks at all that it has written."""
    caplog.set_level("DEBUG", "signalbox")
    with played(tmp_path, RULES) as router:
        yield router


def ask(play: Playbook, model: str, stream: bool = True) -> Got:
    return play.ask(model, stream=stream, headers={"x-api-key": LOGIN})


@pytest.fixture
def is_nowhere(play, played_router, caplog):
    """Asserts that a text is in no file, line or flow at the router's end."""

    def is_nowhere(*secrets: str) -> None:
        played_router.close()
        flows: list[http.HTTPFlow] = play.flows
        written = {file.name: file.read_bytes() for file in played_router.state.rglob("*") if file.is_file()}
        assert {"ledger.sqlite", "requests.jsonl"} <= written.keys()
        written["log"] = caplog.text.encode()
        written["flows"] = repr([[flow.comment, flow.metadata, flow.error] for flow in flows]).encode()
        for secret in secrets:
            assert [name for name, data in written.items() if secret.encode() in data] == []

    return is_nowhere


def pieces(raw: bytes, secret: str) -> list[Chunk]:
    """Cut in the middle of the secret, in separate network reads."""
    at = raw.index(secret.encode()) + len(secret) // 2
    return [raw[:at], 0.1, raw[at:]]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_an_error_of_chat_completions_is_reported_without_the_key(play, up, is_nowhere, stream):
    body = json.dumps({"error": {"message": f"Incorrect API key: {KEY}", "code": KEY}})
    escaped = body.replace("/", r"\/").encode()
    page = b"<html>" + b"x" * 280 + b" the key is " + KEY.encode() + b"</html>"
    up.answer(
        chat.error(401, f"Incorrect API key: {KEY}. " + "x" * 180),
        Answer(400, (JSON,), (escaped,)),
        Answer(502, (("Content-Type", "text/html"),), (page,)),
        Answer(200, (JSON,), (escaped,)),
    )
    for _ in range(4):
        said = ask(play, "up-x", stream).body
        assert KEY.encode() not in said
        assert KEY[:8].encode() not in said
        assert b"***" in said
    is_nowhere(KEY, KEY[:8])


def test_an_error_in_a_stream_is_reported_without_the_key_wherever_it_is_cut(play, up, is_nowhere):
    fault = b'data: {"error": {"message": "no quota for %b"}}\n\n' % KEY.encode()
    up.answer(chat.stream([chat.chunk({"content": "Hel"}), *pieces(fault, KEY)]))
    assert b"no quota for ***" in ask(play, "up-x").body
    is_nowhere(KEY)


def test_a_failed_attempt_is_recorded_without_the_key(play, up, home, is_nowhere, caplog):
    fault = b'data: {"error": {"message": "no quota for %b"}}\n\n' % KEY.encode()
    up.answer(chat.error(429, f"no quota for {KEY}"), chat.stream(pieces(fault, KEY)))
    for _ in range(2):
        assert ask(play, "up-then-home").headers["x-signalbox-provider"] == "anthropic"
    assert "no quota for ***" in caplog.text
    is_nowhere(KEY)


def test_an_error_of_another_provider_is_the_clients_as_it_is_and_recorded_without_the_key(
    play, up, home, is_nowhere, caplog
):
    busy = event("error", error={"type": "overloaded_error", "message": f"no room for {ZAI}"})
    up.answer(
        error_json(400, "invalid_request_error", f"no such model for {ZAI}"),
        sse(event("message_start", message={"usage": {}}), *pieces(busy, ZAI)),
        error_json(529, "overloaded_error", f"no room for {ZAI}"),
        sse(event("message_start", message={"usage": {}}), *pieces(busy, ZAI)),
    )
    for model in ("zai-1", "zai-2"):
        assert ZAI.encode() in ask(play, model).body
    for model in ("zai-then-home-3", "zai-then-home-4"):
        assert ask(play, model).headers["x-signalbox-attempts"].startswith("zai:")
    assert "no room for ***" in caplog.text
    is_nowhere(ZAI)


def test_the_callers_own_login_is_masked_in_records_too(play, home, is_nowhere):
    home.answer(error_json(401, "authentication_error", f"no such login: {LOGIN}"))
    assert LOGIN.encode() in ask(play, "home-x").body
    is_nowhere(LOGIN)


def test_a_key_in_what_is_no_http_is_shown_nowhere(play, up, is_nowhere):
    for raw in (f"{ZAI}\r\n\r\n", f"HTTP/1.1 200 {ZAI}\nno header {ZAI}\r\n\r\n", f"the key is {ZAI}"):
        up.answer(Answer(framing="raw", chunks=(raw.encode(),), cut="close"))
        got = ask(play, "zai-no-http")
        assert got.status == 502
        assert ZAI.encode() not in got.body
    is_nowhere(ZAI)


def test_a_key_is_known_with_its_escapes_and_in_headers(play, up, is_nowhere):
    written = KEY.replace("-", "%2D").replace("/", "\\u002f").replace(".", "\\u002E")
    fault = b'{"error": {"message": "no such key: %b", "code": "x"}}' % written.encode()
    up.answer(Answer(400, (JSON, ("X-Seen", f"Bearer {KEY}")), (fault,)))
    got = ask(play, "up-x")
    assert b"no such key: ***" in got.body
    assert got.headers["x-seen"] == "Bearer ***"
    is_nowhere(KEY, written)


def test_the_callers_own_login_is_masked_where_no_rule_decided(play, played_router, is_nowhere, caplog):
    upstream: Provider = played_router.provider("upstream")
    body = b'{"error": {"message": "no such login: %b"}}' % LOGIN.replace(".", "\\u002e").encode()
    upstream.answer(Answer(401, (JSON,), (body,)))
    assert play.fetch(f"POST /v1/messages?key={LOGIN}", b"no JSON", X_Api_Key=LOGIN).body == body
    assert upstream.requests[0].path == f"/v1/messages?key={LOGIN}"
    assert "no such login: ***" in caplog.text
    is_nowhere(LOGIN)


@pytest.mark.slow
def test_a_prompt_that_an_error_quotes_is_kept_in_no_record(play, up, home, is_nowhere, caplog):
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
        ask(play, model)
    assert "Input should be a list" in caplog.text
    is_nowhere("the-diary")
