"""What is remembered of each conversation between its requests."""

import pytest

from signalbox.routing.sessions import PER_BYTE_RANGE, Sessions

HERE = ("s-1", "")


def told() -> Sessions:
    """Sessions in which one conversation had an answer."""
    sessions = Sessions()
    sessions.answered(HERE, 1000, 250)
    return sessions


def test_nothing_is_known_without_a_session():
    sessions = Sessions()
    sessions.answered(None, 1000, 250)
    assert sessions.per_byte(None) is None


def test_agents_of_one_session_have_conversations_of_their_own():
    assert told().per_byte(("s-1", "agent")) is None


def test_tokens_per_byte_are_those_of_the_last_answer():
    sessions = told()
    sessions.answered(HERE, 2000, 800)
    assert sessions.per_byte(HERE) == 0.4


@pytest.mark.parametrize(("body_bytes", "input_tokens"), [(1000, 0), (0, 1000), (1000, -5)])
def test_an_answer_that_tells_no_usage_leaves_the_calibration(body_bytes, input_tokens):
    sessions = told()
    sessions.answered(HERE, body_bytes, input_tokens)
    assert sessions.per_byte(HERE) == 0.25
    assert sessions.per_byte(("unheard", "of")) is None


@pytest.mark.parametrize(("input_tokens", "per_byte"), [(1, PER_BYTE_RANGE[0]), (10**6, PER_BYTE_RANGE[1])])
def test_usage_beyond_belief_is_held_within_bounds(input_tokens, per_byte):
    sessions = Sessions()
    sessions.answered(HERE, 1000, input_tokens)
    assert sessions.per_byte(HERE) == per_byte


def test_the_conversation_silent_for_longest_is_forgotten():
    sessions = Sessions(limit=2)
    for session in ("old", "busy", "old", "new"):
        sessions.answered((session, ""), 1000, 250)
    assert sessions.per_byte(("busy", "")) is None
    assert sessions.per_byte(("old", "")) == sessions.per_byte(("new", "")) == 0.25
