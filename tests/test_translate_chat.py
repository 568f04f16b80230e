"""A provider of chat completions as a translation: there, back, and there again."""

import json

import pytest

from signalbox.translate.callids import CallIds
from signalbox.translate.chat import Chat
from signalbox.translate.dialects import DIALECTS
from signalbox.translate.ids import pack
from signalbox.translate.request import to_chat
from signalbox.translate.translation import Translation
from tests.chatstreams import GOLDEN, case, chat, options, sent, translated

ASKED = {"role": "user", "content": "Hello"}
READ = {"name": "Read", "input_schema": {"type": "object", "properties": {}}}


def _again(dialect: str, model: str, message: dict) -> dict:
    """The assistant message that a provider gets back after it gave this one; empty where it said nothing."""
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "done"}
        for block in message["content"]
        if block["type"] == "tool_use"
    ]
    body = {
        "messages": [
            ASKED,
            {"role": "assistant", "content": message["content"]},
            {"role": "user", "content": results or "Go on"},
        ],
        "thinking": {"type": "adaptive"},
        "tools": [READ],
    }
    request = to_chat(
        json.dumps(body).encode(), model=model, dialect=DIALECTS[dialect], provider="fake", session=None
    )
    messages = json.loads(request.body)["messages"]
    return next((one for one in messages if one["role"] == "assistant"), {})


def test_it_is_a_translation():
    one: Translation = chat()
    assert isinstance(one, Chat)


def test_errors_are_told_in_anthropics_shape():
    status, body = chat().error(503, b'{"error":{"message":"busy"}}')
    assert status == 529
    assert json.loads(body) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "fake: busy"},
    }


@pytest.mark.parametrize("name", ["gemini_signature", "gemini_signature_alone", "gemini_signature_first"])
def test_gemini_gets_its_signature_back_with_the_call_that_had_it(name):
    model = "gemini-3.5-flash"
    message = translated(sent(name), streams=False, dialect="gemini", model=model).message()
    calls = _again("gemini", model, message)["tool_calls"]
    assert calls[0]["extra_content"] == {"google": {"thought_signature": "Zm9v+/=="}}
    assert all("extra_content" not in call for call in calls[1:])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_answer_can_be_part_of_the_next_request(path):
    raw = case(path)[0]
    given = options(raw)
    result = translated(raw, streams=False)
    if result.cut or result.error is not None:
        return
    message = result.message()
    back = _again(given.get("dialect", "generic"), "m-0", message)
    uses = [block for block in message["content"] if block["type"] == "tool_use"]
    calls = back.get("tool_calls", [])
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [use["input"] for use in uses]


LONG = {
    "Gemini's": pack("function-call-1", {"google": "c2ln" * 500}),
    "Kimi's": CallIds("Seed", "provider").given("functions.Read:0", "Read"),
    "a proxy's": CallIds("Seed", "provider").given("call_" + "f" * 300, "Read"),
    "Anthropic's": "toolu_vrtx_" + "0Aa" * 20,
    "packed and cut": pack("call_1", {"google": "c2ln" * 500})[:200],
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_id_is_longer_than_a_provider_takes_whoever_made_it(dialect):
    """The limits of openai-chat.md, 1; each call and its result keep together."""
    most = {"mistral": 9, "kimi": 64, "composer": 256}.get(dialect, 40)
    calls = [{"type": "tool_use", "id": id, "name": "Read", "input": {}} for id in LONG.values()]
    results = [
        {"type": "tool_result", "tool_use_id": id, "content": who} for who, id in reversed(LONG.items())
    ]
    body = {"messages": [{"role": "assistant", "content": calls}, {"role": "user", "content": results}]}
    raw = json.dumps(body).encode()
    request = to_chat(raw, model="m", dialect=DIALECTS[dialect], provider="fake", session=None)
    assistant, *tools = json.loads(request.body)["messages"][: len(LONG) + 1]
    ids = [call["id"] for call in assistant["tool_calls"]]
    assert all(len(id) <= most for id in ids), ids
    assert {tool["tool_call_id"]: tool["content"] for tool in tools} == dict(zip(ids, LONG, strict=True))
