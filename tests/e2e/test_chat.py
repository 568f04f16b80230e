"""A provider that speaks chat completions answers Anthropic's SDK and Claude Code."""

import json
import threading
from collections.abc import Callable
from typing import Any

import anthropic
import pytest

from tests.support import chat
from tests.support.answers import error_json
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
  busy: {{url: "{home.url}", key: busy-key-for-tests-1}}
  up:
    url: "{up.url}/v1"
    api: openai
    dialect: deepseek
    key: up-key-for-tests-0001
    headers: {{X-Title: signalbox}}
    circuit: {{open_after: 1000}}
  azure:
    url: "{up.url}"
    api: openai
    dialect: azure
    key: azure-key-for-tests-1
    key_header: api-key
    path: /openai/deployments/x/chat/completions
    query: {{api-version: "2024-10-21"}}
    circuit: {{open_after: 1000}}
  set:
    url: "{up.url}/v1"
    api: openai
    body: {{set: {{seed: 7}}, drop: [stream_options]}}
    circuit: {{open_after: 1000}}
  composer: {{url: "{up.url}/v1", api: openai, dialect: composer}}
rules:
  - {{match: "azure-*", to: azure/gpt}}
  - {{match: "set-*", to: set/gpt}}
  - {{match: "composer-*", to: composer}}
  - {{match: "up-then-home-*", to: [up, anthropic/claude-opus-4-5]}}
  - {{match: "home-then-up", to: [busy, up]}}
  - {{match: "home-*", to: anthropic}}
  - {{match: "lone-*", to: up}}
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
            return stream.get_final_message()

    return ask


def test_a_request_arrives_as_chat_completions_with_the_providers_own_key(ask, up):
    ask("claude-sonnet-4-6", system="Be brief.", metadata={"user_id": "user_x_session_y"})
    [sent] = up.wait_for(1)
    assert (sent.method, sent.path) == ("POST", "/v1/chat/completions")
    assert sent.header("authorization") == "Bearer up-key-for-tests-0001"
    assert sent.header("x-title") == "signalbox"
    assert sent.header("content-type") == "application/json"
    assert (sent.header("accept"), sent.header("accept-encoding")) == ("text/event-stream", "identity")
    assert "Anthropic" in (sent.header("user-agent") or "")
    assert sent.json["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]
    assert (sent.json["model"], sent.json["stream"]) == ("gpt", True)
    assert sent.json["stream_options"] == {"include_usage": True}


def test_nothing_of_the_callers_goes_there(ask, up):
    ask(
        extra_headers={"Cookie": "a=b", "X-Claude-Code-Session-Id": "of-the-session", "anthropic-beta": "x-1"}
    )
    [sent] = up.wait_for(1)
    names = {name.lower() for name, _ in sent.headers}
    assert not {
        name
        for name in names
        if name.startswith(("anthropic-", "x-claude", "x-stainless", "cookie", "x-api"))
    }
    assert "sk-ant" not in str(sent.headers)
    assert "of-the-session" not in str(sent.headers)


def test_a_stream_reaches_the_sdk_with_the_asked_model_and_exact_usage(ask, router):
    message = ask("claude-sonnet-4-6")
    assert message.model == "claude-sonnet-4-6"
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Hello there."}]
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (120, 500)
    assert message.usage.output_tokens == 17
    [record] = router.records(1)
    assert (record["backend"], record["upstream_model"], record["status"]) == ("up", "gpt", "success")
    assert (record["input_tokens"], record["cache_read_input_tokens"], record["output_tokens"]) == (
        120,
        500,
        17,
    )


def test_a_whole_answer_reaches_the_sdk(client, up):
    message = client.messages.create(
        model="claude-sonnet-4-6", max_tokens=100, messages=[{"role": "user", "content": "Hi"}]
    )
    assert message.content[0].text == "Hello there."
    assert message.model == "claude-sonnet-4-6"
    assert up.requests[0].header("accept") == "application/json"
    assert "stream_options" not in up.requests[0].json


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


def test_a_tool_is_called_and_its_result_goes_back(ask, up):
    up.answer(
        chat.stream(
            [
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
    first = ask(tools=[TOOL], messages=[question])
    assert first.stop_reason == "tool_use"
    [use] = first.content
    assert (use.name, use.input) == ("Read", {"path": "a.txt"})
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "its text"}
    ask(
        tools=[TOOL],
        messages=[
            question,
            {"role": "assistant", "content": [use.to_dict()]},
            {"role": "user", "content": [result]},
        ],
    )
    *_, called, answered = up.wait_for(2)[1].json["messages"]
    [call] = called["tool_calls"]
    assert call["function"]["name"] == "Read"
    assert json.loads(call["function"]["arguments"]) == {"path": "a.txt"}
    assert answered == {"role": "tool", "tool_call_id": call["id"], "content": "its text"}


def test_azures_path_query_and_key_header(ask, up, router):
    ask("azure-1")
    [sent] = up.wait_for(1)
    assert sent.path == "/openai/deployments/x/chat/completions?api-version=2024-10-21"
    assert sent.header("api-key") == "azure-key-for-tests-1"
    assert sent.header("authorization") is None


def test_composer_is_told_which_requests_are_of_one_conversation(ask, up):
    for session in ("one", "one", "two"):
        ask("composer-1", extra_headers={"X-Claude-Code-Session-Id": f"session-{session}"})
    first, again, other = (sent.header("x-session-affinity") for sent in up.wait_for(3))
    assert first == again != other
    assert "session" not in f"{first} {other}"


def test_the_rules_edits_apply_to_what_is_sent(ask, up):
    ask("set-1")
    [sent] = up.wait_for(1)
    assert sent.json["seed"] == 7
    assert "stream_options" not in sent.json


def test_thinking_is_shown_where_it_was_asked_for_and_goes_back_to_its_provider_only(ask, up, home):
    up.answer(chat.stream([chat.chunk({"reasoning_content": "Let me see."}), *chat.text_stream("Yes.")]))
    first = ask("deep-1", thinking={"type": "adaptive"})
    assert [block.type for block in first.content] == ["thinking", "text"]
    history = [
        {"role": "user", "content": "Well?"},
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        {"role": "user", "content": "Sure?"},
    ]
    up.answer(usual)
    ask("deep-1", thinking={"type": "adaptive"}, messages=history)
    ask("home-1", thinking={"type": "adaptive"}, messages=history)
    answered = up.wait_for(2)[1].json["messages"][1]
    assert answered == {"role": "assistant", "content": "Yes.", "reasoning_content": "Let me see."}
    assert home.wait_for(1)[0].json["messages"][1]["content"] == [{"type": "text", "text": "Yes."}]


def test_thinking_that_nobody_asked_for_is_not_shown(ask, up):
    up.answer(chat.stream([chat.chunk({"reasoning_content": "Let me see."}), *chat.text_stream("Yes.")]))
    assert [block.type for block in ask("deep-1").content] == ["text"]


def test_failing_over_from_anthropic_to_chat_completions(ask, up, home):
    home.answer(error_json(529, "overloaded_error"))
    message = ask("home-then-up")
    assert message.content[0].text == "Hello there."
    assert up.wait_for(1)[0].json["messages"] == [{"role": "user", "content": "Hi"}]


def test_failing_over_from_chat_completions_to_anthropic(client, up, home):
    fault = b'data: {"error": {"message": "no"}}\n\n'
    up.answer(chat.stream([chat.chunk({"role": "assistant"}), fault]))
    model = "up-then-home-x"
    with client.messages.with_streaming_response.create(
        model=model, max_tokens=9, messages=[{"role": "user", "content": "Hi"}], stream=True
    ) as answer:
        said = b"".join(answer.iter_bytes())
        attempts = answer.headers["x-signalbox-attempts"]
    assert answer.status_code == 200
    assert model.encode() in said
    assert attempts.split()[1] == "anthropic:200"
    assert home.wait_for(1)[0].header("authorization") == "Bearer sk-ant-oat01-fake-login-of-nobody"


def test_a_warm_up_is_answered_here(client, up):
    message = client.messages.create(model="x", max_tokens=0, messages=[{"role": "user", "content": "Hi"}])
    assert message.content == []
    assert up.requests == []


def test_tokens_are_counted_here(client, up):
    counted = client.messages.count_tokens(model="x", messages=[{"role": "user", "content": "Hi " * 100}])
    assert 50 < counted.input_tokens < 400
    assert up.requests == []
