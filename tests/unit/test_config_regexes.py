"""Regular expressions from rules.yaml: found as `re` finds them, in bounded time."""

import logging
import re
import time

import pytest

from signalbox.config.regexes import LONGEST, Regex, checked_regex

SLOW = {
    r"\s+$": "x" + " " * 99_998 + "x",
    "a.*b.*c.*d": "abc" * 70_000,
    "(x+x+)+y": "x" * 200_000,
}


@pytest.mark.parametrize("pattern", SLOW)
def test_a_search_ends_in_time(pattern, caplog):
    written = f"{pattern}(?#of this test)"  # an expression is logged once in a while in a process
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "signalbox"):
        assert not checked_regex(written).found_in(SLOW[pattern])
    assert time.monotonic() - began < 2
    assert written in caplog.text


@pytest.mark.parametrize("pattern", SLOW)
def test_slow_expression_is_recognized_without_a_request(pattern):
    assert checked_regex(pattern).is_slow()


@pytest.mark.parametrize(
    "pattern", ["fix|mend", r"\bübersetze\b", "(?i)^you are", r"\d{4}-\d\d", r"^/deploy\b.*prod"]
)
def test_usual_expressions_are_not_slow(pattern):
    assert not checked_regex(pattern).is_slow()


def test_an_expression_means_what_it_means_to_re():
    text = "Über\nYou are careful.\n"
    for pattern in (
        r"(?m)^you",
        r"(?i)über",
        r"careful\.$",
        r"\bYou\b(?! is)",
        r"(?P<a>e).*(?P=a)",
        r"\A[^a-z]",
    ):
        assert checked_regex(pattern).found_in(text) == bool(re.search(pattern, text)), pattern


def test_only_the_beginning_of_a_text_is_searched():
    assert Regex("needle").found_in("x" * (LONGEST - 6) + "needle")
    assert not Regex("needle").found_in("x" * LONGEST + "needle")


def test_invalid_expression_is_an_error():
    with pytest.raises(ValueError, match="missing"):
        checked_regex("(")
