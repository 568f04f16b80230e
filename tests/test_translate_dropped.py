"""What a provider is not told is named, where anyone could miss it."""

import json
from typing import Any

import pytest

from signalbox.translate.dialects import DIALECTS
from signalbox.translate.request import to_chat

READ = {"name": "Read", "input_schema": {"type": "object"}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def _dropped(dialect: str = "generic", model: str = "some-model", **fields: Any) -> str:
    raw = json.dumps({"messages": [{"role": "user", "content": "Hello"}], **fields}).encode()
    sent = to_chat(raw, model=model, dialect=DIALECTS[dialect], provider="provider", session=None)
    return next((note for note in sent.notes if note.startswith("dropped: ")), "").removeprefix("dropped: ")


def test_fields_without_a_counterpart_are_named_in_their_order():
    fields = {"top_k": 3, "context_management": {"edits": []}, "mcp_servers": [{}], "future_field": 1}
    assert _dropped(**fields) == ", ".join(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 9, "temperature": 1, "top_p": 0.5, "stop_sequences": ["x"], "stream": True},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        {"metadata": {"user_id": "fake"}, "diagnostics": {"previous_message_id": None}},
        {"cache_control": {"type": "ephemeral"}},
        {"mcp_servers": [], "container": None, "stop_sequences": []},
        {"tools": [READ], "tool_choice": {"type": "auto", "disable_parallel_tool_use": False}},
    ],
    ids=str,
)
def test_what_goes_and_what_says_nothing_is_not(fields):
    assert _dropped(**fields) == ""


@pytest.mark.parametrize(
    ("dialect", "model", "named"),
    [
        ("vllm", "qwen3", ""),
        ("ollama", "qwen3", "top_k"),
        ("kimi", "kimi-k3", "temperature, top_p, top_k"),
        ("openai", "gpt-4.1", "top_k"),
        ("openai", "gpt-5.2", "temperature, top_p, top_k, stop_sequences"),
        ("composer", "composer-2.5", "max_tokens, top_k, stop_sequences"),
    ],
)
def test_what_one_provider_takes_another_may_not(dialect, model, named):
    fields = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.5, "top_k": 3, "stop_sequences": ["x"]}
    assert _dropped(dialect, model, **fields) == named


def test_stop_sequences_are_named_when_some_of_them_are_too_many():
    assert _dropped(stop_sequences=["a", "b", "c", "d"]) == ""
    assert _dropped(stop_sequences=["a", "b", "c", "d", "e"]) == "stop_sequences"
    assert _dropped(stop_sequences="a") == "stop_sequences"


def test_tools_that_anthropic_itself_defines_are_named():
    toolset = {"type": "mcp_toolset", "mcp_server_name": "docs"}
    assert _dropped(tools=[READ, SEARCH, toolset]) == "tools.web_search, tools.mcp_toolset"


def test_one_call_at_a_time_is_named_where_it_cannot_be_asked():
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert _dropped(tools=[READ], tool_choice=choice) == "disable_parallel_tool_use"
    assert _dropped("openai", tools=[READ], tool_choice=choice) == ""
    assert _dropped(tool_choice=choice) == ""


def test_names_are_few_and_fit_for_a_log():
    assert _dropped(**{"\x1b[31m\n": 1, "x" * 41: 1, "": 1}) == "(odd name), (odd name), (odd name)"
    assert _dropped(**{f"f{n}": 1 for n in range(20)}) == "f0, f1, f2, f3, f4, f5, f6, f7, 12 more"


def test_a_name_that_is_no_text_hinders_nothing():
    raw = b'{"messages":[{"role":"user","content":"Hello"}],"\xff":1}'
    sent = to_chat(raw, model="m", dialect=DIALECTS["generic"], provider="p", session=None)
    assert json.loads(sent.body)["messages"] == [{"role": "user", "content": "Hello"}]
