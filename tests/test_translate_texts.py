"""What is text in content blocks."""

import json

import pytest

from signalbox.translate.incoming import Piece, read
from signalbox.translate.texts import defined_by, joined, text_of


def _piece(value: object) -> Piece:
    content = read(json.dumps({"system": [value]}).encode()).system
    assert isinstance(content, list)
    return content[0]


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "text", "text": "a", "citations": [{"url": "https://example.com"}]}, "a"),
        ({"type": "text", "text": 5}, ""),
        ("a", "a"),
        (["a", ["b"], " "], "a\nb"),
        (None, ""),
        (5, ""),
        ({"type": "thinking", "thinking": "a", "text": "b"}, ""),
        ({"type": "redacted_thinking", "data": "ZmFrZQ=="}, ""),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}, ""),
        ({"type": "document", "title": "t", "source": {"type": "text", "data": "a"}}, "t\na"),
        (
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"}]}},
            "a",
        ),
        (
            {
                "type": "search_result",
                "title": "t",
                "source": "s",
                "content": [{"type": "text", "text": "a"}],
            },
            "t\ns\na",
        ),
        ({"type": "tool_reference", "tool_name": "Read"}, "Read"),
        (
            {"type": "server_tool_use", "name": "web_search", "input": {"query": "a"}},
            '[web_search {"query":"a"}]',
        ),
        (
            {
                "type": "code_execution_tool_result",
                "content": {"stdout": "a", "stderr": "b", "return_code": 1},
            },
            "a\nb",
        ),
        ({"type": "web_search_tool_result", "content": {"error_code": "unavailable"}}, "unavailable"),
        (
            {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "a"}},
            "[The tool a is available now.]",
        ),
        ({"type": "tool_addition", "tool": {"definition": {"name": "a"}}}, "[The tool a is available now.]"),
        ({"type": "tool_removal", "tool": {"name": "a"}}, "[The tool a is no longer available.]"),
        ({"type": "tool_removal", "tool": "a"}, "[The tool  is no longer available.]"),
        ({"type": "a_type_to_come", "text": "a", "encrypted_content": "ZmFrZQ=="}, "a"),
    ],
    ids=str,
)
def test_text_of(block, text):
    assert text_of(_piece(block)) == text


@pytest.mark.parametrize(("kind", "name"), [("tool_addition", "a"), ("tool_removal", None)])
def test_only_an_addition_brings_a_tool_along(kind, name):
    tool = defined_by(_piece({"type": kind, "tool": {"definition": {"name": "a"}}}))
    assert (tool and tool.name) == name


def test_blank_lines_are_none():
    assert joined(["a", "", " \n", "b"], "--") == "a--b"
