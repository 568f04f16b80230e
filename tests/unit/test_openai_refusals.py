"""What refusals of providers of chat completions teach, and how the next request is then written."""

import json
from collections.abc import Collection
from typing import Any

import pytest

from signalbox.anthropic.json_edit import Body
from signalbox.openai.dialects import DIALECTS
from signalbox.openai.refusals import refusals, taught
from signalbox.openai.request import to_chat

TOOL = {"name": "Read", "input_schema": {"type": "object"}}
CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "Go"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}]},
    {"role": "assistant", "content": "Done."},
    {"role": "user", "content": "Next"},
]


def asked(dialect: str, model: str, refused: Collection[str], **fields: Any) -> dict[str, Any]:
    """What is sent where this is remembered."""
    raw = json.dumps({"messages": CALLED, "max_tokens": 100, **fields}).encode()
    row = taught(DIALECTS[dialect], model, refused)
    body: dict[str, Any] = json.loads(
        to_chat(Body.parse(raw), model=model, dialect=row, provider="p", session=None).body
    )
    return body


def named(text: str, sent: dict[str, Any], status: int = 400) -> set[str]:
    error = json.dumps({"error": {"message": text}}).encode()
    return set(refusals(status, error, Body.parse(json.dumps(sent).encode())))


ADAPTIVE, OFF = {"type": "adaptive"}, {"type": "disabled"}


@pytest.mark.parametrize(
    ("dialect", "model", "refused", "fields", "sent"),
    [
        ("generic", "gpt-5.2", {"reasoning_effort=xhigh"}, {"effort": "max"}, {"reasoning_effort": "high"}),
        ("generic", "gpt-5.2", {"reasoning_effort=none"}, {"thinking": OFF}, {"reasoning_effort": "low"}),
        (
            "openrouter",
            "z/x",
            {"reasoning.effort=none"},
            {"thinking": OFF},
            {"reasoning": {"effort": "minimal"}},
        ),
        (
            "openrouter",
            "z/x",
            {"reasoning.effort=xhigh", "reasoning.effort=high"},
            {"thinking": ADAPTIVE, "effort": "xhigh"},
            {"reasoning": {"effort": "medium"}},
        ),
        (
            "kimi",
            "kimi-k3",
            {"thinking.effort=max"},
            {"effort": "max"},
            {"thinking": {"type": "enabled", "effort": "high"}},
        ),
        ("glm", "glm-5", {"thinking.type=disabled"}, {"thinking": OFF}, {}),
        (
            "openrouter",
            "z/x",
            {"reasoning_effort=none"},
            {"thinking": OFF},
            {"reasoning": {"effort": "none"}},
        ),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_the_nearest_effort_that_is_taken_is_sent(dialect, model, refused, fields, sent):
    given = dict(fields)
    if effort := given.pop("effort", None):
        given |= {"output_config": {"effort": effort}}
    body = asked(dialect, model, refused, **given)
    assert {
        name: body[name] for name in ("reasoning_effort", "reasoning", "thinking") if name in body
    } == sent


def test_an_effort_refused_with_tools_is_learned():
    text = (
        "Function tools with reasoning_effort are not supported for x in /v1/chat/completions. "
        "To use function tools, use /v1/responses or set reasoning_effort to 'none'."
    )
    assert named(text, {"tools": [TOOL]}) == {"tools with reasoning_effort"}
    refused = named(text, {"tools": [TOOL], "reasoning_effort": "high"})
    for model in ("gpt-5.2", "a-name-of-the-users"):
        assert asked("azure", model, refused, tools=[TOOL], thinking=ADAPTIVE)["reasoning_effort"] == "none"
    assert asked("azure", "gpt-5.2", refused, thinking=ADAPTIVE)["reasoning_effort"] == "high"


@pytest.mark.parametrize(
    "text",
    [
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1",
    ],
)
def test_reasoning_that_is_missing_is_put_there(text):
    refused = named(text, {"messages": []})
    messages = asked("generic", "deepseek-v4", refused)["messages"]
    assert [one.get("reasoning_content") for one in messages if one["role"] == "assistant"] == [" ", " "]


def test_the_output_limit_is_sent_by_its_other_name():
    text = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    assert "max_completion_tokens" in asked("generic", "x", named(text, {"max_tokens": 1}))
    text = "max_completion_tokens is not supported, use max_tokens"
    assert "max_tokens" in asked("openai", "x", named(text, {"max_completion_tokens": 1}))
    assert named(text, {"max_tokens": 1}) == set()


def test_an_unsupported_tool_choice_becomes_text():
    text = "Thinking mode does not support this tool_choice"
    refused = named(text, {"tool_choice": "required"})
    body = asked("generic", "x", refused, tools=[TOOL], tool_choice={"type": "any"})
    assert "tool_choice" not in body
    assert "Call one of the tools now." in body["messages"][-1]["content"]


@pytest.mark.parametrize(
    "text", ["", "overloaded", "max_tokens is too large", "reasoning_content is too long"]
)
def test_other_errors_teach_nothing(text):
    sent = {"messages": [], "tools": [], "max_tokens": 1, "tool_choice": "auto"}
    assert named(text, sent) == set()
    assert named("Thinking mode does not support this tool_choice", sent, 500) == set()


def test_a_dialect_of_which_nothing_is_remembered_is_the_same():
    assert taught(DIALECTS["glm"], "glm-5", ()) is DIALECTS["glm"]


NO_IMAGES = [
    (400, "this model does not support image input (ref: b8bd630e-4a39)"),
    (400, "Model do not support image input. Request id: 0217"),
    (400, "Model does not support images. Please use a model that does."),
    (422, "This model doesn't support image input"),
    (404, "No endpoints found that support image input"),
    (500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"),
    (400, "Image inputs are not supported by this model."),
    (400, "Invalid content type. image_url is only supported by certain models."),
    (400, "Failed to deserialize the JSON body: messages[5]: unknown variant `image_url`, expected `text`"),
    (400, "some/model is not a multimodal model"),
    (400, "At most 0 image(s) may be provided in one prompt."),
]
OF_ONE_IMAGE = [
    (400, "This model does not support image URLs, only base64"),
    (400, "does not support images larger than 5 MB"),
    (400, "This model does not support images in tool messages"),
    (400, "image/webp is not supported"),
    (400, "Image input is not supported for type image/tiff"),
    (400, "At most 1 image(s) may be provided in one prompt."),
    (400, "Invalid image in the request."),
    (429, "this model does not support image input"),
]
SHOWN = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]}


@pytest.mark.parametrize(("status", "text"), NO_IMAGES)
def test_a_model_that_takes_no_images_is_known_by_its_refusal(status, text):
    assert named(text, SHOWN, status) == {"messages.content.type=image_url"}
    quoted = {"messages": [{"role": "user", "content": 'a \\"image_url\\" "image_url"'}]}
    assert named(text, quoted, status) == set(), "there is none in the request"


@pytest.mark.parametrize(("status", "text"), OF_ONE_IMAGE)
def test_what_is_wrong_with_one_image_says_nothing_of_the_model(status, text):
    assert named(text, SHOWN, status) == set()


@pytest.mark.parametrize(("dialect", "model"), [("generic", "some/model"), ("kimi", "kimi-k3")])
def test_a_model_that_has_refused_an_image_gets_text_instead(dialect, model):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    messages = [{"role": "user", "content": [image, {"type": "text", "text": "x"}]}]
    assert "image_url" in str(asked(dialect, model, set(), messages=messages))
    refused = asked(dialect, model, {"messages.content.type=image_url"}, messages=messages)
    assert refused["messages"] == [{"role": "user", "content": "[image omitted]\nx"}]
