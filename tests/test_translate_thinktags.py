"""Thinking that stands in the text."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.translate.chunks import Reasoning, Text
from signalbox.translate.thinktags import ThinkTags

CASES = [
    ("Hello", "", "Hello"),
    ("  Hello <think>no</think>", "", "  Hello <think>no</think>"),
    ("<think>Hm.</think>Hello", "Hm.", "Hello"),
    ("\n <think>\nHm.</think>\n\n Hello \n", "\nHm.", "Hello \n"),
    ("<thought>a</think>b</thought>c", "a</think>b", "c"),
    ("<thinking>a</thinking>", "a", ""),
    ("<think></think><think>b</think>", "", "<think>b</think>"),
    ("<think>a < b </ c", "a < b </ c", ""),
    ("<think>a</thin", "a</thin", ""),
    ("<thin air", "", "<thin air"),
    ("<thi", "", "<thi"),
    ("   ", "", "   "),
    ("", "", ""),
]


def _told(pieces: list[str]) -> tuple[str, str]:
    tags = ThinkTags()
    said = [one for piece in pieces for one in tags.feed(piece)] + tags.end()
    assert all(one.text for one in said)
    return tuple("".join(one.text for one in said if isinstance(one, kind)) for kind in (Reasoning, Text))


@pytest.mark.parametrize(("text", "thinking", "said"), CASES)
def test_only_what_begins_with_a_tag_is_thinking(text, thinking, said):
    assert _told([text]) == (thinking, said)


@settings(deadline=None)
@given(st.sampled_from(CASES), st.lists(st.integers(0, 40)))
def test_it_does_not_depend_on_how_the_text_is_cut(case, cuts):
    text, *told = case
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert _told([text[a:b] for a, b in pairwise(bounds)]) == tuple(told)


def test_no_more_is_held_back_than_the_head_of_a_tag():
    tags = ThinkTags()
    assert tags.feed("<think>a</") == [Reasoning("a")]
    assert tags.feed("b") == [Reasoning("</b")]
    assert tags.feed("</think>c") == [Text("c")]


def test_white_space_does_not_wait_for_ever():
    tags = ThinkTags()
    assert tags.feed(" " * 500) == [Text(" " * 500)]


def test_text_ends_where_something_else_begins():
    tags = ThinkTags()
    assert tags.feed("<thi") == []
    assert tags.end() == [Text("<thi")]
    assert tags.feed("<think>") == [Text("<think>")]
