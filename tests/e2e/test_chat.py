"""A provider of chat completions answers the official SDK (more in `test_proxy_stream_chat_request`)."""

import json
import threading
from collections.abc import Callable
from typing import Any

import anthropic
import pytest

from tests.support import chat
from tests.support.fake_provider import Received, Upstream
from tests.support.raw_client import Caller
from tests.support.router import Router

TOOL = {
    "name": "Read",
    "description": "Reads a file.",
    "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  up: {{url: "{up.url}/v1", api: openai, dialect: deepseek, circuit: {{open_after: 1000}}}}
rules:
  - {{match: "home-*", to: anthropic}}
  - {{match: "*", to: up/gpt}}
"""


@pytest.fixture
def up(up: Upstream) -> Upstream:
    up.answer(usual)
    return up


def usual(request: Received) -> Any:
    return chat.stream(chat.text_stream()) if request.json.get("stream") else chat.completion()


@pytest.fixture
def client(router: Router, up: Upstream) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=router.url, auth_token="sk-ant-oat01-fake-login-of-nobody", max_retries=0
    )


@pytest.fixture
def ask(client: anthropic.Anthropic) -> Callable[..., anthropic.types.Message]:
    def ask(model: str = "claude-sonnet-4-6", **more: Any) -> anthropic.types.Message:
        messages = more.pop("messages", [{"role": "user", "content": "Hi"}])
        with client.messages.stream(model=model, max_tokens=1000, messages=messages, **more) as stream:
            message = stream.get_final_message()
            assert stream.request_id == stream.response.headers["request-id"]
            return message

    return ask


def test_the_sdk_gets_streams_and_whole_answers_with_the_asked_model_and_exact_usage(ask, client):
    messages = [{"role": "user", "content": "Hi"}]
    for message in (
        ask("claude-sonnet-4-6"),
        client.messages.create(model="claude-sonnet-4-6", max_tokens=100, messages=messages),
    ):
        assert message.model == "claude-sonnet-4-6"
        assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Hello there."}]
        assert message.stop_reason == "end_turn"
        assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (120, 500)
        assert message.usage.output_tokens == 17


def test_the_sdk_knows_an_error_by_the_id_of_its_head(ask, up):
    fault = b'data: {"error": {"message": "out of memory", "code": 503}}\n\n'
    for answer in (
        chat.error(503, "no"),
        chat.stream([chat.chunk({"content": "Hel"}), fault]),
    ):
        headers = (*answer.headers, ("x-request-id", "req_of_the_error"))
        up.answer(type(answer)(answer.status, headers, answer.chunks, answer.framing))
        with pytest.raises(anthropic.APIStatusError) as raised:
            ask()
        assert raised.value.request_id == "req_of_the_error"
        assert raised.value.body["request_id"] == "req_of_the_error"


def test_an_event_leaves_as_soon_as_its_chunk_is_in(router, up):
    go = threading.Event()
    up.answer(
        chat.stream([chat.chunk({"role": "assistant", "content": "One"}), go, *chat.text_stream("two")])
    )
    with Caller(router) as caller:
        caller.ask("claude-sonnet-4-6")
        caller.until(b'"One"')
        assert b"two" not in caller.seen
        go.set()
        caller.until(b"message_stop")


def test_thinking_and_a_tool_call_go_back_and_only_to_their_provider(ask, up, home):
    up.answer(
        chat.stream(
            [
                chat.chunk({"reasoning_content": "Let me see."}),
                chat.chunk({"role": "assistant", "tool_calls": [chat.call("Read", '{"path":', "call_1")]}),
                chat.chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"a.txt"}'}}]}),
                chat.chunk({}, "tool_calls"),
                chat.chunk(None, usage=chat.USAGE),
                chat.DONE,
            ]
        ),
        usual,
    )
    question = {"role": "user", "content": "Read a.txt"}
    thinking = {"type": "adaptive"}
    first = ask(tools=[TOOL], messages=[question], thinking=thinking)
    assert first.stop_reason == "tool_use"
    thought, use = first.content
    assert (thought.type, use.name, use.input) == ("thinking", "Read", {"path": "a.txt"})
    history = [
        question,
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "its text"}],
        },
    ]
    ask(tools=[TOOL], messages=history, thinking=thinking)
    *_, called, answered = up.wait_for(2)[1].json["messages"]
    [call] = called["tool_calls"]
    assert called["reasoning_content"] == "Let me see."
    assert call["function"]["name"] == "Read"
    assert json.loads(call["function"]["arguments"]) == {"path": "a.txt"}
    assert answered == {"role": "tool", "tool_call_id": call["id"], "content": "its text"}
    ask("home-1", tools=[TOOL], messages=history, thinking=thinking)
    assert "Let me see." not in home.wait_for(1)[0].body.decode()
