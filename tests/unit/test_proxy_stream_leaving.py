"""A client that leaves, Esc in Claude Code: its upstream is released at once, in every phase."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.answers import (
    USAGE,
    Answer,
    error_json,
    message_events,
    message_json,
    message_sse,
    sse,
    text_block,
)
from tests.support.playbook import Playbook
from tests.support.played_wire import request

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client}
  zai: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: {degraded_after: 1, open_after: 1}}
  waits: {url: "http://zai.invalid", key: zai-key-for-tests-0001}
  fails: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: {open_after: 99}}
rules:
  - {match: "zai", to: [zai, anthropic]}
  - {match: "last", to: zai}
  - {match: "waits", to: [waits, anthropic], failover: {wait: 30s}}
  - {match: "fails", to: [fails, anthropic]}
"""

STARTED = {**USAGE, "output_tokens": 1}
EVENTS = message_events("glm", [text_block("")], ["half", "whole"], STARTED, USAGE)
EARLY, HALF = b"".join(EVENTS[:3]), EVENTS[3]

type Told = Callable[[], dict[str, Any]]


@pytest.fixture
def leave(play: Playbook) -> Told:
    """The client leaves. Gives the request's one record, once it is sure that no provider is blamed."""

    def leave() -> dict[str, Any]:
        play.client_leaves()
        assert play.streams == 0
        assert not [one for one in play.goes_to() if one == "home"]
        (record,) = play.records(1)
        assert record["status"] == "cancelled"
        assert play.router.health("zai")["circuit"] == "closed"
        return record

    return leave


def tokens(record: dict[str, Any]) -> tuple[int, int]:
    return record["input_tokens"], record["output_tokens"]


NOTHING, READ = (0, 0), (USAGE["input_tokens"], 1)


def test_while_the_client_sends_its_request(play, leave):
    play.client_sends(request(b'{"model":"zai","messages":[]}')[:-5])
    play.session = None  # which is read once the request is in
    leave()
    assert not play.opening


@pytest.mark.parametrize("has_begun", [True, False], ids=["being opened", "queued"])
def test_while_a_connection_is_opened(play, leave, has_begun):
    play.asks("zai")
    pending = play.opening[0].connection
    pending.timestamp_start = 1.0 if has_begun else None
    record = leave()
    assert (record["attempts"], record["backend"]) == ("zai:cancelled", "zai")
    assert pending in play.closed


@pytest.mark.parametrize("model", ["zai", "last"])
def test_before_there_is_an_answer(play, leave, model):
    play.asks(model)
    server = play.connects()
    record = leave()
    assert (record["attempts"], tokens(record)) == ("zai:cancelled", NOTHING)
    assert server in play.aborted


@pytest.mark.parametrize("pinged", [False, True], ids=["in silence", "with pings"])
@pytest.mark.parametrize("come", ["head", "nothing"])
def test_while_an_answer_is_held(play, leave, never, come, pinged):
    play.asks("zai")
    if come == "head":
        play.answers(sse(EARLY, never))
    else:
        play.connects()
    if pinged:
        play.passes(11)
        assert b"event: ping" in play.got.body
    record = leave()
    assert (record["attempts"], tokens(record)) == ("zai:cancelled", READ if come == "head" else NOTHING)
    assert play.asked[0].server in play.aborted


def test_while_a_whole_answer_is_held(play, leave, never):
    whole = message_json("glm")
    play.asks("zai", stream=False)
    play.answers(Answer(200, whole.headers, (whole.body[:10], never), "chunked"))
    leave()
    assert play.asked[0].server in play.aborted


@pytest.mark.parametrize("model", ["zai", "last"])
def test_in_the_middle_of_an_answer(play, leave, never, model):
    play.asks(model)
    play.answers(sse(EARLY, HALF, never))
    assert b"half" in play.got.body
    record = leave()
    assert (record["attempts"], tokens(record)) == ("zai:cancelled", READ)
    assert play.asked[0].server in play.aborted


def test_after_a_failover(play, leave):
    play.asks("fails")
    play.answers(error_json(500, "api_error"))
    server = play.connects()
    assert leave()["attempts"] == "fails:500 anthropic:cancelled"
    assert server in play.aborted


def test_between_two_attempts(play, leave):
    play.asks("waits")
    play.answers(error_json(429, "rate_limit_error", headers=(("retry-after", "20"),)))
    assert leave()["attempts"] == "waits:429"
    play.passes(30)
    assert len(play.asked) == 1
    assert not play.opening


def test_while_a_long_request_is_sent_on(play, leave):
    """The rest of it is not sent any more; to close the connection in the usual way would do that first."""
    play.asks("zai", pad="x" * 1000)
    server = play.connects()
    play.unsent[server] = 1000
    leave()
    assert server in play.aborted


def test_what_an_upstream_still_sends_goes_nowhere(play, leave, never):
    play.asks("zai")
    server = play.answers(sse(EARLY, HALF, never)).server
    leave()
    before = play.answer
    play.sends(server, b"".join(EVENTS[4:]))
    assert before
    assert play.answer == b""


def test_a_client_that_leaves_after_its_answer_leaves_a_success(play):
    play.asks("zai")
    play.answers(message_sse("glm"))
    play.client_leaves()
    assert [record["status"] for record in play.records(1)] == ["success"]
