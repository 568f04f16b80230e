"""What is remembered of each conversation between its requests."""

import pytest

from signalbox.routing.sessions import RATIO_RANGE, Sessions

HERE = ("s-1", "")


def told() -> Sessions:
    """Sessions in which one conversation had an answer."""
    sessions = Sessions()
    sessions.answered(HERE, 1000, 1250)
    return sessions


def test_nothing_is_known_without_a_session():
    sessions = Sessions()
    sessions.answered(None, 1000, 1250)
    assert sessions.token_ratio(None) == 1.0


def test_agents_of_one_session_have_conversations_of_their_own():
    assert told().token_ratio(("s-1", "agent")) == 1.0


def test_the_ratio_is_that_of_the_last_answer():
    sessions = told()
    sessions.answered(HERE, 2000, 1800)
    assert sessions.token_ratio(HERE) == 0.9


@pytest.mark.parametrize(("estimated", "input_tokens"), [(1000, 0), (0, 1000), (1000, -5)])
def test_an_answer_that_tells_no_usage_leaves_the_calibration(estimated, input_tokens):
    sessions = told()
    sessions.answered(HERE, estimated, input_tokens)
    assert sessions.token_ratio(HERE) == 1.25
    assert sessions.token_ratio(("unheard", "of")) == 1.0


@pytest.mark.parametrize(("input_tokens", "ratio"), [(1, RATIO_RANGE[0]), (10**6, RATIO_RANGE[1])])
def test_usage_beyond_belief_is_held_within_bounds(input_tokens, ratio):
    sessions = Sessions()
    sessions.answered(HERE, 1000, input_tokens)
    assert sessions.token_ratio(HERE) == ratio


def test_the_conversation_silent_for_longest_is_forgotten():
    sessions = Sessions(limit=2)
    for session in ("old", "busy", "old", "new"):
        sessions.answered((session, ""), 1000, 1250)
    assert sessions.token_ratio(("busy", "")) == 1.0
    assert sessions.token_ratio(("old", "")) == sessions.token_ratio(("new", "")) == 1.25
