"""Messages bodies read for translation, whatever their types."""

import json
from typing import Any

import pytest
from hypothesis import given, settings

from signalbox.routing.translator import UntranslatableError
from signalbox.translate.incoming import Block, Tool, pieces, read, read_offered
from tests.chatbodies import BODIES, JSON


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
    (block,) = pieces(read(f'{{"system":[{{"type":"tool_use","input":{given}}}]}}'.encode()).system)
    assert isinstance(block, Block)
    assert block.arguments == arguments
    assert Block().arguments == "{}"


@given(JSON)
def test_arguments_mean_what_the_client_means(value: Any):
    for raw in (json.dumps({"a": value}), json.dumps({"a": value}, ensure_ascii=False)):
        (block,) = pieces(read(f'{{"system":[{{"type":"tool_use","input":{raw}}}]}}'.encode()).system)
        assert isinstance(block, Block)
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
def test_a_function_is_what_the_client_runs(tool, is_function):
    tools = read_offered(json.dumps({"tools": [tool]}).encode()).tools
    assert isinstance(tools, list)
    assert isinstance(tools[0], Tool)
    assert tools[0].is_function is is_function


@settings(max_examples=300, deadline=None)
@given(BODIES)
def test_any_object_can_be_read(body: dict[str, Any]):
    read_offered(json.dumps(body).encode())
    read(json.dumps(body).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"5", b"{", b'{"system":"\xff"}', b'{"system":1e999}'])
def test_anything_else_is_untranslatable(raw):
    with pytest.raises(UntranslatableError, match="the request cannot be read"):
        read(raw)


def test_what_is_no_message_is_left_out():
    turns = read(b'{"messages":[5,"a",null,[],{"role":"user","content":"b"}]}').turns
    assert [turn.content for turn in turns] == ["b"]
    assert read(b'{"messages":{}}').turns == []
