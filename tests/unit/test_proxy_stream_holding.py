"""What is held back until an answer has begun, and what a client gets that waits long for it."""

import json
import threading

import pytest

from tests.support.answers import (
    Answer,
    compressed,
    error_json,
    event,
    json_answer,
    message_json,
    message_sse,
    sse,
)
from tests.support.playbook import Playbook
from tests.support.played_wire import END, chunk, request
from tests.support.stream_fixtures import EARLY, REST

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client, circuit: &never {degraded_after: 100000, open_after: 100000}}
  patient: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: *never}
  hasty: {url: "http://home.invalid", auth: client, timeout: {first_byte: 3s}, circuit: *never}
rules:
  - {match: "patient", to: [patient, anthropic/claude-opus-4-5]}
  - {match: "plain", to: [patient, anthropic]}
  - {match: "both", to: [patient, hasty/claude-opus-4-5]}
  - {match: "last", to: patient}
"""  # noqa: E501  as rules are written

SPARE = message_sse("claude-opus-4-5").body
NEVER = threading.Event()


def pings(play: Playbook) -> int:
    return play.got.body.count(b"event: ping\n")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_nothing_is_sent_before_an_answer_has_begun(play, stream):
    whole = message_json("glm", "from-zai")
    play.asks("patient", stream=stream)
    held = sse(EARLY, NEVER) if stream else Answer(200, whole.headers, (NEVER, whole.body))
    server = play.answers(held).server
    assert play.got.state == "waiting"
    play.sends(server, chunk(REST) + END if stream else whole.body)
    assert play.got.state == "ended"
    assert play.got.headers["x-signalbox-attempts"] == "patient:200"
    assert play.got.body.count(b"from-zai") == 1
    assert play.got.body.count(b"event: message_start") == (1 if stream else 0)


def test_the_first_piece_of_an_answer_is_not_delayed(play):
    play.asks("patient")
    play.answers(sse(EARLY, REST[:-60], NEVER))
    assert play.got.body == EARLY + REST[:-60]


@pytest.mark.parametrize("rule", ["last", "patient"], ids=["the only one", "the second"])
def test_the_last_target_is_not_held(play, rule):
    play.asks(rule)
    if rule == "patient":
        play.answers(error_json(500, "api_error"))
    server = play.answers(sse(EARLY, NEVER)).server
    assert b"message_start" in play.got.body
    play.sends(server, chunk(REST) + END)
    assert b"from-zai" in play.got.body


@pytest.mark.parametrize("come", ["head", "nothing"])
def test_a_client_that_waits_long_gets_pings(play, come):
    play.asks("patient")
    if come == "head":
        play.answers(sse(EARLY, NEVER))
    else:
        play.connects()
    play.passes(9.9)
    assert play.got.state == "waiting"
    play.passes(0.2)
    assert (play.got.status, pings(play)) == (200, 1)
    assert play.got.headers["content-type"].startswith("text/event-stream")
    play.passes(9.8)
    assert pings(play) == 1
    play.passes(0.3)
    assert pings(play) == 2
    assert b"message_start" not in play.got.body


def after_pings(play: Playbook, model: str, answer: Answer | None) -> None:
    """The first target is asked, has sent this, and the client has had a ping."""
    play.asks(model)
    if answer is None:
        play.connects()
    else:
        play.answers(answer)
    play.passes(10.2)
    assert pings(play) == 1
    assert b"message_start" not in play.got.body


@pytest.mark.parametrize("come", ["head", "nothing"])
def test_the_target_that_kept_the_client_waiting_may_answer_all_the_same(play, come):
    after_pings(play, "patient", sse(EARLY, NEVER) if come == "head" else None)
    if come == "head":
        play.sends(play.asked[0].server, chunk(REST) + END)
    else:
        play.answers(sse(EARLY, REST))
    assert play.got.body.endswith(EARLY + REST)
    assert play.got.body.count(b"event: message_start") == 1
    (record,) = play.records(1)
    assert (record["status"], record["attempts"]) == ("success", "patient:200")


OVERLOADED = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
FAILED_LATE: dict[str, tuple[Answer | None, bytes | Answer, str]] = {
    "an error": (sse(EARLY, NEVER), chunk(OVERLOADED), "stream_error"),
    "its end": (sse(EARLY, NEVER), chunk(b": nothing\n\n") + END, "stream_error"),
    "a cut": (sse(EARLY, NEVER), b"", "stream_error"),
    "a status": (None, error_json(503, "api_error"), "503"),
    "a cut before its head": (None, b"", "connect"),
}


@pytest.mark.parametrize(("before", "then", "label"), FAILED_LATE.values(), ids=FAILED_LATE)
def test_another_target_may_answer_in_a_stream_that_was_begun_by_pings(play, before, then, label):
    after_pings(play, "patient", before)
    if isinstance(then, Answer):
        play.answers(then)
    elif then:
        play.sends(play.asked[0].server, then)
    else:
        play.closes(play.asked[0].server)
    play.answers(message_sse("claude-opus-4-5"))
    assert play.got.body.endswith(SPARE.replace(b"claude-opus-4-5", b"patient"))
    assert play.got.body.count(b"event: message_start") == 1
    assert b"error" not in play.got.body
    (record,) = play.records(1)
    assert (record["status"], record["attempts"]) == ("success", f"patient:{label} anthropic:200")


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_stream_begun_by_pings_is_never_compressed(play, coding):
    play.asks("plain", headers={"accept-encoding": coding})
    play.answers(sse(EARLY, NEVER))
    play.passes(10.2)
    play.closes(play.asked[0].server)
    play.answers(compressed(message_sse("claude-opus-4-5", ("clear",)), coding))
    assert b'"text":"clear"' in play.got.body
    assert play.records(1)[0]["output_tokens"] == 17 + 17  # of both attempts


LAST_ERRORS: dict[str, tuple[Answer | None, str, str]] = {
    "a status": (error_json(500, "api_error", "try later"), "api_error", "try later"),
    "an event": (
        sse(event("error", error={"type": "api_error", "message": "broken"})),
        "api_error",
        "broken",
    ),
    "silence": (None, "timeout_error", "hasty sent no answer within 3 s"),
    "a cut": (Answer(framing="raw", cut="reset"), "api_error", "hasty at home.invalid:80 broke off"),
    "no stream": (json_answer({"error": {"type": "api_error", "message": "odd"}}), "api_error", "odd"),
}


@pytest.mark.parametrize(("last", "kind", "message"), LAST_ERRORS.values(), ids=LAST_ERRORS)
def test_when_all_fail_after_pings_the_last_error_ends_the_stream(play, last, kind, message):
    after_pings(play, "both", sse(EARLY, NEVER))
    play.closes(play.asked[0].server)
    if last is None:
        play.connects()
        play.passes(3.1)
    else:
        play.answers(last)
    got = play.got
    assert (got.status, got.state, got.error["type"]) == (200, "ended", kind)
    assert got.error["message"].startswith(message)
    assert b"message_start" not in got.body
    (record,) = play.records(1)
    assert record["status"] == "error"
    assert record["attempts"].startswith("patient:stream_error hasty:")
    play.asks("last")  # the connection goes on
    play.answers(message_sse("x"))
    assert play.got.status == 200


def test_a_whole_message_after_pings_is_written_as_a_stream(play):
    after_pings(play, "patient", None)
    play.answers(message_json("glm", "from-zai"))
    assert play.got.body.count(b"event: message_start") == 1
    assert b"from-zai" in play.got.body
    assert play.got.body.endswith(b'data: {"type":"message_stop"}\n\n')
    assert play.records(1)[0]["attempts"] == "patient:200"


@pytest.mark.parametrize("come", [0, 10], ids=["nothing of it", "a part"])
def test_a_whole_answer_is_waited_for_without_pings(play, come):
    whole = message_json("glm", "from-zai")
    play.asks("patient", stream=False)
    if come:
        play.answers(Answer(200, whole.headers, (whole.body[:come], NEVER, whole.body[come:])))
    else:
        play.connects()
    play.passes(30)
    assert play.got.state == "waiting"
    if come:
        play.sends(play.asked[0].server, whole.body[come:])
    else:
        play.answers(whole)
    assert json.loads(play.got.body)["content"][0]["text"] == "from-zai"


@pytest.mark.parametrize("rule", ["last", "patient"], ids=["the only one", "the second"])
def test_while_the_last_target_says_nothing_the_client_may_still_get_its_status(play, rule):
    play.asks(rule)
    if rule == "patient":
        play.answers(error_json(503, "api_error"))
    play.connects()
    play.passes(30)
    assert play.got.state == "waiting"
    play.answers(error_json(500, "api_error", "broken too"))
    assert play.got.status == 500


def test_a_client_that_wants_its_connection_closed_has_it_closed_after_an_early_head(play):
    play.asks("patient", headers={"connection": "close"})
    server = play.answers(sse(EARLY, NEVER)).server
    play.passes(10.2)
    assert play.got.headers["connection"] == "close"
    play.sends(server, chunk(REST) + END)
    assert b"from-zai" in play.got.body
    assert play.client in play.closed


def test_a_client_of_http_1_0_gets_pings_without_chunks(play):
    body = b'{"model":"patient","stream":true,"messages":[]}'
    play.client_sends(request(body).replace(b"HTTP/1.1", b"HTTP/1.0"))
    server = play.answers(sse(EARLY, NEVER)).server
    play.passes(10.2)
    play.sends(server, chunk(REST) + END)
    said = play.answer
    assert b"transfer-encoding" not in said
    assert said.endswith(EARLY + REST)
    assert said.removesuffix(EARLY + REST).count(b"event: ping") == 1
    assert play.client in play.closed
