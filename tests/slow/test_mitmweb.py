"""What mitmweb shows of routed requests, asked by its REST API."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.support.answers import message_sse, sse
from tests.support.fake_provider import Upstream
from tests.support.mitmweb import Web
from tests.support.raw_client import Caller
from tests.support.router_process import OPENER, wait_until

pytestmark = pytest.mark.slow

KEY = "zai-key-for-tests-0001"


def rules(zai: Upstream, more: str = "") -> str:
    return f"""
providers:
  zai: {{url: "{zai.url}", key: "{KEY}"}}
rules:
  - {{match: "*", to: zai/glm-4.7}}
{more}
"""


@pytest.fixture
def web(tmp_path: Path, upstream: Upstream, second: Upstream) -> Iterator[Web]:
    with Web(tmp_path, upstream.url, rules=rules(second)) as router:
        yield router


def ask(web: Web, model: str, **headers: str) -> bytes:
    """The body of a streamed answer."""
    with Caller(web) as caller:
        caller.ask(model, **headers)
        answer = caller.answer()
    assert answer.status == 200, answer.body
    return answer.body


def test_the_view_of_a_request_chooses_itself(web, second):
    second.answer(message_sse("glm-4.7"))
    ask(web, "claude-sonnet-4-5")
    (flow,) = web.finished(1)
    shown = web.view(flow["id"], "request")
    assert shown["view_name"] == "Messages request"
    assert "Model: glm-4.7" in shown["text"]


def test_streamed_answer_is_shown_while_it_comes(web, second, gate):
    events = message_sse("glm-4.7").chunks
    second.answer(sse(*events[:4], gate, *events[4:]))
    with Caller(web) as caller:
        caller.ask("claude-sonnet-4-5")
        caller.until(b"content_block_delta")
        wait_until(lambda: web.flows()[0].get("response", {}).get("contentLength"), 5, web.log)
        shown = web.view(web.flows()[0]["id"], "response")
        assert shown["view_name"] == "Messages answer"
        assert "(not over)" in shown["text"]
        gate.set()
        assert caller.answer().status == 200
    (flow,) = web.finished(1)
    wait_until(lambda: "stop reason" in web.view(flow["id"], "response")["text"], 5, web.log)


def test_finished_flows_beyond_keep_go_and_long_bodies_are_cut(tmp_path, upstream, second):
    text = rules(second, "inspect: {keep: 3, bodies: 1KB}")
    with Web(tmp_path, upstream.url, rules=text) as web:
        second.answer(message_sse("glm-4.7", ["word " * 1000]))
        for _ in range(6):
            assert len(ask(web, "claude-sonnet-4-5")) > 5000  # the client gets all of it
        wait_until(lambda: len(json.loads(web.shown())) == 3, 5, lambda: web.shown().decode())
        flow = web.flows()[-1]
        assert flow["response"]["contentLength"] == 1024
        assert web.view(flow["id"], "response")["text"].startswith("Cut: the first 1,024 of ")


def test_bodies_of_requests_that_no_rule_routes_are_shown_and_masked_too(tmp_path, upstream):
    login = "sk-ant-oat01-fake-login-of-nobody"
    upstream.answer(message_sse("claude-sonnet-4-5", ["Your login is ", login[:15], login[15:]]))
    with Web(tmp_path, upstream.url, rules="") as web:
        assert login[15:].encode() in ask(web, "claude-sonnet-4-5")
        wait_until(lambda: web.flows()[0].get("response", {}).get("contentLength"), 5, web.log)
        flow = web.flows()[0]["id"]
        shown = web.view(flow, "response")
        assert shown["view_name"] == "Messages answer"
        assert "Your login is ***" in shown["text"]
        assert "Model: claude-sonnet-4-5" in web.view(flow, "request")["text"]
        assert web.command("signalbox.explain", f"@{flow}")[1].endswith(
            "goes to the reverse upstream as it came"
        )


def test_its_first_lines_say_where_the_pages_are_and_with_which_token(tmp_path, upstream, second):
    """As `just web` starts it."""
    with Web(tmp_path, upstream.url, rules=rules(second), password=None) as web:
        (said,) = web.wait_log(r"Web server listening at (http://\S+)").groups()
        assert said.startswith(f"http://127.0.0.1:{web.web}/?token=")
        first = web.log()[: web.log().index(said)]
        assert len(first.splitlines()) <= 6
        with OPENER.open(said, timeout=10) as page:
            assert page.status == 200
        with pytest.raises(HTTPError, match="403"):
            OPENER.open(said.partition("?")[0], timeout=10)
