"""Odd answers of providers that speak chat completions, or something else than the rules say."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support import chat
from tests.support.answers import (
    USAGE,
    Answer,
    error_json,
    json_answer,
    message_events,
    message_sse,
    sse,
    text_block,
)
from tests.support.golden_streams import events_of
from tests.support.playbook import Playbook, Provider
from tests.support.played_wire import Got, request
from tests.support.raw_client import both
from tests.support.request_validator import check_events

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client, circuit: &never {degraded_after: 100000, open_after: 100000}}
  up: {url: "http://up.invalid/v1", api: openai, circuit: *never}
  keyed: {url: "http://up.invalid/v1", api: openai, key: key-for-tests-0001, circuit: *never}
  mislabelled: {url: "http://up.invalid", key: key-for-tests-0002, circuit: *never}
rules:
  - {match: "mislabelled-then-home-*", to: [mislabelled, anthropic]}
  - {match: "mislabelled-*", to: mislabelled}
  - {match: "keyed-*", to: keyed}
  - {match: "up-then-home*", to: [up, anthropic]}
  - {match: "home-then-up-*", to: [anthropic, up]}
  - {match: "*", to: up}
log: {level: debug}
"""  # noqa: E501  as rules are written

STREAM = (("Content-Type", "text/event-stream"),)
UNCOUNTED = json_answer(json.loads(chat.completion().body) | {"usage": None})
"""A whole answer that tells no usage."""
LIMITS = (
    ("Anthropic-Ratelimit-Unified-Status", "rejected"),
    ("anthropic-ratelimit-unified-7d-utilization", "1.0"),
    ("anthropic-ratelimit-unified-representative-claim", "seven_day"),
)
FAULT = b'data: {"error": {"message": "out of memory", "code": 503}}\n\n'
PING = b"event: ping\n"


@pytest.fixture
def ask(play: Playbook, home: Provider) -> Callable[..., Got]:
    """Where nothing else is scripted, the other target answers."""

    def ask(model: str, *, stream: bool = True) -> Got:
        return play.ask(model, stream=stream)

    return ask


@both
@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        (chat.text_stream(), 17),
        (chat.text_stream()[:-1], 17),
        ([*chat.text_stream()[:-2], 1.0, *chat.text_stream()[-2:-1]], 17),
        (chat.text_stream()[:-2], 0),
    ],
    ids=["done", "usage", "late-usage", "finish"],
)
def test_an_answer_that_has_said_all_is_over_though_its_connection_stays_open(
    ask, play, up, never, said, tokens, stream
):
    up.answer(chat.stream([*said, never]), chat.completion())
    ask("open", stream=stream)
    play.passes(2.1)
    assert b"end_turn" in play.got.body
    assert play.got.state == "ended"
    assert play.aborted == [up.requests[0].server]
    assert ask("next", stream=stream).status == 200
    record, _ = play.records(2)
    assert (record["status"], record["attempts"], record["output_tokens"]) == ("success", "up:200", tokens)


@both
@pytest.mark.parametrize("said", [chat.text_stream(), chat.text_stream()[:-2]], ids=["done", "finish"])
def test_an_answer_that_has_said_all_is_whole_though_its_connection_breaks(ask, play, up, said, stream):
    up.answer(Answer(200, STREAM, tuple(said), "chunked", cut="close"))
    assert b"end_turn" in ask("breaks", stream=stream).body
    assert play.records(1)[0]["status"] == "success"


@both
def test_an_answer_that_goes_on_after_its_end_was_told_is_not_cut_short(ask, up, stream):
    more = [chat.chunk({"content": " then"}), 2.5, chat.chunk({"content": " and on"})]
    up.answer(chat.stream([*chat.text_stream()[:-1], *more, *chat.text_stream()]))
    assert b" and on" in ask(f"more-{stream}", stream=stream).body


EMPTY = [chat.chunk({"content": "", "reasoning_content": "Hm."}), *chat.text_stream()[-3:]]
"""Thinking that the client did not ask for counts for nothing."""


@both
def test_an_empty_answer_is_one_of_the_next_target(ask, up, home, stream):
    up.answer(chat.stream(EMPTY), chat.completion(content=""))
    answer = ask(f"up-then-home-empty-{stream}", stream=stream)
    assert answer.headers["x-signalbox-attempts"] == "up:stream_error anthropic:200"


def test_an_empty_answer_of_the_last_target_is_an_overload(ask, up):
    up.answer(chat.completion(content=""))
    answer = ask("empty-whole", stream=False)
    assert (answer.status, answer.error["type"]) == (529, "overloaded_error")
    assert answer.error["message"] == "up: the answer is empty"


def test_an_empty_stream_of_the_last_target_ends_with_an_overload(ask, up):
    up.answer(chat.stream(EMPTY))
    said = ask("empty-stream").body.rstrip().splitlines()
    assert said[-2] == b"event: error"
    assert b'"overloaded_error","message":"up: the answer is empty"' in said[-1]


def test_an_answer_that_ends_soon_keeps_its_connection(ask, up):
    up.answer(chat.stream([*chat.text_stream(), 0.2]))
    for _ in range(2):
        assert b"message_stop" in ask("kept").body
    assert up.requests[0].server is up.requests[1].server


def test_an_error_within_an_answer_is_its_end_though_its_connection_stays_open(ask, play, up, never):
    up.answer(chat.stream([chat.chunk({"content": "Hel"}), FAULT, never]))
    ask("fault-open")
    play.passes(1.1)
    assert play.got.state == "ended"
    *_, event, data = play.got.body.rstrip().splitlines()
    assert event == b"event: error"
    assert b"out of memory" in data
    assert play.records(1)[0]["status"] == "error"


def test_an_error_before_an_answer_fails_over_though_its_connection_stays_open(ask, up, never):
    up.answer(chat.stream([FAULT, never]))
    answer = ask("up-then-home-open")
    assert answer.headers["x-signalbox-attempts"] == "up:stream_error anthropic:200"


UNREADABLE = {
    "page": Answer(200, (("Content-Type", "text/html"),), (b"<!doctype html><title>Log in</title>",)),
    "text": Answer(200, (("Content-Type", "text/plain"),), (b"Unexpected endpoint. Returning 200 anyway",)),
    "nothing": Answer(200, (("Content-Type", "application/json"),)),
    "no-content": Answer(204, framing="raw", chunks=(b"HTTP/1.1 204 No Content\r\n\r\n",)),
    "coding": Answer(200, (("Content-Encoding", "x-made-up"),), chat.completion().chunks),
}


@both
@pytest.mark.parametrize("how", UNREADABLE)
def test_what_is_no_answer_at_all_is_an_error_that_says_so(ask, up, how, stream):
    up.answer(UNREADABLE[how])
    answer = ask(f"none-{how}", stream=stream)
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (502, "up:stream_error")
    assert answer.error["message"].startswith("up gave no whole answer: ")


def test_the_debug_log_says_where_a_request_went_and_why_it_failed(ask, play, up, caplog):
    caplog.set_level("DEBUG", "signalbox")
    up.answer(chat.error(404, "no such model"))
    ask("gone")
    play.records(1)
    assert "→ up POST /v1/chat/completions" in caplog.messages
    assert "✗ up 404: no such model" in caplog.messages


def test_the_debug_log_says_why_a_stream_was_cut(ask, play, up, caplog):
    caplog.set_level("DEBUG", "signalbox")
    up.answer(chat.stream([chat.chunk({"content": "Hel"}), b"data: {]\n\n"]))
    assert ask("cut").state == "cut"
    play.records(1)
    assert "✗ up stream_error: a chunk is not JSON" in caplog.messages


OTHER_JSON = {
    "object": {},
    "message": {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
}


@both
@pytest.mark.parametrize("what", OTHER_JSON)
def test_json_that_is_no_chat_completion_is_an_error_that_says_so(ask, up, caplog, what, stream):
    up.answer(json_answer(OTHER_JSON[what]))
    answer = ask(f"none-{what}", stream=stream)
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (500, "up:stream_error")
    assert answer.error["message"].startswith("up: the answer is no chat completion; ")
    assert "error while" not in caplog.text


@both
def test_json_that_is_no_chat_completion_fails_over(ask, up, stream):
    up.answer(json_answer({}))
    answer = ask("up-then-home-none", stream=stream)
    assert answer.headers["x-signalbox-attempts"] == "up:stream_error anthropic:200"


SHAPES = {
    "choices-null": {"choices": None, "error_message": "out of memory"},
    "flat": {"code": 1234, "msg": "out of memory", "success": False},
    "list": {"errors": [{"message": "out of memory"}]},
}


@both
@pytest.mark.parametrize("provider", ["up", "mislabelled"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_error_of_any_shape_with_status_200_fails_over(ask, up, provider, shape, stream):
    up.answer(json_answer(SHAPES[shape]))
    answer = ask(f"{provider}-then-home-{shape}-{stream}", stream=stream)
    assert answer.headers["x-signalbox-attempts"] == f"{provider}:stream_error anthropic:200"


@both
@pytest.mark.parametrize(("provider", "status"), [("up", 500), ("mislabelled", 502)])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_error_of_any_shape_with_status_200_is_reported(ask, up, provider, status, shape, stream):
    up.answer(json_answer(SHAPES[shape]))
    answer = ask(f"{provider}-told-{shape}-{stream}", stream=stream)
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (status, f"{provider}:stream_error")
    assert answer.error["type"] == "api_error"
    assert "out of memory" in answer.error["message"]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_error_of_any_shape_ends_an_answer_that_has_begun(ask, play, up, shape):
    fault = b"data: " + json.dumps(SHAPES[shape]).encode() + b"\n\n"
    up.answer(chat.stream([chat.chunk({"content": "Hel"}), fault, chat.DONE]))
    *_, event, data = ask(f"begun-{shape}").body.rstrip().splitlines()
    assert event == b"event: error"
    assert b'"up: out of memory"' in data
    assert play.records(1)[0]["status"] == "error"


@both
def test_a_context_error_of_another_shape_has_anthropics_words(ask, up, stream):
    said = {
        "code": 400,
        "msg": "This model's maximum context length is 1000 tokens, you requested 2000 tokens.",
    }
    raw = b"data: " + json.dumps(said).encode() + b"\n\n"
    up.answer(chat.stream([raw]) if stream else json_answer(said))
    answer = ask(f"mislabelled-long-{stream}", stream=stream)
    assert answer.status == (200 if stream else 400)
    assert b"prompt is too long: 2000 tokens > 1000 maximum" in answer.body


def test_a_stream_of_messages_is_no_chat_completion_and_says_so(ask, play, up):
    up.answer(message_sse())
    answer = ask("messages-stream")
    *_, event, data = answer.body.rstrip().splitlines()
    assert (answer.status, event) == (200, b"event: error")
    assert b"up: the answer is no chat completion; look at the provider's url and api" in data
    assert play.records(1)[0]["status"] == "error"


def test_a_stream_of_messages_fails_over_before_it_ends(ask, up, never):
    up.answer(sse(*message_events("m", [text_block("Hi")], [], USAGE, USAGE)[:2], never))
    answer = ask("up-then-home-messages")
    assert answer.headers["x-signalbox-attempts"] == "up:stream_error anthropic:200"


@both
def test_a_chat_completion_is_no_message_and_fails_over(ask, up, stream):
    up.answer(chat.stream(chat.text_stream()) if stream else chat.completion())
    answer = ask(f"mislabelled-then-home-chat-{stream}", stream=stream)
    assert answer.headers["x-signalbox-attempts"] == "mislabelled:stream_error anthropic:200"


@pytest.mark.parametrize(("streamed", "stream"), [(True, True), (False, True), (False, False)])
def test_a_chat_completion_is_no_message_and_says_so(ask, play, up, streamed, stream):
    up.answer(chat.stream(chat.text_stream()) if streamed else chat.completion())
    session = f"mislabelled-chat-{streamed}-{stream}"
    answer = ask(session, stream=stream)
    said = answer.body if answer.status == 502 else answer.body.rstrip().splitlines()[-1]
    assert answer.status == (200 if streamed else 502)
    assert b"mislabelled gave no answer: " in said
    assert b"the answer is a chat completion and no message; look at the provider's api" in said
    assert b"Hello" not in answer.body
    assert play.records(1)[0]["status"] == "error"


@both
@pytest.mark.parametrize("status", [302, 304])
def test_a_redirect_is_an_error(ask, up, status, stream):
    head = b"HTTP/1.1 %d Scripted\r\nLocation: http://127.0.0.1:1/\r\n" % status
    up.answer(
        Answer(
            status,
            framing="raw",
            chunks=(head + (b"\r\n" if status == 304 else b"Content-Length: 0\r\n\r\n"),),
        )
    )
    answer = ask(f"moved-{status}", stream=stream)
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (502, f"up:{status}")
    assert "location" not in answer.headers


@both
def test_an_error_instead_of_an_answer_has_its_status(ask, up, stream):
    up.answer(json_answer({"error": {"message": "overloaded", "code": 503}}))
    answer = ask("said-503", stream=stream)
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (529, "up:stream_error")
    assert answer.error["message"] == "up: overloaded"


@both
def test_a_long_error_is_reported_before_it_is_all_in(ask, play, up, never, stream):
    page = b"<html><title>Bad gateway</title>" + b"x" * 50_000
    up.answer(
        Answer(502, (("Content-Type", "text/html"),), (page, 0.1, page, never), "chunked"), chat.completion()
    )
    ask("long", stream=stream)
    play.passes(2)
    answer = play.got
    assert (answer.status, answer.error["message"]) == (502, "up: Bad gateway")
    assert play.aborted == [up.requests[0].server]
    assert ask("after", stream=stream).status == 200


@both
def test_attempts_tell_what_the_provider_said_and_not_what_became_of_it(ask, play, up, stream):
    up.answer(chat.error(401, "no such key"))
    answer = ask(f"keyed-{stream}", stream=stream)
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (403, "keyed:401")
    assert play.records(1)[0]["attempts"] == "keyed:401"


@pytest.mark.parametrize(
    ("header", "value", "told"),
    [
        ("Retry-After", "7", "7"),
        ("Retry-After-Ms", "1500", "2"),
        ("X-RateLimit-Reset-Requests", "6m0s", "360"),
    ],
)
def test_when_to_come_back_is_reported_in_seconds(ask, up, header, value, told):
    up.answer(json_answer({"error": {"message": "slow down"}}, 429, [(header, value)]))
    answer = ask(f"slow-{header}")
    assert (answer.status, answer.headers["retry-after"]) == (429, told)


DEEP = (
    b'{"model":"%s","max_tokens":9,"messages":[{"role":"user","content":' + b"[" * 900 + b"]" * 900 + b"}]}"
)


@pytest.mark.parametrize("model", [b"up-then-home-deep", b"home-then-up-deep"])
def test_what_cannot_be_translated_after_all_goes_to_those_who_need_no_translation(
    ask, play, home, up, model
):
    if model.startswith(b"home"):
        home.answer(json_answer({"type": "error", "error": {"type": "api_error", "message": "busy"}}, 500))
    raw = DEEP % model
    play.client_sends(request(raw))
    answer = play.got
    assert answer.status == (500 if model.startswith(b"home") else 200)
    assert home.requests[0].body == raw
    assert up.requests == []


# pings

SILENT = [part for _ in range(21) for part in (b": keep-alive\n\n", 1.0)]
"""Longer than two pings are apart."""


def check(body: bytes) -> None:
    """That this is a whole, well-formed stream."""
    events = [event for event in events_of(body) if event["type"] != "ping"]
    check_events(events)
    assert events[-1]["type"] == "message_stop"


@pytest.mark.parametrize("model", ["alone", "up-then-home"])
@pytest.mark.parametrize(
    "silent",
    [SILENT, [chat.chunk({"reasoning_content": "Hm."}), *SILENT], [*chat.text_stream()[:2], *SILENT]],
    ids=["comments", "hidden thinking", "after its beginning"],
)
def test_while_nothing_comes_that_can_be_shown_the_client_gets_pings(ask, up, model, silent):
    up.answer(chat.stream([*silent, *chat.text_stream()]))
    answer = ask(model)
    assert answer.headers["x-signalbox-provider"] == "up"
    assert answer.body.count(PING) == 2
    check(answer.body)


@pytest.mark.parametrize("model", ["alone", "up-then-home"])
def test_an_answer_in_one_piece_is_waited_for_with_pings_where_a_stream_was_asked_for(ask, up, model):
    """Some send white space meanwhile (openai-chat.md, 2)."""
    whole = chat.completion()
    spaces = tuple(part for _ in range(21) for part in (b"\n", 1.0))
    up.answer(Answer(200, whole.headers, (*spaces, *whole.chunks), "chunked"))
    answer = ask(model)
    assert answer.body.count(PING) == 2
    check(answer.body)


@pytest.mark.parametrize("end", [[chat.DONE], []], ids=["done", "not done"])
def test_an_answer_that_begins_after_pings_comes_to_its_end(ask, up, end):
    said = [chat.chunk({"content": "Late"}), chat.chunk({}, "stop"), *end]
    up.answer(chat.stream([*SILENT, *said]))
    answer = ask("up-then-home")
    assert answer.body.startswith(PING)
    check(answer.body)


def test_an_error_after_pings_has_the_id_that_its_head_told(ask, up, home):
    up.answer(chat.stream([*SILENT, FAULT], [("x-request-id", "req_of_up")]))
    busy = error_json(500, "api_error")
    home.answer(Answer(500, (*busy.headers, ("request-id", "req_of_home")), busy.chunks))
    answer = ask("up-then-home")
    assert answer.headers["request-id"].startswith("req_")
    assert events_of(answer.body)[-1]["request_id"] == answer.headers["request-id"]


def test_requests_over_http2_share_a_connection_though_one_never_ends(played_router):
    client = played_router.connect(alpn=b"h2")
    said = chat.stream(chat.text_stream())
    numbers = []
    for n in range(4):
        numbers.append(client.asks("http2"))
        while client.opening:
            client.connects(alpn=b"h2")
        client.answers(Answer(200, said.headers, said.chunks, cut="close") if n == 1 else said)
        client.passes(1.1)
    for number in numbers:
        assert client.others[number].state == "ended"
        check(client.others[number].body)
    assert len({asked.server for asked in client.asked}) == 1
    assert len(client.resets(client.asked[0].server)) == 1


# failing over, leaving, and what is answered here

FAILURES = {
    "status": chat.error(500, "scripted"),
    "gemini": json_answer([{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}], 503),
    "error-with-200": json_answer({"error": {"message": "no", "code": 502}}),
    "error-chunk": chat.stream(
        [chat.chunk({"role": "assistant"}), b'data: {"error": {"message": "no"}}\n\n']
    ),
    "empty": chat.stream([chat.chunk({"content": ""}), chat.chunk({}, "stop"), chat.DONE]),
    "cut": chat.stream([chat.chunk({"role": "assistant", "content": ""})]),
    "nothing": chat.stream([]),
    "html": Answer(502, (("Content-Type", "text/html"),), (b"<html><title>Bad gateway</title></html>",)),
}


@both
@pytest.mark.parametrize("how", FAILURES)
def test_a_failure_before_an_answer_fails_over_to_anthropic(ask, up, home, how, stream):
    up.answer(FAILURES[how])
    answer = ask(f"up-then-home-{how}-{stream}", stream=stream)
    assert answer.status == 200
    assert answer.headers["x-signalbox-attempts"].split()[1] == "anthropic:200"
    assert len(home.requests) == 1


def test_chat_completions_take_over_from_anthropic(ask, up, home):
    home.answer(error_json(529, "overloaded_error"))
    up.answer(chat.stream(chat.text_stream()))
    check(ask("home-then-up-x").body)
    assert up.requests[0].json["messages"] == [{"role": "user", "content": "hi"}]


@both
@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        (chat.error(400, "bad", type="invalid_request_error"), 400, "invalid_request_error"),
        (chat.error(429, "Rate limit reached", code="rate_limit_exceeded"), 429, "rate_limit_error"),
        (chat.error(503, "busy"), 529, "overloaded_error"),
    ],
)
def test_an_error_has_anthropics_shape(ask, up, answer, status, kind, stream):
    up.answer(answer)
    got = ask("shape", stream=stream)
    assert (got.status, got.error["type"]) == (status, kind)


def test_a_prompt_that_is_too_long_is_said_in_the_words_on_which_claude_code_compacts(ask, up):
    said = "Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)"
    up.answer(chat.error(400, said, type="invalid_request_error"))
    got = ask("long", stream=False)
    assert (got.status, got.error["type"]) == (400, "invalid_request_error")
    assert "prompt is too long: 269030 tokens > 262144 maximum" in got.error["message"]


def test_an_answer_that_breaks_off_is_cut_for_the_client_too(ask, up):
    up.answer(chat.stream([chat.chunk({"role": "assistant", "content": "Hel"})]))
    got = ask("broken")
    assert b'"Hel"' in got.body
    assert b"message_stop" not in got.body
    assert got.state == "cut"


def test_a_client_that_leaves_ends_the_request_there_at_once(ask, play, up, never):
    up.answer(chat.stream([chat.chunk({"content": "Hel"}), never]))
    assert b'"Hel"' in ask("left").body
    play.client_leaves()
    assert play.aborted == [up.requests[0].server]
    assert play.records(1)[0]["status"] == "cancelled"


SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def test_a_request_for_server_tools_alone_is_refused_in_words(play, up):
    got = play.ask("search", tools=[SEARCH])
    assert (got.status, got.error["type"]) == (400, "invalid_request_error")
    assert "web_search" in got.error["message"]
    assert not up.requests


def test_a_request_for_server_tools_alone_goes_to_the_next_target(play, up, home):
    assert play.ask("up-then-home-search", tools=[SEARCH]).status == 200
    assert home.requests[0].json["tools"] == [SEARCH]
    assert not up.requests


def test_half_a_character_is_translated_as_one_that_can_be_written(play, up):
    """JavaScript sends these where a text was cut in the middle of an emoji."""
    up.answer(chat.completion())
    play.client_sends(
        request(rb'{"model":"x","max_tokens":9,"messages":[{"role":"user","content":"half \ud83d, whole"}]}')
    )
    assert play.got.status == 200
    assert up.requests[0].json["messages"] == [{"role": "user", "content": "half \ufffd, whole"}]


@pytest.mark.parametrize(
    "answer",
    [
        replace(chat.completion(), headers=LIMITS),
        chat.stream(chat.text_stream(), headers=LIMITS),
        error_json(429, "rate_limit_error", headers=LIMITS),
    ],
)
def test_limits_of_a_provider_of_another_protocol_are_not_told_as_those_of_the_plan(ask, up, answer):
    up.answer(answer)
    got = ask("limits", stream=False)
    assert got.status == answer.status
    assert not [name for name in got.headers if name.startswith("anthropic-")]


@both
def test_an_estimate_for_tokens_that_are_not_counted_is_shown_and_not_recorded(ask, play, up, stream):
    up.answer(chat.stream(chat.text_stream()[:-2]) if stream else UNCOUNTED)
    got = ask("uncounted", stream=stream)
    told = events_of(got.body) if stream else [json.loads(got.body)]
    usages = [event.get("message", event).get("usage", {}) for event in told]
    assert max(usage.get("input_tokens", 0) for usage in usages) > 0
    assert max(usage.get("output_tokens", 0) for usage in usages) == 3
    (record,) = play.records(1)
    assert (record["status"], record["input_tokens"], record["output_tokens"]) == ("success", 0, 0)
