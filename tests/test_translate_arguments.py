"""The arguments of a tool call as they come in."""

import json
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.translate.arguments import Arguments

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=5)
CUTS = st.lists(st.integers(0, 200), max_size=10)


def _pieces(text: str, cuts: list[int]) -> list[str]:
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


def _fed(*pieces: str) -> Arguments:
    arguments = Arguments()
    for piece in pieces:
        arguments.feed(piece)
    return arguments


@settings(deadline=None)
@given(OBJECTS, st.booleans(), st.sampled_from([None, 0, 2]), CUTS)
def test_an_object_survives_exactly_however_it_is_cut(value, ascii, indent, cuts):
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    arguments, out = Arguments(), ""
    for piece in _pieces(text, cuts):
        assert arguments.complete is (out == text)
        own, rest = arguments.feed(piece)
        assert rest == ""
        out += own
    assert arguments.complete
    assert out == arguments.text == arguments.settled() == text


@settings(deadline=None)
@given(OBJECTS, OBJECTS, CUTS)
def test_a_second_object_is_told_from_the_first(one, other, cuts):
    first, second = json.dumps(one), json.dumps(other)
    arguments, rest = Arguments(), ""
    for piece in _pieces(f"{first} {second}", cuts):
        if rest:
            rest += piece
        else:
            _, rest = arguments.feed(piece)
    assert (arguments.text, rest) == (first, second)


@pytest.mark.parametrize("text", ["", "  ", "\n", "null", " null "])
def test_no_arguments_are_an_empty_object(text):
    assert _fed(text).settled() == "{}"


@pytest.mark.parametrize("after", ["}", "</tool_call>", "\n```\n", ' "a"'])
def test_what_follows_the_object_is_dropped(after):
    assert _fed('{"a":1}' + after, "x").settled() == '{"a":1}'


@settings(deadline=None)
@given(OBJECTS, CUTS)
def test_an_object_within_a_string_is_taken_out(value, cuts):
    text = json.dumps(value)
    assert _fed(*_pieces(json.dumps(text), cuts)).settled() == text


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ('{"a":"b"', '{"a":"b"}'),
        ('{"a":["b"', '{"a":["b"]}'),
        ('{"a":{"b":[]', '{"a":{"b":[]}}'),
        ('{"a":"b" \n', '{"a":"b" \n}'),
    ],
)
def test_brackets_are_closed_after_a_whole_value(text, closed):
    assert _fed(text).settled() == closed


@pytest.mark.parametrize(
    "text",
    ['{"a":"b', '{"a', '{"a":1', '{"a":tr', '{"a"', '{"a":"b",', '{"a":', '{"a":"b\\', "{", '{"a":["b",'],
)
def test_what_is_cut_in_the_middle_is_never_mended(text):
    assert _fed(text).settled() is None


@pytest.mark.parametrize(
    "text",
    [
        "{'a': 1}",
        '["a"]',
        '"a"',
        "7",
        "true",
        "ls -l",
        '{"a":NaN}',
        '{"a":1,}',
        '{"a":[}',
        '"{\\"a\\":',
        "[" * 9999,
    ],
)
def test_what_is_no_object_is_none(text):
    assert _fed(text).settled() is None


def test_raw_control_characters_in_strings_are_escaped():
    arguments = Arguments()
    out = [arguments.feed(piece)[0] for piece in ('{\n"a": "b', "\n\\", '\t"', ',\t"c":"\x00"}')]
    assert "".join(out) == '{\n"a": "b\\u000a\\\\u0009",\t"c":"\\u0000"}'


def test_white_space_without_end_is_noticed():
    arguments = _fed('{"a":1,', *["\n" * 100] * 5)
    assert not arguments.endless
    arguments.feed(" ")
    assert arguments.endless
    assert _fed('{"a":1,' + "\n" * 501 + '"b":2}').endless


def test_white_space_in_strings_may_be_long():
    arguments = _fed('{"a":"' + " " * 9999, " " * 9999 + '"', *['\n  , "b": 1'] * 300)
    assert not arguments.endless


@pytest.mark.parametrize("piece", ["{a", "  ", "[]"])
def test_what_is_no_object_is_read_in_linear_time(piece):
    arguments, start = _fed('"'), process_time()
    for _ in range(20_000):
        arguments.feed(piece)
        assert not arguments.is_placeholder
    assert process_time() - start < 1
