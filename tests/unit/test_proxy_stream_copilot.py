"""GitHub Copilot: one provider with a protocol for each model, as in examples/copilot.yaml."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signalbox.anthropic.json_edit import Body
from signalbox.routing.copilot import is_prompted
from signalbox.routing.facts import Facts
from tests.support.answers import error_json, json_answer
from tests.support.chat import completion
from tests.support.conversation import IMAGE, SESSION, Conversation
from tests.support.playbook import Playbook, PlayedRouter, played
from tests.support.played_wire import LOGIN, request, user
from tests.support.router_process import ROOT
from tests.support.strict_copilot import Copilot
from tests.support.strict_providers import StrictAnthropic
from tests.support.strict_responses import ResponsesProvider

OPUS, SONNET, HAIKU = "claude-opus-5", "claude-sonnet-5", "claude-haiku-4-5"
"""Which go to Claude, to a model of OpenAI's and to one of Google's."""


@pytest.fixture
def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedRouter]:
    """With the example of the repository, without TLS, and a `gh` that prints a token."""
    program = tmp_path / "bin" / "gh"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho gho_fake-token-for-tests\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    (tmp_path / "router").mkdir()
    text = (ROOT / "examples" / "copilot.yaml").read_text().replace("https://", "http://")
    with played(tmp_path / "router", text) as router:
        yield router


@pytest.fixture
def copilot(router: PlayedRouter) -> Copilot:
    copilot = Copilot(
        messages=StrictAnthropic("copilot"),
        responses=ResponsesProvider("copilot", "copilot"),
        completions=lambda asked: completion("Hello there."),
    )
    router.provider("api.githubcopilot.com").answer(copilot)
    return copilot


@pytest.fixture
def play(router: PlayedRouter, copilot: Copilot) -> Playbook:
    play = router.connect()
    play.session = SESSION
    return play


def converse(play: Playbook, model: str, turns: int, **settings: Any) -> None:
    def send(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        play.hears_anew()
        play.client_sends(request(body, "/v1/messages?beta=true", **headers))
        return play.got.status, play.got.body

    conversation = Conversation(send, **settings)
    for _ in range(turns):
        conversation.turn(model)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("model", "path"), [(OPUS, "/v1/messages"), (SONNET, "/responses")])
def test_each_model_is_asked_at_its_own_path_and_says_who_prompted(
    play, router, copilot, model, path, stream
):
    """The strict Copilot refuses another path, a missing header, and one on images that does not fit."""
    converse(play, model, 6, stream=stream)
    assert {record["attempts"] for record in play.records(6)} == {"copilot:200"}
    asked = router.providers["api.githubcopilot.com"].requests
    assert {one.path.partition("?")[0] for one in asked} == {path}
    assert {one.header("authorization") for one in asked} == {"Bearer gho_fake-token-for-tests"}
    assert LOGIN not in str(asked)
    assert copilot.initiators == ["user", "agent", "agent"] * 2


def test_models_of_others_are_asked_by_chat_completions(play, router):
    assert play.ask(HAIKU).headers["x-signalbox-attempts"] == "copilot:200"
    asked = router.providers["api.githubcopilot.com"].requests[0]
    assert (asked.path, asked.json["model"]) == ("/chat/completions", "gemini-4-argon")
    assert (asked.header("x-initiator"), asked.header("user-agent")) == ("user", "signalbox")


@pytest.mark.parametrize("model", [OPUS, SONNET, HAIKU])
def test_an_image_is_announced_also_in_the_result_of_a_tool(play, router, model):
    call = {"type": "tool_use", "id": "toolu_fake", "name": "Read", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_fake", "content": [IMAGE]}
    shown = [user("Look."), {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    assert play.ask(model, messages=shown).status == 200
    asked = router.providers["api.githubcopilot.com"].requests[0]
    assert asked.header("copilot-vision-request") == "true"
    assert asked.header("x-initiator") == "agent"


def test_a_field_that_its_messages_do_not_take_is_left_out(play, router):
    tool = {"name": "Read", "description": "Reads.", "input_schema": {"type": "object"}}
    assert play.ask(OPUS, tools=[tool | {"eager_input_streaming": True}]).status == 200
    assert router.providers["api.githubcopilot.com"].requests[0].json["tools"] == [tool]


@pytest.mark.parametrize(
    ("code", "status", "attempts"),
    [
        ("model_not_supported", 400, "copilot:400 anthropic:200"),
        ("quota_exceeded", 402, "copilot:402 anthropic:200"),
        ("rate_limited", 429, "copilot:429 anthropic:200"),
    ],
)
def test_what_it_does_not_serve_is_asked_elsewhere(play, router, code, status, attempts):
    router.provider("api.anthropic.com").answer(StrictAnthropic())
    error = {"error": {"code": code, "message": "scripted"}}
    router.providers["api.githubcopilot.com"].answer(json_answer(error, status))
    assert play.ask(OPUS).headers["x-signalbox-attempts"] == attempts


def test_its_plain_errors_have_anthropics_shape(play, router):
    router.provider("api.anthropic.com").answer(error_json(500, "api_error"))
    said = json_answer({"error": {"code": "bad_request", "message": "no such thing"}}, 400)
    router.providers["api.githubcopilot.com"].answer(said)
    got = play.ask(OPUS)
    assert (got.status, got.error) == (400, {"type": "invalid_request_error", "message": "no such thing"})


def test_tokens_are_counted_here(play, router):
    assert play.ask(OPUS, path="/v1/messages/count_tokens").status == 200
    assert router.providers["api.githubcopilot.com"].requests == []


RESULT = {"type": "tool_result", "tool_use_id": "toolu_fake", "content": "ok"}
REMINDER = {"type": "text", "text": "<system-reminder>Be brief.</system-reminder>"}


@pytest.mark.parametrize(
    ("last", "headers", "expected"),
    [
        ([user("Go.")], {}, True),
        ([user("Go."), {"role": "system", "content": "Be brief."}], {}, True),
        ([{"role": "user", "content": [RESULT]}], {}, False),
        ([{"role": "user", "content": [RESULT, REMINDER]}], {}, False),
        ([{"role": "assistant", "content": "It is"}], {}, False),
        ([], {}, False),
        ([user("Go.")], {"x-claude-code-agent-id": "agent-fake"}, False),
        ([user("Go.")], {"x-claude-code-request-class": "compaction"}, False),
        ([user("Go.")], {"x-claude-code-request-class": "main"}, True),
    ],
)
def test_a_person_prompts_only_by_a_new_text(last, headers, expected):
    body = Body.parse(json.dumps({"model": "m", "messages": last}).encode())
    assert is_prompted(Facts(path="/v1/messages", port=1, headers=headers, body=body)) is expected
