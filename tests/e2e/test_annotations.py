"""What the router notes in flows: metadata, comment and marker, as saved flows hold them."""

from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from mitmproxy import http
from mitmproxy.io import FlowReader

from tests.support.answers import error_json, message_json, message_sse
from tests.support.fake_provider import Upstream
from tests.support.raw_client import LOGIN, Caller

KEY = "zai-key-for-tests-0001"


def rules(home: Upstream, zai: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai:
    url: "{zai.url}"
    key: "{KEY}"
    prices: {{"glm-*": {{input: 1, output: 2}}}}
rules:
  - {{match: "*haiku*", to: anthropic}}
  - {{name: coding, match: {{model: "*sonnet*", stream: true}}, to: [zai/glm-4.7, anthropic]}}
"""


def saved(
    start_router: Any, tmp_path: Path, home: Upstream, zai: Upstream, model: str, *, text: str = ""
) -> http.HTTPFlow:
    """The flow of one request, read from the file that it was saved in."""
    file = tmp_path / "saved.flows"
    options = ("--set", f"save_stream_file={file}")
    router = start_router(home.url, rules=text or rules(home, zai), options=options)
    with Caller(router, "session-1") as caller:
        caller.ask(model)
        caller.answer()
    router.stop()
    with file.open("rb") as flows:
        (flow,) = FlowReader(flows).stream()
    assert isinstance(flow, http.HTTPFlow)
    return flow


def test_metadata_tell_what_was_changed_and_used(start_router, tmp_path, upstream, second):
    second.answer(message_sse("glm-4.7"))
    flow = saved(start_router, tmp_path, upstream, second, "claude-sonnet-4-5")
    noted = flow.metadata["signalbox"]
    assert noted["changes"][0] == "model claude-sonnet-4-5 → glm-4.7"
    assert "key swapped" in noted["changes"]
    expected = {
        "rule": "coding",
        "reason": "rule:coding",
        "provider": "zai",
        "model": "glm-4.7",
        "asked_model": "claude-sonnet-4-5",
        "attempt": 1,
        "attempts": 1,
        "session": "session-1",
        "client": "",
        "conditions": ["model *sonnet*", "stream true"],
        "skipped": [],
    }
    assert {name: noted[name] for name in expected} == expected
    assert noted["output_tokens"] > 0
    assert isinstance(noted["cost"], float)
    assert flow.comment.endswith("rule=coding attempts=zai:200")
    assert flow.response is not None
    assert b"message_stop" in (flow.response.content or b"")
    assert flow.marked == ""


def test_cookies_of_an_answer_are_masked_in_flows_and_real_for_the_client(
    start_router, tmp_path, upstream, second
):
    cookie = "session=cookie-of-nobody-0000001; Path=/"
    file = tmp_path / "saved.flows"
    upstream.answer(replace(message_json("claude-haiku-4-5"), headers=(("Set-Cookie", cookie),)))
    options = ("--set", f"save_stream_file={file}")
    router = start_router(upstream.url, rules=rules(upstream, second), options=options)
    for path in ("/v1/messages", "/v1/elsewhere"):
        with closing(HTTPConnection("127.0.0.1", router.ports[0], timeout=10)) as connection:
            connection.request("POST", path, b'{"model": "claude-haiku-4-5"}', {"Authorization": LOGIN})
            answer = connection.getresponse()
            answer.read()
            assert answer.headers["set-cookie"] == cookie
    router.stop()
    assert b"cookie-of-nobody-0000001" not in file.read_bytes()
    assert b"session=cooki...00001; Path=/" in file.read_bytes()


def test_key_that_a_streamed_answer_repeats_is_masked_in_flows(start_router, tmp_path, upstream, second):
    second.answer(message_sse("glm-4.7", ["Your key is ", KEY]))
    flow = saved(start_router, tmp_path, upstream, second, "claude-sonnet-4-5")
    assert flow.response is not None
    assert b"Your key is " in (flow.response.content or b"")
    assert KEY.encode() not in (tmp_path / "saved.flows").read_bytes()


def test_answer_after_a_failover_is_marked(start_router, tmp_path, upstream, second):
    second.answer(error_json(529, "overloaded_error"))
    upstream.answer(message_sse("claude-sonnet-4-5"))
    flow = saved(start_router, tmp_path, upstream, second, "claude-sonnet-4-5")
    noted = flow.metadata["signalbox"]
    assert (noted["provider"], noted["attempt"], noted["attempts"]) == ("anthropic", 2, 2)
    assert flow.marked == ":repeat:"
    assert flow.comment.endswith("↻ 2 attempts rule=coding attempts=zai:529 anthropic:200")


def test_error_that_reached_the_client_is_marked(start_router, tmp_path, upstream, second):
    second.answer(error_json(529, "overloaded_error"))
    upstream.answer(error_json(500, "api_error", "it broke"))
    flow = saved(start_router, tmp_path, upstream, second, "claude-sonnet-4-5")
    assert flow.marked == ":red_circle:"
    assert "500 api_error: it broke" in flow.comment


def test_request_that_a_spent_budget_redirects_is_marked(start_router, tmp_path, upstream, second):
    upstream.answer(message_sse("claude-sonnet-4-5"))
    spent = "    budget: {tokens: 1, per: day, at: 0}\n    prices:"
    text = rules(upstream, second).replace("    prices:", spent)
    flow = saved(start_router, tmp_path, upstream, second, "claude-sonnet-4-5", text=text)
    assert flow.metadata["signalbox"]["reason"] == "budget"
    assert flow.metadata["signalbox"]["skipped"][0].startswith("zai/glm-4.7: budget, ")
    assert flow.marked == ":twisted_rightwards_arrows:"


def test_request_that_no_rule_matches_has_metadata_too(start_router, tmp_path, upstream, second):
    upstream.answer(message_json("claude-opus-4-5"))
    flow = saved(start_router, tmp_path, upstream, second, "claude-opus-4-5")
    noted = flow.metadata["signalbox"]
    assert (noted["rule"], noted["reason"], noted["changes"]) == ("none", "no-rule", [])
    assert noted["asked_model"] == noted["model"] == "claude-opus-4-5"
