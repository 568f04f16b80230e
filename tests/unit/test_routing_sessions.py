"""What is remembered of each conversation between its requests."""

import pytest

from signalbox.anthropic.tokens import Measured
from signalbox.routing.facts import DEFAULT_CALIBRATION, Calibration
from signalbox.routing.sessions import MOST_REFUSED, RATIO_RANGE, Sessions

HERE = ("s-1", "")
ASKED = Measured(apart=1000)
"""What every tokenizer estimates to be a thousand tokens."""


def told() -> Sessions:
    """Sessions in which one conversation had an answer."""
    sessions = Sessions()
    sessions.record_usage(HERE, "gpt-5", ASKED, 1250)
    return sessions


def test_nothing_is_known_without_a_session():
    sessions = Sessions()
    sessions.record_usage(None, "gpt-5", ASKED, 1250)
    assert sessions.calibration(None) == DEFAULT_CALIBRATION


def test_agents_of_one_session_have_conversations_of_their_own():
    assert told().calibration(("s-1", "agent")) == DEFAULT_CALIBRATION


def test_the_calibration_is_that_of_the_last_answer():
    sessions = told()
    sessions.record_usage(HERE, "kimi-k2", Measured(apart=2000), 1800)
    assert sessions.calibration(HERE) == Calibration("deepseek", 0.9, Measured(apart=2000))


@pytest.mark.parametrize(("estimated", "input_tokens"), [(1000, 0), (0, 1000), (1000, -5)])
def test_answer_without_usage_leaves_tokenizer_and_ratio(estimated, input_tokens):
    sessions = told()
    sessions.record_usage(HERE, "kimi-k2", Measured(apart=estimated), input_tokens)
    assert sessions.calibration(HERE) == Calibration("o200k", 1.25, Measured(apart=estimated))
    assert sessions.calibration(("unheard", "of")) == DEFAULT_CALIBRATION


@pytest.mark.parametrize(("input_tokens", "ratio"), [(1, RATIO_RANGE[0]), (10**6, RATIO_RANGE[1])])
def test_calibration_stays_within_bounds(input_tokens, ratio):
    sessions = Sessions()
    sessions.record_usage(HERE, "gpt-5", ASKED, input_tokens)
    assert sessions.calibration(HERE).ratio == ratio


def test_oldest_conversation_is_forgotten():
    sessions = Sessions(limit=2)
    for session in ("old", "busy", "old", "new"):
        sessions.record_usage((session, ""), "gpt-5", ASKED, 1250)
    assert sessions.calibration(("busy", "")) == DEFAULT_CALIBRATION
    kept = [sessions.calibration((session, "")) for session in ("old", "new")]
    assert kept == [Calibration("o200k", 1.25, ASKED)] * 2


def test_refused_thinking_without_a_session_is_refused_in_every_conversation():
    sessions = Sessions()
    sessions.refused_thinking(None, "up", frozenset({b"any"}))
    sessions.refused_thinking(HERE, "up", frozenset({b"here"}))
    assert {*sessions.refused(HERE, "up")} == {b"any", b"here"}
    assert {*sessions.refused(("s-2", ""), "up")} == {*sessions.refused(None, "up")} == {b"any"}
    assert not sessions.refused(HERE, "another")


def test_of_refused_thinking_the_latest_is_remembered():
    sessions = Sessions()
    sessions.refused_thinking(None, "up", frozenset({b"old", b"again"}))
    others = frozenset(b"%d" % number for number in range(MOST_REFUSED - 1))
    sessions.refused_thinking(None, "up", others | {b"again"})
    kept = sessions.refused(None, "up")
    assert len(kept) == MOST_REFUSED
    assert b"again" in kept
    assert b"old" not in kept
