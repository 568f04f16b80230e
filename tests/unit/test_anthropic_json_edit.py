"""Requests: looked at once, changed by splices, all other bytes as they came."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.json_edit import Body, BodyError, Edit, delete_items, elements, members, splice

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["model", "messages", "system", "stream", "ü", 'q"\\', "a b", ""])
SPACE = st.sampled_from([b"", b" ", b"\n  ", b"\t", b"\r\n"])


@st.composite
def odd_json(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """An object in the bytes of some client: odd white space, escapes or raw UTF-8, keys too."""
    fields = draw(st.dictionaries(NAMES, VALUES, max_size=5))
    parts = []
    for name, value in fields.items():
        key, text = (json.dumps(each, ensure_ascii=draw(st.booleans())).encode() for each in (name, value))
        gaps = [draw(SPACE) for _ in range(4)]
        parts.append(gaps[0] + key + gaps[1] + b":" + gaps[2] + text + gaps[3])
    return draw(SPACE) + b"{" + (b",".join(parts) or draw(SPACE)) + b"}" + draw(SPACE), fields


@given(odd_json())
def test_every_value_is_found_with_exactly_its_bytes(given_body):
    raw, fields = given_body
    body = Body.parse(raw)
    assert body.names() == list(fields)
    for name, value in fields.items():
        found = body.value(name)
        assert json.loads(found) == value
        assert found == found.strip()
        place = body.span(name)
        assert raw[place.value : place.end] == found
        assert json.loads(raw[place.start : place.value].rstrip(b": \t\r\n")) == name


@given(odd_json())
def test_an_unchanged_body_is_the_same_object(given_body):
    raw, _ = given_body
    assert Body.parse(raw).edited() is raw


@given(odd_json(), st.dictionaries(NAMES, VALUES, max_size=3), st.sets(NAMES, max_size=4))
def test_fields_set_and_dropped_together_leave_valid_json_with_all_others(given_body, set_, drop):
    raw, fields = given_body
    encoded = {name: json.dumps(value).encode() for name, value in set_.items()}
    changed = json.loads(Body.parse(raw).edited(set=encoded, drop=drop))
    kept = {name: value for name, value in fields.items() if name not in drop or name in set_}
    assert changed == kept | set_
    assert list(changed) == list(kept | set_)


@given(odd_json())
def test_dropping_one_field_at_a_time_ends_in_an_empty_object(given_body):
    raw, fields = given_body
    for name in fields:
        raw = splice(raw, [Body.parse(raw).drop(name)])
        fields = {other: value for other, value in fields.items() if other != name}
        assert json.loads(raw) == fields


@given(odd_json(), st.sets(NAMES, max_size=4))
def test_cuts_of_single_fields_combine_though_they_share_commas(given_body, drop):
    raw, fields = given_body
    body = Body.parse(raw)
    cuts = [edit for name in drop if (edit := body.drop(name))]
    assert json.loads(body.edited({"new": b"1"}, edits=cuts)) == {
        **{name: value for name, value in fields.items() if name not in drop},
        "new": 1,
    }


@given(odd_json(), VALUES)
def test_setting_the_model_changes_only_its_bytes(given_body, value):
    raw, fields = given_body
    body = Body.parse(raw)
    if "model" not in fields:
        return
    place = body.span("model")
    encoded = json.dumps(value).encode()
    assert body.edited({"model": encoded}) == raw[: place.value] + encoded + raw[place.end :]


@pytest.mark.parametrize(
    ("raw", "drop", "left"),
    [
        (b'{"a": 1, "b": 2, "c": 3}', "a", b'{"b": 2, "c": 3}'),
        (b'{"a": 1, "b": 2, "c": 3}', "b", b'{"a": 1, "c": 3}'),
        (b'{"a": 1, "b": 2, "c": 3}', "c", b'{"a": 1, "b": 2}'),
        (b'{"a": 1, "b": 2, "c": 3}', "bc", b'{"a": 1}'),
        (b'{"a": 1, "b": 2, "c": 3}', "ac", b'{"b": 2}'),
        (b'{ "a": 1 }', "a", b"{  }"),
        (b'{"a":1,"b":2}', "ab", b"{}"),
        (b'{"a":1}', "x", b'{"a":1}'),
    ],
)
def test_a_dropped_field_takes_one_comma_with_it(raw, drop, left):
    assert Body.parse(raw).edited(drop=list(drop)) == left


@pytest.mark.parametrize(
    ("raw", "drop", "result"),
    [
        (b"{}", "", b'{"x":1}'),
        (b" { } ", "", b' {"x":1 } '),
        (b'{"a":1}', "", b'{"a":1,"x":1}'),
        (b'{"a":1\n}', "", b'{"a":1,"x":1\n}'),
        (b'{"a":1}', "a", b'{"x":1}'),
        (b'{"a":1,"b":2}', "b", b'{"a":1,"x":1}'),
        (b'{"a":1,"b":2}', "ab", b'{"x":1}'),
    ],
)
def test_a_new_field_is_appended_with_the_right_comma(raw, drop, result):
    assert Body.parse(raw).edited({"x": b"1"}, drop=list(drop)) == result


def test_set_alone_replaces_or_appends():
    body = Body.parse(b'{"a": 1}')
    assert splice(body.raw, [body.set("a", b"2")]) == b'{"a": 2}'
    assert splice(body.raw, [body.set("b", b"2")]) == b'{"a": 1,"b":2}'


def test_a_field_both_set_and_dropped_is_set_in_its_place():
    assert Body.parse(b'{"a":1,"b":2}').edited({"a": b"3"}, drop=["a"]) == b'{"a":3,"b":2}'


def test_edits_inside_a_field_that_is_set_or_dropped_count_for_nothing():
    body = Body.parse(b'{"a":[1,2],"b":[3,4],"c":[5,6]}')
    edits = [edit for name in "abc" for edit in _without_first(body, name)]
    assert body.edited({"a": b"0"}, ["b"], edits) == b'{"a":0,"c":[6]}'


def _without_first(body: Body, name: str) -> list[Edit]:
    place = body.span(name)
    return delete_items(elements(body.raw, place.value, place.end), {0})


def test_escaped_keys_name_the_same_field():
    body = Body.parse(b'{"mod\\u0065l": "x"}')
    assert body.get("model", str) == "x"
    assert body.edited({"model": b'"y"'}) == b'{"mod\\u0065l": "y"}'


def test_numbers_stay_as_written():
    body = Body.parse(b'{"a":1e5,"b":1.0,"c":-0,"d":1E+2}')
    assert [body.value(name) for name in "abcd"] == [b"1e5", b"1.0", b"-0", b"1E+2"]


def test_a_value_of_another_type_counts_as_absent():
    body = Body.parse(b'{"model": 5, "stream": "yes", "max_tokens": 1.5, "system": null, "n": 3}')
    assert body.get("model", str) is None
    assert body.get("stream", bool) is None
    assert body.get("max_tokens", int) is None
    assert body.get("system", list) is None
    assert body.get("absent", str) is None
    assert body.get("n", int) == 3


def test_a_value_is_decoded_once():
    body = Body.parse(b'{"tools": [{"name": "Bash"}]}')
    assert body.get("tools", list) is body.get("tools", list)


def test_an_inner_object_is_read_like_a_body():
    body = Body.parse(b'{"a": {"b": 1}, "twice": {"b": 1, "b": 2}, "c": []}')
    assert body.inner("a").value("b") == b"1"
    assert body.inner("twice") is None
    assert body.inner("c") is None
    assert body.inner("d") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"[]",
        b'"text"',
        b"null",
        b"{",
        b'{"a":1',
        b'{"a":1,}',
        b'{"a":1} x',
        b"{'a':1}",
        b'{"a":NaN}',
        b'{"a":01}',
        b'{"a":"\n"}',
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"\xff":1}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\\ud800}',
        b'{"a":"\\ud8 0"}',
        b'{"a":"\\ud800",}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000,
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_anything_but_one_utf8_object_is_an_error(raw):
    with pytest.raises(BodyError):
        Body.parse(raw)


@pytest.mark.parametrize("shift", range(8))
def test_utf8_is_checked_where_the_pieces_of_a_large_body_meet(shift):
    text = "x" * shift + "€𝄞" * 40_000
    body = Body.parse(f'{{"a":"{text}"}}'.encode())
    assert body.get("a", str) == text
    for broken in (text.encode()[:-1], text.encode() + b"\xff", text.encode()[: 64 * 1024 - 7] + b"\xe2"):
        with pytest.raises(BodyError, match="UTF-8"):
            Body.parse(b'{"a":"' + broken + b'"}')
    with pytest.raises(BodyError, match="UTF-8"):
        Body.parse(f'{{"a":"{text}"}}'.encode() + b"\xe2")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a":1,"a":12}',
        b'{"a":12,"a":1}',
        b'{"a":1,"b":2,"a":1}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":"x","b":[],"a":"x"}',
    ],
)
def test_a_key_given_twice_is_an_error(raw):
    with pytest.raises(BodyError, match="twice"):
        Body.parse(raw)


@given(st.binary(max_size=30) | st.text('{}[]",:a1 \\', max_size=30).map(str.encode))
def test_any_bytes_are_read_as_json_reads_them_or_refused(raw):
    try:
        body = Body.parse(raw)
    except BodyError:
        return
    assert json.loads(raw).keys() == set(body.names())


TORN = st.text(
    st.sampled_from('\\ud8"n\n😀é')
    | st.sampled_from(["\ud83d", "\ude00", "\udbff", "\udc00"])
    | st.characters(exclude_categories=["Co"]),
    max_size=12,
)
"""Texts with halves of surrogate pairs, and what looks like their escapes."""


@given(st.dictionaries(TORN, st.lists(TORN, max_size=3), max_size=4))
def test_halves_of_characters_leave_every_value_in_its_place(fields):
    raw = json.dumps(fields).encode()
    expected = json.loads(raw)  # where it joins halves that have come together
    body = Body.parse(raw)
    assert body.raw is raw
    assert len(body.readable) == len(raw)
    assert [json.loads(raw[at.start : at.value - 2]) for at in map(body.span, body.names())] == list(expected)
    for name, value in zip(body.names(), expected.values(), strict=True):
        assert json.loads(body.value(name)) == value
        place = body.span(name)
        inner = elements(body.readable, place.value, place.end)
        assert [json.loads(raw[at.value : at.end]) for at in inner] == value
        assert [_whole(text) for text in body.get(name, list[str])] == [_whole(text) for text in value]
    assert body.edited() is raw
    assert json.loads(body.edited({"new": b"1"})) == expected | {"new": 1}


def _whole(text: str) -> str:
    """The text with each half as the private character that stands for it."""
    return "".join(chr(ord(each) + 0x1000) if "\ud800" <= each <= "\udfff" else each for each in text)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb'{"a":"\ud83d"}', rb'{"a":"\uE83d"}'),
        (rb'{"a":"\uDE00\uD83D\ude00\uD83D"}', rb'{"a":"\uEE00\uD83D\ude00\uE83D"}'),
        (rb'{"a":"\\\ud83d\\ud83d"}', rb'{"a":"\\\uE83d\\ud83d"}'),
        (rb'{"a":"\ud83d\\ude00"}', rb'{"a":"\uE83d\\ude00"}'),
        (rb'{"a":"\\ud83d"}', rb'{"a":"\\ud83d"}'),
    ],
)
def test_only_halves_are_read_otherwise(raw, text):
    assert Body.parse(raw).readable == text


def test_an_object_with_a_half_is_edited_in_its_own_bytes():
    body = Body.parse(rb'{"a":{"b":"\ud83d","c":1}}')
    inner = body.inner("a")
    assert body.edited({"a": inner.edited(drop=["c"])}) == rb'{"a":{"b":"\ud83d"}}'


def test_spans_of_members_and_elements_are_offsets_in_the_body():
    raw = b'xx { "a" : [ 1 , "]," , {} ] } yy'
    (place,) = members(raw, 3, 30).values()
    assert raw[place.start : place.end] == b'"a" : [ 1 , "]," , {} ]'
    assert [raw[at.value : at.end] for at in elements(raw, place.value, place.end)] == [b"1", b'"],"', b"{}"]


@given(st.lists(SCALARS, max_size=6), st.sets(st.integers(0, 5)), st.sampled_from([b",", b" , ", b",\n "]))
def test_cut_takes_out_exactly_the_named_elements(values, gone, comma):
    raw = b"[" + comma.join(map(msgspec.json.encode, values)) + b"]"
    left = splice(raw, delete_items(elements(raw), {index for index in gone if index < len(values)}))
    assert json.loads(left) == [value for index, value in enumerate(values) if index not in gone]


def test_splicing_overlapping_edits_is_refused():
    with pytest.raises(ValueError, match="byte 2"):
        splice(b"abcdef", [Edit(2, 4, b""), Edit(0, 3, b"")])


def test_splicing_nothing_gives_the_same_object():
    raw = b"abc"
    assert splice(raw, []) is raw
