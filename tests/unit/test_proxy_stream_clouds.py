"""Claude in the clouds: the examples against providers that refuse what the real ones are said to refuse."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.answers import message_json
from tests.support.conversation import BETAS, SESSION, TOOLS, Conversation
from tests.support.playbook import Playbook, PlayedRouter, played
from tests.support.played_wire import LOGIN, Asked, request, user
from tests.support.router_process import ROOT
from tests.support.strict_clouds import Bedrock, ClaudeOnAws, Foundry, Vertex, google_error
from tests.support.strict_providers import LaxProvider, StrictAnthropic

TOKEN = "ya29.google-token-for-tests"
VERTEX, GOOGLE = "aiplatform.googleapis.com", "claude.googleapis.com"
BEDROCK, AWS = "bedrock-mantle.us-east-1.api.aws", "aws-external-anthropic.us-west-2.api.aws"
FOUNDRY = "my-resource.services.ai.azure.com"
MODELS = "/v1/projects/my-project/locations/global/publishers/anthropic/models"
SECRETS = {
    "AWS_BEARER_TOKEN_BEDROCK": "bedrock-key-for-tests",
    "ANTHROPIC_AWS_API_KEY": "sk-ant-fake-key-of-aws",
    "ANTHROPIC_FOUNDRY_API_KEY": "foundry-key-for-tests",
}
CLAUDES_BETAS = f"{BETAS},prompt-caching-scope-2026-01-05,advisor-tool-2026-03-01,oauth-2025-04-20"


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `gcloud` prints. All the secrets of the examples are set."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    token, program = tmp_path / "token", tmp_path / "bin" / "gcloud"
    token.write_text(TOKEN)
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat '{token}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return token


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "router").mkdir()
    return tmp_path / "router"


@contextmanager
def example(folder: Path, name: str, more: str = "") -> Iterator[PlayedRouter]:
    """A router with an example of the repository, whose providers have the same hosts without TLS."""
    text = (ROOT / "examples" / f"{name}.yaml").read_text().replace("https://", "http://")
    with played(folder, text + more) as router:
        router.provider("api.anthropic.com").answer(StrictAnthropic("claude"))
        yield router


def converse(router: PlayedRouter, models: list[str], **settings: Any) -> Playbook:
    """A conversation of which each turn asks for one of the models."""
    play = router.connect()
    play.session = SESSION

    def send(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        play.hears_anew()
        sent = headers | {"anthropic-beta": CLAUDES_BETAS}
        play.client_sends(request(body, "/v1/messages?beta=true", **sent))
        return play.got.status, play.got.body

    conversation = Conversation(send, **settings)
    for model in models:
        conversation.turn(model)
    return play


def attempts(play: Playbook, turns: int) -> list[str]:
    return [record["attempts"] for record in play.records(turns)]


OPUS, SONNET, HAIKU = "claude-opus-5", "claude-sonnet-5", "claude-haiku-4-5"


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_vertex_answers_turn_after_turn_without_one_error(folder, token, stream):
    with example(folder, "vertex") as router:
        vertex = router.provider(VERTEX)
        vertex.answer(Vertex(TOKEN))
        play = converse(router, [OPUS, HAIKU, OPUS] * 3, stream=stream)
        assert attempts(play, 9) == ["vertex:200"] * 9
        verb = "streamRawPredict" if stream else "rawPredict"
        assert {asked.path for asked in vertex.requests} == {
            f"{MODELS}/claude-opus-5-5:{verb}",
            f"{MODELS}/claude-haiku-4-5@20251001:{verb}",
        }
        for asked in vertex.requests:
            assert asked.json["anthropic_version"] == "vertex-2023-10-16"
            assert "tool-search-tool-2025-10-19" in (asked.header("anthropic-beta") or "")
            assert LOGIN not in str(asked)
        assert play.flows[-1].response.headers["x-signalbox-model"] == "claude-opus-5-5"


def test_vertex_counts_tokens_of_a_model_without_its_date(folder, token):
    with example(folder, "vertex") as router:
        router.provider(VERTEX).answer(Vertex(TOKEN))
        got = router.connect().ask(HAIKU, path="/v1/messages/count_tokens")
        assert (got.status, json.loads(got.body)) == (200, {"input_tokens": 42})


def test_vertex_gets_the_beta_for_long_contexts_and_no_suffix_in_its_path(folder, token):
    with example(folder, "vertex") as router:
        vertex = router.provider(VERTEX)
        vertex.answer(message_json("claude-fable-5"))
        router.connect().ask("claude-fable-5[1m]", headers={"anthropic-beta": "context-1m-2025-08-07"})
        assert vertex.requests[0].path == f"{MODELS}/claude-fable-5:rawPredict"
        assert vertex.requests[0].header("anthropic-beta") == "context-1m-2025-08-07"


def test_the_older_name_of_an_answers_format_is_moved_for_vertex(folder, token):
    form = {"type": "json_schema", "schema": {"type": "object"}}
    with example(folder, "vertex") as router:
        vertex = router.provider(VERTEX)
        vertex.answer(message_json("claude-opus-5"))
        router.connect().ask(OPUS, output_format=form, output_config={"effort": "low"})
        assert "output_format" not in vertex.requests[0].json
        assert vertex.requests[0].json["output_config"] == {"effort": "low", "format": form}


def test_a_google_token_that_has_expired_is_printed_anew_for_the_same_request(folder, token):
    with example(folder, "vertex") as router:
        vertex = Vertex("ya29.next-token-for-tests")
        router.provider(VERTEX).answer(vertex)
        token.write_text("ya29.next-token-for-tests")
        play = router.connect()
        assert play.ask(OPUS).headers["x-signalbox-attempts"] == "vertex:401 vertex:200"


def test_a_limit_of_vertex_gives_way_and_soon_is_asked_again(folder, token):
    limited = google_error(
        429,
        "RESOURCE_EXHAUSTED",
        "Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_minute_per_base_model",
        in_array=True,
    )
    with example(folder, "vertex") as router:
        router.provider(VERTEX).answer(limited, Vertex(TOKEN))
        play = router.connect()
        assert play.ask(OPUS, stream=True).headers["x-signalbox-attempts"] == "vertex:429 anthropic:200"
        play.passes(20)
        assert play.ask(OPUS, stream=True).headers["x-signalbox-attempts"] == "anthropic:200"
        play.passes(11)
        assert play.ask(OPUS, stream=True).headers["x-signalbox-attempts"] == "vertex:200"


@pytest.mark.parametrize("in_array", [True, False])
def test_an_error_of_google_has_anthropics_shape(folder, token, in_array):
    said = "Publisher model claude-opus-5-5 was not found."
    with example(folder, "vertex") as router:
        router.provider(VERTEX).answer(google_error(404, "NOT_FOUND", said, in_array=in_array))
        got = router.connect().ask(OPUS)
        assert (got.status, got.error) == (404, {"type": "not_found_error", "message": said})


def test_claude_on_google_cloud_is_asked_as_anthropic_is(folder, token):
    with example(folder, "vertex") as router:
        google = router.provider(GOOGLE)
        google.answer(StrictAnthropic("claude"))
        assert attempts(converse(router, [SONNET] * 4), 4) == ["google:200"] * 4
        asked = google.requests[0]
        assert asked.header("authorization") == f"Bearer {TOKEN}"
        assert asked.path.endswith("/workspaces/wrkspc_fake/invoke/v1/messages?beta=true")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_bedrock_answers_turn_after_turn_without_one_error(folder, token, stream):
    with example(folder, "bedrock") as router:
        bedrock = router.provider(BEDROCK)
        bedrock.answer(Bedrock())
        play = converse(router, [OPUS, HAIKU, SONNET] * 3, stream=stream)
        assert attempts(play, 9) == ["bedrock:200"] * 9
        assert {asked.json["model"] for asked in bedrock.requests} == {
            "anthropic.claude-opus-5-5",
            "anthropic.claude-haiku-4-5",
            "anthropic.claude-sonnet-5-5",
        }
        assert {asked.header("x-api-key") for asked in bedrock.requests} == {"bedrock-key-for-tests"}
        assert not any(asked.header("authorization") for asked in bedrock.requests)


def test_a_beta_that_bedrock_refuses_by_surprise_is_learned(folder, token):
    with example(folder, "bedrock") as router:
        router.provider(BEDROCK).answer(Bedrock(refuses=("effort-2025-11-24",)))
        play = converse(router, [OPUS] * 3)
        assert attempts(play, 3) == ["bedrock:400 bedrock:200", "bedrock:200", "bedrock:200"]


def test_tools_go_to_bedrock_without_the_field_that_it_refuses(folder, token):
    tool = {"name": "Read", "description": "Reads.", "input_schema": {"type": "object"}}
    with example(folder, "bedrock") as router:
        bedrock = router.provider(BEDROCK)
        bedrock.answer(Bedrock())
        assert router.connect().ask(OPUS, tools=[tool | {"eager_input_streaming": True}]).status == 200
        assert bedrock.requests[0].json["tools"] == [tool]


def test_the_claude_platform_on_aws_gets_its_workspace_and_its_own_key(folder, token):
    with example(folder, "claude-aws") as router:
        aws = router.provider(AWS)
        aws.answer(ClaudeOnAws())
        play = converse(router, [OPUS] * 4)
        assert attempts(play, 4) == ["claude-aws:200"] * 4
        asked = aws.requests[0]
        assert asked.header("x-api-key") == SECRETS["ANTHROPIC_AWS_API_KEY"]
        assert asked.header("anthropic-workspace-id") == "wrkspc_fake"
        assert "advanced-tool-use-2025-11-20" in (asked.header("anthropic-beta") or "")
        assert "oauth-2025-04-20" not in (asked.header("anthropic-beta") or "")


def test_the_callers_workspace_stays_where_it_belongs(folder, token):
    with example(folder, "bedrock") as router:
        bedrock = router.provider(BEDROCK)
        bedrock.answer(Bedrock())
        router.connect().ask(OPUS, headers={"anthropic-workspace-id": "wrkspc_of-the-caller"})
        assert bedrock.requests[0].header("anthropic-workspace-id") is None


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_foundry_is_asked_for_deployments(folder, token, stream):
    with example(folder, "foundry") as router:
        foundry = router.provider(FOUNDRY)
        foundry.answer(Foundry("my-opus", "my-sonnet"))
        play = converse(router, [OPUS, SONNET] * 3, stream=stream)
        assert attempts(play, 6) == ["foundry:200"] * 6


def test_a_deployment_that_is_not_there_has_anthropics_shape(folder, token):
    with example(folder, "foundry") as router:
        router.provider(FOUNDRY).answer(Foundry())
        got = router.connect().ask(OPUS)
        assert (got.status, got.error["type"]) == (404, "not_found_error")
        assert got.error["message"] == "The API deployment for this resource does not exist."


SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}


def test_a_search_goes_to_the_next_target_where_a_cloud_has_none(folder, token):
    with example(folder, "bedrock") as router:
        bedrock = router.provider(BEDROCK)
        bedrock.answer(Bedrock())
        router.provider("api.anthropic.com").answer(message_json("claude-opus-5"))
        play = router.connect()
        assert play.ask(OPUS, tools=[SEARCH]).headers["x-signalbox-attempts"] == "anthropic:200"
        assert play.ask(OPUS, tools=[TOOLS[0]]).headers["x-signalbox-attempts"] == "bedrock:200"
        assert len(bedrock.requests) == 1


def test_a_search_stays_with_vertex(folder, token):
    with example(folder, "vertex") as router:
        router.provider(VERTEX).answer(message_json("claude-opus-5"))
        got = router.connect().ask(OPUS, tools=[SEARCH])
        assert got.headers["x-signalbox-attempts"] == "vertex:200"


def test_a_search_that_nobody_in_the_rule_can_make_says_who_could(group):
    got = group.connect().ask("bedrock-x", tools=[SEARCH])
    assert got.status == 400
    assert got.error["message"].endswith("; anthropic and second could serve it")


# one group

GROUP = """
providers:
  anthropic: {url: http://api.anthropic.com, auth: client}
  second: {url: http://api.anthropic.com, key: sk-ant-fake-second}
  bedrock: {url: "http://bedrock-mantle.us-east-1.api.aws/anthropic", key: bedrock-key-for-tests}
  gateway: {url: "http://gateway.invalid", key: gateway-key-for-tests, claude: true}
  plain: {url: "http://plain.invalid", key: plain-key-for-tests}
  zai: {url: "http://zai.invalid", key: zai-key-for-tests}
rules:
  - {match: "second-*", to: second/claude-opus-5}
  - {match: "bedrock-*", to: bedrock/anthropic.claude-opus-5-5}
  - {match: "gateway-*", to: gateway/claude-opus-5}
  - {match: "plain-*", to: plain/claude-opus-5}
  - {match: "old-*", to: bedrock/anthropic.claude-opus-4-7}
  - {match: "home-old-*", to: anthropic/claude-sonnet-4-5}
  - {match: "zai-*", to: zai/glm-5}
  - {match: "*", to: anthropic}
"""


@pytest.fixture
def group(folder: Path) -> Iterator[PlayedRouter]:
    with played(folder, GROUP) as router:
        for host in ("api.anthropic.com", "gateway", "plain"):
            router.provider(host).answer(StrictAnthropic("claude"))
        router.provider(BEDROCK).answer(Bedrock())
        router.provider("zai").answer(LaxProvider("zai"))
        yield router


def signatures(asked: Asked) -> int:
    return len(re.findall(rb'"signature":', asked.body))


@pytest.mark.parametrize("thinking", ["adaptive", "enabled"])
def test_signed_thinking_stays_with_all_who_serve_claude(group, thinking):
    turns = ["anthropic-x", "bedrock-x", "gateway-x"] * 3
    assert {*attempts(converse(group, turns, thinking=thinking), 9)} == {
        "anthropic:200",
        "bedrock:200",
        "gateway:200",
    }
    for host in ("api.anthropic.com", BEDROCK, "gateway"):
        last = group.providers[host].requests[-1]
        assert signatures(last) == sum(message["role"] == "assistant" for message in last.json["messages"])


def test_thinking_of_others_stays_away_from_the_group(group):
    converse(group, ["zai-x", "anthropic-x", "bedrock-x", "zai-x", "plain-x"])
    assert signatures(group.providers[BEDROCK].requests[0]) == 1
    assert signatures(group.providers["plain"].requests[0]) == 0
    assert signatures(group.providers["zai"].requests[1]) == 1


def test_two_that_are_anthropic_itself_count_as_two(group):
    converse(group, ["anthropic-x", "second-x", "bedrock-x"])
    own, second = group.providers["api.anthropic.com"].requests
    assert (signatures(own), signatures(second)) == (0, 0)
    assert signatures(group.providers[BEDROCK].requests[0]) == 2


def test_thinking_that_one_of_the_group_refuses_is_left_out_there_and_its_own_stays(group):
    """Some models bind their thinking to the account."""
    group.providers["gateway"].answer(StrictAnthropic("another account"))
    play = converse(group, ["anthropic-x", "gateway-x", "anthropic-x", "gateway-x", "anthropic-x"])
    assert attempts(play, 5) == [
        "anthropic:200",
        "gateway:400 gateway:200",
        "anthropic:400 anthropic:200",
        "gateway:200",
        "anthropic:200",
    ]
    for host, own in (("gateway", 1), ("api.anthropic.com", 2)):
        assert signatures(group.providers[host].requests[-1]) == own


def test_signed_thinking_of_unknown_issue_stays_until_it_is_refused(group):
    unknown = [
        user("Go."),
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "c2lnbmVk"}]},
        user("On."),
    ]
    play = group.connect()
    got = play.ask("bedrock-x", messages=unknown, thinking={"type": "adaptive"}, max_tokens=32000)
    assert got.headers["x-signalbox-attempts"] == "bedrock:400 bedrock:200"
    assert [signatures(asked) for asked in group.providers[BEDROCK].requests] == [1, 0]


@pytest.mark.parametrize(("model", "sent"), [("gateway", True), ("plain", False)])
def test_the_beta_for_long_contexts_stays_with_claude(group, model, sent):
    group.providers[model].answer(message_json("claude-opus-5"))
    group.connect().ask(f"{model}-x[1m]", headers={"anthropic-beta": "context-1m-2025-08-07"})
    beta = group.providers[model].requests[0].header("anthropic-beta")
    assert beta == ("context-1m-2025-08-07" if sent else None)


SYSTEM = [
    user("Go."),
    {"role": "system", "content": "Be brief."},
]


@pytest.mark.parametrize(("model", "host"), [("old-x", BEDROCK), ("home-old-x", "api.anthropic.com")])
def test_an_older_claude_gets_messages_of_the_system_as_the_users(group, model, host):
    assert group.connect().ask(model, messages=SYSTEM).status == 200
    assert group.providers[host].requests[0].json["messages"] == [user("Go."), user("Be brief.")]


@pytest.mark.parametrize(
    ("model", "host"), [("bedrock-x", BEDROCK), ("claude-sonnet-4-5", "api.anthropic.com")]
)
def test_a_newer_claude_and_one_that_was_asked_for_get_them_as_they_are(group, model, host):
    group.connect().ask(model, messages=SYSTEM)
    assert group.providers[host].requests[0].json["messages"] == SYSTEM


def test_a_search_by_another_providers_tool_is_made_valid(group):
    found = {"type": "server_tool_use", "id": "call_fake0", "name": "web_search", "input": {}}
    result = {
        "type": "web_search_tool_result",
        "tool_use_id": "call_fake0",
        "content": [{"type": "web_search_result", "title": "Cats", "url": "https://cats.example"}],
    }
    messages = [user("Find."), {"role": "assistant", "content": [found, result]}, user("Go on.")]
    assert group.connect().ask("bedrock-x", messages=messages, tools=TOOLS[:1]).status == 200
    sent = group.providers[BEDROCK].requests[0].json["messages"][1]["content"]
    assert sent == [{"type": "text", "text": "Cats https://cats.example"}]
