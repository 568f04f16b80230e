"""Tool calls in progress, however their fragments are numbered, named and cut."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from signalbox.translate import calls as module
from signalbox.translate.calls import CallError, Calls
from signalbox.translate.chunks import Fragment
from signalbox.translate.writer import Writer
from tests.wellformed import check_events


def _run(parts: list[Fragment], *, signed: bool = False, is_cut: bool = False) -> list[dict]:
    writer = Writer("msg_fake", "m", lambda text: text)
    writer.begin("m")
    calls = Calls(writer, {}, "Seed", provider="fake", signed=signed)
    for part in parts:
        calls.take(part)
    calls.finish(is_cut=is_cut)
    writer.stop("tool_use", {"output_tokens": 0})
    events = writer.taken()
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


@settings(deadline=None)
@given(interleaved(), st.booleans())
def test_calls_survive_in_any_interleaving(case, signed):
    wanted, parts = case
    assert _told(_run(parts, signed=signed)) == wanted


@settings(deadline=None)
@given(interleaved())
def test_ids_alone_tell_calls_apart(case):
    wanted, parts = case
    ids = {part.index: part.id for part in parts if part.id}
    assert (
        _told(_run([Fragment(None, ids[part.index], part.name, part.arguments) for part in parts])) == wanted
    )


@settings(deadline=None)
@given(interleaved())
def test_names_and_ids_may_come_with_every_fragment(case):
    wanted, parts = case
    known = {part.index: part for part in parts if part.id}
    repeated = [
        Fragment(part.index, known[part.index].id, known[part.index].name, part.arguments) for part in parts
    ]
    assert _told(_run(repeated)) == wanted


@settings(deadline=None)
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
    calls = Calls(writer, {}, "Seed", provider="fake", signed=False)
    calls.take(Fragment(0, "call_1a2b3c", "Read"))
    calls.take(Fragment(1, "call_4d5e6f", "Bash", '{"command":"ls"}'))
    calls.take(Fragment(0, arguments='{"path":'))
    assert calls.running
    assert _told(writer.taken()[1:]) == [("Read", '{"path":')]
    calls.take(Fragment(0, arguments='"a"}'))
    assert not calls.running
    kinds = [event["type"].removeprefix("content_block_") for event in writer.taken()]
    assert kinds == ["delta", "stop", "start", "delta", "stop"]


def test_a_signed_call_waits_for_what_belongs_to_it():
    writer = Writer("msg_fake", "m", str)
    writer.begin("m")
    calls = Calls(writer, {}, "Seed", provider="fake", signed=True)
    calls.take(Fragment(0, "call_1a2b3c", "Read", "{}"))
    assert len(writer.taken()) == 1
    calls.take(Fragment(signature="c2ln"))
    calls.release()
    assert writer.taken()[0]["content_block"]["id"] != "call_1a2b3c"


def test_a_signed_call_is_not_begun_before_it_is_complete():
    writer = Writer("msg_fake", "m", str)
    calls = Calls(writer, {}, "Seed", provider="fake", signed=True)
    calls.take(Fragment(0, "call_1a2b3c", "Read", '{"path":'))
    calls.release()
    assert writer.taken() == []
    assert not calls.running


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
        ([Fragment(n, f"call_{n}x9y8z7", "Read") for n in range(9)], "too many tool calls"),
    ],
)
def test_what_is_no_call_is_told(monkeypatch, parts, why):
    monkeypatch.setattr(module, "_MOST", 8)
    with pytest.raises(CallError, match=why):
        _run(parts)
