"""Which failures lead to the next target, what each target is sent, and who answers when all have failed."""

import pytest

from tests.support.answers import (
    USAGE,
    Answer,
    error_json,
    event,
    json_answer,
    message_events,
    message_json,
    message_sse,
    sse,
    text_block,
)
from tests.support.played_wire import LOGIN, request

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client, circuit: &never {degraded_after: 100000, open_after: 100000}}
  zai: {url: "http://zai.invalid/api/anthropic", key: zai-key-for-tests-0001, circuit: *never}
  dead: {url: "http://dead.invalid", key: dead-key-for-tests-001, circuit: *never}
  home: {url: "http://home.invalid", key: home-key-for-tests-01, circuit: *never}
  breaker: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: {degraded_after: 2, open_after: 3, cooldown: 60s}}
  brief: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: *never}
  open: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: {open_after: 1, cooldown: 1h}}
  shut: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: {open_after: 1, cooldown: 1h}}
  long: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: *never}
  keyless: {url: "http://home.invalid", key: "${NOT_SET_IN_TESTS}"}
  herd: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: *never}
  later: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: *never}
  other: {url: "http://other.invalid", key: other-key-for-tests-01, circuit: *never}
  login: {url: "http://home.invalid", auth: client, circuit: *never}
  chat: {url: "http://chat.invalid", api: openai, key: chat-key-for-tests-01}
  cut: &breaking {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: {degraded_after: 3, open_after: 5, cooldown: 1h}}
  silent: *breaking
  reported: *breaking
  unfinished: *breaking
  undecodable: *breaking
  counted: *breaking
rules:
  - {match: "to-zai", to: [zai, anthropic/claude-opus-4-5]}
  - {match: "plain", to: [zai, anthropic]}
  - {match: "dead", to: [dead, anthropic/claude-opus-4-5]}
  - {match: "all-dead", to: [dead, dead/other]}
  - {match: "to-both", to: [zai, home/claude-opus-4-5]}
  - {match: "retried", to: [zai, anthropic], failover: {retries: 2}}
  - {match: "waited", to: [zai, anthropic], failover: {wait: 2s}}
  - {match: "impatient", to: [zai, anthropic], failover: {wait: 500ms}}
  - {match: "named", to: [zai, anthropic], failover: {on: ["503"]}}
  - {match: "only", to: zai}
  - {match: "unset", to: [zai, keyless]}
  - {match: "resting", to: [open, shut, keyless]}
  - {match: "keyless", to: keyless}
  - {name: rejecting, match: "rejecting", to: [zai, {reject: 418, message: the kettle is on}]}
  - {match: "refused", to: [zai/three, {reject: 418, message: no}]}
  - {match: "breaker", to: [breaker, anthropic]}
  - {match: "last-resort", to: [brief, open, long, keyless, home]}
  - {match: "nobody", to: [long, dead, dead/other, keyless]}
  - {match: "disabled", to: [login, zai]}
  - {match: "herd", to: [herd, anthropic]}
  - {match: "later", to: [later, other, anthropic]}
  - {match: "other", to: other}
  - {match: "warm", to: [zai, chat]}
  - {match: "cut", to: cut}
  - {match: "silent", to: silent}
  - {match: "reported", to: reported}
  - {match: "unfinished", to: unfinished}
  - {match: "undecodable", to: undecodable}
  - {match: "counted", to: counted}
log: {level: debug}
"""  # noqa: E501  as rules are written

EARLY = message_events("glm", [text_block("")], [], USAGE, USAGE)[:3]
HALF = message_events("glm", [text_block("")], ["half"], USAGE, USAGE)[:4]
OVERLOADED = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
BROKEN = event("error", error={"type": "api_error", "message": "broken inside"})

FAILURES: dict[str, tuple[Answer, str]] = {
    **{
        str(status): (error_json(status, kind, "scripted"), str(status))
        for status, kind in [
            (408, "timeout_error"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (502, "api_error"),
            (503, "api_error"),
            (504, "timeout_error"),
            (529, "overloaded_error"),
        ]
    },
    "an HTML page": (Answer(502, (("Content-Type", "text/html"),), (b"<html>Bad gateway</html>",)), "502"),
    "closed": (Answer(framing="raw", cut="close"), "connect"),
    "no HTTP": (Answer(framing="raw", chunks=(b"SSH-2.0-no\r\n\r\n",), cut="close"), "connect"),
    "a head that could smuggle": (
        Answer(
            framing="raw",
            chunks=(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",),
        ),
        "connect",
    ),
    "an empty stream": (sse(), "stream_error"),
    "a stream that ends early": (sse(event("ping")), "stream_error"),
    "a stream that is cut early": (sse(event("ping"), cut="reset"), "stream_error"),
    "an error before the answer": (sse(*EARLY, OVERLOADED), "stream_error"),
    "200 with an error": (json_answer({"error": {"message": "no model is loaded"}}), "stream_error"),
    "200 with nothing": (Answer(200), "stream_error"),
    "200 with a page": (
        Answer(200, (("Content-Type", "text/html"),), (b"<html>log in first</html>",)),
        "stream_error",
    ),
    "200 with an error that does not say it is streamed": (
        Answer(200, (("Content-Type", "application/json"),), (event("error", error={"type": "x"}),)),
        "stream_error",
    ),
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("failure", "label"), FAILURES.values(), ids=FAILURES)
def test_the_next_target_takes_over(play, failure, label, stream):
    play.asks("to-zai", stream=stream)
    play.answers(failure)
    whole = message_sse("claude-opus-4-5") if stream else message_json("claude-opus-4-5")
    then = play.answers(whole)
    got = play.got
    assert (got.status, got.state) == (200, "ended")
    assert got.body == whole.body.replace(b'"claude-opus-4-5"', b'"to-zai"')
    assert got.headers["x-signalbox-attempts"] == f"zai:{label} anthropic:200"
    assert got.headers["x-signalbox-provider"] == "anthropic"
    assert got.headers["x-signalbox-model"] == "claude-opus-4-5"
    assert "x-should-retry" not in got.headers
    assert [asked.host for asked in play.asked] == ["zai", "home"]
    assert then.json["model"] == "claude-opus-4-5"
    (record,) = play.records(1)
    assert (record["status"], record["attempts"]) == ("success", f"zai:{label} anthropic:200")


def test_each_attempt_gets_the_url_host_key_model_and_body_of_its_own_target(play):
    play.asks("to-zai", path="/v1/messages?beta=true", headers={"anthropic-beta": "oauth-2025-04-20"})
    first = play.answers(error_json(500, "api_error"))
    then = play.answers(message_sse())
    assert (first.path, then.path) == ("/api/anthropic/v1/messages?beta=true", "/v1/messages?beta=true")
    assert (first.headers["host"], then.headers["host"]) == ("zai.invalid", "home.invalid")
    assert (first.headers["x-api-key"], then.headers["x-api-key"]) == ("zai-key-for-tests-0001", LOGIN)
    assert (first.json["model"], then.json["model"]) == ("to-zai", "claude-opus-4-5")
    assert "anthropic-beta" not in first.headers
    assert then.headers["anthropic-beta"] == "oauth-2025-04-20"
    assert first.json | {"model": "x"} == then.json | {"model": "x"}


def test_a_refused_connection_is_passed_by(play):
    play.asks("dead")
    play.refuses()
    play.answers(message_sse())
    assert play.got.headers["x-signalbox-attempts"] == "dead:connect anthropic:200"


def test_an_error_that_is_the_requests_own_is_not_tried_elsewhere(play):
    wrong = error_json(400, "invalid_request_error", "messages: at least one message is required")
    play.asks("to-zai")
    play.answers(wrong)
    assert (play.got.status, play.got.body) == (400, wrong.body)
    assert len(play.asked) == 1
    assert not play.opening


def test_a_providers_rate_limits_do_not_stand_on_anothers_answer(play):
    limits = (("anthropic-ratelimit-unified-status", "rejected"), ("x-of", "zai"))
    play.asks("to-zai")
    play.answers(error_json(529, "overloaded_error", headers=limits))
    play.answers(message_sse())
    assert not {"anthropic-ratelimit-unified-status", "x-of"} & play.got.headers.keys()


def test_after_an_answer_has_begun_a_cut_stays_a_cut(play):
    play.asks("to-zai")
    play.answers(sse(*HALF, cut="reset"))
    assert b"half" in play.got.body
    assert play.got.state == "cut"
    assert not play.opening
    (record,) = play.records(1)
    assert (record["status"], record["attempts"]) == ("error", "zai:stream_error")
    assert record["input_tokens"] == USAGE["input_tokens"]


def test_a_stream_that_does_not_say_that_it_is_one_is_not_kept_waiting(play, never):
    play.asks("to-zai")
    play.answers(Answer(200, (), (*HALF, never), "chunked"))
    assert b"half" in play.got.body
    assert play.got.headers["x-signalbox-attempts"] == "zai:200"


def test_a_failover_is_recorded_and_reported(play, caplog):
    caplog.set_level("INFO", "signalbox")
    play.asks("to-zai")
    play.answers(error_json(500, "api_error", "broken inside"))
    play.answers(message_sse())
    (record,) = play.records(1)
    assert (record["backend"], record["status"]) == ("anthropic", "success")
    assert any("↻ zai 500 → anthropic: " in line and "broken inside" in line for line in caplog.messages)
    assert any("↻ 2 attempts" in line for line in caplog.messages)


def test_a_secret_that_a_provider_says_back_is_masked_in_what_is_reported(play, caplog):
    caplog.set_level("DEBUG", "signalbox")
    play.asks("to-zai")
    play.answers(error_json(500, "api_error", "bad token Bearer zai-key-for-tests-0001"))
    play.answers(message_sse())
    play.records(1)
    assert "↻ zai 500 → anthropic: api_error: bad token ***" in caplog.text
    assert "zai-key-for-tests-0001" not in caplog.text
    assert LOGIN not in caplog.text


# when all have failed


def test_when_all_fail_the_client_gets_the_last_ones_own_answer(play):
    last = error_json(429, "rate_limit_error", "slow down", headers=(("retry-after", "17"),))
    play.asks("to-both")
    play.answers(error_json(500, "api_error"))
    play.answers(last)
    got = play.got
    assert (got.status, got.body, got.headers["retry-after"]) == (429, last.body, "17")
    assert got.headers["x-signalbox-attempts"] == "zai:500 home:429"


def test_when_no_target_can_be_reached_the_last_one_is_named(play):
    play.asks("all-dead")
    play.refuses()
    play.refuses()
    assert play.got.status == 502
    assert play.got.error["message"].startswith(
        "dead could not be reached at dead.invalid:80: Connection ref"
    )
    assert play.got.headers["x-signalbox-attempts"] == "dead:connect dead:connect"
    play.asks("only")
    play.answers(message_sse())
    assert play.got.status == 200


SAID = error_json(429, "rate_limit_error", "slow down", headers=(("retry-after", "50"),))


def test_an_error_whose_body_is_cut_keeps_its_status(play):
    play.asks("only")
    play.answers(Answer(429, SAID.headers, SAID.chunks, "chunked", cut="close"))
    assert (play.got.status, play.got.body, play.got.headers["retry-after"]) == (429, SAID.body, "50")


def test_an_error_whose_body_does_not_end_is_reported_after_two_seconds(play, never):
    play.asks("only")
    play.answers(Answer(429, SAID.headers, (*SAID.chunks, never), "chunked"))
    assert play.got.status == 0
    play.passes(2.1)
    assert (play.got.status, play.got.body, play.got.state) == (429, SAID.body, "ended")


def test_those_in_a_short_cooldown_or_with_an_open_circuit_are_asked_before_the_client_gets_an_error(play):
    overloaded = error_json(529, "overloaded_error", headers=(("retry-after", "30"),))
    broken, spent = error_json(500, "api_error"), error_json(402, "billing_error", "no money left")
    rounds = [
        ([overloaded, broken, spent, message_json()], 200, "brief:529 open:500 long:402 home:200"),
        ([message_json()], 200, "home:200"),
        ([broken, overloaded, overloaded], 529, "home:500 brief:529 open:529"),
        ([broken, overloaded, message_json()], 200, "home:500 brief:529 open:200"),
        ([message_json()], 200, "open:200"),
    ]
    for answers, status, attempts in rounds:
        play.asks("last-resort", stream=False)
        for answer in answers:
            play.answers(answer)
        assert (play.got.status, play.got.headers["x-signalbox-attempts"]) == (status, attempts)
    statuses = [record["status"] for record in play.records(5)]
    assert statuses == ["success", "success", "error", "success", "success"]


def test_an_error_of_the_routers_own_names_every_target_and_why_it_did_not_answer(play):
    for answers, attempts in (
        ([error_json(402, "billing_error", "no money left")], "long:402 dead:connect dead:connect"),
        ([], "dead:connect dead:connect"),
    ):
        play.asks("nobody", stream=False)
        for answer in answers:
            play.answers(answer)
        play.refuses()
        play.refuses()
        assert (play.got.status, play.got.headers["x-signalbox-attempts"]) == (502, attempts)
        message = play.got.error["message"]
        assert message.startswith("dead could not be reached at dead.invalid:80: Connection refused; ")
        assert "long: " in message
        assert "no money left" in message
        assert message.count("dead: connect, Connection refused") == 1
        assert "keyless: NOT_SET_IN_TESTS is not set" in message


# retries, waits, and the rule's own failover


def test_retries_ask_the_same_target_first(play):
    play.asks("retried")
    for _ in range(3):
        play.answers(error_json(500, "api_error"))
        play.passes(30)
    play.answers(message_sse())
    assert play.attempts == "zai:500 zai:500 zai:500 anthropic:200"
    assert len({asked.server for asked in play.asked}) == 2


def test_a_short_retry_after_is_waited_out_at_the_same_target(play):
    play.asks("waited")
    play.answers(error_json(429, "rate_limit_error", headers=(("retry-after", "1"),)))
    play.passes(0.9)
    assert len(play.asked) == 1
    assert not play.opening
    play.passes(0.2)
    first, again = play.asked
    assert (first.server, first.body) == (again.server, again.body)
    play.answers(message_sse())
    assert play.attempts == "zai:429 zai:200"


def test_a_longer_retry_after_is_not_waited_out(play):
    play.asks("impatient")
    play.answers(error_json(429, "rate_limit_error", headers=(("retry-after", "1"),)))
    play.answers(message_sse())
    assert play.attempts == "zai:429 anthropic:200"


def test_a_rule_says_by_itself_what_moves_on(play):
    play.asks("named")
    play.answers(error_json(500, "api_error"))
    assert play.attempts == "zai:500"
    play.asks("named")
    play.answers(error_json(503, "api_error"))
    play.answers(message_sse())
    assert play.attempts == "zai:503 anthropic:200"


# cooldowns and circuits


def test_when_all_targets_are_in_cooldown_the_last_is_asked_all_the_same(play):
    for _ in range(2):
        play.asks("only")
        play.answers(error_json(429, "rate_limit_error", headers=(("retry-after", "20"),)))
        assert (play.got.status, play.attempts, play.got.headers["retry-after"]) == (429, "zai:429", "20")
    assert len(play.asked) == 2


def test_a_target_in_a_short_cooldown_is_asked_where_the_others_have_no_key(play):
    for _ in range(2):
        play.asks("unset")
        play.answers(error_json(429, "rate_limit_error", headers=(("retry-after", "20"),)))
        assert (play.got.status, play.attempts) == (429, "zai:429")
    play.asks("unset")
    play.answers(message_sse())
    assert (play.got.status, play.attempts) == (200, "zai:200")


def test_targets_with_open_circuits_are_asked_once_each_where_the_others_have_no_key(play):
    for model in ("resting", "resting"):
        play.asks(model)
        play.answers(error_json(500, "api_error"))
        play.answers(error_json(500, "api_error"))
        assert (play.got.status, play.attempts) == (500, "open:500 shut:500")
    play.asks("resting")
    play.answers(error_json(500, "api_error"))
    play.answers(message_sse())
    assert (play.got.status, play.attempts) == (200, "open:500 shut:200")


def test_without_an_available_target_the_client_may_try_again_unless_only_keys_are_missing(play):
    play.asks("unset")
    play.answers(error_json(402, "billing_error", "no credit is left"))
    assert play.attempts == "zai:402"
    for model, retry in (("unset", None), ("keyless", "false")):
        play.asks(model)
        assert (play.got.status, play.got.headers.get("x-should-retry")) == (503, retry)
        assert "NOT_SET_IN_TESTS is not set" in play.got.error["message"]


def test_a_list_that_ends_in_a_reject_is_answered_here(play, caplog):
    caplog.set_level("INFO", "signalbox")
    play.asks("rejecting")
    play.answers(error_json(429, "rate_limit_error", headers=(("retry-after", "20"),)))
    for number, attempts in enumerate(("zai:429", None)):
        if number:
            play.asks("rejecting")
        assert (play.got.status, play.got.headers.get("x-signalbox-attempts")) == (418, attempts)
        assert play.got.error["message"] == "the kettle is on"
        assert play.got.headers["x-signalbox-rule"] == "rejecting"
    assert "↻ zai 429 → reject: " in caplog.text
    assert [record["status"] for record in play.records(2)] == ["error", "error"]


def test_a_target_in_cooldown_is_skipped_and_the_log_says_so(play, caplog):
    caplog.set_level("INFO", "signalbox")
    play.asks("plain")
    play.answers(error_json(529, "overloaded_error"))
    play.answers(message_sse())
    play.asks("plain")
    play.answers(message_sse())
    assert play.attempts == "anthropic:200"
    assert "dispatch: anthropic reason=cooldown model=plain" in caplog.text


def test_a_circuit_opens_lets_one_trial_through_and_closes(play):
    def state() -> str:
        return str(play.router.health("breaker")["circuit"])

    states = []
    for _ in range(3):
        play.asks("breaker")
        play.answers(error_json(500, "api_error"))
        play.answers(message_sse())
        states.append(state())
    assert states == ["closed", "degraded", "open"]
    assert play.router.health("breaker")["reason"].startswith("circuit: open for another")
    play.asks("breaker")
    play.answers(message_sse())
    assert play.attempts == "anthropic:200"

    play.passes(61)
    assert state() == "half-open"
    now = play.router.clock.now
    trial, other = play, play.router.connect()
    play.router.clock.now = now
    trial.asks("breaker")
    other.asks("breaker")
    other.answers(message_sse())
    assert other.attempts == "anthropic:200"
    trial.answers(message_sse())
    assert trial.attempts == "breaker:200"
    assert state() == "closed"


GARBLED = Answer(
    200, (*sse().headers, ("Content-Encoding", "gzip")), (b"\x1f\x8b\x08\x00no gzip at all",), "chunked"
)


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        ("cut", sse(*HALF, cut="reset")),
        ("silent", sse(*HALF, 1000.0)),
        ("reported", sse(*HALF, BROKEN)),
        ("unfinished", sse(*HALF)),
        ("undecodable", GARBLED),
    ],
)
def test_answers_that_begin_and_then_break_off_open_the_circuit(play, model, answer):
    states = []
    for _ in range(5):
        client = play.router.connect()
        client.asks(model)
        client.answers(answer)
        assert client.attempts in (f"{model}:200", f"{model}:stream_error")
        states.append(play.router.health(model)["circuit"])
    assert states == ["closed", "closed", "degraded", "degraded", "open"]


def test_one_answer_that_comes_to_its_end_closes_a_degraded_circuit(play):
    states = []
    for answer in [*[sse(*HALF, cut="reset")] * 4, message_sse(), sse(*HALF, cut="reset")]:
        client = play.router.connect()
        client.asks("counted")
        client.answers(answer)
        states.append(play.router.health("counted")["circuit"])
    assert states == ["closed", "closed", "degraded", "degraded", "closed", "closed"]


# what is no question of failing


def test_a_400_of_the_callers_own_account_moves_on_to_the_next_target(play):
    play.asks("disabled")
    play.answers(error_json(400, "invalid_request_error", "This organization has been disabled."))
    play.answers(message_sse())
    assert play.attempts == "login:400 zai:200"


def test_a_cache_is_warmed_up_where_there_is_one_and_nowhere_else(play):
    play.asks("warm", stream=False, max_tokens=0)
    play.answers(error_json(500, "api_error"))
    assert (play.got.status, play.attempts) == (500, "zai:500")
    assert not play.opening


def test_counting_tokens_gives_the_providers_own_error_and_no_rules_refusal(play):
    wrong = error_json(500, "api_error")
    play.asks("refused", path="/v1/messages/count_tokens")
    play.answers(wrong)
    assert (play.got.status, play.got.body) == (500, wrong.body)


def test_a_herd_learns_from_its_first_failure(play):
    """Those who were asking already fail, each once; of the rest none does."""
    router, now = play.router, play.router.clock.now
    early, late = [router.connect() for _ in range(5)], [router.connect() for _ in range(5)]
    router.clock.now = now
    for client in early:
        client.asks("herd")
        client.connects()
    for client in early[:1]:
        client.answers(error_json(429, "rate_limit_error", headers=(("retry-after", "30"),)))
    for client in late:
        client.asks("herd")
        assert client.goes_to() == ["home"]
    for client in early[1:]:
        client.answers(error_json(429, "rate_limit_error", headers=(("retry-after", "30"),)))
    for client in (*early, *late):
        client.answers(message_sse())
        assert client.attempts == ("herd:429 anthropic:200" if client in early else "anthropic:200")


def test_a_target_that_got_a_cooldown_meanwhile_is_skipped(play):
    """The plan was made before."""
    play.asks("later")
    play.connects()
    now = play.clock.now
    other = play.router.connect()
    play.clock.now = now
    other.asks("other")
    other.answers(error_json(429, "rate_limit_error", headers=(("retry-after", "100000"),)))
    play.answers(error_json(500, "api_error"))
    assert play.goes_to() == ["home"]


def test_two_requests_in_one_read_are_answered_one_after_the_other(play):
    body = b'{"model":"only","messages":[{"role":"user","content":"x"}]}'
    play.client_sends(request(body) * 2)
    play.answers(message_json("only", "one"))
    assert b"one" in play.answer
    play.answers(message_json("only", "two"))
    assert b"two" in play.answer
