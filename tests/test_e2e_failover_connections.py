"""Connections under failover: nobody gets another's bytes, what can be used again is, nothing is kept."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.answers import (
    USAGE,
    Answer,
    compressed,
    error_json,
    message_json,
    message_sse,
    sse,
)
from tests.callers import Caller
from tests.pieces import BROKEN, LATE, NOISE
from tests.running import Router, wait_until, with_scripts
from tests.tls import TlsUpstream, certify
from tests.upstream import Received, Upstream

ROUTER = Router


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certify(tmp_path_factory.mktemp("certificate") / "server.pem")


@pytest.fixture(scope="module")
def tls(certificate: Path) -> Iterator[TlsUpstream]:
    with TlsUpstream(certificate) as one:
        yield one


def rules(home: Upstream, zai: Upstream, tls: TlsUpstream, no_tls: int) -> str:
    key = "key: zai-key-for-tests-0001, circuit: {open_after: 100000}"
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", {key}, timeout: {{first_byte: 300ms}}}}
  tls: {{url: "{tls.url}", {key}}}
  no-tls: {{url: "https://127.0.0.1:{no_tls}", {key}}}
rules:
  - {{match: "zai*", to: [zai, anthropic]}}
  - {{match: "last*", to: [zai]}}
  - {{match: "again*", to: zai, failover: {{retries: 1}}}}
  - {{match: "tls*", to: [tls, anthropic]}}
  - {{match: "no-tls*", to: [no-tls, anthropic]}}
"""


OPTIONS = (*with_scripts("census.py"), "--set", "ssl_insecure=true")


def attempts(caller: Caller, model: str, stream: bool = True) -> str:
    caller.ask(model, stream)
    answer = caller.answer()
    assert answer.status == 200
    return answer.headers["x-signalbox-attempts"]


# late bytes


def test_what_an_abandoned_answer_still_sends_goes_to_nobody(shared, caller):
    for number in range(5):
        shared.second.answer(sse(BROKEN, *NOISE))
        shared.upstream.answer(message_sse(f"zai{number}", (f"answer {number}",)))
        caller.ask(f"zai{number}")
        answer = caller.answer()
        assert answer.headers["x-signalbox-attempts"] == "zai:stream_error anthropic:200"
        assert answer.body == message_sse(f"zai{number}", (f"answer {number}",)).body


def test_an_answer_that_comes_too_late_goes_to_nobody(shared, caller):
    gates = [threading.Event() for _ in range(3)]
    for number, gate in enumerate(gates):
        shared.second.answer(Answer(200, sse().headers, tuple(LATE), "chunked", wait=gate))
        shared.upstream.answer(message_sse("zai", (f"answer {number}",)))
        caller.ask("zai")
        answer = caller.answer()
        gate.set()
        assert answer.headers["x-signalbox-attempts"] == "zai:timeout anthropic:200"
        assert answer.body == message_sse("zai", (f"answer {number}",)).body


# using connections again


def test_an_error_read_to_its_end_leaves_its_connection_for_the_next_request(shared, caller):
    shared.second.answer(error_json(500, "api_error"), error_json(502, "api_error"), message_sse("zai"))
    told = [attempts(caller, "zai") for _ in range(3)]
    assert told == ["zai:500 anthropic:200", "zai:502 anthropic:200", "zai:200"]
    assert len({request.connection for request in shared.second.requests}) == 1
    assert len({request.connection for request in shared.upstream.requests}) == 1


def test_a_429_leaves_its_connection_for_the_next_request(shared, caller):
    shared.second.answer(error_json(429, "rate_limit_error", headers=(("retry-after", "1"),)))
    assert attempts(caller, "zai-first") == "zai:429 anthropic:200"
    shared.second.answer(message_sse("glm"))
    wait_until(lambda: attempts(caller, "zai-first") == "zai:200", 5, shared.router.log)
    assert len({request.connection for request in shared.second.requests}) == 1


def test_a_retry_uses_the_same_connection(shared, caller):
    shared.second.answer(error_json(500, "api_error"), message_sse("again"))
    assert attempts(caller, "again") == "zai:500 zai:200"
    first, then = shared.second.requests
    assert first.connection == then.connection
    assert first.body == then.body


def test_a_connection_that_was_closed_while_it_was_idle_is_no_failure(shared, caller):
    shared.second.answer(Answer(200, message_json("zai").headers, (message_json("zai").body,), cut="close"))
    for _ in range(3):
        assert attempts(caller, "zai", stream=False) == "zai:200"
    assert len({request.connection for request in shared.second.requests}) == 3


def test_a_kept_connection_that_breaks_when_it_is_used_again_is_no_failure(shared, caller):
    used: set[int] = set()

    def once(received: Received) -> Answer:
        if received.connection in used:
            return Answer(framing="raw", cut="reset")
        used.add(received.connection)
        return message_json("zai")

    shared.second.answer(once)
    for _ in range(3):
        assert attempts(caller, "zai", stream=False) == "zai:200"
    assert len(used) == 3


def test_a_fresh_connection_that_breaks_is_a_failure(shared, caller):
    shared.second.answer(Answer(framing="raw", cut="reset"))
    assert attempts(caller, "zai") == "zai:connect anthropic:200"
    assert len(shared.second.requests) == 1


# heads before the head, codings


@pytest.mark.parametrize("model", ["zai", "last"])
def test_early_hints_stand_before_any_answer(shared, caller, model):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    answer = message_json(model)
    shared.second.answer(Answer(framing="raw", chunks=(hints, hints + answer.head() + answer.body)))
    for _ in range(2):
        assert attempts(caller, model, stream=False) == "zai:200"
    assert len({request.connection for request in shared.second.requests}) == 1


def test_early_hints_before_a_failure_change_nothing(shared, caller):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    failed = error_json(500, "api_error")
    shared.second.answer(
        Answer(framing="raw", chunks=(hints, failed.head() + failed.body)),
        Answer(framing="raw", chunks=(hints,), cut="reset"),
    )
    assert attempts(caller, "zai") == "zai:500 anthropic:200"
    with Caller(shared.router) as other:
        assert attempts(other, "zai") == "zai:connect anthropic:200"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_compressed_answer_of_one_of_several_targets_is_decoded(shared, caller, coding, stream):
    plain = message_sse("zai") if stream else message_json("zai")
    shared.second.answer(compressed(plain, coding) if stream else packed(plain, coding))
    caller.ask("zai", stream, Accept_Encoding=coding)
    answer = caller.answer()
    assert answer.body == plain.body
    assert "content-encoding" not in answer.headers
    assert shared.second.requests[0].header("accept-encoding") == "identity"
    record = shared.router.records(1, session=caller.session)[0]
    assert record["input_tokens"] == USAGE["input_tokens"]
    assert record["output_tokens"] == USAGE["output_tokens"]


def packed(answer: Answer, coding: str) -> Answer:
    return Answer(200, compressed(answer, coding).headers, (compressed(answer, coding).body,))


def test_an_error_within_a_compressed_stream_is_seen(shared, caller):
    shared.second.answer(compressed(sse(LATE[0], BROKEN), "gzip"))
    assert attempts(caller, "zai") == "zai:stream_error anthropic:200"


def test_a_head_that_could_smuggle_is_a_failure(shared, caller):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    shared.second.answer(Answer(framing="raw", chunks=(head,)))
    assert attempts(caller, "zai") == "zai:connect anthropic:200"
    assert attempts(caller, "zai") == "zai:connect anthropic:200"
    caller.ask("last")
    answer = caller.answer()
    assert answer.status == 502
    assert json.loads(answer.body)["error"]["type"] == "api_error"


# TLS


def test_a_provider_behind_tls_may_fail_and_answer(tls, shared, caller):
    tls.reset()
    tls.answer(error_json(500, "api_error"), sse(BROKEN, *NOISE), message_sse("tls"))
    told = [attempts(caller, "tls") for _ in range(3)]
    assert told == ["tls:500 anthropic:200", "tls:stream_error anthropic:200", "tls:200"]
    assert [request.connection for request in tls.requests] == [0, 0, 1]


def test_a_client_that_leaves_lets_a_provider_behind_tls_go(tls, shared, caller, never):
    tls.reset()
    tls.answer(sse(LATE[0], never))
    caller.ask("tls")
    tls.wait_for(1)
    left = caller.leave()
    assert tls.wait_left(1)[0].time - left < 1


def test_a_tls_handshake_that_fails_is_a_failure_and_tried_again_later(shared, caller):
    for _ in range(3):
        assert attempts(caller, "no-tls") == "no-tls:connect anthropic:200"
    shared.router.wait_log("↻ no-tls connect → anthropic")


# nothing leaks


def census(caller: Caller) -> dict[str, int]:
    caller.ask("census", X_Census="1")
    found: dict[str, int] = json.loads(caller.answer().body)
    return found


FAILURES = [
    error_json(500, "api_error"),
    Answer(502, (("Connection", "close"),), (b"<html>",), cut="close"),
    Answer(framing="raw", cut="reset"),
    Answer(framing="raw", cut="close"),
    sse(BROKEN, *NOISE),
    sse(LATE[0], cut="reset"),
]


@pytest.mark.slow
def test_three_hundred_failovers_on_one_connection_leave_nothing_behind(shared, caller):
    def failovers(count: int) -> None:
        for number in range(count):
            shared.second.answer(FAILURES[number % len(FAILURES)])
            caller.ask("no-tls" if number % 10 == 9 else "zai", pad=50_000)
            assert caller.answer().headers["x-signalbox-attempts"].endswith("anthropic:200")

    failovers(20)
    before = census(caller)
    failovers(300)
    after = census(caller)
    grown = {name: (before[name], after[name]) for name in before if after[name] > before[name] + 2}
    grown.pop("bytes", None)
    assert not grown
    assert after["connections"] <= 4
    assert after["bytes"] < before["bytes"] + 200_000


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for what a process holds")
def test_large_requests_that_are_over_are_not_held_until_their_time_limits_come(start_router, upstream):
    rules = f'providers: {{zai: {{url: "{upstream.url}", key: k}}}}\nrules: [{{match: "*", to: zai}}]'
    router = start_router(upstream.url, rules=rules)
    status = Path(f"/proc/{router.process.pid}/status")
    held = []
    with Caller(router) as caller:
        for number in range(80):
            caller.ask("large", pad=1_000_000)
            assert caller.answer().status == 200
            upstream.requests.clear()
            if number % 60 == 19:  # after the warm-up, and at the end
                held.append(int(status.read_text().partition("VmRSS:")[2].split()[0]))
    assert held[1] - held[0] < 40_000, f"{held} KiB; 60 requests of 1 MB came between"
