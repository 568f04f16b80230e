"""The rows of the table of Responses dialects, and what errors teach."""

import json
from typing import get_args

import pytest

from signalbox.anthropic.json_edit import Body
from signalbox.config.rules import ResponsesDialect
from signalbox.responses.dialects import DIALECTS, dialect_of
from signalbox.responses.refusals import refusals, taught


def test_every_dialect_that_rules_may_name_has_a_row():
    assert set(DIALECTS) == set(get_args(ResponsesDialect.__value__))


@pytest.mark.parametrize(
    ("host", "port", "name"),
    [
        ("api.openai.com", 443, "openai"),
        ("eu.api.openai.com", 443, "openai"),
        ("my-resource.openai.azure.com", 443, "azure"),
        ("R.services.ai.azure.com", 443, "azure"),
        ("openrouter.ai", 443, "openrouter"),
        ("api.x.ai", 443, "xai"),
        ("chatgpt.com", 443, "codex"),
        ("api.githubcopilot.com", 443, "copilot"),
        ("api.individual.githubcopilot.com", 443, "copilot"),
        ("localhost", 8000, "vllm"),
        ("127.0.0.1", 1234, "lmstudio"),
        ("localhost", 11434, "ollama"),
        ("localhost", 9000, "generic"),
        ("notopenai.azure.com.example", 443, "generic"),
        ("example.com", 443, "generic"),
    ],
)
def test_the_host_decides_and_a_name_overrides_it(host, port, name):
    assert dialect_of(None, host, port).name == name
    assert dialect_of("xai", host, port).name == "xai"


def test_a_name_of_chat_completions_alone_leaves_it_to_the_host():
    """As where one provider has several APIs."""
    assert dialect_of("gemini", "api.openai.com", 443).name == "openai"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("gpt-5", "minimal low medium high"),
        ("gpt-5.1", "none low medium high"),
        ("gpt-5.1-codex-max", "low medium high xhigh"),
        ("gpt-5.5", "none low medium high xhigh"),
        ("gpt-5.5-pro", "medium high xhigh"),
        ("gpt-6-sol", "none low medium high xhigh max"),
        ("gpt-6-astra", "low medium high xhigh max"),
        ("gpt-6.2-sol", "low medium high xhigh max"),
        ("gpt-5-chat-latest", ""),
        ("o3", "low medium high"),
        ("gpt-4.1", ""),
    ],
)
def test_each_model_has_the_efforts_that_are_documented(model, words):
    """openai-responses.md, 7"""
    assert DIALECTS["openai"].words(model) == tuple(words.split())


ASKED = {
    "reasoning": {"effort": "high", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "tool_choice": "required",
    "input": [{"role": "developer"}],
}
ERRORS = [
    (
        "Your organization must be verified to generate reasoning summaries.",
        "reasoning.summary",
        ["reasoning.summary"],
    ),
    (
        "Unsupported parameter: 'reasoning.summary' is not supported with this model.",
        None,
        ["reasoning.summary"],
    ),
    ("Unsupported value.", "reasoning.summary", ["reasoning.summary"]),
    ("Encrypted content is not supported with this model.", "include", ["include"]),
    ("tool_choice 'required' is not supported", None, ["tool_choice"]),
    ("Unexpected role 'developer'", None, ["input.role=developer"]),
    ("Something else is wrong with the tools", "tools", []),
]


@pytest.mark.parametrize(("message", "param", "named"), ERRORS, ids=lambda value: str(value)[:50])
def test_an_error_names_what_is_not_taken(message, param, named):
    error = json.dumps({"error": {"message": message, "param": param}}).encode()
    request = Body.parse(json.dumps(ASKED).encode())
    assert list(refusals(400, error, request)) == named
    assert list(refusals(500, error, request)) == []
    assert list(refusals(400, error, Body.parse(b"{}"))) == []


def test_what_was_named_changes_the_row():
    row, model = DIALECTS["openai"], "gpt-5.6-sol"
    assert taught(row, model, frozenset()) is row
    assert not taught(row, model, {"reasoning.summary"}).summary
    assert taught(row, model, {"include"}).encrypted == ()
    assert not taught(row, model, {"tool_choice"}).forced
    assert not taught(row, model, {"input.role=developer"}).developer
    changed = taught(row, model, {"reasoning.effort=xhigh", "reasoning.effort=none"})
    assert changed.words(model) == ("low", "medium", "high")
    assert taught(row, "gpt-4.1", {"reasoning.effort=xhigh"}).words("gpt-4.1") == ()
