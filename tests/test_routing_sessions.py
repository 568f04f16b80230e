"""What is remembered of each conversation between its requests."""

import pytest

from signalbox.routing.sessions import PER_BYTE_RANGE, Sessions

HERE = ("s-1", "")


def told(*providers: str) -> Sessions:
    """Sessions in which these answered one after the other in one conversation."""
    sessions = Sessions()
    for provider in providers:
        sessions.answered(HERE, provider, 1000, 250)
    return sessions


@pytest.mark.parametrize(
    ("before", "foreign_to_zai", "foreign_to_anthropic"),
    [
        ((), True, False),
        (("zai",), False, True),
        (("anthropic",), True, False),
        (("anthropic", "zai"), False, True),
        (("zai", "anthropic"), True, True),
        (("kimi",), True, True),
    ],
)
def test_whose_thinking_the_history_may_hold(before, foreign_to_zai, foreign_to_anthropic):
    sessions = told(*before)
    assert sessions.foreign_thinking(HERE, "zai", is_anthropic=False) is foreign_to_zai
    assert sessions.foreign_thinking(HERE, "anthropic", is_anthropic=True) is foreign_to_anthropic


def test_nothing_is_known_without_a_session():
    sessions = Sessions()
    sessions.answered(None, "zai", 1000, 250)
    assert sessions.per_byte(None) is None
    assert sessions.foreign_thinking(None, "zai", is_anthropic=False)
    assert not sessions.foreign_thinking(None, "anthropic", is_anthropic=True)


def test_agents_of_one_session_have_histories_of_their_own():
    sessions = told("zai")
    assert sessions.foreign_thinking(("s-1", "agent"), "zai", is_anthropic=False)


def test_tokens_per_byte_are_those_of_the_last_answer():
    sessions = told("zai")
    sessions.answered(HERE, "zai", 2000, 800)
    assert sessions.per_byte(HERE) == 0.4


@pytest.mark.parametrize(("body_bytes", "input_tokens"), [(1000, 0), (0, 1000), (1000, -5)])
def test_an_answer_that_tells_no_usage_leaves_the_calibration(body_bytes, input_tokens):
    sessions = told("zai")
    sessions.answered(HERE, "zai", body_bytes, input_tokens)
    assert sessions.per_byte(HERE) == 0.25
    assert sessions.per_byte(("unheard", "of")) is None


@pytest.mark.parametrize(("input_tokens", "per_byte"), [(1, PER_BYTE_RANGE[0]), (10**6, PER_BYTE_RANGE[1])])
def test_usage_beyond_belief_is_held_within_bounds(input_tokens, per_byte):
    sessions = Sessions()
    sessions.answered(HERE, "zai", 1000, input_tokens)
    assert sessions.per_byte(HERE) == per_byte


def test_the_conversation_silent_for_longest_is_forgotten():
    sessions = Sessions(limit=2)
    for session in ("old", "busy", "old", "new"):
        sessions.answered((session, ""), "zai", 1000, 250)
    assert sessions.per_byte(("busy", "")) is None
    assert sessions.per_byte(("old", "")) == sessions.per_byte(("new", "")) == 0.25
