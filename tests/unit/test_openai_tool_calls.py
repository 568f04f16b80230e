"""Tool calls in progress: fragments, arguments and halves of characters."""

import json
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from signalbox.anthropic.json_edit import whole_characters
from signalbox.anthropic.writer import Writer
from signalbox.openai.chunks import Fragment
from signalbox.openai.tool_calls import Arguments, CallError, SurrogateJoiner, ToolCalls
from tests.support.request_validator import check_events


def _run(parts: list[Fragment], *, signed: bool = False, is_cut: bool = False) -> list[dict]:
    writer = Writer("msg_fake", "m", lambda text: text)
    writer.begin("m")
    calls = ToolCalls(writer, {}, "Seed", provider="fake", signed=signed)
    for part in parts:
        calls.take(part)
    calls.finish(is_cut=is_cut)
    writer.stop("tool_use", {"output_tokens": 0})
    events = writer.drain()
    check_events(events)
    return events


def _told(events: list[dict]) -> list[tuple[str, str]]:
    """Name and arguments of each call."""
    told = []
    for event in events:
        if event["type"] == "content_block_start":
            told.append((event["content_block"]["name"], ""))
        elif event["type"] == "content_block_delta":
            told[-1] = (told[-1][0], told[-1][1] + event["delta"]["partial_json"])
    return told


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[list[tuple[str, str]], list[Fragment]]:
    """Calls, and their fragments: each call's in order, the calls among each other in any."""
    values = st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers(), max_size=3)
    wanted = [
        (f"Tool{n}", json.dumps(value))
        for n, value in enumerate(draw(st.lists(values, min_size=1, max_size=4)))
    ]
    left: list[list[Fragment]] = []
    for n, (name, text) in enumerate(wanted):
        cuts = sorted({0, *draw(st.lists(st.integers(0, len(text)), max_size=4)), len(text)})
        fragments = [Fragment(n, arguments=text[a:b]) for a, b in pairwise(cuts)]
        left.append([Fragment(n, f"call_{n}x9y8z7", name), *fragments])
    parts = [queue.pop(0) for queue in left]
    while any(left):
        parts.append(draw(st.sampled_from([queue for queue in left if queue])).pop(0))
    return wanted, parts


@given(interleaved(), st.booleans())
def test_calls_survive_in_any_interleaving(case, signed):
    wanted, parts = case
    assert _told(_run(parts, signed=signed)) == wanted


@given(interleaved())
def test_ids_alone_tell_calls_apart(case):
    wanted, parts = case
    ids = {part.index: part.id for part in parts if part.id}
    assert (
        _told(_run([Fragment(None, ids[part.index], part.name, part.arguments) for part in parts])) == wanted
    )


@given(interleaved())
def test_names_and_ids_may_come_with_every_fragment(case):
    wanted, parts = case
    known = {part.index: part for part in parts if part.id}
    repeated = [
        Fragment(part.index, known[part.index].id, known[part.index].name, part.arguments) for part in parts
    ]
    assert _told(_run(repeated)) == wanted


@given(interleaved())
def test_calls_may_all_have_the_same_index(case):
    wanted, parts = case
    ids = {part.index: part.id for part in parts if part.id}
    assert _told(_run([Fragment(0, ids[part.index], part.name, part.arguments) for part in parts])) == wanted


@pytest.mark.parametrize("head", [Fragment(name="Read"), Fragment(name="Read", arguments="{")])
def test_a_name_after_a_whole_call_begins_another_of_the_same_tool(head):
    first, rest = '{"path":"a"}', '{"path":"b"}'.removeprefix(head.arguments)
    parts = [Fragment(name="Read", arguments=first), head, Fragment(arguments=rest)]
    assert _told(_run(parts)) == [("Read", first), ("Read", '{"path":"b"}')]


def test_a_second_call_at_the_same_place_may_have_the_same_name():
    wanted = [("Read", '{"path":"a"}'), ("Read", '{"path":"b"}')]
    assert _told(_run([Fragment(0, name=name, arguments=text) for name, text in wanted])) == wanted


def test_an_id_may_come_after_the_name():
    parts = [Fragment(0, name="Read"), Fragment(0, "call_1a2b3c"), Fragment(0, arguments="{}")]
    [started] = [event["content_block"] for event in _run(parts) if "content_block" in event]
    assert started["id"] == "call_1a2b3c"


def test_an_id_alone_is_no_call():
    parts = [Fragment(0, "call_1a2b3c", "Read", "{}"), Fragment(1, "call_4d5e6f")]
    assert _told(_run(parts)) == [("Read", "{}")]


def test_the_first_call_streams_and_the_others_wait():
    writer = Writer("msg_fake", "m", str)
    writer.begin("m")
    calls = ToolCalls(writer, {}, "Seed", provider="fake", signed=False)
    calls.take(Fragment(0, "call_1a2b3c", "Read"))
    calls.take(Fragment(1, "call_4d5e6f", "Bash", '{"command":"ls"}'))
    calls.take(Fragment(0, arguments='{"path":'))
    assert calls.in_progress
    assert _told(writer.drain()[1:]) == [("Read", '{"path":')]
    calls.take(Fragment(0, arguments='"a"}'))
    assert not calls.in_progress
    kinds = [event["type"].removeprefix("content_block_") for event in writer.drain()]
    assert kinds == ["delta", "stop", "start", "delta", "stop"]


def test_a_signed_call_waits_for_what_belongs_to_it():
    writer = Writer("msg_fake", "m", str)
    writer.begin("m")
    calls = ToolCalls(writer, {}, "Seed", provider="fake", signed=True)
    calls.take(Fragment(0, "call_1a2b3c", "Read", "{}"))
    assert len(writer.drain()) == 1
    calls.take(Fragment(signature="c2ln"))
    calls.release()
    assert writer.drain()[0]["content_block"]["id"] != "call_1a2b3c"


def test_a_signed_call_is_not_begun_before_it_is_complete():
    writer = Writer("msg_fake", "m", str)
    calls = ToolCalls(writer, {}, "Seed", provider="fake", signed=True)
    calls.take(Fragment(0, "call_1a2b3c", "Read", '{"path":'))
    calls.release()
    assert writer.drain() == []
    assert not calls.in_progress


def test_a_second_object_is_of_the_next_call_that_has_none():
    parts = [
        Fragment(0, "call_1a2b3c", "Read"),
        Fragment(1, "call_4d5e6f", "Read", '{"path":'),
        Fragment(2, "call_7g8h9i", "Read"),
        Fragment(0, arguments='{"path":"a"}{"path":"c"}'),
        Fragment(1, arguments='"b"}'),
    ]
    assert _told(_run(parts)) == [
        ("Read", json.dumps({"path": name}, separators=(",", ":"))) for name in "abc"
    ]


@pytest.mark.parametrize("placeholder", ["{}", "{ }", "{}{}", "null", '""', "[]", "{}" * 99_999])
@pytest.mark.parametrize("signed", [False, True])
def test_a_placeholder_gives_way_to_the_arguments_that_follow(placeholder, signed):
    head = Fragment(0, "call_1a2b3c", "Read")
    first, *rest = (Fragment(0, arguments=text) for text in ('{"pa', 'th":"a"}'))
    for heads in ([replace(head, arguments=placeholder)], [head, Fragment(0, arguments=placeholder)]):
        assert _told(_run([*heads, first, *rest], signed=signed)) == [("Read", '{"path":"a"}')]


def test_placeholders_of_several_calls_give_way_to_the_arguments_of_each():
    heads = [Fragment(n, f"call_{n}x9y8z7", "Read", "{}") for n in range(2)]
    parts = [Fragment(n, arguments=text) for n, text in ((0, '{"path":'), (1, '{"path":"b"}'), (0, '"a"}'))]
    assert _told(_run([*heads, *parts])) == [("Read", '{"path":"a"}'), ("Read", '{"path":"b"}')]


@pytest.mark.parametrize("last", [[], [Fragment(0, arguments=" ")]])
@pytest.mark.parametrize("arguments", ["{}", "[]"])
def test_a_call_without_arguments_has_none(arguments, last):
    assert _told(_run([Fragment(0, "call_1a2b3c", "List", arguments), *last])) == [("List", "{}")]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([Fragment(0, "call_1a2b3c", "", "{}")], "a tool call has no name"),
        ([Fragment(0, "call_1a2b3c", "Read", '{"a":1}{"a":2}{"a":3}')], "a tool call has no name"),
        (
            [Fragment(0, "call_1a2b3c", "Read", '{"a"'), Fragment(0, arguments=":x}")],
            "Read are not valid JSON",
        ),
        ([Fragment(0, "call_1a2b3c", "Read", '{"a":"'), Fragment(0)], "Read are not valid JSON"),
        ([Fragment(n, f"call_{n}x9y8z7", "Read") for n in range(1001)], "too many tool calls"),
    ],
)
def test_a_fragment_that_is_not_a_call_is_an_error(parts, why):
    with pytest.raises(CallError, match=why):
        _run(parts)


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
    assert out == arguments.text == arguments.finalized() == text


@pytest.mark.slow
@given(OBJECTS, OBJECTS, CUTS)
def test_a_second_object_is_separated_from_the_first(one, other, cuts):
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
    assert _fed(text).finalized() == "{}"


@pytest.mark.parametrize("after", ["}", "</tool_call>", "\n```\n", ' "a"'])
def test_text_after_the_object_is_dropped(after):
    assert _fed('{"a":1}' + after, "x").finalized() == '{"a":1}'


@pytest.mark.slow
@given(OBJECTS, CUTS)
def test_an_object_within_a_string_is_taken_out(value, cuts):
    text = json.dumps(value)
    assert _fed(*_pieces(json.dumps(text), cuts)).finalized() == text


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
    assert _fed(text).finalized() == closed


@pytest.mark.parametrize(
    "text",
    ['{"a":"b', '{"a', '{"a":1', '{"a":tr', '{"a"', '{"a":"b",', '{"a":', '{"a":"b\\', "{", '{"a":["b",'],
)
def test_a_string_cut_in_the_middle_is_never_repaired(text):
    assert _fed(text).finalized() is None


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
def test_anything_but_an_object_is_none(text):
    assert _fed(text).finalized() is None


def test_raw_control_characters_in_strings_are_escaped():
    arguments = Arguments()
    out = [arguments.feed(piece)[0] for piece in ('{\n"a": "b', "\n\\", '\t"', ',\t"c":"\x00"}')]
    assert "".join(out) == '{\n"a": "b\\u000a\\\\u0009",\t"c":"\\u0000"}'


def test_white_space_without_end_is_noticed():
    arguments = _fed('{"a":1,', *["\n" * 100] * 5)
    assert not arguments.is_runaway
    arguments.feed(" ")
    assert arguments.is_runaway
    assert _fed('{"a":1,' + "\n" * 501 + '"b":2}').is_runaway


def test_white_space_in_strings_may_be_long():
    arguments = _fed('{"a":"' + " " * 9999, " " * 9999 + '"', *['\n  , "b": 1'] * 300)
    assert not arguments.is_runaway


@pytest.mark.parametrize("piece", ["{a", "  ", "[]"])
def test_anything_but_an_object_is_read_in_linear_time(piece):
    arguments, start = _fed('"'), process_time()
    for _ in range(20_000):
        arguments.feed(piece)
        assert not arguments.is_placeholder
    assert process_time() - start < 1


UNITS = st.text(st.sampled_from('a\\u"ü\ud83d\ude00😀'), max_size=8)
CUTS_HALVES = st.lists(st.integers(0, 80), max_size=6)


def _fed_halves(text: str, cuts: list[int], *, escaped: bool) -> str:
    halves = SurrogateJoiner(escaped=escaped)
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
    assert whole_characters(text) == whole


@given(UNITS, CUTS_HALVES)
def test_it_does_not_matter_where_a_text_is_cut(text, cuts):
    assert _fed_halves(text, cuts, escaped=False) == whole_characters(text)


@given(UNITS, CUTS_HALVES)
def test_it_does_not_matter_where_json_is_cut(text, cuts):
    written = json.dumps({"a": text})
    said = json.loads(_fed_halves(written, cuts, escaped=True))
    assert said == {"a": whole_characters(text)}


@pytest.mark.parametrize("text", [r"\ud83d x", r"\\ud83d", r"\\\ud83d", "\\" * 2001])
def test_only_escapes_are_taken_for_halves(text):
    runs = len(text) - len(text.lstrip("\\"))
    is_escape = runs % 2 and "u" in text
    assert _fed_halves(text, [runs], escaped=True) == (text.replace("ud83d", "ufffd") if is_escape else text)
