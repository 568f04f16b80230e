"""What refusals name, out of what stands in the request."""

import json

import pytest

from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.unsupported_fields import rejected_by

REQUEST = {
    "model": "glm-4.7",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
        {"role": "system", "content": "It is late."},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}, "caller": {}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference"}]}],
        },
    ],
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "scope": "global"}}],
    "tools": [
        {"name": "a", "input_schema": {}, "strict": True, "defer_loading": True},
        {"type": "custom", "name": "b", "input_schema": {}},
        {"type": "advisor_20260301", "name": "c"},
    ],
    "max_tokens": 10,
    "thinking": {"type": "adaptive", "display": "omitted"},
    "context_management": {"edits": []},
    "output_config": {"effort": "high"},
}
SENT = ["effort-2025-11-24", "prompt-caching-scope-2026-01-05"]


def named(text: str, status: int = 400) -> set[str]:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": text}}
    return rejected(json.dumps(error), status)


def rejected(error: str, status: int = 400) -> set[str]:
    return set(rejected_by(status, error.encode(), Body.parse(json.dumps(REQUEST).encode()), SENT))


EXTRA = "Extra inputs are not permitted"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (f"context_management: {EXTRA}", "context_management"),
        (f"output_config: {EXTRA}", "output_config"),
        (f"tools.0.custom.defer_loading: {EXTRA}", "tools.defer_loading"),
        (f"system.0.cache_control.ephemeral.scope: {EXTRA}", "cache_control.scope"),
        (f"messages.2.content.0.tool_use.caller: {EXTRA}", "messages.content.tool_use.caller"),
        (f'{{"message":"context_management: {EXTRA}"}}. Received Model Group=x', "context_management"),
        (
            f"[{{'type': 'extra_forbidden', 'loc': ('body', 'output_config'), 'msg': '{EXTRA}'}}]",
            "output_config",
        ),
        ("thinking: Input tag 'adaptive' found using 'type' does not match any of", "thinking.type=adaptive"),
        ("tools.2: Input tag 'advisor_20260301' found using 'type' does not", "tools.type=advisor_20260301"),
        (
            "messages.3.content.0.tool_result.content.0: Input tag 'tool_reference' found using 'type' does",
            "messages.content.content.type=tool_reference",
        ),
        (
            "Failed to deserialize the body: messages[1].role: unknown variant `system`, expected `user`",
            "messages.role=system",
        ),
        ("tools[1].type: unknown variant `custom`, expected `function`", "tools.type=custom"),
        ("tools[0]: unknown field `strict`, expected one of `name`", "tools.strict"),
        ('json: unknown field "context_management"', "context_management"),
        ("Unknown name \"defer_loading\" at 'request.tools[0]': Cannot find field.", "tools.defer_loading"),
        ("Unsupported parameter: output_config", "output_config"),
        ("Unknown parameter: 'tools[0].strict'.", "tools.strict"),
        ("Unrecognized request argument supplied: context_management", "context_management"),
        ("property 'context_management' is unsupported", "context_management"),
        ("Additional properties are not allowed ('context_management' was unexpected)", "context_management"),
        ("This model does not support the effort parameter.", "output_config.effort"),
        ("adaptive thinking is not supported on this model", "thinking.type=adaptive"),
        ("System messages are not allowed", "messages.role=system"),
        ('messages: Unexpected role "system". The Messages API accepts', "messages.role=system"),
    ],
)
def test_a_refusal_names_a_field(text, field):
    assert named(text) == {field}


def test_a_refusal_names_values_of_the_header():
    text = (
        "Unexpected value(s) `effort-2025-11-24`, `other-2025-01-01` for the `anthropic-beta` header. Please"
    )
    assert named(text) == {"effort-2025-11-24"}


def test_a_list_of_details_is_read():
    error = {"detail": [{"type": "extra_forbidden", "loc": ["body", "tools", 0, "strict"], "msg": EXTRA}]}
    assert rejected(json.dumps(error), 422) == {"tools.strict"}


ABOVE_HIGH = {"none", "minimal", "xhigh", "max"}


@pytest.mark.parametrize(
    ("sent", "text", "refused"),
    [
        (
            {"reasoning_effort": "xhigh"},
            "'reasoning_effort' does not support 'xhigh'. Supported values are: 'low', 'medium', and 'high'.",
            ABOVE_HIGH,
        ),
        (
            {"reasoning_effort": "xhigh"},
            "`reasoning_effort`: expected one of 'low' | 'medium' | 'high', received 'xhigh'",
            ABOVE_HIGH,
        ),
        (
            {"reasoning_effort": "xhigh"},
            "'loc': ('body', 'reasoning_effort'), 'msg': \"Input should be 'low', 'medium' or 'high'\"",
            ABOVE_HIGH,
        ),
        (
            {"reasoning_effort": "max"},
            'level "max" not supported, valid levels: low, medium, high, xhigh',
            {"none", "minimal", "max"},
        ),
        (
            {"reasoning_effort": "medium"},
            "Reasoning effort medium is not supported, supported values: ['low', 'high', 'max']",
            {"none", "minimal", "medium", "xhigh"},
        ),
        (
            {"reasoning": {"effort": "high"}},
            "Unexpected reasoning effort high. Supported types are xhigh (default), medium, and low.",
            {"none", "minimal", "high", "max"},
        ),
        (
            {"reasoning_effort": "none"},
            'invalid reasoning value: "none" (must be "high", "medium" or "low")',
            ABOVE_HIGH,
        ),
        ({"reasoning_effort": "xhigh"}, "Invalid value for reasoning_effort: xhigh", {"xhigh"}),
        ({"thinking": {"type": "enabled", "effort": "max"}}, "thinking.effort `max` is invalid", {"max"}),
        (
            {"output_config": {"effort": "max"}},
            "output_config.effort: Input should be 'low', 'medium' or 'high'",
            ABOVE_HIGH,
        ),
        (
            {"reasoning": {"effort": "none"}},
            "Reasoning is mandatory for this endpoint and cannot be disabled.",
            {"none"},
        ),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_a_refusal_of_an_effort_names_all_that_are_not_taken(sent, text, refused):
    error = json.dumps({"error": {"message": text}}).encode()
    body = Body.parse(json.dumps(sent).encode())
    [[name, value]] = [[name, value] for name, value in sent.items()]
    effort = f"{name}.effort" if isinstance(value, dict) else name
    assert rejected_by(400, error, body, []) == {f"{effort}={word}" for word in refused}


@pytest.mark.parametrize(
    ("sent", "text", "field"),
    [
        (
            {"thinking": {"type": "disabled"}},
            "Reasoning is mandatory and cannot be disabled",
            "thinking.type=disabled",
        ),
        ({"reasoning_effort": "high"}, '"gemma3" does not support thinking', "reasoning_effort"),
        (
            {"reasoning_effort": "high"},
            "Model x does not support parameter reasoningEffort.",
            "reasoning_effort",
        ),
        ({"temperature": 0.5}, "invalid temperature: only 1 is allowed for this model", "temperature"),
        (
            {"temperature": 0.5},
            "Unsupported value: 'temperature' does not support 0.5 with this model.",
            "temperature",
        ),
    ],
    ids=str,
)
def test_an_error_names_the_fields_a_model_does_not_support(sent, text, field):
    error = json.dumps({"error": {"message": text}}).encode()
    assert rejected_by(400, error, Body.parse(json.dumps({"model": "x", **sent}).encode()), []) == {field}


@pytest.mark.parametrize(
    "text",
    [
        "Reasoning effort high is supported",
        "The max context is 200 tokens, effort or not",
        "reasoning_effort: expected one of 'low', 'high'",
        "invalid image",
    ],
)
def test_an_effort_that_is_taken_is_not_refused(text):
    error = json.dumps({"error": {"message": text}}).encode()
    assert rejected_by(400, error, Body.parse(b'{"reasoning_effort": "high"}'), []) == set()


@pytest.mark.parametrize(
    "text",
    [
        f"speed: {EXTRA}",
        f"model: {EXTRA}",
        f"messages.2.content.0.tool_use.text: {EXTRA}",
        f"messages.2.content.0.tool_use.input: {EXTRA}",
        "messages[0].content[0].type: unknown variant `text`, expected `image_url`",
        "messages[0].role: unknown variant `user`",
        "messages.1.content.0: Invalid `signature` in `thinking` block",
        "prompt is too long: 215000 tokens > 200000 maximum",
        "",
    ],
)
def test_absent_and_essential_fields_and_other_errors_name_nothing(text):
    assert named(text) == set()


@pytest.mark.parametrize("status", [200, 401, 404, 429, 500])
def test_other_statuses_name_nothing(status):
    assert named(f"context_management: {EXTRA}", status) == set()


@pytest.mark.parametrize(
    "error", ["", "[]", "{", "\x00", "[" * 5000, '{"detail": [{"type": "extra_forbidden", "loc": [0]}]}']
)
def test_any_body_can_be_read(error):
    assert rejected(error) == set()


def test_the_field_of_a_refused_effort_may_stand_beside_the_message():
    message = "Invalid value: 'xhigh'. Supported values are: 'none', 'low', 'medium' and 'high'."
    request = Body.parse(b'{"model":"m","messages":[],"reasoning_effort":"xhigh"}')
    for param, is_told in (("reasoning_effort", True), ("verbosity", False)):
        error = json.dumps({"error": {"message": message, "param": param}}).encode()
        assert ("reasoning_effort=xhigh" in rejected_by(400, error, request, ())) is is_told
