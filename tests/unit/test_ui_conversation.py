"""What was said in a session, and how two turns differ."""

import gzip
import json

import pytest
from mitmproxy.test import tflow

from signalbox.inspect.annotations import METADATA
from signalbox.inspect.recorded import REQUEST, HeldTurn, held_turns
from signalbox.ui.conversation import MOST, MOST_LINES, difference, view
from tests.support.answers import message_json, message_sse

NOON = 1_793_275_200_000


def held(
    id: str, *said: str, ts: int = NOON, answer: bytes = message_sse("m", texts=["fine"]).body
) -> HeldTurn:
    messages = [{"role": "user", "content": text} for text in said]
    return HeldTurn(id, ts, json.dumps({"model": "m", "messages": messages}).encode(), answer)


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


def test_long_texts_are_compared_from_where_they_differ_on_in_bounded_time():
    before = [f"line {number}" for number in range(50_000)]
    after = [*before[:49_000], *(f"other {number}" for number in range(30_000))]
    told = list(difference(before, after))
    assert told[0].text == "48,997 equal lines"
    assert [line.kind for line in told[1:4]] == ["same"] * 3
    assert sum(line.kind == "ins" for line in told) == MOST_LINES
    assert told[-1].text == "28,000 more lines, not compared"


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
