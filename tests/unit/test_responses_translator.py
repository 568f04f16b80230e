"""The reader of Responses; the golden files show whole answers."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.writer import LARGEST
from signalbox.openai.ids import unpack
from signalbox.responses.stream import ResponsesStream, usage_of
from signalbox.routing.translator import Translator
from tests.support.request_validator import check_events
from tests.support.responses import (
    arguments,
    created,
    ended,
    event,
    function_call,
    item_added,
    item_done,
    message,
    reasoning,
    text_delta,
    web_search,
)
from tests.support.responses_streams import OWNER, RESPONSES, responses

CALL = function_call("Read", call_id="call_1aB3")
SHOWN = [
    text_delta("Hi"),
    event("response.refusal.delta", output_index=0, content_index=0, delta="No."),
    event("response.reasoning_summary_text.delta", output_index=0, summary_index=0, delta="Hm."),
    item_added(CALL) + arguments("{"),
    item_done(web_search("foo")),
]
NOT_SHOWN = [
    event("response.in_progress", response={"status": "in_progress"}),
    event("response.queued", response={"status": "queued"}),
    event("keepalive"),
    event("codex.rate_limits", rate_limits={}),
    item_added(message("")),
    event("response.content_part.added", output_index=0, content_index=0, part={}),
    text_delta("", index=0),
    text_delta(" \n", index=0),
    item_added(reasoning()),
    item_done(reasoning(blob="gAAA")),
    item_done(web_search("", type="open_page")),
    event("response.web_search_call.searching", output_index=0),
    event("response.something.new", output_index=0, delta="?"),
]


def test_responses_translator_satisfies_the_protocol():
    one: Translator = responses()
    assert not one.is_identity


@pytest.mark.parametrize("piece", NOT_SHOWN, ids=range(len(NOT_SHOWN)))
def test_nothing_that_comes_before_the_first_shown_piece_is_an_answer(piece):
    reader = RESPONSES.reader()
    assert reader.feed(created() + piece) == b""
    assert not reader.facts.began


@pytest.mark.parametrize("piece", SHOWN, ids=range(len(SHOWN)))
def test_an_answer_begins_with_its_first_shown_piece(piece):
    reader = RESPONSES.reader()
    assert reader.feed(created() + piece)
    assert reader.facts.began


def test_thinking_that_the_client_did_not_ask_for_is_no_answer():
    reader = RESPONSES.reader(shows_thinking=False)
    assert reader.feed(created() + SHOWN[2]) == b""
    assert not reader.facts.began


def test_an_event_leaves_as_soon_as_its_bytes_are_in():
    reader = RESPONSES.reader()
    assert b'"text":"Hi"' in reader.feed(created() + text_delta("Hi"))
    assert b'"text":"!"' in reader.feed(text_delta("!"))
    assert b"content_block_stop" in reader.feed(item_done(message("Hi!")))
    assert reader.feed(item_added(CALL, 1)) == b""
    assert b'"name":"Read"' in reader.feed(arguments('{"pa', 1))
    assert b"content_block_stop" in reader.feed(arguments('th":"a"}', 1))
    assert not reader.over
    assert b"message_stop" in reader.feed(ended())
    assert reader.over
    assert reader.finished
    assert reader.end() == b""


@pytest.mark.parametrize("shows", [True, False])
def test_text_streams_after_reasoning_that_does_not_end(shows):
    """As some servers send it (openai-responses.md, 8)."""
    reader = RESPONSES.reader(shows_thinking=shows)
    reader.feed(created() + SHOWN[2])
    told = reader.feed(text_delta("Hi", 1))
    assert (b"content_block_stop" in told, b'"text":"Hi"' in told) == (shows, True)
    assert b'"text":"!"' in reader.feed(text_delta("!", 1))
    rest = reader.feed(item_done(reasoning("Hm.", blob="gAAA-fake")) + ended())
    assert b'thinking"' not in rest, "what ends late is not told at another place"


RAW = event("response.reasoning_text.delta", output_index=0, content_index=0, delta="Long and raw.")
ANSWERED = [item_done(message("Hi"), 1), ended()]


@pytest.mark.parametrize(
    ("done", "shown"),
    [
        ([item_done(reasoning("Short."))], "Short."),
        ([item_done(reasoning())], "Long and raw."),
        ([], "Long and raw."),
    ],
    ids=["summary", "no summary", "no end"],
)
def test_a_whole_answer_shows_the_summary_where_there_is_one(done, shown):
    whole = RESPONSES.fed([created(), RAW, *done, *ANSWERED], streams=False).message()["content"]
    assert [(block["type"], block.get("thinking", block.get("text"))) for block in whole] == [
        ("thinking", shown),
        ("text", "Hi"),
    ]


def test_a_stream_shows_raw_reasoning_at_once():
    reader = RESPONSES.reader()
    assert b"Long and raw." in reader.feed(created() + RAW)
    assert b"Short." not in reader.feed(b"".join([item_done(reasoning("Short.")), *ANSWERED]))


def test_a_search_comes_before_the_text_that_names_its_results():
    reader = RESPONSES.reader()
    told = reader.feed(created() + item_done(web_search("foo", "https://a.example")))
    assert b'"server_tool_use"' in told
    assert reader.feed(text_delta("Foo.", 1)) == b""
    said = reader.feed(item_done(message("Foo."), 1))
    assert said.index(b"web_search_tool_result") < said.index(b"Foo.")


def test_text_streams_after_a_search_beside_other_tools():
    reader = RESPONSES.reader(only_searches=False)
    found = reader.feed(created() + item_done(web_search("foo", "https://a.example/one")))
    assert b'"title":"a.example"' in found
    assert b"Foo." in reader.feed(text_delta("Foo.", 1))


def test_text_streams_after_a_search_whose_results_have_titles():
    search = web_search("foo") | {"results": [{"url": "https://a.example", "title": "A"}]}
    reader = RESPONSES.reader()
    assert b"web_search_tool_result" in reader.feed(created() + item_done(search))
    assert b"Foo." in reader.feed(text_delta("Foo.", 1))


PIECES = st.lists(st.text("ab ", min_size=1, max_size=4), max_size=4)
OBJECTS = st.dictionaries(st.text(max_size=4), st.text(max_size=9) | st.integers(), max_size=3)


@given(st.data())
def test_items_that_come_at_the_same_time_are_written_one_after_the_other(data):
    """Calls, texts and thinking, each in its own order, in any interleaving; some servers leave out the
    beginning or the end of an item, or the pieces."""
    wires: list[list[bytes]] = []
    expected: list[tuple[str, Any]] = []
    for index, kind in enumerate(data.draw(st.lists(st.sampled_from(["call", "text", "think"]), max_size=4))):
        skips = data.draw(st.sets(st.sampled_from(["added", "done"])))
        pieces = data.draw(PIECES)
        if kind == "call":
            value = data.draw(OBJECTS)
            text = json.dumps(value)
            cut = data.draw(st.integers(0, len(text)))
            item = function_call(f"Tool{index}", text, call_id=f"call_{index}aB")
            wire = [arguments(part, index) for part in (text[:cut], text[cut:])]
            skips -= {"added"}
            expected.append((f"Tool{index}", value))
        elif kind == "text":
            item, wire = message("".join(pieces)), [text_delta(piece, index) for piece in pieces]
            expected.append(("text", "".join(pieces)))
        else:
            said = "".join(pieces)
            item = reasoning(said, blob="gAAA")
            wire = [
                event(
                    "response.reasoning_summary_text.delta", output_index=index, summary_index=0, delta=piece
                )
                for piece in pieces
            ]
            expected.append(("thinking", said))
        begins = [] if "added" in skips else [item_added(item | {"content": [], "summary": []}, index)]
        ends = [] if "done" in skips else [item_done(item, index)]
        wires.append([*begins, *wire, *ends])
    order: list[bytes] = []
    while any(wires):
        order.append(data.draw(st.sampled_from([left for left in wires if left])).pop(0))
    result = RESPONSES.fed([created(), *order, ended()])
    assert not result.cut
    told = _told(result.events())
    calls = sorted((name, value) for name, value in expected if name.startswith("Tool"))
    for kind in ("text", "thinking"):
        said = sorted("".join(text for one, text in expected if one == kind).replace(" ", ""))
        assert sorted("".join(text for one, text in told if one == kind).replace(" ", "")) == said
    assert sorted((name, json.loads(value)) for name, value in told if name.startswith("Tool")) == calls


def _told(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Kind or tool of each block, and its text; the stream is well-formed."""
    check_events(events)
    told: list[tuple[str, str]] = []
    for one in events:
        match one:
            case {"content_block": {"type": "tool_use", "name": name}}:
                told.append((name, ""))
            case {"content_block": {"type": kind}}:
                told.append((kind, ""))
            case {"delta": {"type": "text_delta" | "thinking_delta" | "input_json_delta" as kind, **rest}}:
                told[-1] = (told[-1][0], told[-1][1] + "".join(rest.values()))
    return told


KEYS = st.sampled_from(
    [
        "type", "output_index", "content_index", "summary_index", "delta", "text", "refusal", "arguments",
        "item", "item_id", "id", "call_id", "name", "status", "response", "output", "usage", "error", "code",
        "message", "content", "summary", "encrypted_content", "annotation", "annotations", "url", "title",
        "action", "sources", "query", "queries", "incomplete_details", "reason", "model", "status_code",
        "input_tokens", "input_tokens_details", "cached_tokens",
    ]
)  # fmt: skip
TYPES = st.sampled_from(
    [
        "response.created", "response.output_item.added", "response.output_item.done",
        "response.output_text.delta", "response.output_text.done", "response.refusal.delta",
        "response.output_text.annotation.added", "response.reasoning_summary_text.delta",
        "response.reasoning_text.done", "response.function_call_arguments.delta",
        "response.function_call_arguments.done", "response.custom_tool_call_input.done",
        "response.completed", "response.incomplete", "response.failed", "error", "function_call", "message",
        "reasoning", "web_search_call", "custom_tool_call", "search", "url_citation", "output_text",
    ]
)  # fmt: skip
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["{}", "completed", "incomplete", "failed"])
    | TYPES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=14,
)
EVENTS = st.tuples(TYPES, st.dictionaries(KEYS, ANYTHING, max_size=5)).map(
    lambda both: both[1] | {"type": both[0]}
)


@given(st.lists(ANYTHING | EVENTS, max_size=6), st.booleans())
def test_no_field_of_any_type_is_a_fault_of_ours(values, streams):
    wire = [b"data: %b\n\n" % json.dumps(value).encode() for value in values]
    result = RESPONSES.fed([*wire, ended()], streams=streams)
    assert "while it was translated" not in result.cut
    if streams:
        check_events(result.events(), is_cut=bool(result.cut))


@given(st.dictionaries(KEYS, ANYTHING, max_size=6))
def test_no_field_of_a_whole_answer_is_a_fault_of_ours(value):
    result = RESPONSES.fed([json.dumps(value | {"object": "response"}).encode()], streams=False)
    assert "while it was translated" not in result.cut


@given(st.lists(st.binary(max_size=300)), st.booleans())
def test_no_bytes_raise(chunks, streams):
    result = RESPONSES.fed([b"data: {", *chunks], streams=streams)
    assert result.cut or result.error is not None


@pytest.mark.parametrize(
    "piece",
    [
        text_delta("x" * 60),
        arguments("x" * 60),
        event("response.reasoning_summary_text.delta", output_index=0, summary_index=0, delta="x" * 60),
        item_done(message("x" * 60)),
    ],
)
def test_memory_is_bounded(piece):
    stream = ResponsesStream(
        AnswerFacts(), RESPONSES.translator().context, awaits_titles=True, sign=OWNER.signature, largest=300
    )
    for _ in range(3):
        stream.event(piece.removesuffix(b"\n\n"))
    assert stream.facts.cut == "the answer is too large"


def test_the_number_of_items_is_bounded():
    result = RESPONSES.fed([item_added(message(""), n) for n in range(1001)])
    assert result.cut == "there are too many items"


def test_a_whole_answer_is_bounded():
    assert RESPONSES.fed([b"{", b" " * LARGEST]).cut == "the answer is too large"


@pytest.mark.parametrize("error", [{"code": "server_error", "message": "no"}, None], ids=["said", "unsaid"])
@pytest.mark.parametrize("streams", [True, False])
def test_the_usage_of_a_response_that_failed_counts(error, streams):
    used = {"input_tokens": 50, "input_tokens_details": {"cached_tokens": 20}, "output_tokens": 7}
    reader = RESPONSES.reader(streams=streams)
    reader.feed(created() + text_delta("Hi") + ended("failed", error=error, usage=used))
    usage = reader.facts.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (30, 20, 7)
    assert reader.facts.provider_error


def test_an_internal_error_leaks_no_response_to_the_client():
    reader = RESPONSES.reader(estimate=lambda: 1 // 0)
    assert reader.feed(text_delta("Hi")) == reader.end() == b""
    assert reader.facts.cut == "ZeroDivisionError while it was translated"


def test_secrets_are_taken_out_of_errors():
    translator = responses(secrets=("key-for-tests-0001",))
    reader = translator.reader("", "", request_id="req_fake")
    said = reader.feed(ended("failed", error={"code": "server_error", "message": "bad key-for-tests-0001"}))
    assert b"key-for-tests-0001" not in said + (reader.facts.provider_error or b"")
    assert (
        b"key-for-tests-0001" not in translator.error(401, b'{"error":{"message":"key-for-tests-0001"}}')[1]
    )


def test_errors_have_anthropics_shape():
    status, body = responses().error(503, b'{"error":{"message":"busy"}}')
    assert status == 529
    assert json.loads(body)["error"] == {"type": "overloaded_error", "message": "fake: busy"}


def test_an_error_without_a_message_is_reported_by_its_code_and_a_refused_login_with_its_remedy():
    """openai-responses.md, 9: a workspace that is closed, a token that was withdrawn."""
    codex = responses(remedy="run codex login")
    assert b": deactivated_workspace" in codex.error(402, b'{"detail":{"code":"deactivated_workspace"}}')[1]
    assert b": Unauthorized: run codex login" in codex.error(401, b'{"detail":"Unauthorized"}')[1]


def test_the_id_of_a_call_leads_back_to_the_providers():
    for id in ("call_0aB3", "call_0", "functions.Read:0", "x" * 64, "é"):
        item = function_call("Read", "{}", call_id=id)
        (call,) = RESPONSES.fed([created() + item_done(item) + ended()], streams=False).message()["content"]
        assert unpack(call["id"])[0] == id


def test_the_signature_gives_the_encrypted_reasoning_back():
    wire = created() + item_done(reasoning("Hm.", blob="gAAAfull")) + item_done(message("Hi"), 1) + ended()
    block, _ = RESPONSES.fed([wire], streams=False).message()["content"]
    assert OWNER.encrypted_content(block["signature"]) == "gAAAfull"


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(
    ("content_type", "name"), [("", "text"), ("application/json", "whole"), ("", "whole")]
)
def test_the_form_is_read_from_the_body(content_type, name, streams):
    reader = RESPONSES.reader(content_type=content_type, streams=streams)
    out = reader.feed(RESPONSES.case(name).sent) + reader.end()
    assert reader.content_type == ("text/event-stream; charset=utf-8" if streams else "application/json")
    assert out.startswith(b"event: message_start" if streams else b'{"id":"msg_Seed"')


def test_cached_and_written_tokens_are_no_input_tokens():
    details = {"cached_tokens": 20, "cache_write_tokens": 30}
    assert usage_of({"input_tokens": 100, "input_tokens_details": details, "output_tokens": 7}) == {
        "input_tokens": 50,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 20,
        "output_tokens": 7,
    }


def test_pieces_of_a_stream_may_be_cut_anywhere():
    wire = RESPONSES.case("search").sent
    whole = RESPONSES.fed([wire])
    for at in range(0, len(wire), 97):
        assert RESPONSES.fed([wire[a:b] for a, b in pairwise((0, at, len(wire)))]) == whole
