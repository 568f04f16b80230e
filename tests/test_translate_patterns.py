"""Which regular expressions of schemas providers can be sent."""

import re
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.translate.patterns import ANCHORED, PORTABLE, is_readable

READ_BY_ALL = [
    "",
    "^$",
    r"\S",
    r"^\d{4}-\d{2}-\d{2}$",
    r"^[\w.+-]+@[\w-]+\.[a-z]{2,}$",
    r"^(?:a|b)*?c+?$",
    r"\bword\b",
    "^wf_[a-z0-9-]{6,}$",
    "^[!#$%&'*+._`|~0-9A-Za-z-]+$",
    r"^[^\n\r]*$",
    r"^[\s\S]{0,300}$",
    r"^https?:\/\/",
    "^ü{1,1000}$",
    r"[\]\[]",
]
READ_BY_SOME = [
    r"\p{L}",
    r"^[^\p{Cc}]+$",
    r"\P{Cc}",
    "^(?!__)",
    "(?=a)",
    "(?<=a)b",
    "(?<!a)b",
    "(?<name>a)",
    "(?P<name>a)",
    "(?i)a",
    "(?>a)",
    r"(a)\1",
    "[[a]",
    "[[:alpha:]]",
    "[a&&b]",
    "[a--b]",
    "[a||b]",
    r"[\w-.]",
    "[]a]",
    "[^]",
    "[]",
    "[z-a]",
    "a{1001}",
    "a{2,1}",
    "a++",
    "a**",
    "*a",
    "(a",
    "a)",
    "a{",
    "a}",
    "]",
    r"\A a \Z",
    r"\u00e9",
    r"\x41",
    r"\0",
    r"\cA",
    r"\e",
    "\\",
    "a\nb",
    "(" * 400 + ")" * 400 + "(",
    "a" * 2001,
]
READ_BY_GRAMMARS = [
    "^$",
    "^wf_[a-z0-9-]{6,}$",
    r"^v[0-9]+\.[0-9]+$",
    "^(one|two|three)$",
    "^#?[0-9A-Fa-f]{6}$",
]
NOT_BY_GRAMMARS = [
    r"\S",
    r"^\d{4}$",
    "[0-9]",
    "^[0-9]",
    "[0-9]$",
    "^.*$",
    '^"$',
    "^[^a]$",
    r"^[\d]$",
    r"^\w+$",
    "^(?:a)$",
    "^a+?$",
    "^a|b$",
    "^((a))$",
    r"^\\$",
]


@pytest.mark.parametrize("pattern", READ_BY_ALL)
def test_what_all_engines_read_stays(pattern):
    assert is_readable(pattern, PORTABLE)


@pytest.mark.parametrize("pattern", READ_BY_SOME, ids=lambda text: text[:20])
def test_what_only_some_engines_read_goes(pattern):
    assert not is_readable(pattern, PORTABLE)
    assert not is_readable(pattern, ANCHORED)


@pytest.mark.parametrize("pattern", READ_BY_GRAMMARS)
def test_grammars_are_made_of_what_is_anchored_and_spelt_out(pattern):
    assert is_readable(pattern, ANCHORED)
    assert is_readable(pattern, PORTABLE)


@pytest.mark.parametrize("pattern", NOT_BY_GRAMMARS)
def test_other_patterns_make_no_grammar(pattern):
    assert not is_readable(pattern, ANCHORED)


@given(st.text(st.sampled_from(r"^$.|?*+()[]{}\-/,019adDwSpP &~üé" + '"'), max_size=12))
def test_what_is_read_is_a_regular_expression(pattern):
    for known in (PORTABLE, ANCHORED):
        if is_readable(pattern, known):
            re.compile(pattern)


@pytest.mark.parametrize("piece", ["a", "(a|", "[a-", "[a-z]", "a{1,", r"\d", "(a)*", "^(a|b)+", "[", "(?:"])
def test_any_pattern_is_looked_at_in_no_time(piece):
    start = perf_counter()
    for known in (PORTABLE, ANCHORED):
        for end in ("", "!\\"):
            is_readable("^" + piece * (1900 // len(piece)) + end, known)
    assert perf_counter() - start < 1
