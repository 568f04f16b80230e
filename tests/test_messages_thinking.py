"""Thinking dropped from the history, with roles left valid."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.messages.body import Body
from signalbox.messages.thinking import Stripped, without_thinking

GOLDEN = sorted((Path(__file__).parent / "golden/messages/thinking").glob("*.txt"))

TEXT = st.builds(lambda text: {"type": "text", "text": text}, st.sampled_from(["a", 'x "thinking"', "ü"]))
THINKING = st.sampled_from(
    [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}]
)
TOOL_USE = st.just({"type": "tool_use", "id": "t", "name": "n", "input": {}})
TOOL_RESULT = st.just({"type": "tool_result", "tool_use_id": "t"})
ANSWER = st.builds(
    lambda content: {"role": "assistant", "content": content},
    st.lists(THINKING | THINKING | TEXT | TOOL_USE, min_size=1, max_size=4) | st.just("text"),
)
QUESTION = st.builds(
    lambda content: {"role": "user", "content": content},
    st.lists(TEXT | TOOL_RESULT, min_size=1, max_size=2) | st.just("text"),
)
BODIES = st.fixed_dictionaries(
    {"messages": st.lists(ANSWER | QUESTION | st.just({"role": "system", "content": "s"}), max_size=6)},
    optional={
        "thinking": st.sampled_from([{"type": "enabled"}, {"type": "adaptive"}]),
        "context_management": st.just({"edits": [{"type": "clear_thinking_20251015"}]}),
    },
)


def _stripped(raw: bytes) -> tuple[bytes, Stripped]:
    body = Body.parse(raw)
    result = without_thinking(body)
    return body.edited(edits=result.edits), result


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_body_becomes(path):
    before, after, facts = path.read_bytes().split(b"-----\n")
    changed, result = _stripped(before)
    assert changed == after
    assert {"count": result.count, "switched_off": result.switched_off} == json.loads(facts)


def _is_thinking(block: Any) -> bool:
    return isinstance(block, dict) and block["type"] in ("thinking", "redacted_thinking")


@given(BODIES, st.sampled_from([None, 2]))
def test_all_thinking_and_nothing_else_goes(body, indent):
    changed, result = _stripped(json.dumps(body, indent=indent).encode())
    after = json.loads(changed)
    blocks = [block for message in body["messages"] for block in message["content"]]
    left = [block for message in after["messages"] for block in message["content"]]
    filled = {"type": "text", "text": "(thinking omitted)"}
    assert [block for block in left if block != filled] == [
        block for block in blocks if not _is_thinking(block)
    ]
    assert result.count == sum(map(_is_thinking, blocks))
    assert all(message["content"] for message in after["messages"])
    assert bool(after["messages"]) is bool(body["messages"])
    assert ("thinking" in after) is ("thinking" in body and not result.switched_off)


@given(BODIES)
def test_system_messages_keep_their_neighbours(body):
    after = json.loads(_stripped(json.dumps(body).encode())[0])

    def around(messages: list[dict[str, Any]]) -> list[list[str]]:
        roles = ["", *(message["role"] for message in messages), ""]
        return [roles[at - 1 : at + 2] for at, role in enumerate(roles) if role == "system"]

    assert around(after["messages"]) == around(body["messages"])


@given(BODIES)
def test_a_second_time_there_is_nothing_to_do(body):
    once, first = _stripped(json.dumps(body).encode())
    twice, result = _stripped(once)
    assert twice is once
    assert result.count == 0
    assert not result.switched_off
    assert _stripped(json.dumps(body).encode()) == (once, first)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages":"thinking"}',
        b'{"messages":{"thinking":1}}',
        b'{"thinking":{"type":"enabled"}}',
        b'{"messages":[{"role":"assistant","role":"assistant","content":[{"type":"thinking"}]}]}',
        b'{"messages":[{"role":"assistant","content":[["thinking"],{"type":["thinking"]}]}]}',
    ],
)
def test_what_cannot_be_read_stays(raw):
    changed, result = _stripped(raw)
    assert changed is raw
    assert result == Stripped([], 0, False)
