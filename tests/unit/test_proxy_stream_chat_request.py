"""Requests to a provider that speaks chat completions: what it is sent, and what it never sees."""

import json
from typing import Any

import pytest

from tests.support import chat
from tests.support.conversation import read_stream
from tests.support.playbook import Playbook, Provider
from tests.support.played_wire import Asked, Got, user

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client}
  up: {url: "http://up.invalid/v1", api: openai, dialect: deepseek, key: up-key-for-tests-0001, headers: {X-Title: signalbox}}
  azure:
    url: "http://up.invalid"
    api: openai
    dialect: azure
    key: azure-key-for-tests-1
    key_header: api-key
    path: /openai/deployments/x/chat/completions
    query: {api-version: "2024-10-21"}
  set: {url: "http://up.invalid/v1", api: openai, body: {set: {seed: 7}, drop: [stream_options]}}
  composer: {url: "http://up.invalid/v1", api: openai, dialect: composer}
  openrouter: {url: "http://up.invalid/v1", api: openai, dialect: openrouter}
rules:
  - {match: "search-*", to: openrouter/gpt}
  - {match: "azure-*", to: azure/gpt}
  - {match: "set-*", to: set/gpt}
  - {match: "composer-*", to: composer}
  - {match: "home-*", to: anthropic}
  - {match: "*", to: up/gpt}
"""  # noqa: E501  as rules are written


def usual(asked: Asked) -> Any:
    return chat.stream(chat.text_stream()) if asked.json.get("stream") else chat.completion()


@pytest.fixture
def up(played_router) -> Provider:
    provider = played_router.provider("up")
    provider.answer(usual)
    return provider


def ask(play: Playbook, model: str = "claude-sonnet-4-6", **more: Any) -> Got:
    got = play.ask(model, stream=True, **more)
    assert got.status == 200
    return got


def test_a_request_arrives_as_chat_completions_with_the_providers_own_key(play, up):
    ask(
        play,
        system="Be brief.",
        metadata={"user_id": "user_x_session_y"},
        headers={"user-agent": "claude-cli/2"},
    )
    (sent,) = up.requests
    assert (sent.method, sent.path) == ("POST", "/v1/chat/completions")
    assert sent.header("authorization") == "Bearer up-key-for-tests-0001"
    assert sent.header("x-title") == "signalbox"
    assert sent.header("content-type") == "application/json"
    assert (sent.header("accept"), sent.header("accept-encoding")) == ("text/event-stream", "identity")
    assert sent.header("user-agent") == "claude-cli/2"
    assert sent.json["messages"] == [{"role": "system", "content": "Be brief."}, user("hi")]
    assert (sent.json["model"], sent.json["stream"]) == ("gpt", True)
    assert sent.json["stream_options"] == {"include_usage": True}


def test_a_user_agent_with_a_key_of_the_callers_is_not_sent(play, up):
    ask(play, headers={"user-agent": "x sk-ant-api03-fake-of-the-caller"})
    (sent,) = up.requests
    assert sent.header("user-agent").startswith("signalbox/")


def test_a_whole_answer_is_asked_for_as_such(play, up):
    assert b"Hello there." in play.ask("claude-sonnet-4-6").body
    assert up.requests[0].header("accept") == "application/json"
    assert "stream_options" not in up.requests[0].json


def test_nothing_of_the_callers_goes_there(play, up):
    of_the_caller = {
        "cookie": "a=b",
        "anthropic-beta": "x-1",
        "x-stainless-lang": "js",
        "anthropic-version": "1",
    }
    ask(play, headers=of_the_caller)
    (sent,) = up.requests
    prefixes = ("anthropic-", "x-claude", "x-stainless", "cookie", "x-api")
    assert not [name for name in sent.headers if name.startswith(prefixes)]
    assert "sk-ant" not in str(sent.headers)
    assert play.session not in str(sent.headers)


def test_azures_path_query_and_key_header(play, up):
    ask(play, "azure-1")
    (sent,) = up.requests
    assert sent.path == "/openai/deployments/x/chat/completions?api-version=2024-10-21"
    assert sent.header("api-key") == "azure-key-for-tests-1"
    assert sent.header("authorization") is None


def test_composer_is_told_which_requests_are_of_one_conversation(play, up):
    for session in ("one", "one", "two"):
        ask(play, "composer-1", headers={"x-claude-code-session-id": f"session-{session}"})
    first, again, other = (sent.header("x-session-affinity") for sent in up.requests)
    assert first == again != other
    assert "session" not in f"{first} {other}"


def test_the_rules_edits_apply_to_what_is_sent(play, up):
    ask(play, "set-1")
    (sent,) = up.requests
    assert sent.json["seed"] == 7
    assert "stream_options" not in sent.json


THINKING = chat.stream([chat.chunk({"reasoning_content": "Let me see."}), *chat.text_stream("Yes.")])


def test_thinking_that_nobody_asked_for_is_not_shown(play, up):
    up.answer(THINKING)
    assert b"thinking" not in ask(play, "deep-1").body


SEARCH = {"type": "web_search_20250305", "name": "web_search", "allowed_domains": ["mitmproxy.org"]}
PAGES = [("https://mitmproxy.org/", "mitmproxy"), ("https://docs.mitmproxy.org/addons", "")]
ANNOTATIONS = [{"type": "url_citation", "url_citation": {"url": url, "title": name}} for url, name in PAGES]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_search_is_the_providers_own_and_what_it_found_comes_back(play, up, stream):
    cited = chat.chunk({"content": "", "annotations": ANNOTATIONS})
    *said, finish, usage, done = chat.text_stream("It is ", "a proxy.")
    up.answer(
        chat.stream([*said, cited, finish, usage, done])
        if stream
        else chat.completion("It is a proxy.", annotations=ANNOTATIONS)
    )
    asked = [{"role": "user", "content": "Perform a web search for the query: mitmproxy"}]
    got = play.ask("search-1", stream=stream, messages=asked, tools=[SEARCH])
    blocks = read_stream(got.body) if stream else json.loads(got.body)["content"]
    (sent,) = up.requests
    assert sent.json["tools"] == [
        {"type": "openrouter:web_search", "parameters": {"allowed_domains": ["mitmproxy.org"]}}
    ]
    text, search, result = blocks
    assert text["text"] == "It is a proxy."
    assert (search["type"], search["input"]) == ("server_tool_use", {"query": "mitmproxy"})
    assert result["tool_use_id"] == search["id"]
    assert [(one["url"], one["title"]) for one in result["content"]] == [
        PAGES[0],
        (PAGES[1][0], "docs.mitmproxy.org"),
    ]
    assert b'"web_search_requests":1' in got.body


def test_usage_is_recorded_as_the_provider_reports_it(play, up):
    ask(play)
    (record,) = play.records(1)
    assert (record["backend"], record["upstream_model"], record["status"]) == ("up", "gpt", "success")
    tokens = ("input_tokens", "cache_read_input_tokens", "output_tokens")
    assert [record[name] for name in tokens] == [120, 500, 17]


@pytest.mark.parametrize(
    ("path", "more", "told"),
    [
        ("/v1/messages", {"max_tokens": 0}, b'"content":[]'),
        ("/v1/messages/count_tokens", {"messages": [user("hi " * 100)]}, b'"input_tokens":'),
    ],
    ids=["a warm-up", "counting tokens"],
)
def test_what_chat_completions_have_no_request_for_is_answered_here(play, up, path, more, told):
    got = play.ask("x", path=path, **more)
    assert (got.status, told in got.body) == (200, True)
    assert up.requests == []
