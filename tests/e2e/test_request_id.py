"""Each answer says by which id its request is known, and the ledger and the flow know it by the same."""

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import anthropic
import pytest

from tests.support import chat
from tests.support.answers import Answer, error_json, json_answer
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller, both
from tests.support.router import Router
from tests.support.router_process import free_ports, wait_until

OWN = re.compile(r"req_[0-9a-f-]{36}")
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def rules(home: Upstream, up: Upstream) -> str:
    (nobody,) = free_ports(1)
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client, circuit: {{open_after: 1000}}}}
  up: {{url: "{up.url}/v1", api: openai, circuit: {{open_after: 1000}}}}
  slow: {{url: "{up.url}/v1", api: openai, timeout: {{first_byte: 300ms}}}}
  dead: {{url: "http://127.0.0.1:{nobody}", key: dead-key-for-tests}}
  unset: {{url: "http://127.0.0.1:{nobody}", key: "${{NOT_SET_IN_TESTS}}"}}
limits: {{body: 100KB}}
rules:
  - {{match: "dead-*", to: dead}}
  - {{match: "slow-*", to: slow}}
  - {{match: "unset-*", to: unset}}
  - {{match: "reject-*", to: [{{reject: 400, message: Not here.}}]}}
  - {{match: "up-then-dead-*", to: [up, dead]}}
  - {{match: "up-then-home-*", to: [up, anthropic]}}
  - {{match: "home-*", to: anthropic}}
  - {{match: "*", to: up}}
"""


@pytest.fixture
def ask(router: Router) -> Callable[..., Any]:
    client = anthropic.Anthropic(base_url=router.url, auth_token="sk-ant-oat01-fake", max_retries=0)

    def ask(model: str, **more: Any) -> anthropic.types.Message:
        messages = more.pop("messages", [{"role": "user", "content": "Hi"}])
        stream = more.pop("stream", False)
        if not stream:
            return client.messages.create(model=model, max_tokens=9, messages=messages, **more)
        with client.messages.stream(model=model, max_tokens=9, messages=messages, **more) as one:
            message = one.get_final_message()
            assert one.request_id == one.response.headers["request-id"]
            return message

    return ask


def with_header(answer: Answer, name: str, value: str) -> Answer:
    return Answer(answer.status, (*answer.headers, (name, value)), answer.chunks, answer.framing)


@pytest.mark.parametrize(
    ("header", "id"),
    [
        ("X-Request-Id", "req_of_the_provider"),
        ("apim-request-id", "00000000-0000-0000-0000-0000000fake0"),
        ("X-Generation-Id", "gen-1700000000-fake"),
    ],
)
def test_an_answer_has_the_id_by_which_its_provider_knows_it(ask, up, header, id):
    up.answer(with_header(chat.completion(), header, id))
    assert ask("x")._request_id == id


@both
def test_an_answer_without_one_has_an_id_of_the_routers(router, caller, up, stream):
    up.answer(chat.stream(chat.text_stream()) if stream else chat.completion())
    caller.ask("x", stream)
    assert OWN.fullmatch(caller.answer().headers["request-id"])


@both
@pytest.mark.parametrize(("status", "told"), [(400, 400), (401, 403), (429, 429), (500, 500), (503, 529)])
def test_an_error_of_the_provider_has_its_id_in_head_and_body(ask, up, status, told, stream):
    up.answer(with_header(chat.error(status, "no"), "x-request-id", "req_of_the_error"))
    with pytest.raises(anthropic.APIStatusError) as raised:
        ask(f"error-{status}-{stream}", stream=stream)
    assert raised.value.status_code == told
    assert raised.value.request_id == "req_of_the_error"
    assert raised.value.body["request_id"] == "req_of_the_error"


@both
@pytest.mark.parametrize(
    ("model", "status", "more"),
    [
        ("dead-x", 502, {}),
        ("slow-x", 504, {}),
        ("unset-x", 503, {}),
        ("reject-x", 400, {}),
        ("tools-x", 400, {"tools": [SEARCH]}),
        ("empty-x", 529, {}),
        ("large-x", 413, {"messages": [{"role": "user", "content": "x" * 200_000}]}),
    ],
)
def test_an_error_of_the_router_has_an_id_of_its_own(ask, up, never, model, status, more, stream):
    up.answer(Answer(wait=never) if model == "slow-x" else chat.completion(""))
    with pytest.raises(anthropic.APIStatusError) as raised:
        ask(model, stream=stream, **more)
    assert raised.value.status_code == status
    assert OWN.fullmatch(raised.value.request_id or "")
    assert raised.value.body["request_id"] == raised.value.request_id


def test_an_error_within_an_answer_has_the_id_of_its_head(ask, up):
    fault = b'data: {"error": {"message": "out of memory", "code": 503}}\n\n'
    up.answer(chat.stream([chat.chunk({"content": "Hel"}), fault], [("x-request-id", "req_of_the_stream")]))
    with pytest.raises(anthropic.APIStatusError) as raised:
        ask("x", stream=True)
    assert raised.value.request_id == "req_of_the_stream"
    assert raised.value.body["request_id"] == "req_of_the_stream"


def test_the_id_of_a_failed_attempt_names_no_other(ask, up, shared):
    up.answer(with_header(chat.error(500, "no"), "x-request-id", "req_of_the_first"))
    with pytest.raises(anthropic.APIStatusError) as raised:
        ask("up-then-dead-x")
    assert OWN.fullmatch(raised.value.request_id or "")
    up.answer(with_header(chat.error(500, "no"), "x-request-id", "req_of_the_first"))
    shared.upstream.answer(with_header(error_json(500, "api_error"), "request-id", "req_of_the_second"))
    with pytest.raises(anthropic.APIStatusError) as raised:
        ask("up-then-home-x")
    assert raised.value.request_id == "req_of_the_second"


def test_an_anthropic_error_stays_as_it_is(router, caller, shared):
    error = {
        "type": "error",
        "error": {"type": "api_error", "message": "no"},
        "request_id": "req_of_anthropic",
    }
    shared.upstream.answer(with_header(json_answer(error, 500), "request-id", "req_of_anthropic"))
    caller.ask("home-x", stream=False)
    answer = caller.answer()
    assert answer.headers["request-id"] == "req_of_anthropic"
    assert json.loads(answer.body) == error


@pytest.mark.parametrize("value", ["", "req\tid", "x" * 300, '"quoted"'])
def test_what_could_be_no_id_is_none(router, caller, up, value):
    up.answer(with_header(chat.completion(), "x-request-id", value))
    caller.ask("x", stream=False)
    assert OWN.fullmatch(caller.answer().headers["request-id"])


def test_the_ledger_has_the_id_that_the_client_was_told(router, up):
    up.answer(with_header(chat.error(500, "no"), "x-request-id", "req_of_the_ledger"))
    with Caller(router, "in-the-ledger") as caller:
        caller.ask("x", stream=False)
        assert caller.answer().headers["request-id"] == "req_of_the_ledger"

    def found() -> list[tuple[str]]:
        file = f"file:{router.state / 'ledger.sqlite'}?mode=ro"
        with closing(sqlite3.connect(file, uri=True)) as ledger:
            return ledger.execute(
                "SELECT session FROM requests WHERE request_id = 'req_of_the_ledger'"
            ).fetchall()

    wait_until(found, 5, router.log)
    assert found() == [("in-the-ledger",)]
