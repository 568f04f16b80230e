"""How long is waited for whom. Times are in seconds of the test's own clock."""

import pytest

from tests.support.answers import USAGE, Answer, error_json, event, message_json, message_sse, sse
from tests.support.stream_fixtures import EARLY, REST

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client, circuit: &never {degraded_after: 100000, open_after: 100000}}
  zai: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: *never, timeout: {connect: 3s, first_byte: 5s, idle: 7s}}
  usual: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: *never}
rules:
  - {match: "zai", to: [zai, anthropic]}
  - {match: "last", to: zai}
  - {match: "usual", to: [usual, anthropic]}
  - {match: "usual-alone", to: usual}
  - {match: "idle", to: anthropic}
"""  # noqa: E501  as rules are written

both = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@both
def test_a_connection_that_does_not_come_about_in_time_is_given_up(play, stream):
    play.asks("zai", stream=stream)
    pending = play.opening[0].connection
    pending.timestamp_start = 1.0  # it has begun
    play.passes(2.9)
    assert play.goes_to() == ["zai"]
    play.passes(0.2)
    assert play.goes_to() == ["home"]
    assert pending in play.closed
    play.answers(message_sse("x") if stream else message_json("x"))
    assert play.attempts == "zai:timeout anthropic:200"


def test_a_connection_that_mitmproxy_has_not_begun_to_open_is_waited_for(play):
    play.asks("zai")
    play.passes(30)
    assert play.goes_to() == ["zai"]
    play.answers(message_sse())
    assert play.attempts == "zai:200"


def test_where_no_other_target_is_there_a_late_connection_is_a_504(play):
    for _ in range(2):  # also the second time on this connection
        play.asks("last")
        play.opening[0].connection.timestamp_start = 1.0
        play.passes(3.1)
        assert play.got.status == 504
        assert play.got.error == {
            "type": "timeout_error",
            "message": "zai could not be reached at zai.invalid:80: no connection within 3 s",
        }
        assert play.attempts == "zai:timeout"
    assert [record["status"] for record in play.records(2)] == ["error", "error"]


@both
def test_a_provider_that_says_nothing_is_given_up(play, stream):
    play.asks("zai", stream=stream)
    server = play.connects()
    play.passes(4.9)
    assert not play.opening
    play.passes(0.2)
    assert server in play.aborted
    play.answers(message_sse() if stream else message_json())
    assert play.attempts == "zai:timeout anthropic:200"


@both
def test_by_default_a_whole_answer_may_take_longer_than_the_first_byte_of_a_stream(play, stream):
    play.asks("usual", stream=stream)
    play.connects()
    play.passes(130)
    assert play.goes_to() == (["home"] if stream else [])
    play.answers(message_json())
    assert play.got.state == "ended"


@both
def test_where_no_other_target_is_there_silence_is_a_504(play, stream):
    play.asks("last", stream=stream)
    server = play.connects()
    play.passes(5.1)
    assert play.got.status == 504
    assert play.got.error == {"type": "timeout_error", "message": "zai sent no answer within 5 s"}
    assert server in play.aborted


def test_a_head_without_an_answer_is_given_up(play, never):
    play.asks("zai")
    first = play.answers(sse(EARLY, never))
    play.passes(6.9)
    assert not play.opening
    play.passes(0.2)
    play.answers(message_sse())
    assert play.attempts == "zai:timeout anthropic:200"
    assert b"from-zai" not in play.got.body
    assert first.server in play.aborted


def test_a_whole_answer_that_stops_half_way_is_given_up(play, never):
    whole = message_json("glm")
    play.asks("zai", stream=False)
    play.answers(Answer(200, whole.headers, (whole.body[:50], never), "length", len(whole.body)))
    play.passes(7.1)
    play.answers(message_json("home"))
    assert play.attempts == "zai:timeout anthropic:200"
    assert b"glm" not in play.got.body


def test_silence_after_the_answer_has_begun_cuts_the_client_off(play, never):
    play.asks("zai")
    first = play.answers(sse(EARLY + REST[:-60], never))
    assert b"from-zai" in play.got.body
    play.passes(6.9)
    assert play.got.state == "open"
    play.passes(0.2)
    assert play.got.state == "cut"
    assert first.server in play.aborted
    assert not play.opening
    (record,) = play.records(1)
    assert (record["status"], record["attempts"]) == ("error", "zai:timeout")
    assert record["input_tokens"] == USAGE["input_tokens"]


def test_an_answer_that_comes_slowly_but_steadily_is_no_silence(play):
    play.asks("zai")
    play.answers(sse(EARLY, *[part for _ in range(6) for part in (event("ping"), 6.0)], REST))
    assert play.got.state == "ended"
    assert play.records(1)[0]["attempts"] == "zai:200"


def test_a_client_that_reads_slowly_is_no_silent_provider(play, never):
    play.asks("zai")
    play.answers(sse(EARLY, REST[:-60], never))
    play.unsent[play.client] = 1000
    play.passes(30)
    assert play.got.state == "open"
    play.unsent[play.client] = 0
    play.passes(7.1)
    assert play.got.state == "cut"


def test_a_long_request_to_a_slow_provider_is_not_taken_for_silence(play):
    """The time for an answer counts as long as the request gets on."""
    play.asks("zai")
    server = play.connects()
    for left in (3_000_000, 2_000_000, 1_000_000):
        play.unsent[server] = left
        play.passes(5.1)
        assert not play.opening
    play.unsent[server] = 0
    play.answers(message_sse())
    assert play.attempts == "zai:200"


def test_a_long_request_that_gets_on_no_more_is_given_up(play):
    play.asks("zai")
    play.unsent[play.connects()] = 3_000_000
    play.passes(5.1)
    assert not play.opening
    play.passes(5.1)
    play.answers(message_sse())
    assert play.attempts == "zai:timeout anthropic:200"


def test_a_client_is_not_cut_off_while_its_provider_takes_longer_than_mitmproxys_own_limit(play):
    """Something happens on its connection at least every half of `tcp_timeout`."""
    play.asks("usual-alone", stream=False)
    play.connects()
    looked = play.clock.now
    while play.got.status == 0:
        due = play.next_wakeup
        assert due - looked <= play.tcp_timeout / 2 + 1
        play.passes(due - play.clock.now)
        looked = play.clock.now
    assert play.got.error["message"] == "usual sent no answer within 600 s"


def test_an_upstream_connection_that_was_silent_for_fifty_seconds_is_not_used_again(play):
    servers = []
    for silence in (49, 49, 51, 0):
        play.asks("usual-alone")
        servers.append(play.answers(message_sse()).server)
        play.passes(silence)
    assert servers[0] is servers[1] is servers[2] is not servers[3]
    assert servers[0] in play.closed


def test_a_busy_connection_is_not_stale(play):
    """What came last counts, not when it was opened."""
    play.asks("usual-alone")
    first = play.answers(sse(EARLY, *[part for _ in range(3) for part in (event("ping"), 40.0)], REST))
    play.asks("usual-alone")
    assert play.answers(message_sse()).server is first.server


@pytest.mark.parametrize("retry_after", ["5", "59"])
def test_a_cooldown_ends_when_the_provider_says(play, retry_after):
    play.asks("zai")
    play.answers(error_json(529, "overloaded_error", headers=(("retry-after", retry_after),)))
    play.answers(message_sse())
    play.passes(int(retry_after) - 1)
    play.asks("zai")
    play.answers(message_sse())
    assert play.attempts == "anthropic:200"
    play.passes(1.1)
    play.asks("zai")
    play.answers(message_sse())
    assert play.attempts == "zai:200"
