"""A Messages body as it is read for translation, and the text in its blocks."""

import json
from typing import Any

import pytest
from hypothesis import given, settings

from signalbox.anthropic.json_edit import Body
from signalbox.openai.incoming import (
    ContentBlock,
    Piece,
    Tool,
    decode_offered,
    decode_request,
    defined_by,
    join_texts,
    pieces,
    text_in,
)
from signalbox.routing.translator import UntranslatableError
from tests.support.chat_bodies import BODIES, JSON


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        (
            '{ "z": 1.00, "a": [1e5, 12345678901234567890123] }',
            '{"z":1.00,"a":[1e5,12345678901234567890123]}',
        ),
        ('{"a":"\\u00fc ü \\ud83d\\ude00 \\u4f60"}', '{"a":"ü ü 😀 你"}'),
        (r'{"a":"\\u00fc \u0022 \u005c \u000A \n \/ \""}', r'{"a":"\\u00fc \u0022 \u005c \u000A \n \/ \""}'),
        ('"{\\"a\\": 1}"', '{"a":1}'),
        ('"{"', "{}"),
        ('"a"', "{}"),
        ("[1]", "{}"),
        ("null", "{}"),
        ("5", "{}"),
    ],
)
def test_arguments_are_an_object_as_the_client_has_it(given, arguments):
    (block,) = pieces(decode_request(f'{{"system":[{{"type":"tool_use","input":{given}}}]}}'.encode()).system)
    assert isinstance(block, ContentBlock)
    assert block.arguments == arguments
    assert ContentBlock().arguments == "{}"


@given(JSON)
def test_arguments_keep_their_value(value: Any):
    for raw in (json.dumps({"a": value}), json.dumps({"a": value}, ensure_ascii=False)):
        (block,) = pieces(
            decode_request(f'{{"system":[{{"type":"tool_use","input":{raw}}}]}}'.encode()).system
        )
        assert isinstance(block, ContentBlock)
        assert json.loads(block.arguments) == {"a": value}


@pytest.mark.parametrize(
    ("tool", "is_function"),
    [
        ({"name": "a"}, True),
        ({"name": "a", "type": "custom"}, True),
        ({"name": "a", "type": "future_20300101", "input_schema": {}}, True),
        ({"name": "a", "type": "web_search_20250305"}, False),
        ({"type": "mcp_toolset", "mcp_server_name": "a"}, False),
        ({"name": "", "input_schema": {}}, False),
        ({"name": 5, "input_schema": {}}, False),
    ],
    ids=str,
)
def test_a_function_is_a_tool_that_the_client_runs(tool, is_function):
    tools = decode_offered(Body.parse(json.dumps({"tools": [tool]}).encode())).tools
    assert isinstance(tools, list)
    assert isinstance(tools[0], Tool)
    assert tools[0].is_function is is_function


@pytest.mark.slow
@settings(max_examples=3 * settings.default.max_examples)
@given(BODIES)
def test_any_object_can_be_read(body: dict[str, Any]):
    decode_offered(Body.parse(json.dumps(body).encode()))
    decode_request(json.dumps(body).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"5", b"{", b'{"system":"\xff"}', b'{"system":1e999}'])
def test_anything_else_is_untranslatable(raw):
    with pytest.raises(UntranslatableError, match="the request cannot be read:"):
        decode_request(raw)


def test_anything_but_a_message_is_left_out():
    turns = decode_request(b'{"messages":[5,"a",null,[],{"role":"user","content":"b"}]}').turns
    assert [turn.content for turn in turns] == ["b"]
    assert decode_request(b'{"messages":{}}').turns == []


def _piece(value: object) -> Piece:
    content = decode_request(json.dumps({"system": [value]}).encode()).system
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
    assert text_in(_piece(block)) == text


@pytest.mark.parametrize(("kind", "name"), [("tool_addition", "a"), ("tool_removal", None)])
def test_only_an_addition_brings_a_tool_along(kind, name):
    tool = defined_by(_piece({"type": kind, "tool": {"definition": {"name": "a"}}}))
    assert (tool and tool.name) == name


def test_blank_lines_are_none():
    assert join_texts(["a", "", " \n", "b"], "--") == "a--b"
