"""An answer that the client keeps in its history comes back to its provider as it was given."""

import json
from typing import Any

import pytest

from signalbox.translate.chat import Chat
from signalbox.translate.dialects import DIALECTS
from signalbox.translate.request import to_chat

READ = {"name": "Read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}
DETAILS = [{"type": "reasoning.text", "text": "I look.", "signature": "ZmFrZQ==", "format": "x", "index": 0}]


def _call(id: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "type": "function",
        "function": {"name": "Read", "arguments": '{"path":"ü","n":1}'},
        **more,
    }


def _signed(signature: str) -> dict[str, Any]:
    return {"extra_content": {"google": {"thought_signature": signature}}}


GIVEN: list[tuple[str, str, dict[str, Any]]] = [
    (
        "openai",
        "gpt-5.2",
        {"content": "Looking.", "tool_calls": [_call("call_0fypS1hVX8"), _call("call_Kd8q2nPzL1")]},
    ),
    ("openai", "gpt-5.2", {"content": None, "tool_calls": [_call("call_0")]}),
    ("mistral", "mistral-large-4", {"content": None, "tool_calls": [_call("aB3dE5gH7")]}),
    ("composer", "composer-2.5", {"content": None, "tool_calls": [_call("call_0123456789abcdef01_shell_1")]}),
    (
        "gemini",
        "gemini-3.8-flash",
        {"content": None, "tool_calls": [_call("function-call-1", **_signed("c2ln+/=")), _call("b")]},
    ),
    (
        "kimi",
        "kimi-k3",
        {
            "reasoning_content": "I look.",
            "tool_calls": [_call("functions.Read:0"), _call("functions.Read:1")],
        },
    ),
    (
        "glm",
        "glm-5.3",
        {"content": "Looking.", "reasoning_content": "I look.", "tool_calls": [_call("call_-758")]},
    ),
    ("deepseek", "deepseek-v4-pro", {"content": "Done.", "reasoning_content": "I look."}),
    ("vllm", "qwen3", {"content": "Done.", "reasoning": "I look."}),
    ("generic", "some-model", {"content": "Done.", "reasoning": "I look."}),
    ("openrouter", "anthropic/claude-opus-4.6", {"content": "Done.", "reasoning_details": DETAILS}),
]


@pytest.mark.parametrize(
    ("dialect", "model", "message"), GIVEN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_answer_goes_back_as_it_came(dialect, model, message):
    history: list[dict[str, Any]] = [{"role": "user", "content": "Go"}]
    given = {"role": "assistant", **message}
    history += _kept(history, dialect, model, given)
    chat = json.loads(_request(history, dialect, model).request.body)
    (back,) = [sent for sent in chat["messages"] if sent["role"] == "assistant"]
    assert back == given
    results = [sent["tool_call_id"] for sent in chat["messages"] if sent["role"] == "tool"]
    assert results == [call["id"] for call in message.get("tool_calls", [])]


def test_ids_that_a_provider_counts_anew_stay_apart():
    history: list[dict[str, Any]] = [{"role": "user", "content": "Go"}]
    for _ in range(2):
        history += _kept(
            history, "generic", "m", {"role": "assistant", "content": None, "tool_calls": [_call("call_0")]}
        )
    messages = json.loads(_request(history, "generic", "m").request.body)["messages"]
    asked = [call["id"] for sent in messages for call in sent.get("tool_calls", [])]
    assert asked[0] == "call_0"
    assert len(set(asked)) == 2
    assert asked == [sent["tool_call_id"] for sent in messages if sent["role"] == "tool"]


def _request(history: list[dict[str, Any]], dialect: str, model: str) -> Chat:
    body = {"messages": history, "tools": [READ], "thinking": {"type": "adaptive"}, "max_tokens": 100}
    row = DIALECTS[dialect]
    request = to_chat(json.dumps(body).encode(), model=model, dialect=row, provider="provider", session=None)
    return Chat(request, row, "provider", model, f"seed{len(history)}")


def _kept(
    history: list[dict[str, Any]], dialect: str, model: str, message: dict[str, Any]
) -> list[dict[str, Any]]:
    """The turn that a client keeps of the answer, and the results of its calls."""
    finish = "tool_calls" if "tool_calls" in message else "stop"
    whole = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    answer = _request(history, dialect, model).answer("application/json", "", "req_fake")
    content = json.loads(answer.feed(json.dumps(whole).encode()) + answer.end())["content"]
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "ok"}
        for block in content
        if block["type"] == "tool_use"
    ]
    return [{"role": "assistant", "content": content}, {"role": "user", "content": results or "Next"}]
