"""What is held back until an answer has begun, and what a client gets that waits long for it."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.answers import (
    USAGE,
    Answer,
    compressed,
    error_json,
    event,
    json_answer,
    message_json,
    message_sse,
    sse,
)
from tests.callers import Caller
from tests.haste import HELD
from tests.pieces import EARLY, REST
from tests.running import Router, with_scripts
from tests.upstream import Upstream

ROUTER = Router

LIMIT = 0.3
"""Of the hasty provider, for a first byte."""
SOON = 3.0
"""What takes longer is late on any machine."""


def rules(home: Upstream, zai: Upstream) -> str:
    well = "circuit: {open_after: 100000}"
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  patient: {{url: "{zai.url}", key: zai-key-for-tests-0001, {well}}}
  hasty: {{url: "{home.url}", auth: client, timeout: {{first_byte: {LIMIT}s}}, {well}}}
rules:
  - {{match: "patient-*", to: [patient, anthropic/claude-opus-4-5]}}
  - {{match: "plain-*", to: [patient, anthropic]}}
  - {{match: "both-*", to: [patient, hasty/claude-opus-4-5]}}
  - {{match: "last-*", to: patient}}
"""


OPTIONS = with_scripts("haste.py")
SPARE = message_sse("claude-opus-4-5").body


def test_a_client_that_wants_its_connection_closed_has_it_closed_after_an_early_head(
    shared, caller, named, gate
):
    shared.second.answer(sse(EARLY, gate, REST))
    caller.ask(named("patient"), Connection="close")
    caller.until(b"event: ping")
    gate.set()
    assert b"from-zai" in caller.until_closed()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_nothing_is_sent_before_an_answer_has_begun(shared, caller, named, gate, stream):
    whole = message_json("glm", "from-zai")
    held = sse(EARLY, gate, REST) if stream else Answer(200, whole.headers, (gate, whole.body))
    shared.second.answer(held)
    caller.ask(named("patient"), stream)
    shared.second.wait_for(1)
    assert caller.is_quiet(HELD / 2)
    gate.set()
    answer = caller.answer()
    assert answer.headers["x-signalbox-attempts"] == "patient:200"
    assert answer.body.count(b"from-zai") == 1
    assert answer.body.count(b"event: message_start") == (1 if stream else 0)


def test_the_first_event_of_an_answer_is_not_delayed(shared, caller, named):
    """Through the hold it takes about as long as where nothing is held."""

    def delay(rule: str) -> float:
        gate, never = threading.Event(), threading.Event()
        shared.second.answer(sse(EARLY, gate, REST, never))
        with Caller(shared.router) as one:
            one.ask(named(rule))
            shared.second.wait_for(len(shared.second.requests) + 1)
            opened = time.monotonic()
            gate.set()
            took = one.until(b"from-zai") - opened
        never.set()
        return took

    held = sorted(delay("patient") for _ in range(9))[4]
    free = sorted(delay("last") for _ in range(9))[4]
    assert held < 0.1
    assert held < free * 3 + 0.02


@pytest.mark.parametrize("rule", ["last", "patient"], ids=["the only one", "the second"])
def test_the_last_target_is_not_held(shared, caller, named, gate, rule):
    one = shared.second if rule == "last" else shared.upstream
    shared.second.answer(error_json(500, "api_error"))
    one.answer(sse(EARLY, gate, REST))
    caller.ask(named(rule))
    caller.until(b"message_start")
    assert b"from-zai" not in caller.seen
    gate.set()
    caller.until(b"from-zai")


@pytest.mark.parametrize("come", ["head", "nothing"])
def test_a_client_that_waits_long_gets_pings(shared, caller, named, gate, come):
    shared.second.answer(sse(EARLY, gate, REST) if come == "head" else Answer(wait=gate))
    caller.ask(named("patient"))
    shared.second.wait_for(1)
    asked = time.monotonic()
    first = caller.until(b"event: ping\n")
    assert caller.seen.startswith(b"HTTP/1.1 200 ")
    assert b"content-type: text/event-stream" in caller.seen
    assert HELD * 0.8 <= first - asked < HELD + SOON
    caller.seen = caller.seen.split(b"event: ping\n", 1)[1]
    assert HELD * 0.8 <= caller.until(b"event: ping\n") - first < HELD + SOON
    assert b"message_start" not in caller.seen


def after_pings(caller: Caller, model: str, upstream: Upstream) -> None:
    caller.ask(model)
    upstream.wait_for(1)
    caller.until(b"event: ping\n")
    assert b"message_start" not in caller.seen


@pytest.mark.parametrize("come", ["head", "nothing"])
def test_the_one_that_kept_the_client_waiting_may_answer_all_the_same(shared, caller, named, gate, come):
    held = sse(EARLY, gate, REST) if come == "head" else replace(sse(EARLY, REST), wait=gate)
    shared.second.answer(held)
    after_pings(caller, named("patient"), shared.second)
    gate.set()
    answer = caller.answer()
    assert answer.body.endswith(EARLY + REST)
    assert answer.body.count(b"event: message_start") == 1
    record = shared.router.records(1, session=caller.session)[0]
    assert (record["status"], record["attempts"]) == ("success", "patient:200")


OVERLOADED = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
FAILED_LATE: dict[str, tuple[Callable[[threading.Event], Answer], str]] = {
    "an error": (lambda gate: sse(EARLY, gate, OVERLOADED), "stream_error"),
    "its end": (lambda gate: sse(EARLY, gate, b": nothing\n\n"), "stream_error"),
    "a cut": (lambda gate: sse(EARLY, gate, cut="reset"), "stream_error"),
    "a status": (lambda gate: replace(error_json(503, "api_error"), wait=gate), "503"),
    "a cut before its head": (lambda gate: Answer(framing="raw", cut="reset", wait=gate), "connect"),
}


@pytest.mark.parametrize(("failed", "label"), FAILED_LATE.values(), ids=FAILED_LATE)
def test_another_may_answer_in_a_stream_that_was_begun_by_pings(shared, caller, named, gate, failed, label):
    shared.second.answer(failed(gate))
    model = named("patient")
    after_pings(caller, model, shared.second)
    gate.set()
    answer = caller.answer()
    assert answer.body.endswith(SPARE.replace(b"claude-opus-4-5", model.encode()))
    assert answer.body.count(b"event: message_start") == 1
    assert b"error" not in answer.body
    record = shared.router.records(1, session=caller.session)[0]
    assert (record["status"], record["attempts"]) == ("success", f"patient:{label} anthropic:200")


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_stream_begun_by_pings_is_never_compressed(shared, caller, named, gate, coding):
    shared.second.answer(sse(EARLY, gate, cut="close"))
    shared.upstream.answer(compressed(message_sse("claude-opus-4-5", ("clear",)), coding))
    caller.ask(named("plain"), Accept_Encoding=coding)
    shared.second.wait_for(1)
    caller.until(b"event: ping\n")
    gate.set()
    answer = caller.answer()
    assert b'"text":"clear"' in answer.body
    assert shared.router.records(1, session=caller.session)[0]["output_tokens"] == USAGE["output_tokens"]


LAST_ERRORS = {
    "a status": (error_json(500, "api_error", "try later"), "api_error", "try later"),
    "an event": (
        sse(event("error", error={"type": "api_error", "message": "broken"})),
        "api_error",
        "broken",
    ),
    "silence": (Answer(wait=threading.Event()), "timeout_error", f"hasty sent no answer within {LIMIT:g} s"),
    "a cut": (Answer(framing="raw", cut="reset"), "api_error", "hasty at 127.0.0.1:"),
    "no stream": (json_answer({"error": {"type": "api_error", "message": "odd"}}), "api_error", "odd"),
}


@pytest.mark.parametrize(("last", "kind", "message"), LAST_ERRORS.values(), ids=LAST_ERRORS)
def test_when_all_fail_after_pings_the_last_error_ends_the_stream(
    shared, caller, named, gate, last, kind, message
):
    shared.second.answer(sse(EARLY, gate, cut="close"))
    shared.upstream.answer(last)
    after_pings(caller, named("both"), shared.second)
    gate.set()
    answer = caller.answer()
    assert answer.status == 200
    told = answer.body.rpartition(b"event: error\ndata: ")[2]
    error = json.loads(told)["error"]
    assert error["type"] == kind
    assert error["message"].startswith(message)
    assert b"message_start" not in answer.body
    record = shared.router.records(1, session=caller.session)[0]
    assert record["status"] == "error"
    assert record["attempts"].startswith("patient:stream_error hasty:")
    caller.ask(named("patient"))  # the connection goes on
    shared.upstream.answer(message_sse("x"))
    assert caller.answer().status == 200


@pytest.mark.parametrize("come", [0, 10], ids=["nothing of it", "a part"])
def test_a_whole_answer_is_waited_for_without_pings(shared, caller, named, gate, come):
    whole = message_json("glm", "from-zai")
    pieces = (whole.body[:come], gate, whole.body[come:]) if come else (whole.body,)
    shared.second.answer(Answer(200, whole.headers, pieces, "chunked", wait=None if come else gate))
    caller.ask(named("patient"), stream=False)
    shared.second.wait_for(1)
    assert caller.is_quiet(HELD * 2)
    gate.set()
    assert json.loads(caller.answer().body)["content"][0]["text"] == "from-zai"


@pytest.mark.parametrize("rule", ["last", "patient"], ids=["the only one", "the second"])
def test_while_the_last_target_says_nothing_the_client_may_still_get_its_status(
    shared, caller, named, gate, rule
):
    one = shared.second if rule == "last" else shared.upstream
    shared.second.answer(error_json(503, "api_error"))
    one.answer(replace(error_json(500, "api_error", "broken too"), wait=gate))
    caller.ask(named(rule))
    one.wait_for(1)
    assert caller.is_quiet(HELD * 2)
    gate.set()
    assert caller.answer().status == 500


def test_a_client_of_http_1_0_gets_pings_without_chunks(shared, caller, named, gate):
    shared.second.answer(sse(EARLY, gate, REST))
    body = json.dumps({"model": named("patient"), "stream": True}).encode()
    caller.socket.sendall(caller.head(len(body)).replace(b"HTTP/1.1", b"HTTP/1.0") + body)
    caller.until(b"event: ping\n")
    gate.set()
    assert caller.until_closed().endswith(EARLY + REST)
