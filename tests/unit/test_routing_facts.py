"""What rules may ask about one request."""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.tokens import Measured
from signalbox.routing.facts import (
    DEFAULT_CALIBRATION,
    SESSION_LENGTH,
    SNIPPET_LENGTH,
    Calibration,
    Facts,
    matched_name,
    sent_name,
)

FACTS = [name for name, fact in vars(Facts).items() if isinstance(fact, property | cached_property)]
FIELDS = ("model", "messages", "system", "tools", "metadata", "thinking", "stream")

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
keys = st.sampled_from(["type", "text", "content", "role", "name", "user_id", "x"])
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12
)


def facts_of(
    headers: Mapping[str, str] = {}, calibration: Calibration = DEFAULT_CALIBRATION, **fields: Any
) -> Facts:
    body = Body.parse(json.dumps(fields).encode())
    return Facts(path="/v1/messages", port=8082, headers=headers, body=body, calibration=calibration)


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def result(content: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content}


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


@pytest.mark.parametrize(
    ("asked", "matched", "sent"),
    [
        ("claude-sonnet-4-5", "claude-sonnet-4-5", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5[1m]", "claude-sonnet-4-5", "claude-sonnet-4-5[1m]"),
        ("glm-4.7[1M]", "glm-4.7", "glm-4.7[1M]"),
        ("claude-router-glm-4.7", "glm-4.7", "glm-4.7"),
        ("anthropic/claude-opus-4-5[1m]", "claude-opus-4-5", "claude-opus-4-5[1m]"),
        ("anthropic/", "anthropic/", "anthropic/"),
        ("[1m]", "[1m]", "[1m]"),
        ("moonshotai/kimi-k2", "moonshotai/kimi-k2", "moonshotai/kimi-k2"),
    ],
)
def test_names_lose_their_prefixes_and_for_matching_the_long_context_suffix(asked, matched, sent):
    assert matched_name(asked) == matched
    assert sent_name(asked) == sent


@given(st.text(max_size=30))
def test_a_name_is_never_empty_unless_it_was(asked):
    assert bool(matched_name(asked)) == bool(sent_name(asked)) == bool(asked)


@pytest.mark.parametrize(
    ("model", "tier"),
    [
        ("claude-Opus-5-5", "opus"),
        ("haiku-sonnet-opus", "opus"),
        ("fable-sonnet", "sonnet"),
        ("claude-3-5-haiku-latest", "haiku"),
        ("claude-fable-5-2", "fable"),
        ("glm-4.7", None),
    ],
)
def test_the_tier_is_read_from_the_name_in_a_fixed_order(model, tier):
    assert facts_of(model=model).tier == tier


@pytest.mark.parametrize("fields", [{}, {"model": ""}, {"model": None}, {"model": 7}, {"model": ["a"]}])
def test_a_model_that_is_no_name_counts_as_absent(fields):
    facts = facts_of(**fields)
    assert (facts.asked, facts.model, facts.tier) == (None, None, None)


def test_the_session_is_the_header_of_claude_code():
    facts = facts_of({"x-claude-code-session-id": "s-1"}, metadata={"user_id": "user_a_account__session_s-2"})
    assert facts.session == "s-1"


@pytest.mark.parametrize(
    ("user_id", "session"),
    [
        ('{"device_id": "d", "session_id": "s-2"}', "s-2"),
        ("user_0a1b_account__session_s-3", "s-3"),
        ("_session_of_session_s-4", "s-4"),
        ("user_0a1b", None),
        ('{"device_id": "d"}', None),
        ('{"session_id": 5}', None),
        ("{broken", None),
        ("", None),
        (5, None),
        (None, None),
    ],
)
def test_without_the_header_the_session_is_read_from_the_user_id(user_id, session):
    assert facts_of(metadata={"user_id": user_id}).session == session


def test_a_session_id_is_kept_short_as_it_is_remembered():
    assert facts_of({"x-claude-code-session-id": "s" * 5000}).session == "s" * SESSION_LENGTH


@pytest.mark.parametrize(
    ("headers", "agent"),
    [
        ({}, "main"),
        ({"x-claude-code-request-class": "compaction"}, "main"),
        ({"x-claude-code-request-class": "subagent"}, "subagent"),
        ({"x-claude-code-agent-id": "a-1"}, "subagent"),
    ],
)
def test_a_subagent_is_recognized_by_its_headers(headers, agent):
    assert facts_of(headers).agent == agent


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (None, None)),
        ({"x-claude-code-request-class": "compaction"}, ("compaction", None)),
        ({"x-signalbox-project": "/home/j%C3%B6rg/a b"}, (None, "/home/jörg/a b")),
        ({"x-signalbox-project": "/100%/%FF"}, (None, "/100%/\ufffd")),
        ({"x-claude-code-request-class": "", "x-signalbox-project": ""}, (None, None)),
    ],
)
def test_class_and_project_are_what_the_client_says(headers, expected):
    facts = facts_of(headers)
    assert (facts.request_class, facts.project) == expected


def test_a_conversation_is_a_session_and_the_agent_in_it():
    session = {"x-claude-code-session-id": "s-1"}
    assert facts_of(session).conversation == ("s-1", "")
    assert facts_of({**session, "x-claude-code-agent-id": "a-1"}).conversation == ("s-1", "a-1")
    assert facts_of({"x-claude-code-agent-id": "a-1"}).conversation is None


@pytest.mark.parametrize(("stream", "expected"), [(True, True), (False, False), (1, False), ("true", False)])
def test_only_true_asks_for_a_stream(stream, expected):
    assert facts_of(stream=stream).stream is expected


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, True),
        ({"type": "adaptive", "display": "omitted"}, True),
        ({"type": "disabled"}, False),
        ({"type": True}, False),
        ("enabled", False),
        (None, False),
    ],
)
def test_thinking_is_on_when_enabled_or_adaptive(thinking, expected):
    assert facts_of(thinking=thinking).thinking is expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([text("look"), IMAGE], True),
        ([result([text("seen"), IMAGE])], True),
        ([{"type": "image", "source": 5}], True),
        ([None, {"type": 5}, IMAGE], True),
        ([text('{"type": "image"}')], False),
        ([{"type": "tool_use", "input": {"type": "image"}}], False),
        ([result("image")], False),
        ("image", False),
    ],
)
def test_images_are_blocks_of_messages_also_inside_tool_results(content, expected):
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "ok"}]
    assert facts_of(messages=messages, tools=[{"name": "image"}], kind="image").images is expected


def test_tools_are_recognized_by_name_or_else_by_type():
    tools = [
        {"name": "Bash", "input_schema": {}},
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "advisor_20260301"},
        {"name": 5},
        "Read",
    ]
    assert facts_of(tools=tools).tools == ("Bash", "web_search", "advisor_20260301")


def test_system_text_joins_the_blocks_without_the_billing_block():
    system = [
        text("x-anthropic-billing-header: cc_version=2;"),
        text("You code."),
        {"type": "odd"},
        text("Be brief."),
    ]
    assert facts_of(system=system).system_text == "You code.\nBe brief."
    assert facts_of(system="x-anthropic-billing-header: x\nYou code.").system_text == "You code."
    assert facts_of(system="You code.").system_text == "You code."
    assert facts_of(system={"type": "text"}).system_text == ""


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([user("first"), {"role": "assistant", "content": "sure"}, user("second")], "second"),
        ([user(text("<system-reminder>be kind</system-reminder>"), text("fix it"))], "fix it"),
        (
            [user("fix <system-reminder>\nx\n</system-reminder>it<system-reminder>y</system-reminder>")],
            "fix it",
        ),
        ([user("ask"), user(result("output"), result([text("more output")]))], "ask"),
        ([user("ask"), user(result("output"), text("<system-reminder>x</system-reminder>"))], "ask"),
        ([user("ask"), {"role": "system", "content": "# Environment"}], "ask"),
        ([user("ask <system-reminder>never closed")], "ask"),
        ([user(text("one"), text("two"))], "one\ntwo"),
        (
            [
                user("ask"),
                None,
                5,
                "x",
                {"role": "user"},
                {"role": "user", "content": [None, {"type": "text"}]},
            ],
            "ask",
        ),
        ("no list", ""),
        ([], ""),
    ],
)
def test_the_prompt_is_what_the_user_last_said_outside_reminders(messages, prompt):
    assert facts_of(messages=messages).prompt == prompt


def test_the_snippet_is_the_beginning_of_the_prompt():
    assert facts_of(messages=[user("word " * 1000)]).snippet == ("word " * 1000)[:SNIPPET_LENGTH]


def test_many_reminders_that_never_end_cost_no_more_than_their_length():
    assert facts_of(messages=[user("<system-reminder>" * 50_000 + "x")]).prompt == ""


def test_tokens_are_calibrated_by_the_last_answer():
    messages = [user("word " * 1000)]
    plain, dense = (
        facts_of(messages=messages),
        facts_of(calibration=Calibration(ratio=1.5), messages=messages),
    )
    assert not plain.is_measured()
    assert plain.tokens == plain.measured.tokens() > 0
    assert plain.is_measured()
    assert dense.tokens == round(1.5 * plain.tokens)


def test_tokens_are_those_of_who_answered_last_or_is_asked():
    messages = [user("信号灯是红色的" * 100)]
    facts = facts_of(calibration=Calibration("claude"), messages=messages)
    assert facts.tokens == facts.tokens_at("claude-sonnet-4-5") > 1.3 * facts.tokens_at("gpt-5")
    assert facts.tokens_at("gpt-5") == facts_of(messages=messages).tokens > facts.tokens_at("kimi-k2")


def test_only_what_providers_count_is_estimated():
    said = {"system": "be brief", "messages": [user("word " * 100)], "tools": [{"name": "Bash"}]}
    facts = facts_of(**said)
    assert facts_of(**said, metadata={"user_id": "word " * 1000}).tokens == facts.tokens
    assert all(facts_of(**{**said, name: said[name] * 2}).tokens > facts.tokens for name in said)


def test_blocks_nested_without_end_are_survived():
    content: list[Any] = [IMAGE]
    for _ in range(300):
        content = [result(content)]
    facts = facts_of(messages=[user("ask"), {"role": "user", "content": content}])
    assert (facts.images, facts.prompt) == (False, "ask")


def test_a_request_without_a_body_has_no_facts_but_those_of_its_headers():
    facts = Facts(path="/v1/messages", port=8082, headers={"x-claude-code-session-id": "s-1"}, body=None)
    assert {name: getattr(facts, name) for name in FACTS} == dict.fromkeys(FACTS) | {
        "session": "s-1",
        "conversation": ("s-1", ""),
        "agent": "main",
        "stream": False,
        "thinking": False,
        "images": False,
        "tools": (),
        "system_text": "",
        "prompt": "",
        "snippet": "",
        "tokens": 0,
        "measured": Measured(),
    }


def test_fields_nobody_asks_about_are_not_looked_at():
    class Watched(Body):
        def get(self, name, type):
            looked_at.append(name)
            return super().get(name, type)

    looked_at: list[str] = []
    body = Watched.parse(b'{"model": "glm-4.7", "messages": [], "tools": []}')
    facts = Facts(path="/v1/messages", port=8082, headers={}, body=body)
    assert (facts.model, facts.tier, facts.asked) == ("glm-4.7", None, "glm-4.7")
    assert looked_at == ["model"]


def test_credentials_among_the_headers_are_not_in_its_repr():
    assert "zai-key-for-tests" not in repr(facts_of({"x-api-key": "zai-key-for-tests"}))


@pytest.mark.slow
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, json_values)))
def test_any_json_in_any_field_is_survived(fields):
    facts = facts_of(**fields)
    for name in FACTS:
        getattr(facts, name)


@given(st.lists(json_values, max_size=4))
def test_any_json_as_content_is_survived(content):
    facts = facts_of(messages=[user("ask"), {"role": "user", "content": [*content, IMAGE]}], system=content)
    assert facts.images
    assert isinstance(facts.prompt + facts.system_text, str)
