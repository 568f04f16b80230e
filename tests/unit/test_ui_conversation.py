"""What was said in a session, and how two turns differ."""

import gzip
import json
from typing import Any

import pytest
from mitmproxy.test import tflow

from signalbox.inspect.annotations import METADATA
from signalbox.inspect.recorded import REQUEST, HeldTurn, held_turns
from signalbox.ui.conversation import MOST, view
from tests.support.answers import message_json, message_sse

NOON = 1_793_275_200_000


def held(
    id: str, *said: str, ts: int = NOON, answer: bytes = message_sse("m", texts=["fine"]).body, **more: Any
) -> HeldTurn:
    messages = [{"role": "user", "content": text} for text in said]
    return HeldTurn(id, ts, json.dumps({"model": "m", "messages": messages, **more}).encode(), answer)


TURNS = [
    {"request_id": "r1", "ts": NOON, "turn": 1, "who": "main"},
    {"request_id": "r2", "ts": NOON, "turn": 2, "who": "main"},
    {"request_id": "r3", "ts": NOON, "turn": 3, "who": "subagent 1"},
    {"request_id": None, "ts": NOON, "turn": 4, "who": "main"},
]
HELD = [held("r1", "one"), held("r2", "one", "two"), held("r3", "three"), held("elsewhere", "no")]


def lines(turn: int | None = None, against: int | None = None) -> list[tuple[str, str]]:
    conversation = view(HELD, TURNS, turn, against)
    assert conversation is not None
    return [(line.kind, line.text.strip()) for line in conversation.diff]


def compared(before: HeldTurn, after: HeldTurn) -> list[tuple[str, str]]:
    pair = [before._replace(request_id="r1"), after._replace(request_id="r2")]
    conversation = view(pair, TURNS, 2, 1)
    assert conversation is not None
    return [(line.kind, line.text.strip()) for line in conversation.diff]


def test_the_latest_turn_of_the_main_agent_is_shown_with_its_answer():
    conversation = view(HELD, TURNS, None, None)
    assert conversation is not None
    assert (conversation.turn, list(conversation.turns)) == (2, [1, 2, 3])
    assert conversation.text.index("one") < conversation.text.index("two") < conversation.text.index("fine")


@pytest.mark.parametrize(("asked", "turn"), [(1, 1), (3, 3), (4, 2), (99, 2)])
def test_a_turn_can_be_asked_for_where_it_is_held(asked, turn):
    conversation = view(HELD, TURNS, asked, None)
    assert conversation is not None
    assert conversation.turn == turn


def test_nothing_is_shown_where_no_flow_is_held():
    assert view([], TURNS, None, None) is None
    assert view([held("elsewhere", "no")], TURNS, None, None) is None


def test_turns_of_a_provider_that_repeats_its_ids_are_told_apart():
    turns = [{"request_id": "same", "ts": NOON + at, "turn": at + 1, "who": "main"} for at in (0, 1, 2, 2)]
    turns[3]["turn"] = 4
    held_ones = [held("same", f"said {at}", ts=NOON + min(at, 2)) for at in range(4)]
    for turn in (1, 2, 3, 4):
        conversation = view(held_ones, turns, turn, None)
        assert conversation is not None
        assert list(conversation.turns) == [1, 2, 3, 4]
        assert f"said {turn - 1}" in conversation.text


def test_the_difference_of_two_turns_is_what_was_added():
    assert ("ins", "two") in lines(2, 1)
    assert not [line for line in lines(2, 1) if line[0] == "del" and line[1] == "one"]
    assert ("del", "two") in lines(1, 2)


def test_a_turn_against_itself_is_no_difference():
    assert lines(2, 2) == []


def test_broken_bodies_are_said_to_be_broken():
    broken = [HeldTurn("r1", NOON, b"{", b"\xff\x00"), HeldTurn("r2", NOON, b"[1]", b"")]
    for turn in (1, 2):
        conversation = view(broken, TURNS, turn, None)
        assert conversation is not None
        assert "request" in conversation.text


def test_of_a_long_conversation_the_end_is_shown():
    conversation = view(
        [held("r1", *["x" * 1000] * 300, "the end", answer=message_json().body)], TURNS, None, None
    )
    assert conversation is not None
    assert conversation.cut
    assert len(conversation.text) == MOST
    assert "the end" in conversation.text


def test_a_change_in_the_middle_of_a_long_message_is_in_the_difference():
    text = [f"line {number}" for number in range(20_000)]
    other = [*text[:9_000], "another line", *text[9_001:]]
    lines = compared(held("r1", "\n".join(text)), held("r2", "\n".join(other)))
    assert [line for line in lines if line[0] in ("ins", "del")] == [
        ("del", "line 9000"),
        ("ins", "another line"),
    ]


def test_a_change_in_the_middle_of_a_long_line_is_in_the_difference():
    words = " ".join(f"word{number}" for number in range(20_000))
    lines = compared(held("r1", words), held("r2", words.replace("word9000 ", "changed ")))
    ((_, old), (_, new)) = [line for line in lines if line[0] in ("ins", "del")]
    assert "word8999 word9000 word9001" in old
    assert "word8999 changed word9001" in new
    assert "equal characters ...]" in old
    assert max(len(old), len(new)) < 1_000


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("thinking", {"thinking": "a" * 5_000 + "b" + "a" * 5_000}, {"thinking": "a" * 10_001}),
        ("thinking", {"thinking": "same", "signature": "one"}, {"thinking": "same", "signature": "two"}),
        ("tool_use", {"input": {"text": "a\n" * 3_000}}, {"input": {"text": "a\n" * 3_001}}),
        (
            "image",
            {"source": {"type": "base64", "data": "AAAA"}},
            {"source": {"type": "base64", "data": "AAAB"}},
        ),
        ("tool_result", {"content": ["x" * 9_000, "y"]}, {"content": ["x" * 9_000, "z"]}),
    ],
)
def test_whatever_was_sent_is_compared(kind, before, after):
    one, other = (
        held("r1", messages=[{"role": "assistant", "content": [{"type": kind, **block}]}])
        for block in (before, after)
    )
    assert any(line[0] in ("ins", "del") for line in compared(one, other))


def test_a_tool_of_which_only_the_description_differs_is_in_the_difference():
    one, other = (held("r1", "hi", tools=[{"name": "Read", "description": text}]) for text in ("old", "new"))
    told = [line[1] for line in compared(one, other) if line[0] in ("ins", "del")]
    assert [text for text in told if "old" in text or "new" in text] == told
    assert len(told) == 2


def test_halves_of_characters_are_shown_as_such():
    body = rb'{"model": "m", "messages": [{"role": "user", "content": "lone \ud83d here"}]}'
    conversation = view([HeldTurn("r1", NOON, body, b"")], TURNS, None, None)
    assert conversation is not None
    assert "lone \ufffd here" in conversation.text


def test_an_answer_is_decoded_where_the_page_is_made():
    flow = tflow.tflow(resp=True)
    packed = gzip.compress(b"what was said")
    flow.response.headers.update({"request-id": "r1", "content-encoding": "gzip"})
    flow.response.data.content = packed
    told = {"session": "s", "ts": NOON, "attempt": 2, "attempts": 2}
    flow.metadata |= {METADATA: told, REQUEST: {"body": b"{}"}}
    (turn,) = held_turns([flow], "s")
    assert turn.stored is packed
    assert turn.answer == b"what was said"
    assert turn._replace(stored=b"no gzip").answer == b""


def test_a_failed_attempt_is_no_turn_of_its_own():
    flow = tflow.tflow(resp=True)
    flow.response.headers["request-id"] = "r1"
    told = {"session": "s", "ts": NOON, "attempt": 1, "attempts": 2}
    flow.metadata |= {METADATA: told, REQUEST: {"body": b"{}"}}
    assert held_turns([flow], "s") == []
