"""Which finished flows stay, and how much of their bodies."""

import asyncio
import gzip
from datetime import UTC, datetime

import pytest
from mitmproxy.addons.save import Save
from mitmproxy.addons.view import View
from mitmproxy.flow import Flow
from mitmproxy.test import taddons, tflow

from signalbox.config.rules import Inspect, Rules
from signalbox.exchange import Exchange
from signalbox.inspect.annotations import METADATA
from signalbox.inspect.retention import MASKED_AT_ONCE, Retention, cut, surplus
from signalbox.routing.credentials import Caller

LOGIN = "fake-login-of-nobody-01"


def flows(n: int) -> list[Flow]:
    made: list[Flow] = [tflow.tflow(resp=True) for _ in range(n)]
    for flow in made:
        flow.live = False
    return made


def test_oldest_finished_flows_go_first():
    made = flows(5)
    assert surplus(made, 3) == made[:2]
    assert surplus(made, 5) == []


def test_live_flows_and_those_marked_by_hand_stay_and_do_not_count():
    made = flows(5)
    made[0].live, made[1].marked = True, ":star:"
    assert surplus(made, 2) == [made[2]]


def test_marker_of_the_router_does_not_make_a_flow_stay():
    made = flows(3)
    for flow in made:
        flow.marked = ":x:"
    made[1].metadata[METADATA] = {"marker": ":x:"}
    assert surplus(made, 0) == [made[1]]


def test_bodies_are_cut_and_their_length_is_noted():
    flow = tflow.tflow(resp=True)
    flow.request.data.content, flow.response.data.content = b"x" * 10, b"y" * 20
    assert cut(flow, 10)
    assert (flow.request.data.content, flow.response.data.content) == (b"x" * 10, b"y" * 10)
    assert flow.metadata[METADATA] == {"response_length": 20}


def test_compressed_body_that_is_too_long_is_not_stored():
    flow = tflow.tflow(resp=True)
    flow.response.headers["content-encoding"] = "gzip"
    flow.response.data.content = b"y" * 20
    assert cut(flow, 10)
    assert flow.response.content == b""
    assert flow.metadata[METADATA] == {"response_length": 20}


def test_mitmdump_stores_bodies_for_a_file_only():
    with taddons.context() as context:
        context.options.add_option("save_stream_file", str, "", "")
        retention = Retention(context.master, lambda: Inspect())
        assert not retention.shows
        context.options.save_stream_file = "saved.flows"
        assert retention.shows


def test_mitmdump_stores_bodies_where_it_prints_them():
    with taddons.context() as context:
        context.options.add_option("flow_detail", int, 1, "")
        retention = Retention(context.master, lambda: Inspect())
        assert not retention.shows
        context.options.flow_detail = 3
        assert retention.shows


def test_failed_attempts_are_written_whole_when_their_request_is_over_and_bounded_then(monkeypatch):
    flow, first, second = tflow.tflow(resp=True), tflow.tflow(resp=True), tflow.tflow(err=True)
    first.response.data.content = b"x" * 20
    written: list[tuple[Flow, bytes | None]] = []
    save, view = Save(), View()
    monkeypatch.setattr(
        save, "response", lambda one: written.append((one, one.response and one.response.content))
    )

    async def play() -> None:
        bounded = asyncio.Event()
        monkeypatch.setattr(view, "update", lambda _: bounded.set())
        with taddons.context(view, save) as context:
            retention = Retention(context.master, lambda: Inspect(bodies=10))
            for failed in (first, second):
                failed.live = False
                retention.add_failed(flow, failed)
            assert list(view._store.values()) == [first, second]
            assert written == []
            flow.live = False
            retention.ended(flow)
            assert written == [(first, b"x" * 20), (second, None)]
            async with asyncio.timeout(5):
                await bounded.wait()

    asyncio.run(play())
    assert first.response.content == b"x" * 10
    assert first.metadata[METADATA] == {"response_length": 20}


def test_failed_attempts_of_requests_under_way_are_written_when_the_process_ends(monkeypatch):
    flow, failed = tflow.tflow(), tflow.tflow(err=True)
    written: list[Flow] = []
    monkeypatch.setattr(save := Save(), "response", written.append)
    with taddons.context(save) as context:
        retention = Retention(context.master, lambda: Inspect())
        retention.add_failed(flow, failed)
        retention.close()
        retention.ended(flow)
    assert written == [failed]


@pytest.mark.parametrize(
    ("body", "coding", "shown"),
    [
        (b'{"key": "fake-login-of-nobody-01"}', "", b'{"key": "***"}'),
        (gzip.compress(b'{"key": "fake-login-of-nobody-01"}'), "gzip", b'{"key": "***"}'),
        (b"fake-login-of-nobody-01 is no gzip", "gzip", b""),
        (LOGIN.encode() + bytes(MASKED_AT_ONCE), "", b""),
    ],
    ids=["plain", "compressed", "not to be decoded", "long"],
)
def test_body_of_a_request_that_ended_before_it_was_routed_is_masked(body, coding, shown):
    """As where its client left while it waited for a login to be read."""
    caller = Caller((("x-api-key", LOGIN),))
    exchange = Exchange(Rules(), "messages", caller, id="x", started=0.0, ts=datetime.now(UTC))
    exchange.is_shown = True
    flow = tflow.tflow()
    flow.request.data.content = body
    flow.request.headers["content-encoding"] = coding
    with taddons.context() as context:
        retention = Retention(context.master, lambda: Inspect())
        retention.mask_rest(flow, exchange)
        assert flow.request.content == shown
        once = flow.request.data.content
        retention.mask_rest(flow, exchange)
    assert flow.request.data.content is once
    assert flow.metadata == ({} if shown else {METADATA: {"request_length": len(body)}})
