"""A request from its head to the end of its answer, command by command: no socket, no process."""

import pytest

from tests.support.playbook import Playbook
from tests.support.played_wire import BLOCK, DELTA, END, START, STOP, STREAM, chunk, error, event, response

RULES = """
providers:
  zai: {url: "http://zai.invalid", key: fake-key, count_tokens: estimate}
  other: {url: "http://other.invalid", keys: [fake-one, fake-two]}
  anthropic: {url: "http://anthropic.invalid", auth: client}
rules:
  - {match: "*haiku*", to: anthropic}
  - {match: "*opus*", to: [other, {reject: 503, message: Come back later.}]}
  - {match: "*sonnet*", to: [zai/glm-4.7, anthropic]}
  - {match: "*waits*", to: [zai/glm-4.7, anthropic], failover: {wait: 30s}}
  - {match: "*", to: zai/glm-4.7}
"""


def address(play: Playbook) -> str:
    (command,) = play.opening
    host, port = command.connection.address
    return f"{host}:{port}"


def test_an_answer_goes_to_the_client_as_it_comes(play):
    play.asks("claude-haiku-4-5")
    server = play.connects()
    assert b"x-api-key: sk-ant-fake-caller" in play.sent_to(server)
    play.sends(server, STREAM + chunk(START))
    assert START in play.answer
    play.sends(server, chunk(BLOCK + DELTA))
    assert BLOCK + DELTA in play.answer
    play.sends(server, chunk(STOP) + END)
    assert play.answer.endswith(chunk(STOP) + END)
    assert play.streams == 0
    assert [name for name in play.hooks if name.startswith(("request", "response", "error"))] == [
        "requestheaders", "request", "responseheaders", "response",
    ]  # fmt: skip


def test_the_next_request_uses_the_same_connections(play):
    play.asks("claude-haiku-4-5", stream=False)
    server = play.connects()
    play.sends(server, response(200, b'{"type":"message","content":[]}'))
    assert play.answer.startswith(b"HTTP/1.1 200")
    play.sent_to(server)
    play.asks("claude-haiku-4-5", stream=False)
    assert not play.opening
    assert b"POST /v1/messages" in play.sent_to(server)
    play.sends(server, response(200, b'{"type":"message","content":[]}'))
    assert play.answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_the_next_target_answers_where_the_first_one_fails(play, status):
    play.asks()
    assert address(play) == "zai.invalid:80"
    first = play.connects()
    play.sends(first, response(status, error("api_error", "no")))
    assert play.answer == b""
    assert address(play) == "anthropic.invalid:80"
    second = play.connects()
    play.sends(second, STREAM + chunk(START + BLOCK + DELTA + STOP) + END)
    assert play.answer.count(b"message_start") == 2  # the event's name and its type
    assert play.attempts == f"zai:{status} anthropic:200"


def test_nothing_reaches_the_client_before_an_answer_has_begun(play):
    play.asks()
    server = play.connects()
    play.sends(server, STREAM + chunk(START + BLOCK))
    assert play.answer == b""
    play.sends(server, chunk(DELTA))
    assert START.split(b'"usage"')[0][:40] in (answer := play.answer)
    assert DELTA in answer


def test_an_error_event_before_the_answer_fails_over(play):
    play.asks()
    first = play.connects()
    overloaded = event("error", error={"type": "overloaded_error", "message": "busy"})
    play.sends(first, STREAM + chunk(START + overloaded))
    assert first in play.closed
    second = play.connects()
    play.sends(second, STREAM + chunk(START + BLOCK + DELTA + STOP) + END)
    assert play.attempts == "zai:stream_error anthropic:200"


def test_an_answer_that_has_begun_is_cut_with_its_upstream(play):
    play.asks()
    server = play.connects()
    play.sends(server, STREAM + chunk(START + BLOCK + DELTA))
    play.closes(server)
    assert not play.opening
    assert not play.answer.endswith(END)
    assert play.client in play.closed
    assert play.hooks[-1] == "error"


def test_a_refused_connection_fails_over(play):
    play.asks()
    play.connects("[Errno 111] Connection refused")
    assert address(play) == "anthropic.invalid:80"
    play.sends(play.connects(), response(200, b'{"type":"message","content":[]}'))
    assert play.attempts == "zai:connect anthropic:200"


def test_a_connection_that_does_not_come_about_in_time_fails_over(play):
    play.asks()
    play.passes(9)
    assert address(play) == "zai.invalid:80"
    play.opening[0].connection.timestamp_start = 1.0  # it has begun
    play.passes(2)
    assert address(play) == "anthropic.invalid:80"


def test_a_target_that_sends_no_first_byte_in_time_fails_over(play):
    play.asks()
    server = play.connects()
    play.passes(119)
    assert not play.opening
    play.passes(2)
    assert server in play.closed
    assert address(play) == "anthropic.invalid:80"


def test_a_client_that_waits_gets_a_head_and_pings(play):
    play.asks()
    server = play.connects()
    play.sends(server, STREAM + chunk(START))
    play.passes(9)
    assert play.answer == b""
    play.passes(2)
    head = play.answer
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert head.count(b"event: ping") == 1
    play.passes(10)
    assert play.answer.count(b"event: ping") == 1
    play.sends(server, chunk(BLOCK + DELTA))
    said = play.answer
    assert b"HTTP/1.1" not in said
    assert said.count(b"event: message_start") == 1


def test_failover_stays_possible_after_an_early_head(play):
    play.asks()
    server = play.connects()
    play.passes(11)
    assert b"event: ping" in play.answer
    play.closes(server)
    second = play.connects()
    play.sends(second, STREAM + chunk(START + BLOCK + DELTA + STOP) + END)
    assert b"event: message_start" in (said := play.answer)
    assert b"HTTP/1.1" not in said


def test_after_an_early_head_a_failure_of_all_is_an_error_event(play):
    play.asks()
    server = play.connects()
    play.passes(11)
    assert b"event: ping" in play.answer
    play.closes(server)
    play.sends(play.connects(), response(529, error("overloaded_error", "busy")))
    said = play.answer
    assert b"event: error" in said
    assert b"overloaded_error" in said
    assert said.endswith(END)


def test_when_all_fail_the_client_gets_the_last_ones_own_error(play):
    play.asks()
    play.sends(play.connects(), response(500, error("api_error", "first")))
    play.sends(play.connects(), response(529, error("overloaded_error", "second")))
    said = play.answer
    assert said.startswith(b"HTTP/1.1 529")
    assert said.endswith(error("overloaded_error", "second"))


def test_another_key_is_tried_at_once_and_then_the_rule_rejects(play):
    play.asks("claude-opus-4-5")
    server = play.connects()
    first = play.sent_to(server)
    play.sends(server, response(401, error("authentication_error", "no")))
    second = play.sent_to(server)
    assert (b"fake-one" in first, b"fake-two" in second) in ((True, True), (False, False))
    assert (b"fake-two" in first, b"fake-one" in second) in ((True, True), (False, False))
    play.sends(server, response(401, error("authentication_error", "no")))
    assert b"Come back later." in play.answer


def test_a_wait_is_served_on_the_same_target(play):
    play.asks("waits")
    server = play.connects()
    play.sent_to(server)
    play.sends(server, response(429, error("rate_limit_error", "slow"), retry_after="5"))
    assert play.sent_to(server) == b""
    play.passes(6)
    assert b"POST /v1/messages" in play.sent_to(server)


@pytest.mark.parametrize("phase", ["connecting", "asked", "held", "delivering", "waiting"])
def test_a_client_that_leaves_releases_its_upstream(play, phase):
    play.asks("waits" if phase == "waiting" else "claude-sonnet-4-5")
    upstream = play.opening[0].connection
    if phase != "connecting":
        play.connects()
    if phase == "held":
        play.sends(upstream, STREAM + chunk(START))
    if phase == "delivering":
        play.sends(upstream, STREAM + chunk(START + BLOCK + DELTA))
    if phase == "waiting":
        play.sends(upstream, response(429, error("rate_limit_error", "slow"), retry_after="5"))
    play.client_leaves()
    assert upstream in play.closed or phase == "waiting"
    assert play.streams == 0
    assert not [one for one in play.opening if one.connection is not upstream]
    assert play.hooks[-1] == "error"


def test_a_stale_connection_is_replaced_and_no_failure(play):
    play.asks("claude-haiku-4-5", stream=False)
    server = play.connects()
    play.sends(server, response(200, b'{"type":"message","content":[]}'))
    server.timestamp_start -= 5
    play.asks("claude-haiku-4-5", stream=False)
    play.closes(server)
    fresh = play.connects()
    play.sends(fresh, response(200, b'{"type":"message","content":[]}'))
    assert play.attempts == "anthropic:200"


def test_early_hints_are_no_answer(play):
    play.asks("claude-haiku-4-5", stream=False)
    server = play.connects()
    play.sends(server, b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
    play.sends(server, response(200, b'{"type":"message","content":[]}'))
    assert b"HTTP/1.1 200" in play.answer
