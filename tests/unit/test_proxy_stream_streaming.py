"""Answers on their way to the client: as the bytes that were sent, tallied, and never harmed."""

import json

import pytest

from signalbox.routing.sessions import RATIO_RANGE
from tests.support.answers import (
    USAGE,
    Answer,
    compressed,
    error_json,
    event,
    json_answer,
    message_events,
    message_json,
    message_sse,
    sse,
    text_block,
    zai_sse,
)
from tests.support.playbook import Playbook
from tests.support.played_wire import raw_request

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client}
  zai: {url: "http://zai.invalid", key: zai-key-for-tests-0001, prices: {"glm-*": {input: 1, output: 2}}}
rules:
  - {match: "*haiku*", to: zai/glm-4.5-air}
  - {match: "*", to: anthropic}
"""


BOTH = pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-4-5"])


def shown_tokens(play: Playbook) -> int:
    """What the client is told at the start of the answer."""
    start = json.loads(play.got.body.split(b"data: ")[1].split(b"\n")[0])
    found: int = start["message"]["usage"]["input_tokens"]
    return found


@pytest.mark.parametrize("coding", [None, "gzip", "br", "zstd"])
def test_an_answer_of_the_callers_own_login_passes_as_the_bytes_that_were_sent(play, home, coding):
    sent = message_sse("claude-opus-4-5")
    sent = compressed(sent, coding) if coding else sent
    home.answer(sent)
    got = play.ask("claude-opus-4-5", stream=True, headers={"accept-encoding": "gzip, br, zstd"})
    assert got.body == sent.body
    assert home.requests[0].header("accept-encoding") == "gzip, br, zstd"
    (recorded,) = play.records(1)
    assert recorded["input_tokens"] == USAGE["input_tokens"]
    assert recorded["output_tokens"] == USAGE["output_tokens"]


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_compressed_against_the_request_is_decoded_where_its_model_changes(
    play, zai, coding, stream
):
    plain = message_sse("glm-4.5-air") if stream else message_json("glm-4.5-air")
    zai.answer(compressed(plain, coding))
    got = play.ask("claude-haiku-4-5", stream=stream)
    assert "content-encoding" not in got.headers
    assert got.body == plain.body.replace(b"glm-4.5-air", b"claude-haiku-4-5")
    assert zai.requests[0].header("accept-encoding") == "identity"


@pytest.mark.parametrize("cut", [60, -12], ids=["in the middle", "at the end"])
def test_an_answer_that_cannot_be_decoded_to_its_end_is_cut(play, zai, cut):
    whole = compressed(message_sse("glm"), "gzip")
    data = whole.body[:cut] if cut < 0 else whole.body[:cut] + b"\xff" * 40
    zai.answer(Answer(200, whole.headers, (data,), "chunked"))
    assert play.ask("claude-haiku-4-5", stream=True).state == "cut"
    assert play.records(1)[0]["status"] == "error"


def test_a_stream_that_starts_without_numbers_gets_an_estimate_that_is_not_recorded(play, zai):
    zai.answer(zai_sse("glm-4.5-air"))
    play.ask("claude-haiku-4-5", stream=True)
    assert 0 < shown_tokens(play) < 40
    (recorded,) = play.records(1)
    assert recorded["input_tokens"] == USAGE["input_tokens"]
    assert recorded["cache_read_input_tokens"] == USAGE["cache_read_input_tokens"]


def test_the_next_estimate_of_a_conversation_goes_by_what_its_provider_has_reported(play, zai):
    """Two requests of one length; the first was reported to be larger than it looks."""
    zai.answer(zai_sse("glm-4.5-air"))
    shown = []
    for _ in range(2):
        play.ask("claude-haiku-4-5", stream=True)
        shown.append(shown_tokens(play))
    reported = sum(USAGE[name] for name in USAGE if name != "output_tokens")
    assert shown[1] == min(reported, round(RATIO_RANGE[1] * shown[0])) > shown[0]


def test_a_request_is_recorded_and_logged_on_the_console(play, zai, caplog):
    zai.answer(zai_sse("glm-4.5-air"))
    play.ask("claude-haiku-4-5", stream=True, messages=[{"role": "user", "content": "Say hello\nto me"}])
    (recorded,) = play.records(1)
    assert list(recorded)[:8] == [
        "ts",
        "model",
        "backend",
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "status",
    ]
    told = ("model", "backend", "status", "upstream_model", "rule", "attempts", "session")
    assert [recorded[name] for name in told] == [
        "claude-haiku-4-5",
        "zai",
        "success",
        "glm-4.5-air",
        "#1",
        "zai:200",
        play.session,
    ]
    assert recorded["cost"] == pytest.approx((120 + 500 + 30 + 17 * 2) / 1e6)
    assert "hello" not in json.dumps(recorded)
    assert '[haiku|zai] 650→17 0ms $0.0007 "Say hello to me"' in caplog.messages


def test_a_client_that_leaves_is_logged_on_the_console_with_what_was_used(play, zai, never, caplog):
    events = message_events("glm", [text_block("")], ["half"], USAGE, USAGE)
    zai.answer(sse(*events[:4], never))
    play.ask("claude-haiku-4-5", stream=True)
    play.client_leaves()
    assert any("cancelled 650→17 0ms" in line for line in caplog.messages)


def test_an_error_inside_a_stream_passes_and_counts_as_one(play, zai, caplog):
    events = message_events("glm", [text_block("")], ["x"], USAGE, USAGE)
    failed = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    zai.answer(sse(*events[:3], failed))
    assert play.ask("claude-haiku-4-5", stream=True).body.endswith(failed)
    assert play.records(1)[0]["status"] == "error"
    assert any("[haiku|zai] 200 overloaded_error: Overloaded 0ms" in line for line in caplog.messages)


@BOTH
def test_a_providers_own_error_passes_unmodified(play, home, zai, caplog, model):
    wrong = error_json(429, "rate_limit_error", headers=(("retry-after", "7"),))
    for provider in (home, zai):
        provider.answer(wrong)
    got = play.ask(model, stream=True)
    assert (got.status, got.headers["retry-after"], got.body) == (429, "7", wrong.body)
    assert any("] 429 rate_limit_error: scripted 0ms" in line for line in caplog.messages)
    assert play.records(1)[0]["status"] == "error"


EVENTS = (("Content-Type", "text/event-stream"),)
GARBAGE = {
    "SSE": sse(b"\xff\xfe not an event \x00", b"data: {not json}\n\n", b"event: message_start\ndata: []\n\n"),
    "a page": Answer(200, EVENTS, (b"<html>oops</html>",)),
    "nothing": Answer(200, (("Content-Type", "application/json"),), (b"",)),
    "odd JSON": json_answer({"model": 7, "usage": "none"}),
}


@pytest.mark.parametrize("garbage", GARBAGE)
@BOTH
def test_an_answer_that_cannot_be_read_still_arrives(play, home, zai, caplog, garbage, model):
    sent = GARBAGE[garbage]
    for provider in (home, zai):
        provider.answer(sent)
    got = play.ask(model, stream=True)
    if garbage == "odd JSON":
        assert json.loads(got.body)["usage"] == "none"
    else:
        assert got.body == sent.body
    assert "Traceback" not in caplog.text


def test_an_answer_shorter_than_it_says_is_cut_for_the_client(play, home):
    answer = message_json()
    home.answer(Answer(200, answer.headers, answer.chunks, length=len(answer.body) + 10, cut="close"))
    assert play.ask("claude-opus-4-5").state == "cut"
    assert play.records(1)[0]["status"] == "error"


def test_an_answer_longer_than_it_says_ends_where_it_said(play, home):
    answer = message_json()
    home.answer(Answer(200, answer.headers, (*answer.chunks, b"tail of nobody"), length=len(answer.body)))
    for _ in range(2):
        assert play.ask("claude-opus-4-5").body == answer.body


def test_a_chunk_of_which_nothing_is_passed_on_yet_does_not_end_the_answer(play, zai, never):
    """The first half of a `message_start` waits for the other: its usage may have to be filled in."""
    zero = {"input_tokens": 0, "output_tokens": 0}
    first, *rest = message_events("glm", [text_block("")], ["Hello"], zero, USAGE)
    zai.answer(sse(first[:40], 0.3, first[40:], never))
    play.ask("claude-haiku-4-5", stream=True)
    assert play.got.body.count(b"event: message_start") == 1
    assert play.got.state == "open"
    asked = zai.requests[0]
    for chunk in rest:
        play.sends(asked.server, sse(chunk).frame(chunk))
    play.sends(asked.server, b"0\r\n\r\n")
    assert play.got.state == "ended"
    assert b"event: message_stop" in play.got.body


# what clients may do


@BOTH
def test_a_client_that_asks_whether_to_go_on_is_told_so_once(play, home, zai, model):
    data = raw_request(
        "POST /v1/messages",
        b'{"model": "%b"}' % model.encode(),
        Expect="100-continue",
        Authorization="Bearer x",
    )
    head, _, body = data.partition(b"\r\n\r\n")
    play.client_sends(head + b"\r\n\r\n")
    assert play.answer == b"HTTP/1.1 100 Continue\r\n\r\n"
    play.client_sends(body)
    assert play.answer.count(b"HTTP/1.1 ") == 1
    (sent,) = (home if "opus" in model else zai).requests
    assert sent.header("expect") is None


def test_an_error_reaches_a_client_that_had_been_told_to_go_on(play):
    play.client_sends(raw_request("POST /v1/messages", b'{"model": "haiku"}', Expect="100-continue"))
    play.refuses()
    assert b"HTTP/1.1 502" in play.answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")


@BOTH
def test_an_old_client_gets_a_stream_without_chunks(play, home, zai, model):
    for provider in (home, zai):
        provider.answer(message_sse(model))
    body = b'{"model": "%b", "stream": true}' % model.encode()
    request = raw_request("POST /v1/messages", body, Authorization="Bearer x")
    play.client_sends(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert play.got.body == message_sse(model).body
    assert play.got.state == "ended"


def test_a_provider_that_was_down_is_asked_again_on_the_same_connection(play):
    play.asks("claude-haiku-4-5")
    play.refuses()
    assert play.got.status == 502
    play.asks("claude-haiku-4-5")
    play.answers(message_sse("glm"))
    assert play.got.status == 200
