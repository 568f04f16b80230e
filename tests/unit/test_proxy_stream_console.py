"""What the console says of requests that failed, were refused or only passed on."""

import pytest

from tests.support.answers import Answer, error_json, message_json
from tests.support.playbook import played

KEY = "key-for-tests-0000000001"
RULES = f"""
providers:
  other: {{url: "http://up.invalid", key: {KEY}}}
rules:
  - {{match: {{model: "slow-*", prompt: ['\\s+$', a.*b.*c.*d]}}, to: other}}
"""


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level("INFO", "signalbox")


def test_an_error_says_why_on_the_console(play, up, caplog):
    message = f"messages: the key {KEY} is not what is missing here, the messages are, all of them"
    up.answer(error_json(400, "invalid_request_error", message))
    assert play.ask("slow-3", messages=[{"role": "user", "content": "a b c d"}]).status == 400
    shown = "messages: the key *** is not what is missing here, the messa…"
    assert f"[slow-3|other] 400 invalid_request_error: {shown} 0ms" in caplog.text
    assert KEY not in caplog.text


def test_an_error_that_repeats_the_prompt_does_not_put_it_into_the_log(play, up, caplog):
    prompt = "a b c d of a diary that nobody may read"
    up.answer(error_json(400, "invalid_request_error", f"blocked by a filter: {prompt}"))
    got = play.ask("slow-4", messages=[{"role": "user", "content": prompt}])
    assert prompt in got.error["message"]
    assert "[slow-4|other] 400 invalid_request_error: blocked by a filter: … 0ms" in caplog.text
    assert "diary" not in caplog.text


def test_a_provider_that_cannot_be_reached_is_named_with_the_reason(play, caplog):
    play.asks("slow-1", messages=[{"role": "user", "content": "a b c d"}])
    play.refuses()
    assert play.got.status == 502
    assert "[slow-1|other] 502 connection refused (other at up.invalid:80) 0ms" in caplog.text


def test_the_names_in_a_reason_keep_their_capitals(play, up, caplog):
    up.answer(Answer(framing="raw", chunks=(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",), cut="close"))
    play.ask("slow-2", messages=[{"role": "user", "content": "a b c d"}])
    (line,) = [line for line in caplog.messages if line.startswith("[slow-2|other] 502 ")]
    assert line.startswith("[slow-2|other] 502 HTTP/1 protocol error: ")
    assert line.removesuffix(' "a b c d"').endswith(" (other at up.invalid:80) 0ms")


def test_what_is_refused_or_only_passed_on_leaves_a_line(tmp_path, caplog):
    secret = "client-secret-for-tests"
    rules = f"clients: {{laptop: {secret}}}\nlimits: {{body: 1KB}}\n"
    mine = {"X_Signalbox_Client": secret}
    with played(tmp_path, rules) as router:
        upstream = router.provider("upstream")
        upstream.answer(message_json("m"))
        assert router.connect().fetch("POST /v1/messages", b"{}", X_Api_Key="wrong-secret").status == 401
        assert router.connect().fetch("POST /v1/messages", b'{"model": "m"}', **mine).status == 200
        router.providers.clear()
        play = router.connect()
        play.fetch("GET /v1/elsewhere", **mine)
        play.refuses()
        assert play.got.status == 502
        (record,) = router.records(1, None)
    assert [record[name] for name in ("status", "backend", "client")] == ["success", "upstream", "laptop"]
    for line in (
        "[-|-] 401 authentication_error from 127.0.0.1 POST /v1/messages 0ms",
        "[-|upstream] 200 POST /v1/messages 0ms",
        "[-|upstream] 502 connection refused (upstream at upstream.invalid:80) GET /v1/elsewhere 0ms",
    ):
        assert line in caplog.text
    assert "secret-for-tests" not in caplog.text


def test_a_request_that_is_too_large_leaves_a_line_and_a_record(tmp_path, caplog):
    rules = """
limits: {body: 1KB}
providers: {a: {url: "http://up.invalid"}}
rules: [{match: "*", to: a}]
"""
    with played(tmp_path, rules) as router:
        play = router.connect()
        assert play.ask("m", messages=["x" * 2000]).status == 413
        assert router.records(1, None)[0]["status"] == "error"
    (line,) = [line for line in caplog.messages if "413" in line]
    assert line.startswith("[-|-] 413 request_too_large: The request is larger ")
    assert line.endswith(" POST /v1/messages 0ms")
