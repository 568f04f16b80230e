"""Images become text for a model that takes none, and no other byte of the request changes."""

import json
from typing import Any

import pytest

from signalbox.anthropic.images import holds_image, without_images
from signalbox.anthropic.json_edit import Body

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
TEXT = {"type": "text", "text": "[image omitted]"}


def replaced(content: Any) -> Any:
    body = Body.parse(json.dumps({"messages": [{"role": "user", "content": content}]}).encode())
    return json.loads(body.edited(edits=without_images(body)))["messages"][0]["content"]


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        ([IMAGE, {"type": "text", "text": "x"}], [TEXT, {"type": "text", "text": "x"}]),
        (
            [IMAGE | {"cache_control": {"type": "ephemeral"}}],
            [TEXT | {"cache_control": {"type": "ephemeral"}}],
        ),
        (
            [{"type": "tool_result", "tool_use_id": "t", "content": [IMAGE, IMAGE]}],
            [{"type": "tool_result", "tool_use_id": "t", "content": [TEXT, TEXT]}],
        ),
        (
            [{"type": "document", "source": {"type": "content", "content": [IMAGE]}}],
            [{"type": "document", "source": {"type": "content", "content": [TEXT]}}],
        ),
    ],
)
def test_an_image_becomes_text_wherever_it_is(content, sent):
    assert replaced(content) == sent


@pytest.mark.parametrize(
    "content",
    [
        'an "image"',
        [{"type": "tool_use", "id": "t", "name": "Show", "input": {"type": "image", "content": [IMAGE]}}],
        [{"type": "tool_result", "tool_use_id": "t", "content": 'type: "image"'}],
        [None, 7, {"type": "text", "text": "x"}],
    ],
)
def test_what_is_no_image_stays(content):
    assert replaced(content) == content


def test_a_text_about_images_holds_none():
    said = {"messages": [{"role": "user", "content": 'it says {"type":"image"}'}], "system": ["image"]}
    assert not holds_image(Body.parse(json.dumps(said).encode()))


@pytest.mark.parametrize("raw", [b'{"model":"m"}', b'{"messages":7}', b'{"messages":[{"content":"image"}]}'])
def test_a_body_without_blocks_stays(raw):
    body = Body.parse(raw)
    assert body.edited(edits=without_images(body)) == raw


def test_an_object_in_which_a_key_stands_twice_stays():
    raw = b'{"messages":[{"role":"user","role":"user","content":[{"type":"image"}]}]}'
    body = Body.parse(raw)
    assert body.edited(edits=without_images(body)) == raw
