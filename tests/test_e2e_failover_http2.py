"""Failover where one connection carries many requests: HTTP/2 clients and HTTP/2 providers."""

import threading
from collections.abc import Iterator

import pytest

from tests.answers import Answer, error_json, message_sse, sse
from tests.brief import KEPT
from tests.conftest import Shared
from tests.http2 import Caller2, Upstream2
from tests.pieces import BROKEN, LATE, NOISE
from tests.running import Router, with_scripts
from tests.tls import certify
from tests.upstream import Received, Upstream

ROUTER = Router

LIMIT = 0.3
"""Seconds that a connection may take."""


@pytest.fixture(scope="module")
def multiplexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream2]:
    with Upstream2(certify(tmp_path_factory.mktemp("certificate") / "server.pem")) as one:
        yield one


def rules(home: Upstream, zai: Upstream, multiplexed: Upstream2) -> str:
    key = f"key: zai-key-for-tests-0001, circuit: {{open_after: 100000}}, timeout: {{connect: {LIMIT}s}}"
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", {key}}}
  multi: {{url: "{multiplexed.url}", {key}}}
rules:
  - {{match: "zai*", to: [zai, anthropic]}}
  - {{match: "last*", to: zai}}
  - {{match: "multi*", to: [multi, anthropic]}}
  - {{match: "stubborn*", to: multi, failover: {{retries: 1}}}}
log: {{level: debug}}
"""


OPTIONS = (*with_scripts("brief.py"), "--set", "ssl_insecure=true")


@pytest.fixture
def caller2(shared: Shared, request: pytest.FixtureRequest) -> Iterator[Caller2]:
    with Caller2(shared.router, request.node.name) as one:
        yield one


def test_streams_of_one_http2_client_fail_over_without_touching_each_other(shared, caller2, never):
    def scripted(received: Received) -> Answer:
        model = received.json["model"]
        return sse(BROKEN, *NOISE) if model == "zai-3" else message_sse(model, (f"of {model}",))

    shared.second.answer(scripted)
    shared.upstream.answer(lambda received: message_sse(received.json["model"], ("spare",)))
    numbers = {name: caller2.ask(name) for name in [f"zai-{n}" for n in range(5)]}
    for name, number in numbers.items():
        answer = caller2.answer(number)
        failed = name == "zai-3"
        assert answer.state == "ended"
        told = "zai:stream_error anthropic:200" if failed else "zai:200"
        assert answer.headers["x-signalbox-attempts"] == told
        assert answer.body == message_sse(name, ("spare" if failed else f"of {name}",)).body


def test_a_stream_that_its_http2_client_gives_up_is_cancelled_alone(shared, caller2, never):
    shared.second.answer(lambda received: sse(*LATE[:4], never))
    one, other = caller2.ask("last-one"), caller2.ask("last-other")
    caller2.until(one, b"LATE")
    caller2.until(other, b"LATE")
    caller2.leave(one)
    shared.second.wait_left(1)
    record = shared.router.records(1)[0]
    assert (record["upstream_model"], record["status"]) == ("last-one", "cancelled")
    never.set()
    caller2.answer(other)


def test_streams_that_wait_in_line_for_a_connection_are_nobodys_failure(shared, caller2, never):
    """mitmproxy opens five connections at a time to one address."""
    shared.second.answer(lambda received: sse(*LATE[:4], never, *LATE[4:]))
    first = [caller2.ask(f"last-{n}") for n in range(5)]
    for number in first:
        caller2.until(number, b"LATE")
    alone = caller2.ask("last-alone")
    shared.router.wait_log(r"(→ zai POST[\s\S]*){6}")
    caller2.leave(alone)
    shared.router.records(1)
    waiting, beside = caller2.ask("last-waiting"), caller2.ask("last-beside")
    shared.router.wait_log(r"(→ zai POST[\s\S]*){8}")
    caller2.leave(beside)
    told = [(record["upstream_model"], record["status"]) for record in shared.router.records(2)]
    assert told == [("last-alone", "cancelled"), ("last-beside", "cancelled")]
    assert not never.wait(2 * LIMIT)  # the limit on a connection is not on waiting in line
    never.set()
    assert caller2.answer(waiting).headers["x-signalbox-attempts"] == "zai:200"
    assert len(shared.second.requests) == 6


def test_a_retry_on_one_http2_connection(multiplexed, shared, caller2):
    multiplexed.asked.clear()
    multiplexed.script = lambda number, body: (
        error_json(500, "api_error") if not number else message_sse(body["model"])
    )
    answer = caller2.answer(caller2.ask("stubborn"))
    assert answer.headers["x-signalbox-attempts"] == "multi:500 multi:200"
    assert answer.body == message_sse("stubborn").body
    assert len({connection for connection, _ in multiplexed.asked}) == 1


def test_an_abandoned_stream_of_an_http2_connection_does_not_touch_its_neighbours(
    multiplexed, shared, caller2
):
    multiplexed.asked.clear()
    before = multiplexed.resets

    def scripted(number: int, body: dict[str, object]) -> Answer:
        model = str(body["model"])
        return sse(BROKEN, *NOISE, cut="close") if model.endswith("odd") else message_sse(model)

    multiplexed.script = scripted
    names = [f"multi-{n}-{'odd' if n % 2 else 'even'}" for n in range(6)]
    numbers = [caller2.ask(name) for name in names]
    for name, number in zip(names, numbers, strict=True):
        told = "multi:stream_error anthropic:200" if name.endswith("odd") else "multi:200"
        answer = caller2.answer(number)
        assert answer.headers["x-signalbox-attempts"] == told
        assert answer.body == message_sse(name).body
    multiplexed.wait_reset(before + 3)
    assert len({connection for connection, _ in multiplexed.asked}) == 1


def test_a_provider_that_resets_every_stream_of_a_kept_connection_is_not_asked_for_ever(
    multiplexed, shared, caller2
):
    multiplexed.asked.clear()
    multiplexed.script = lambda number, body: (
        Answer(cut="reset") if number else message_sse(str(body["model"]))
    )
    caller2.answer(caller2.ask("multi-first"))
    answer = caller2.answer(caller2.ask("multi-second"))
    assert answer.headers["x-signalbox-attempts"] == "multi:connect anthropic:200"
    assert len(multiplexed.asked) <= 3


def test_a_connection_on_which_one_stream_waits_in_silence_is_used_by_others(multiplexed, shared, caller2):
    multiplexed.asked.clear()
    multiplexed.script = lambda number, body: (
        message_sse(str(body["model"])) if number else sse(*LATE[:4], cut="close")
    )
    waiting = caller2.ask("stubborn")
    caller2.until(waiting, b"LATE")
    assert not threading.Event().wait(KEPT)
    assert caller2.answer(caller2.ask("stubborn")).state == "ended"
    assert caller2.streams[waiting].state == "open"
    assert len({connection for connection, _ in multiplexed.asked}) == 1


def test_an_http2_connection_that_was_silent_for_long_is_not_used_again(multiplexed, shared, caller2):
    multiplexed.asked.clear()
    multiplexed.script = lambda number, body: message_sse(str(body["model"]))
    for number in range(2):
        assert not threading.Event().wait(number * KEPT)
        assert caller2.answer(caller2.ask("stubborn")).state == "ended"
    assert len({connection for connection, _ in multiplexed.asked}) == 2
