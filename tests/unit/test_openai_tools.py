"""Names of tools, and which of them is to be called."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.openai.dialects import DIALECTS
from signalbox.openai.tools import Names, choose

TWO = {"Read": "Read", "Bash": "Bash"}
ONE = {"Read": "Read"}


@given(st.lists(st.text(min_size=1), unique=True), st.sampled_from(list(DIALECTS.values())))
def test_any_name_becomes_a_legal_one_and_comes_back(asked, dialect):
    names = Names(dialect.tool_name)
    sent = [names.sent(name) for name in asked]
    assert all(re.fullmatch(dialect.tool_name, name) for name in sent)
    assert len(set(sent)) == len(sent)
    assert [names.changed.get(name, name) for name in sent] == asked
    assert sent == [Names(dialect.tool_name).sent(name) for name in asked]


def test_a_legal_name_stays():
    names = Names(DIALECTS["gemini"].tool_name)
    assert names.sent("mcp__server__tool-1") == "mcp__server__tool-1"
    assert names.changed == {}


def test_names_that_differ_only_at_their_ends_stay_apart():
    names = Names(DIALECTS["openai"].tool_name)
    first, second = names.sent("x" * 64 + "a"), names.sent("x" * 64 + "b")
    assert first != second
    assert first == f"{'x' * 55}_{first[-8:]}"


@pytest.mark.parametrize(
    ("dialect", "asked", "fields", "say"),
    [
        ("openai", {"type": "auto"}, {}, ""),
        ("openai", {"type": "any"}, {"tool_choice": "required"}, ""),
        ("openai", None, {}, ""),
        ("openai", {"type": "tool", "name": "Write"}, {}, ""),
        ("openai", {"type": "tool", "name": ["Read"]}, {}, ""),
        ("mistral", {"type": "any"}, {"tool_choice": "any"}, ""),
        ("mistral", {"type": "tool", "name": "Bash"}, {"tool_choice": "any"}, "Call the tool Bash now."),
        (
            "lmstudio",
            {"type": "tool", "name": "Bash"},
            {"tool_choice": "required"},
            "Call the tool Bash now.",
        ),
        ("kimi", {"type": "any"}, {}, "Call one of the tools now."),
        ("kimi", {"type": "tool", "name": "Bash"}, {}, "Call the tool Bash now."),
        ("ollama", {"type": "any"}, {}, "Call one of the tools now."),
    ],
)
def test_a_choice_becomes_a_field_or_text(dialect, asked, fields, say):
    choice = choose(asked, TWO, DIALECTS[dialect], thinks=False, called=False)
    assert (choice.fields, choice.say, choice.offers) == (fields, say, True)


def test_the_only_tool_need_not_be_named():
    choice = choose({"type": "tool", "name": "Read"}, ONE, DIALECTS["mistral"], thinks=False, called=False)
    assert choice == ({"tool_choice": "any"}, "", True)


def test_the_name_is_the_one_that_is_sent():
    choice = choose(
        {"type": "tool", "name": "a.b"}, {"a.b": "a_b_1"}, DIALECTS["openai"], thinks=False, called=False
    )
    assert choice.fields["tool_choice"]["function"]["name"] == "a_b_1"


def test_some_models_cannot_be_forced_while_they_think():
    row = DIALECTS["deepseek"]
    assert choose({"type": "any"}, TWO, row, thinks=False, called=False).fields == {"tool_choice": "required"}
    assert choose({"type": "any"}, TWO, row, thinks=True, called=False) == (
        {},
        "Call one of the tools now.",
        True,
    )


def test_no_tool_becomes_text_or_no_tools_are_offered():
    none = {"type": "none"}
    assert choose(none, TWO, DIALECTS["glm"], thinks=False, called=True) == (
        {"tool_choice": "none"},
        "",
        True,
    )
    assert choose(none, TWO, DIALECTS["ollama"], thinks=False, called=False).offers is False
    assert (
        choose(none, TWO, DIALECTS["ollama"], thinks=False, called=True).say
        == "Answer without calling a tool."
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_call_at_a_time_is_asked_where_that_is_known(dialect):
    asked = {"type": "auto", "disable_parallel_tool_use": True}
    fields = choose(asked, TWO, DIALECTS[dialect], thinks=False, called=False).fields
    known = dialect in ("openai", "azure", "openrouter", "mistral", "vllm", "copilot")
    assert fields == ({"parallel_tool_calls": False} if known else {})


def test_without_tools_there_is_no_choice():
    assert choose({"type": "any"}, {}, DIALECTS["openai"], thinks=False, called=True) == ({}, "", False)
