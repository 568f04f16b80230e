"""Thinking dropped from the history, with roles left valid."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.issued import ThinkingBlock, ThinkingFilter, kept_by
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.reader import MessagesReader
from signalbox.anthropic.thinking import (
    Stripped,
    is_refused,
    is_wanted_back,
    nothing,
    with_placeholders,
    without_thinking,
)

GOLDEN = sorted((Path(__file__).parents[1] / "golden/anthropic/thinking").glob("*.txt"))
CROSSING = sorted((Path(__file__).parents[1] / "golden/anthropic/crossing").glob("*.txt"))
KEY = b"key for tests"

TEXT = st.builds(lambda text: {"type": "text", "text": text}, st.sampled_from(["a", 'x "thinking"', "ü"]))
BLOCKS = [
    {"type": "thinking", "thinking": "t", "signature": "s"},
    {"type": "thinking", "thinking": "", "signature": "ü"},
    {"type": "thinking", "thinking": "unsigned"},
    {"type": "thinking", "thinking": ""},
    {"type": "redacted_thinking", "data": "d"},
]
THINKING = st.sampled_from(BLOCKS)
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


KEEPS = st.frozensets(st.integers(0, len(BLOCKS) - 1)).map(
    lambda kept: {ThinkingBlock(**BLOCKS[index]) for index in kept}.__contains__
)
"""Some of them stay."""


def _stripped(raw: bytes, keeps: ThinkingFilter = nothing) -> tuple[bytes, Stripped]:
    body = Body.parse(raw)
    result = without_thinking(body, keeps)
    return body.edited(edits=result.edits), result


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_body_becomes(path):
    before, after, facts = path.read_bytes().split(b"-----\n")
    changed, result = _stripped(before)
    assert changed == after
    assert {"count": result.count, "switched_off": result.switched_off} == json.loads(facts)


@pytest.mark.parametrize("path", CROSSING, ids=lambda path: path.stem)
def test_a_history_crosses(path):
    """The facts tell who gave which of the messages; who gave the others is not known."""
    before, after, facts = path.read_bytes().split(b"-----\n")
    expected = json.loads(facts)
    issuers = {}
    for index, provider in expected["answers"].items():
        reader = MessagesReader("application/json", key=KEY)
        reader.feed(json.dumps(json.loads(before)["messages"][int(index)]).encode())
        reader.end()
        issuers |= dict.fromkeys(reader.facts.issued, provider)
    keeps = kept_by(
        expected["to"],
        lambda block: issuers.get(block.digest(KEY) or b""),
        takes_unknown=expected["to"] == "anthropic",
    )
    changed, result = _stripped(before, keeps)
    assert changed == after
    assert (result.count, result.switched_off) == (expected["count"], expected["switched_off"])
    assert _stripped(changed, keeps)[0] is changed


def _is_thinking(block: Any) -> bool:
    return isinstance(block, dict) and block["type"] in ("thinking", "redacted_thinking")


def _goes(block: Any, keeps: ThinkingFilter) -> bool:
    return _is_thinking(block) and not keeps(ThinkingBlock(**block))


@given(BODIES, st.sampled_from([None, 2]), st.just(nothing) | KEEPS)
def test_only_thinking_that_is_not_kept_is_dropped(body, indent, keeps):
    changed, result = _stripped(json.dumps(body, indent=indent).encode(), keeps)
    after = json.loads(changed)
    blocks = [block for message in body["messages"] for block in message["content"]]
    left = [block for message in after["messages"] for block in message["content"]]
    filled = {"type": "text", "text": "(thinking omitted)"}
    assert [block for block in left if block != filled] == [
        block for block in blocks if not _goes(block, keeps)
    ]
    assert result.count == sum(_goes(block, keeps) for block in blocks)
    assert all(message["content"] for message in after["messages"])
    assert bool(after["messages"]) is bool(body["messages"])
    assert ("thinking" in after) is ("thinking" in body and not result.switched_off)


@given(
    st.lists(
        QUESTION | st.builds(lambda blocks: {"role": "assistant", "content": blocks}, st.lists(THINKING))
    ),
    KEEPS,
    st.sampled_from([(",", ":"), (" , ", " : ")]),
    st.booleans(),
)
def test_all_bytes_but_those_of_dropped_blocks_and_their_commas_stay(messages, keeps, separators, ascii):
    for message in messages:
        if message["role"] == "assistant":
            message["content"].append({"type": "text", "text": "stays"})
    left = [
        message | {"content": [block for block in message["content"] if not _goes(block, keeps)]}
        if message["role"] == "assistant"
        else message
        for message in messages
    ]
    before, after = (
        json.dumps({"messages": one}, separators=separators, ensure_ascii=ascii).encode()
        for one in (messages, left)
    )
    assert _stripped(before, keeps)[0] == after


@given(BODIES, st.just(nothing) | KEEPS)
def test_system_messages_keep_their_neighbours(body, keeps):
    after = json.loads(_stripped(json.dumps(body).encode(), keeps)[0])

    def around(messages: list[dict[str, Any]]) -> list[list[str]]:
        roles = ["", *(message["role"] for message in messages), ""]
        return [roles[at - 1 : at + 2] for at, role in enumerate(roles) if role == "system"]

    assert around(after["messages"]) == around(body["messages"])


@given(BODIES)
def test_removed_answers_leave_the_order_of_the_others(body):
    def others(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [message for message in messages if message["role"] != "assistant"]

    after = json.loads(_stripped(json.dumps(body).encode())[0])
    assert others(after["messages"]) == others(body["messages"])


@given(BODIES, st.just(nothing) | KEEPS)
def test_a_second_time_there_is_nothing_to_do(body, keeps):
    once, first = _stripped(json.dumps(body).encode(), keeps)
    twice, result = _stripped(once, keeps)
    assert twice is once
    assert result.count == 0
    assert not result.switched_off
    assert _stripped(json.dumps(body).encode(), keeps) == (once, first)


@pytest.mark.parametrize("text", ["", " \n", "\u3000"])
def test_a_message_of_thinking_and_blank_text_is_dropped(text):
    """Some providers end so where a model only thought; Anthropic refuses what would be left."""
    before = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    blank = {"role": "assistant", "content": [BLOCKS[0], {"type": "text", "text": text}]}
    body = {"messages": [before[0], blank, before[1]]}
    assert json.loads(_stripped(json.dumps(body).encode())[0]) == {"messages": before}
    assert _stripped(json.dumps(body).encode(), lambda _: True)[1].edits == []


def test_blank_text_is_dropped_with_the_thinking_before_it():
    """As some providers send it between thinking and a call; Anthropic refuses it."""
    blocks = [BLOCKS[0], {"type": "text", "text": ""}, {"type": "tool_use", "id": "t", "name": "n"}]
    changed, result = _stripped(json.dumps({"messages": [{"role": "assistant", "content": blocks}]}).encode())
    assert json.loads(changed)["messages"][0]["content"] == blocks[2:]
    assert result.count == 1


def test_a_block_that_cannot_be_read_counts_as_unsigned_thinking():
    seen = []
    raw = (
        b'{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":5,"signature":"s"},1]}]}'
    )
    assert _stripped(raw, seen.append)[1].count == 1
    assert set(seen) == {ThinkingBlock("thinking")}


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
def test_unreadable_values_stay(raw):
    changed, result = _stripped(raw)
    assert changed is raw
    assert result == Stripped([], 0, False)


REFUSALS = [
    "messages.1.content.0: Invalid `signature` in `thinking` block",
    "Invalid signature in thinking block",
    (
        "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different"
        " conversation. Remove the block, or set `thinking.block_binding.prefix_mismatch_behavior`"
    ),
    (
        "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When"
        " `thinking` is enabled, a final `assistant` message must start with a thinking block"
    ),
    (
        "`thinking` or `redacted_thinking` blocks in the latest assistant message cannot"
        " be modified. These blocks must remain as they were in the original response."
    ),
    (
        "messages.1.content.0: When thinking is disabled, an `assistant` message in the final position cannot"
        " contain `thinking`. To use thinking blocks, enable `thinking` in your request."
    ),
    "messages.1.content.0.thinking.signature: Field required",
    "messages.1.content.0: each thinking block must contain thinking",
    "Thought signature is not valid",
    "Function call is missing a thought_signature in functionCall parts.",
]
"""The last two are Gemini's, behind a gateway (reference/anthropic-messages.md, section 7)."""


def _error(message: str) -> bytes:
    return json.dumps(
        {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    ).encode()


@pytest.mark.parametrize("message", REFUSALS)
def test_thinking_is_refused_for_its_signature_its_order_or_its_conversation(message):
    assert is_refused(400, _error(message))
    assert is_refused(422, _error(message))


@pytest.mark.parametrize("status", [200, 401, 413, 429, 500])
def test_other_statuses_refuse_no_thinking(status):
    assert not is_refused(status, _error(REFUSALS[0]))


@pytest.mark.parametrize(
    "message",
    [
        (
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and'
            ' "output_config.effort" to control thinking behavior.'
        ),
        "adaptive thinking is not supported on this model",
        "max_tokens must be greater than thinking.budget_tokens",
        "The reasoning_content in the thinking mode must be passed back to the API.",
        "thinking.block_binding: Extra inputs are not permitted",
        "prompt is too long: 250000 tokens > 200000 maximum",
    ],
)
def test_an_error_that_thinking_does_not_cause_is_not_a_refusal_of_thinking(message):
    assert not is_refused(400, _error(message))


def test_a_body_without_error_refuses_no_thinking():
    assert not is_refused(400, REFUSALS[0].encode())


@pytest.mark.parametrize(
    "message",
    [
        "The `content[].thinking` in the thinking mode must be passed back to the API.",
        "The content[].thinking in the thinking mode must be passed back to the API.",
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
        (
            "Error from provider (Console Go): Upstream request failed: [invalid_request_error] The"
            " reasoning_content in the thinking mode must be passed back to the API."
        ),
        "The reasoning_text in the thinking mode must be passed back to the API",
        "messages[3]: the thinking must be passed back",
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 7",
        "thinking is enabled but reasoning_content is missing in assistant tool call message",
        "Failed to deserialize: messages[1]: missing field `thinking`",
    ],
)
def test_thinking_is_wanted_back(message):
    assert is_wanted_back(400, _error(message))
    assert is_wanted_back(422, json.dumps({"code": 20015, "message": message, "data": None}).encode())
    assert not is_wanted_back(500, _error(message))
    assert not is_refused(400, _error(message))


@pytest.mark.parametrize("message", [*REFUSALS, "max_tokens must be greater than thinking.budget_tokens"])
def test_thinking_that_is_refused_is_not_wanted_back(message):
    assert not is_wanted_back(400, _error(message))


PLACEHOLDER = {"type": "thinking", "thinking": " "}


def _placed(content: Any, **more: Any) -> Any:
    before = {"role": "user", "content": "a"}
    raw = json.dumps({"messages": [before, {"role": "assistant", "content": content}], **more}).encode()
    body = Body.parse(raw)
    first, answer = json.loads(body.edited(edits=with_placeholders(body)))["messages"]
    assert first == before
    return answer["content"]


@pytest.mark.parametrize(
    ("content", "placed"),
    [
        ("b", [PLACEHOLDER, {"type": "text", "text": "b"}]),
        ([], [PLACEHOLDER]),
        ([{"type": "text", "text": "b"}], [PLACEHOLDER, {"type": "text", "text": "b"}]),
        ([BLOCKS[0], {"type": "text", "text": "b"}], [BLOCKS[0], {"type": "text", "text": "b"}]),
        ([BLOCKS[4]], [BLOCKS[4]]),
        ([{"type": "thinking", "signature": "s"}], [PLACEHOLDER]),
        (5, 5),
    ],
)
def test_an_answer_without_thinking_gets_a_placeholder(content, placed):
    assert _placed(content) == placed
    assert _placed(content, thinking={"type": "adaptive"}) == placed
    assert _placed(content, thinking={"type": "disabled"}) == content


@given(BODIES, st.sampled_from([None, 2]))
def test_placeholders_change_no_other_byte_and_are_set_once(body, indent):
    raw = json.dumps(body, indent=indent).encode()
    once = Body.parse(raw).edited(edits=with_placeholders(Body.parse(raw)))
    assert with_placeholders(Body.parse(once)) == []
    left = json.loads(once)
    for message, before in zip(left["messages"], body["messages"], strict=True):
        if message["role"] == "assistant" and isinstance(before["content"], str):
            before["content"] = [{"type": "text", "text": before["content"]}]
        message["content"] = [block for block in message["content"] if block != PLACEHOLDER]
        before["content"] = [block for block in before["content"] if block != PLACEHOLDER]
    assert left == body


@pytest.mark.parametrize(
    "messages",
    [
        {},
        "text",
        [5],
        [{"role": "assistant"}],
        [{"role": "assistant", "content": 5}],
        [{"role": ["assistant"]}],
    ],
)
def test_messages_of_other_types_get_no_placeholder(messages):
    body = Body.parse(json.dumps({"messages": messages}).encode())
    assert with_placeholders(body) == []
