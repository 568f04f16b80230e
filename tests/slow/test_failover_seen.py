"""What people see of a failover: in mitmweb, on the console, in the record and in saved flows."""

import json
import re
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.io import FlowReader

from tests.support.answers import error_json, message_json
from tests.support.fake_provider import Upstream
from tests.support.mitmweb import Web
from tests.support.raw_client import Caller
from tests.support.router_process import Router, wait_until, with_scripts

ROUTER = Router
pytestmark = pytest.mark.slow

LOGIN = "sk-ant-oat01-fake-login-of-nobody"
ZAI, KIMI = "zai-key-for-tests-0001", "kimi-key-for-tests-001"
SECRETS = {LOGIN, ZAI, KIMI}


def rules(home: Upstream, zai: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  dead: {{url: "http://127.0.0.1:1", key: {KIMI}}}
  zai: {{url: "{zai.url}", key: {ZAI}, key_header: authorization}}
rules:
  - {{match: "*", to: [dead/kimi-k2, zai/glm-4.7, anthropic]}}
"""


def ask(router: Router) -> None:
    with closing(HTTPConnection("127.0.0.1", router.ports[0], timeout=10)) as connection:
        body = json.dumps({"model": "claude-opus-4-5"})
        connection.request("POST", "/v1/messages", body, {"Authorization": f"Bearer {LOGIN}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        assert answer.headers["x-signalbox-attempts"] == "dead:connect zai:529 anthropic:200"


@pytest.fixture
def overloaded(second: Upstream) -> Upstream:
    second.answer(error_json(529, "overloaded_error", "all lines are busy"))
    return second


@pytest.fixture
def web(tmp_path: Path, upstream: Upstream, overloaded: Upstream) -> Any:
    with Web(tmp_path, upstream.url, rules=rules(upstream, overloaded)) as router:
        yield router


def test_mitmweb_shows_every_attempt_as_a_flow_of_its_own(web, upstream, overloaded):
    ask(web)
    wait_until(lambda: len(web.flows()) == 3, 5, lambda: f"three flows in {web.flows()}")
    home, dead, zai = sorted(web.flows(), key=lambda flow: flow["request"]["timestamp_start"])
    assert dead["comment"] == "↻ dead connect → zai: Connection refused"
    assert zai["comment"] == "↻ zai 529 → anthropic: overloaded_error: all lines are busy"
    assert home["comment"].endswith("↻ 3 attempts rule=#1 attempts=dead:connect zai:529 anthropic:200")
    assert (dead["marked"], zai["marked"], home["marked"]) == ("❌", "❌", "🔁")
    assert len({flow["request"]["timestamp_start"] for flow in (home, dead, zai)}) == 3  # each its own time
    assert [flow["request"]["port"] for flow in (dead, zai, home)] == [1, overloaded.port, upstream.port]
    assert len({flow["id"] for flow in (dead, zai, home)}) == 3

    assert "response" not in dead
    assert dead["error"]["msg"] == "Connection refused"
    assert zai["response"]["status_code"] == 529
    assert home["response"]["status_code"] == 200
    for answered in (zai, home):
        assert answered["response"]["timestamp_end"]
        assert "error" not in answered

    credentials = [
        {name.lower(): value for name, value in flow["request"]["headers"]} for flow in (dead, zai, home)
    ]
    assert credentials[0]["x-api-key"] == "kimi-...s-001"
    assert credentials[1]["authorization"] == "Bearer zai-k...-0001"
    assert credentials[2]["authorization"] == "Bearer sk-an...obody"
    assert not any(secret in web.shown().decode() for secret in SECRETS)


def test_mitmweb_can_show_what_a_failed_attempt_said(web):
    ask(web)
    wait_until(lambda: b"zai 529" in web.shown(), 5, lambda: web.shown().decode())
    shown = json.loads(web.shown())
    (failed,) = [flow for flow in shown if flow["comment"].startswith("↻ zai 529")]
    assert b"all lines are busy" in web.content(failed["id"], "response")
    assert json.loads(web.content(failed["id"], "request"))["model"] == "glm-4.7"


def test_a_replay_of_a_routed_flow_is_refused_and_leaves_it_as_it_was(web, upstream, overloaded):
    ask(web)
    wait_until(lambda: len(web.flows()) == 3, 5, lambda: f"three flows in {web.flows()}")
    web.post(f"/flows/{web.flows()[-1]['id']}/duplicate")
    wait_until(lambda: len(web.flows()) == 4, 5, lambda: f"four flows in {web.flows()}")
    before = web.flows()
    for number, flow in enumerate(before, 1):
        web.post(f"/flows/{flow['id']}/replay")
        wait_until(lambda n=number: web.log().count("Can't replay a flow that shows masked") == n, 5, web.log)
    assert [flow.get("response") for flow in web.flows()] == [flow.get("response") for flow in before]
    assert len(web.flows()) == 4
    assert (len(upstream.requests), len(overloaded.requests)) == (1, 1)


def test_a_saved_flow_that_was_routed_is_not_replayed_at_a_start(
    start_router, upstream, overloaded, tmp_path
):
    saved = tmp_path / "saved.flows"
    text = rules(upstream, overloaded)
    router = start_router(upstream.url, rules=text, options=("--set", f"save_stream_file={saved}"))
    ask(router)
    router.stop()
    again = start_router(upstream.url, rules=text, options=("--set", f"client_replay={saved}"))
    again.wait_log("Can't replay a flow that shows masked credentials")
    assert (len(upstream.requests), len(overloaded.requests)) == (1, 1)


def test_a_flow_is_shown_with_who_is_asked_before_there_is_an_answer(
    start_router, upstream, overloaded, gate
):
    upstream.answer(replace(message_json("claude-opus-4-5"), wait=gate))
    options = with_scripts("view_log.py")
    router: Router = start_router(upstream.url, rules=rules(upstream, overloaded), options=options)
    with Caller(router) as caller:
        caller.ask("claude-opus-4-5", stream=False)
        upstream.wait_for(1)
        router.wait_log(f"shown at {upstream.port}, status None")
        shown = re.findall(r"POST shown at (\d+), status None", router.log())
        assert [port for port, _ in groupby(shown)][-3:] == ["1", str(overloaded.port), str(upstream.port)]
        gate.set()
        assert caller.answer().status == 200
        router.wait_log(f"shown at {upstream.port}, status 200")


def test_saved_flows_of_all_attempts_and_the_log_hold_no_secret(start_router, upstream, overloaded):
    router: Router = start_router(
        upstream.url,
        rules=rules(upstream, overloaded) + "log: {level: debug}\n",
        options=("-w", "flows.mitm"),
    )
    ask(router)
    router.records(1)
    assert router.stop() == 0
    steps = re.findall(r"^\S+ ([→←↻] \w+(?: \d+)?)", router.log(), re.MULTILINE)
    assert steps == [
        "→ dead",
        "↻ dead",
        "→ zai",
        "← zai 529",
        "↻ zai 529",
        "→ anthropic",
        "← anthropic 200",
    ]
    saved = router.folder / "flows.mitm"
    texts = [saved.read_bytes(), router.log().encode(), (router.state / "requests.jsonl").read_bytes()]
    assert not any(secret.encode() in text for secret in SECRETS for text in texts)
    with saved.open("rb") as file:
        flows = [flow for flow in FlowReader(file).stream() if flow.request.path == "/v1/messages"]
    assert [
        (flow.request.port, flow.response and flow.response.status_code, flow.marked) for flow in flows
    ] == [(1, None, ":x:"), (overloaded.port, 529, ":x:"), (upstream.port, 200, ":repeat:")]
    notes = [flow.metadata["signalbox"] for flow in flows]
    assert [(note["provider"], note["attempt"], note["attempts"]) for note in notes] == [
        ("dead", 1, 3),
        ("zai", 2, 3),
        ("anthropic", 3, 3),
    ]
    assert "all lines are busy" in flows[1].response.text


def test_mitmproxys_filters_find_flows_by_marker_and_comment(web):
    ask(web)
    web.finished(3)
    for spec, reported in (
        ("~marker :repeat:", "attempts=dead:connect zai:529 anthropic:200"),
        ("~marker :x: & ~comment zai.529", "zai 529 → anthropic"),
        ("~comment rule=#1", "rule=#1"),
    ):
        lines = web.command("signalbox.explain", spec)  # which takes one flow
        assert reported in lines[1], spec
