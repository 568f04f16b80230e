"""With SIGNALBOX_PLAIN=1 the router does the same on mitmproxy's own ways."""

import http.client
import json
import threading
from collections.abc import Iterator

import pytest
from mitmproxy.addonmanager import AddonManager
from mitmproxy.proxy.server import ConnectionHandler

from tests.support.answers import (
    USAGE,
    error_json,
    message_events,
    message_json,
    message_sse,
    sse,
    text_block,
)
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller, both
from tests.support.router import Router


@pytest.fixture
def plain(tmp_path, upstream: Upstream, second: Upstream) -> Iterator[Router]:
    rules = f"""
providers:
  anthropic: {{url: "{upstream.url}", auth: client}}
  zai: {{url: "{second.url}", key: zai-key-for-tests-0001}}
rules:
  - {{match: {{}}, to: [zai/glm-4.7, anthropic], failover: {{wait: 0s}}}}
"""
    with Router(tmp_path, upstream.url, rules=rules, environment={"SIGNALBOX_PLAIN": "1"}) as router:
        yield router


@both
def test_the_next_target_answers_where_the_first_one_fails(plain, upstream, second, stream):
    second.answer(error_json(500, "api_error"))
    upstream.answer(message_sse("claude") if stream else message_json("claude"))
    with Caller(plain) as caller:
        for _ in range(2):
            caller.ask("claude-opus-4-5", stream=stream)
            answer = caller.answer()
            assert answer.status == 200
            assert b"claude" in answer.body


def test_every_event_leaves_before_the_next_one_is_there(plain, second):
    gate = threading.Event()
    events = message_events("glm", [text_block("")], ["one", "two"], USAGE, USAGE)
    second.answer(sse(*events[:4], gate, *events[4:]))
    with Caller(plain) as caller:
        caller.ask("claude-opus-4-5")
        caller.until(b'"one"')
        gate.set()
        caller.until(b"message_stop")


def test_what_is_not_routed_passes(plain, upstream):
    connection = http.client.HTTPConnection("127.0.0.1", plain.ports[0], timeout=10)
    connection.request("POST", "/v1/files", b"content")
    assert connection.getresponse().status == 200
    assert upstream.requests[-1].body == b"content"
    connection.close()


def test_nothing_of_mitmproxys_is_replaced_that_works_by_itself(plain, second):
    second.answer(message_json("glm"))
    with Caller(plain) as caller:
        caller.ask("claude-opus-4-5", stream=False)
        assert json.loads(caller.answer().body)["type"] == "message"
        master = plain.app.master
        handlers = plain.call(lambda: [*master.addons.get("proxyserver").connections.values()])
        assert type(master.addons) is AddonManager
        assert [type(one).handle_connection for one in handlers] == [ConnectionHandler.handle_connection]
