"""Characters that come in two halves."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.translate.halves import Halves, joined

UNITS = st.text(st.sampled_from('a\\u"ü\ud83d\ude00😀'), max_size=8)
CUTS = st.lists(st.integers(0, 80), max_size=6)


def _fed(text: str, cuts: list[int], *, escaped: bool) -> str:
    halves = Halves(escaped=escaped)
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return "".join(halves.feed(text[a:b]) for a, b in pairwise(bounds)) + halves.end()


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("ok \ud83d\ude00 end", "ok 😀 end"),
        ("\ud83d", "\ufffd"),
        ("\ude00\ud83d x", "\ufffd\ufffd x"),
        ("\ud83d\ud83d\ude00", "\ufffd😀"),
        ("ü😀", "ü😀"),
    ],
)
def test_two_halves_are_a_character_and_one_is_none(text, whole):
    assert joined(text) == whole


@settings(deadline=None)
@given(UNITS, CUTS)
def test_it_does_not_matter_where_a_text_is_cut(text, cuts):
    assert _fed(text, cuts, escaped=False) == joined(text)


@settings(deadline=None)
@given(UNITS, CUTS)
def test_it_does_not_matter_where_json_is_cut(text, cuts):
    written = json.dumps({"a": text})
    said = json.loads(_fed(written, cuts, escaped=True))
    assert said == {"a": joined(text)}


@pytest.mark.parametrize("text", [r"\ud83d x", r"\\ud83d", r"\\\ud83d", "\\" * 2001])
def test_only_escapes_are_taken_for_halves(text):
    runs = len(text) - len(text.lstrip("\\"))
    is_escape = runs % 2 and "u" in text
    assert _fed(text, [runs], escaped=True) == (text.replace("ud83d", "ufffd") if is_escape else text)
