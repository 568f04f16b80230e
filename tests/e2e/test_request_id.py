"""What the official SDK and the ledger know a request by (more in `test_proxy_stream_request_id`)."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import anthropic
import pytest

from tests.support import chat
from tests.support.answers import Answer
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller, both
from tests.support.router import Router
from tests.support.router_process import wait_until


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  up: {{url: "{up.url}/v1", api: openai, circuit: {{open_after: 1000}}}}
rules:
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


@both
def test_an_error_of_the_provider_has_its_id_in_head_and_body(ask, up, stream):
    up.answer(with_header(chat.error(503, "no"), "x-request-id", "req_of_the_error"))
    with pytest.raises(anthropic.APIStatusError) as raised:
        ask("x", stream=stream)
    assert raised.value.status_code == 529
    assert raised.value.request_id == "req_of_the_error"
    assert raised.value.body["request_id"] == "req_of_the_error"


def test_an_error_within_an_answer_has_the_id_of_its_head(ask, up):
    fault = b'data: {"error": {"message": "out of memory", "code": 503}}\n\n'
    up.answer(chat.stream([chat.chunk({"content": "Hel"}), fault], [("x-request-id", "req_of_the_stream")]))
    with pytest.raises(anthropic.APIStatusError) as raised:
        ask("x", stream=True)
    assert raised.value.request_id == "req_of_the_stream"
    assert raised.value.body["request_id"] == "req_of_the_stream"


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
