"""What the router answers itself: refusals, upstreams that only pass, and its own errors."""

import gzip
import json
import logging
import re
import time

import pytest

from tests.support.answers import Answer, error_json, message_json, message_sse
from tests.support.playbook import Playbook, Provider, played
from tests.support.played_wire import Got, request

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client}
  zai: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: {open_after: 100000}}
  dead: {url: "http://dead.invalid", key: dead-key-for-tests-001, circuit: {open_after: 100000}}
  keyless: {url: "http://home.invalid", key: "${NOT_SET_IN_TESTS}"}
rules:
  - {match: "zai", to: zai}
  - {match: "dead", to: dead}
  - {match: "no-key", to: keyless}
  - {match: "chain", to: [dead/kimi, zai/glm, anthropic]}
  - {match: "*haiku*", to: zai/glm-4.5-air}
  - {match: "*", to: anthropic}
limits: {body: 64KB}
log: {level: debug}
"""
COUNT = "/v1/messages/count_tokens"


@pytest.fixture
def upstream(played_router) -> Provider:
    """Gets requests that are passed on."""
    return played_router.provider("upstream")


def raw(*chunks: bytes) -> Answer:
    return Answer(framing="raw", chunks=chunks, cut="close")


@pytest.mark.parametrize("path", ["/v1/messages", COUNT])
def test_an_error_of_the_routers_own_reports_all_that_is_known(play, path):
    got = play.ask("no-key", path=path)
    assert got.status == 503
    assert (got.headers["x-signalbox-provider"], got.headers["x-signalbox-model"]) == ("keyless", "no-key")
    assert got.headers["x-signalbox-rule"].startswith("#")
    assert got.headers["request-id"] == json.loads(got.body)["request_id"]


def test_a_provider_that_cannot_be_reached_is_named_with_the_cause(play, caplog):
    for _ in range(2):  # a failed connection leaves the client's usable
        play.asks("dead")
        play.refuses()
        assert (play.got.status, play.got.error["type"]) == (502, "api_error")
        assert play.got.error["message"] == "dead could not be reached at dead.invalid:80: Connection refused"
        assert play.got.headers["x-signalbox-attempts"] == "dead:connect"
        assert "connection" not in play.got.headers
    play.records(2)
    assert re.search(r"\[dead\|dead\] 502 .+ \(dead at dead\.invalid:80\) \d+ms", caplog.text)


@pytest.mark.parametrize(
    "broken",
    [raw(), raw(b"SSH-2.0-this is no HTTP\r\n\r\n"), raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")],
    ids=["closed", "no HTTP", "no length"],
)
def test_a_provider_that_breaks_off_before_it_answers_gives_502(play, zai, broken):
    zai.answer(broken)
    got = play.ask("zai")
    assert (got.status, got.headers["content-type"]) == (502, "application/json")
    assert got.error["message"].startswith("zai at zai.invalid:80 broke off before it answered: ")


@pytest.mark.parametrize("how", ["dead", "broken"])
def test_what_is_only_passed_on_gets_its_502_in_anthropics_shape_too(play, how):
    play.client_sends(request(b"{}", "/v1/elsewhere"))
    if how == "dead":
        play.refuses()
        said = r"could not be reached at upstream\.invalid:80: .+"
    else:
        play.answers(raw())
        said = r"at upstream\.invalid:80 broke off before it answered: .+"
    got = play.got
    assert (got.status, got.error["type"]) == (502, "api_error")
    assert re.fullmatch(f"the upstream {said}", got.error["message"])
    assert not [name for name in got.headers if name.startswith("x-signalbox")]


def test_what_passes_by_the_rules_says_nothing_of_a_provider_of_the_same_name(tmp_path, caplog):
    """Where the upstream is Anthropic, that name is `anthropic`."""
    rules = """
providers:
  upstream: {url: "http://upstream.invalid", key: zai-key-for-tests-0001, budget: {tokens: 2000, per: day}}
  spare: {url: "http://upstream.invalid", key: zai-key-for-tests-0002}
rules:
  - {match: "mine", to: [upstream, spare]}
"""
    limits = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-7d-status": "rejected",
        "anthropic-ratelimit-unified-7d-reset": str(int(time.time()) + 3600),
    }
    spent = error_json(429, "rate_limit_error", headers=tuple(limits.items()))
    refused = error_json(401, "authentication_error")
    with played(tmp_path, rules) as router:
        play, upstream = router.connect(), router.provider("upstream")
        upstream.answer(message_json(), *[message_json()] * 2, spent, refused, message_json())
        told = [play.ask(model) for model in ("mine", "other", "other", "other", "other", "mine")]
        shown = [(got.headers["x-signalbox-provider"], got.headers["x-signalbox-attempts"]) for got in told]
        assert shown == [("upstream", f"upstream:{status}") for status in (200, 200, 200, 429, 401, 200)]
        assert [record["backend"] for record in play.records(6)] == ["upstream"] * 6
        health = router.health("upstream")
    assert (health["available"], health["key_valid"], health["quota"]) == (True, True, None)
    assert "mode transition" not in caplog.text


# bodies that are too large


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(play):
    play.client_sends(b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n{")
    assert (play.got.status, play.got.error["type"]) == (413, "request_too_large")


@pytest.mark.parametrize("path", ["/v1/messages", COUNT])
def test_a_client_that_writes_before_it_reads_gets_to_see_the_refusal(play, path):
    whole = request(b"x" * 5_000_000, path)
    for start in range(0, len(whole), 65536):
        play.client_sends(whole[start : start + 65536])
    got = play.got
    assert (got.status, got.error["type"], got.state) == (413, "request_too_large", "ended")
    assert "x-signalbox-provider" not in got.headers
    assert not play.opening


def test_a_body_without_a_length_is_refused_once_it_is_too_large(play):
    play.client_sends(b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(20):
        play.client_sends(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
    assert (play.got.status, play.got.error["type"]) == (413, "request_too_large")


@pytest.mark.slow
def test_a_body_that_grows_too_large_when_decoded_is_refused(play):
    bomb = gzip.compress(gzip.compress(b'{"model":"' + b"x" * 100_000_000, 1))
    assert len(bomb) < 64 * 1024
    play.client_sends(request(bomb, content_encoding="gzip, gzip"))
    assert (play.got.status, play.got.error["type"]) == (413, "request_too_large")


def test_a_body_just_within_the_limit_passes(play, home):
    body = json.dumps({"model": "claude-opus-4-5", "pad": ""}).encode()
    body = body.replace(b'"pad": ""', b'"pad": "%s"' % (b"x" * (64 * 1024 - len(body))))
    play.client_sends(request(body))
    assert len(home.requests[0].body) == 64 * 1024
    assert play.got.status == 200


def test_other_paths_take_any_size(play):
    upstream = play.router.provider("upstream")
    play.client_sends(request(b"x" * 200_000, "/v1/files"))
    assert len(upstream.requests[0].body) == 200_000


# what people see of a failover


def test_the_console_and_the_debug_log_tell_each_step(play, zai, home, caplog):
    caplog.set_level("DEBUG", "signalbox")
    play.asks("chain")
    play.refuses()
    zai.answer(error_json(529, "overloaded_error", "all lines are busy"))
    play.serve()
    assert play.got.headers["x-signalbox-attempts"] == "dead:connect zai:529 anthropic:200"
    (record,) = play.records(1)
    assert (record["backend"], record["status"], record["upstream_model"]) == (
        "anthropic",
        "success",
        "chain",
    )
    steps = re.findall(r"^[→←↻] \w+(?: \d+)?", "\n".join(caplog.messages), re.MULTILINE)
    assert steps == ["→ dead", "↻ dead", "→ zai", "← zai 529", "↻ zai 529", "→ anthropic", "← anthropic 200"]
    assert "↻ dead connect → zai: Connection refused" in caplog.messages
    assert "↻ zai 529 → anthropic: overloaded_error: all lines are busy" in caplog.messages
    assert "↻ 3 attempts" in caplog.text


def test_at_debug_the_log_reports_which_target_is_skipped_and_why(play, zai, home, caplog):
    caplog.set_level("DEBUG", "signalbox")
    zai.answer(error_json(529, "overloaded_error", "all lines are busy"))
    for _ in range(2):
        play.asks("chain")
        play.refuses()
        play.serve()
    assert play.got.headers["x-signalbox-attempts"] == "dead:connect anthropic:200"
    said = r"skipped zai/glm: cooldown \(in cooldown for another .+: .*all lines are busy\)"
    assert re.search(said, caplog.text)


# errors inside the router: its clock fails, or its log

SECRET = "sk-ant-fake-secret-in-an-error"
OAUTH = "Bearer sk-ant-oat01-fake-login"


def ask_with_broken_clock(play: Playbook, hook: str, **headers: str) -> Got:
    """Whose first look at the clock within this hook raises."""
    play.router.break_clock(KeyError(SECRET), hook)
    return play.ask("claude-haiku-4-5", headers=headers)


def test_an_error_lets_a_request_with_its_own_login_through_unchanged(play, upstream, zai, caplog):
    caplog.set_level("DEBUG", "signalbox")
    got = ask_with_broken_clock(play, "request", authorization=OAUTH)
    assert (got.status, got.headers["x-signalbox-rule"]) == (200, "fail-open")
    (asked,) = upstream.requests
    assert asked.json["model"] == "claude-haiku-4-5"
    assert asked.header("authorization") == OAUTH
    assert not zai.requests
    assert "reason=fail-open" in caplog.text
    assert "KeyError at " in caplog.text
    assert SECRET not in caplog.text
    assert "Traceback" not in caplog.text


def test_an_error_is_reported_where_the_caller_has_no_login(play, upstream, zai):
    got = ask_with_broken_clock(play, "request", **{"x-api-key": ""})
    assert (got.status, got.error["type"]) == (500, "api_error")
    assert not upstream.requests + zai.requests


def test_an_error_is_reported_where_the_rules_say_closed(tmp_path):
    with played(tmp_path, RULES + "fail: closed\n") as router:
        upstream = router.provider("upstream")
        got = ask_with_broken_clock(router.connect(), "request", authorization=OAUTH)
    assert (got.status, got.error["message"]) == (500, "The router failed; its log says where.")
    assert not upstream.requests


def test_an_error_after_the_request_was_rewritten_sends_it_nowhere(play, upstream, zai):
    def fails(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("dispatch:"):
            raise KeyError(SECRET)
        return True

    log = logging.getLogger("signalbox")
    log.setLevel("DEBUG")
    log.addFilter(fails)
    try:
        got = play.ask("claude-haiku-4-5", headers={"authorization": OAUTH})
    finally:
        log.removeFilter(fails)
    assert (got.status, got.error["type"]) == (500, "api_error")
    assert not upstream.requests + zai.requests


def test_an_error_of_an_own_page_is_not_forwarded(play, upstream):
    play.router.break_clock(KeyError(SECRET), "requestheaders")
    play.client_sends(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1:8082\r\n\r\n")
    assert play.got.status == 500
    assert not upstream.requests


def test_an_error_below_the_hooks_is_reported_and_the_next_request_works(play, caplog):
    play.asks("zai")
    server = play.connects()
    play.router.break_clock(KeyError(SECRET))
    play.sends(server, message_sse("glm").head())
    assert (play.got.status, play.got.error["type"]) == (500, "api_error")
    assert SECRET not in caplog.text
    assert server in play.aborted
    again = play.router.connect()
    again.asks("zai")
    again.answers(message_sse("glm"))
    assert again.got.status == 200
