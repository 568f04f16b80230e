"""The real mitmdump before scripted providers: who gets what."""

import gzip
import http.client
import json
from typing import Any

import pytest

from tests.conftest import Shared
from tests.support.answers import message_json, message_sse, thinking_block
from tests.support.fake_provider import Received, Upstream
from tests.support.router import Router

LOGIN = "Bearer sk-ant-oat01-fake-login-of-nobody"
KEY = "zai-key-for-tests-0001"


def rules(home: Upstream, zai: Upstream, more: str = "") -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}/api/anthropic", key: "{KEY}"}}
  nokey: {{url: "{zai.url}", key: "${{UNSET_KEY_FOR_TESTS}}"}}
  reader: {{url: "{zai.url}", key: "{KEY}", count_tokens: estimate}}
  silent: {{url: "{zai.url}", key: "{KEY}", count_tokens: reject}}
rules:
  - match: "*haiku*"
    to: zai/glm-4.5-air
  - name: coding
    match: "*sonnet*"
    to: [nokey/x, zai/glm-4.7]
  - {{match: "count-here", to: reader}}
  - {{match: "count-never", to: silent}}
  - {{match: "nobody", to: nokey}}
  - {{match: "never", to: [nokey, {{reject: 418, message: "not today"}}]}}
  - match: "*opus*"
    to: anthropic
{more}
"""


@pytest.fixture
def upstream(shared: Shared) -> Upstream:
    return shared.upstream


@pytest.fixture
def second(shared: Shared) -> Upstream:
    return shared.second


def post(
    router: Router,
    model: str,
    path: str = "/v1/messages?beta=true",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> tuple[http.client.HTTPResponse, bytes]:
    """Ask as Claude Code with a login does. Gives the answer and its whole body."""
    asked = {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]} | fields
    raw = json.dumps(asked).encode() if body is None else body
    connection = http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=10)
    usual = {"Authorization": LOGIN, "Content-Type": "application/json", "anthropic-version": "2023-06-01"}
    connection.request("POST", path, raw, usual | (headers or {}))
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def test_a_tier_goes_to_its_provider_with_that_providers_host_key_and_model(router, upstream, second):
    answer, content = post(router, "claude-haiku-4-5")
    sent = second.wait_for(1)[0]
    assert sent.path == "/api/anthropic/v1/messages?beta=true"
    assert sent.header("host") == f"127.0.0.1:{second.port}"
    assert sent.header("x-api-key") == KEY
    assert sent.header("authorization") is None
    assert sent.json["model"] == "glm-4.5-air"
    assert answer.status == 200
    assert json.loads(content)["model"] == "claude-haiku-4-5"
    assert answer.headers["x-signalbox-provider"] == "zai"
    assert answer.headers["x-signalbox-model"] == "glm-4.5-air"
    assert answer.headers["x-signalbox-rule"] == "#1"
    assert answer.headers["x-signalbox-attempts"] == "zai:200"
    assert not upstream.requests


def test_another_tier_goes_on_the_callers_own_login_byte_for_byte(router, upstream):
    raw = b'{ "model":"claude-opus-4-5", "x": 1.0e1, "messages": [ ] }'
    answer, content = post(
        router, "", body=raw, headers={"anthropic-beta": "oauth-2025-04-20", "Cookie": "a=b"}
    )
    sent = upstream.wait_for(1)[0]
    assert sent.body == raw
    assert sent.header("authorization") == LOGIN
    assert sent.header("anthropic-beta") == "oauth-2025-04-20"
    assert sent.header("cookie") == "a=b"
    assert content == message_json("claude-opus-4-5").body
    assert answer.headers["x-signalbox-provider"] == "anthropic"


def test_a_target_without_a_key_is_passed_over_and_the_log_says_why(router, second):
    answer, _ = post(router, "claude-sonnet-4-5")
    assert second.wait_for(1)[0].json["model"] == "glm-4.7"
    assert answer.headers["x-signalbox-rule"] == "coding"
    router.wait_log(r"dispatch: zai reason=no-key model=claude-sonnet-4-5 rewrite=glm-4\.7")


def test_where_no_rule_matches_the_request_goes_to_the_reverse_upstream_as_it_came(router, upstream):
    answer, _ = post(router, "some-other-model", headers={"X-Claude-Code-Session-Id": "s"})
    sent = upstream.wait_for(1)[0]
    assert sent.json["model"] == "some-other-model"
    assert sent.header("x-claude-code-session-id") == "s"
    assert answer.headers["x-signalbox-rule"] == "none"
    router.wait_log("reason=no-rule model=some-other-model")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"messages":[]}',
        b'{"model":7}',
        b'{"model":"claude-haiku-4-5","model":"claude-opus-4-5"}',
        b'{"model":"claude-haiku-4-5","a":"\xff"}',
        b'{"model":"claude-haiku-4-5","a":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"\x00\x01\x02",
    ],
    ids=["empty", "cut", "a list", "no model", "a number", "model twice", "not UTF-8", "nested", "binary"],
)
def test_a_body_that_names_no_model_goes_to_the_reverse_upstream_as_it_came(router, upstream, second, body):
    upstream.answer(message_json())
    answer, _ = post(router, "", body=body)
    assert upstream.wait_for(1)[0].body == body
    assert answer.status == 200
    assert not second.requests


@pytest.mark.parametrize("coding", ["gzip"])
def test_a_compressed_body_is_understood(router, upstream, second, coding):
    raw = json.dumps({"model": "claude-haiku-4-5", "messages": []}).encode()
    post(router, "", body=gzip.compress(raw), headers={"Content-Encoding": coding})
    sent = second.wait_for(1)[0]
    assert sent.json == {"model": "glm-4.5-air", "messages": []}
    assert sent.header("content-encoding") is None
    same = gzip.compress(b'{"model":"claude-opus-4-5"}')
    upstream.answer(message_json())
    post(router, "", body=same, headers={"Content-Encoding": coding})
    assert upstream.wait_for(1)[0].body == same
    assert upstream.requests[0].header("content-encoding") == coding


def test_a_body_of_an_unknown_coding_goes_to_the_reverse_upstream_as_it_came(router, upstream):
    upstream.answer(message_json())
    post(router, "", body=b"???", headers={"Content-Encoding": "rot13"})
    assert upstream.wait_for(1)[0].body == b"???"


def test_nobody_available_is_said_with_the_cause_and_without_asking_to_retry(router):
    answer, content = post(router, "nobody")
    assert answer.status == 503
    assert answer.headers["x-should-retry"] == "false"
    error = json.loads(content)["error"]
    assert error["type"] == "api_error"
    assert "UNSET_KEY_FOR_TESTS is not set" in error["message"]


def test_a_rule_may_end_in_a_refusal(router):
    answer, content = post(router, "never")
    assert answer.status == 418
    assert json.loads(content)["error"] == {"type": "invalid_request_error", "message": "not today"}


@pytest.mark.parametrize(
    ("model", "status"), [("claude-haiku-4-5", 200), ("count-here", 200), ("count-never", 501)]
)
def test_tokens_are_counted_as_the_provider_says(router, second, model, status):
    answer, content = post(router, model, path="/v1/messages/count_tokens?beta=true")
    assert answer.status == status
    if model == "claude-haiku-4-5":
        assert json.loads(content) == {"input_tokens": 42}
        assert second.requests[0].path == "/api/anthropic/v1/messages/count_tokens?beta=true"
    elif status == 200:
        assert 0 < json.loads(content)["input_tokens"] < 20
    else:
        assert "usage" in json.loads(content)["error"]["message"]
    assert bool(second.requests) is (model == "claude-haiku-4-5")


def test_the_callers_credentials_never_reach_another_provider(router, second):
    headers = {"x-api-key": "sk-ant-api03-fake", "Cookie": "s=sk-ant-x", "X-Claude-Code-Session-Id": "s1"}
    post(router, "claude-haiku-4-5", headers=headers)
    sent = second.wait_for(1)[0]
    assert not any("sk-ant" in value for _, value in sent.headers)
    assert {"cookie", "x-claude-code-session-id"}.isdisjoint(name.lower() for name, _ in sent.headers)


def test_a_foreign_anthropic_credential_in_a_providers_headers_is_refused_at_the_last_look(
    start_router, upstream, second
):
    more = """
  - match: leaky
    to: {provider: zai, headers: {X-Note: "sk-ant-api03-fake-of-someone"}}
"""
    router = start_router(upstream.url, rules=rules(upstream, second, more))
    answer, content = post(router, "leaky")
    assert answer.status == 500
    assert "X-Note" in json.loads(content)["error"]["message"]
    assert not second.requests
    assert "fake-of-someone" not in router.log()


def test_another_path_is_a_pipe_to_the_reverse_upstream(router, upstream, second):
    answer, _ = post(router, "claude-haiku-4-5", path="/v1/messages/batches")
    assert upstream.wait_for(1)[0].json["model"] == "claude-haiku-4-5"
    assert "x-signalbox-provider" not in answer.headers
    assert not second.requests


def test_without_rules_everything_is_a_pipe(start_router, upstream):
    router = start_router(upstream.url, rules="")
    post(router, "claude-haiku-4-5")
    assert upstream.wait_for(1)[0].header("authorization") == LOGIN


def test_each_listener_may_have_rules_of_its_own(start_router, upstream, second):
    text = rules(upstream, second)
    router = start_router(upstream.url, upstream.url, rules=text)
    by_port = f'  - {{match: {{port: {router.ports[1]}, model: "x"}}, to: zai/by-port}}\n'
    router.wait_log("rules loaded")
    router.rules(text + by_port)
    router.wait_log(r"rules loaded[\s\S]*rules loaded")
    post(router, "x")
    assert upstream.wait_for(1)[0].json["model"] == "x"
    router.ports.reverse()
    post(router, "x")
    assert second.wait_for(1)[0].json["model"] == "by-port"


HOME_SIGNATURE, ZAI_SIGNATURE = "aXNzdWVkIGF0IGhvbWU", "aXNzdWVkIGJ5IHphaQ"


def thinking_history(model: str, *signatures: str) -> bytes:
    """A conversation in which an answer with each of these signatures was given, and the next question."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "question"}]
    for signature in signatures:
        thinking = {"type": "thinking", "thinking": "hm", "signature": signature}
        messages.append({"role": "assistant", "content": [thinking, {"type": "text", "text": "answer"}]})
        messages.append({"role": "user", "content": "question"})
    return json.dumps({"model": model, "max_tokens": 64, "stream": True, "messages": messages}).encode()


def test_thinking_goes_back_only_to_the_provider_that_issued_it(router, upstream, second):
    upstream.answer(message_sse("m", before=[thinking_block(signature=HOME_SIGNATURE)]))
    second.answer(message_sse("m", before=[thinking_block(signature=ZAI_SIGNATURE)]))

    def ask(model: str, where: Upstream, *signatures: str) -> Received:
        before = len(where.requests)
        post(router, "", body=thinking_history(model, *signatures))
        return where.wait_for(before + 1)[-1]

    ask("claude-opus-4-5", upstream)
    ask("claude-haiku-4-5", second)
    both = (HOME_SIGNATURE, ZAI_SIGNATURE)
    to_zai, home = ask("claude-haiku-4-5", second, *both), ask("claude-opus-4-5", upstream, *both)
    assert [signature.encode() in to_zai.body for signature in both] == [False, True]
    assert [signature.encode() in home.body for signature in both] == [True, False]


def test_thinking_that_nobody_here_issued_goes_to_anthropic_alone(router, upstream, second):
    body = thinking_history("claude-opus-4-5", "dW5zZWVu")
    post(router, "", body=body)
    assert upstream.wait_for(1)[0].body == body
    post(router, "", body=body.replace(b"opus", b"haiku"))
    assert b"dW5zZWVu" not in second.wait_for(1)[0].body


def test_who_issued_what_is_known_after_a_restart(start_router, upstream, second):
    second.answer(message_sse("m", before=[thinking_block(signature=ZAI_SIGNATURE)]))
    first: Router = start_router(upstream.url, rules=rules(upstream, second))
    post(first, "", body=thinking_history("claude-haiku-4-5"))
    assert first.stop() == 0
    again: Router = start_router(upstream.url, rules=rules(upstream, second), state=first.state)
    post(again, "", body=thinking_history("claude-opus-4-5", ZAI_SIGNATURE))
    assert ZAI_SIGNATURE.encode() not in upstream.wait_for(1)[0].body
    post(again, "", body=thinking_history("claude-haiku-4-5", ZAI_SIGNATURE))
    assert ZAI_SIGNATURE.encode() in second.wait_for(2)[1].body
