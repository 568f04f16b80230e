"""`signalbox.replay`: a recorded request to another target, as typed into the command bar of mitmweb."""

import re
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.slow.test_commands import KEY, ask, rules
from tests.support import chat
from tests.support.answers import error_json, message_sse
from tests.support.fake_provider import Upstream
from tests.support.mitmweb import Web
from tests.support.raw_client import LOGIN, Caller
from tests.support.router_process import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def local() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def web(tmp_path: Path, upstream: Upstream, second: Upstream, local: Upstream) -> Iterator[Web]:
    second.answer(message_sse("glm-4.7", ["Hello from Z.ai"]))
    with Web(tmp_path, upstream.url, rules=rules(upstream, second, f"{local.url}/v1")) as router:
        yield router


def replayed(web: Web, flow: str, target: str) -> dict[str, Any]:
    """The flow of the replay, once it is over."""
    known = {one["id"] for one in web.flows()}
    web.command("signalbox.replay", f"@{flow}", target)
    wait_until(lambda: len(web.finished(len(known))) > len(known), 5, web.log)
    (again,) = [one for one in web.flows() if one["id"] not in known]
    wait_until(lambda: "Replay\n" in web.view(again["id"], "response")["text"], 5, web.log)
    return again


def test_request_is_translated_and_sent_with_the_targets_own_key(web, second, local):
    local.answer(chat.stream(chat.text_stream("Hello", " from here")))
    first = ask(web)
    again = replayed(web, first, "local/qwen3")
    (received,) = local.requests
    assert (received.path, received.json["model"]) == ("/v1/chat/completions", "qwen3")
    assert received.header("authorization") == "Bearer local-key-for-tests"
    assert received.header("x-claude-code-session-id") is None
    assert again["is_replay"] == "request"
    assert again["comment"].endswith("rule=replay attempts=local:200")
    assert len(second.requests) == 1
    text = web.view(again["id"], "response")["text"]
    head = text.partition("\n\n")[0].splitlines()
    assert head[0] == "Replay"
    rows = {line[:15].strip(): line[15:].split("  ") for line in head[1:]}
    assert [
        [one.strip() for one in row if one] for name, row in rows.items() if name in ("target", "first line")
    ] == [
        ["zai/glm-4.7", "local/qwen3"],
        ["Hello from Z.ai", "Hello from here"],
    ]
    assert {*rows} == {"", "target", "status", "time", "tokens", "cost", "first line"}
    assert "Hello from here" in text
    web.wait_log("first line  Hello from Z.ai +Hello from here")
    assert [(one["rule"], one["upstream_model"]) for one in web.records(2)] == [
        ("coding", "glm-4.7"),
        ("replay", "qwen3"),
    ]


def test_target_that_speaks_the_messages_api_gets_what_the_client_sent(web, upstream, second):
    flow = ask(web)
    asked = second.requests[0].json
    again = replayed(web, flow, "zai/glm-4.5-air")
    assert second.requests[1].json == asked | {"model": "glm-4.5-air"}
    assert second.requests[1].header("x-api-key") == KEY
    assert replayed(web, again["id"], "zai")["comment"].endswith("rule=replay attempts=zai:200")
    assert second.requests[2].json == asked | {"model": "claude-sonnet-4-5"}
    assert upstream.requests == []


def test_answer_that_is_an_error_is_compared_too(web, second):
    flow = ask(web)
    second.answer(error_json(529, "overloaded_error", "all lines are busy"))
    again = replayed(web, flow, "zai/glm-5")
    assert again["response"]["status_code"] == 529
    assert re.search(r"status +200 +529\n", web.view(again["id"], "response")["text"])


def test_provider_that_cannot_be_reached_is_reported(web):
    text = web.rules_file.read_text()
    web.rules(
        text.replace("providers:", "providers:\n  dead: {url: 'http://127.0.0.1:1', key: dead-key-for-tests}")
    )
    web.wait_log("rules loaded(?s:.*)rules loaded")
    again = replayed(web, ask(web), "dead/m")
    assert again["response"]["status_code"] == 502
    assert "dead could not be reached" in web.content(again["id"], "response").decode()


def test_wrong_targets_and_bodies_that_are_not_whole_are_refused_with_a_line(web):
    flow = f"@{ask(web)}"
    wrong = {
        "anthropic": "auth: client",
        "anthropic/claude-opus-4-5": "auth: client",
        "zia/glm": 'unknown provider "zia", did you mean "zai"?',
        "/x": "provider/model",
    }
    for target, line in wrong.items():
        with pytest.raises(ValueError, match=line.replace("?", r"\?")):
            web.command("signalbox.replay", flow, target)
    web.rules(web.rules_file.read_text() + "inspect: {bodies: 1KB}\n")
    web.wait_log("rules loaded(?s:.*)rules loaded")
    with Caller(web) as caller:
        caller.ask("claude-sonnet-4-5", pad=5000)
        caller.answer()
    cut = web.finished(2)[-1]["id"]
    with pytest.raises(ValueError, match="too long to be kept"):
        web.command("signalbox.replay", f"@{cut}", "zai/glm-4.7")
    assert len(web.flows()) == 2


@pytest.mark.parametrize(
    "body", [b'{"messages": []}', b'{"model": 1}', b'{"model": "x"'], ids=["none", "odd", "broken"]
)
def test_request_that_goes_to_the_reverse_upstream_under_all_rules_is_refused(web, upstream, body):
    upstream.answer(error_json(400, "invalid_request_error", "no model"))
    with closing(HTTPConnection("127.0.0.1", web.ports[0], timeout=10)) as connection:
        connection.request("POST", "/v1/messages", body, {"Authorization": LOGIN})
        connection.getresponse().read()
    (flow,) = web.finished(1)
    with pytest.raises(ValueError, match="no target would get it"):
        web.command("signalbox.replay", f"@{flow['id']}", "zai/glm-4.7")
    assert len(upstream.requests) == len(web.flows()) == 1


def test_saved_flow_is_replayed_after_it_was_loaded_elsewhere(tmp_path, web, upstream, second, local):
    ask(web)
    web.command("save.file", "@all", str(tmp_path / "saved.flows"))
    folder = tmp_path / "other"
    folder.mkdir()
    local.answer(chat.stream(chat.text_stream("Hi")))
    with Web(folder, upstream.url, rules=rules(upstream, second, f"{local.url}/v1")) as other:
        other.command("view.flows.load", str(tmp_path / "saved.flows"))
        (loaded,) = other.flows()
        other.post(f"/flows/{loaded['id']}/replay")
        other.wait_log("Can't replay a flow that shows masked credentials.*signalbox.replay FLOW")
        assert other.flows()[0]["response"] == loaded["response"]
        replayed(other, loaded["id"], "local/qwen3")
    assert local.requests[0].json["model"] == "qwen3"
