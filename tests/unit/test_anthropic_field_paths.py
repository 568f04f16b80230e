"""Fields dropped wherever they stand, with only their bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.betas import FIELDS
from signalbox.anthropic.field_paths import ESSENTIAL, edits_without, is_essential
from signalbox.anthropic.json_edit import Body


def left(raw: str, *rejected: str) -> str:
    body = Body.parse(raw.encode())
    return body.edited(edits=edits_without(body, rejected)).decode()


def messages(*messages: str) -> str:
    return f'{{"messages": [{", ".join(messages)}], "x": 1.0}}'


@pytest.mark.parametrize(
    ("before", "name", "after"),
    [
        ('{"a": 1.0, "speed" : "fast", "b": 2}', "speed", '{"a": 1.0, "b": 2}'),
        ('{"tools": [{"a":1, "strict":true}, {"b":1}]}', "tools.strict", '{"tools": [{"a":1}, {"b":1}]}'),
        (
            '{"thinking": {"type":"adaptive", "display":"updates"}}',
            "thinking.display=updates",
            '{"thinking": {"type":"adaptive"}}',
        ),
        (
            '{"thinking": {"type":"adaptive", "display":"omitted"}}',
            "thinking.display=updates",
            '{"thinking": {"type":"adaptive", "display":"omitted"}}',
        ),
        (
            '{"tools": [{"name":"a"}, {"type":"advisor_20260301","name":"b"}]}',
            "tools.type=advisor_20260301",
            '{"tools": [{"name":"a"}]}',
        ),
        ('{"tools": [{"type":"custom", "name":"a"}]}', "tools.type=custom", '{"tools": [{"name":"a"}]}'),
    ],
)
def test_dropping_a_field_removes_only_it_and_one_comma(before, name, after):
    assert left(before, name) == after


@pytest.mark.parametrize("place", ["top", "system", "tools", "content", "result"])
def test_cache_control_scope_is_dropped_everywhere(place):
    mark = '"cache_control": {"type":"ephemeral"%s}'
    body = {
        "top": '{"a": 1, %s}',
        "system": '{"system": [{"type":"text", "text":"s", %s}]}',
        "tools": '{"tools": [{"name":"a", %s}]}',
        "content": '{"messages": [{"role":"user", "content":[{"type":"text", "text":"a", %s}]}]}',
        "result": '{"messages": [{"content":[{"type":"tool_result", "content":[{"type":"text", %s}]}]}]}',
    }[place]
    assert left(body % (mark % ',"scope":"global"'), "cache_control.scope") == body % (mark % "")


def test_the_type_on_the_way_limits_a_name_to_objects_of_it():
    marked = '{"role":"user","content":[{"type":"text","text":"a","c":1},{"type":"image","c":1}]}'
    plain = '{"role":"user","content":[{"type":"text","text":"a"},{"type":"image","c":1}]}'
    assert left(messages(marked), "messages.content.text.c") == messages(plain)
    assert left('{"tools":[{"name":"a","c":1},{"type":"b","c":1}]}', "tools.custom.c") == (
        '{"tools":[{"name":"a"},{"type":"b","c":1}]}'
    )


def test_objects_left_empty_are_dropped_too():
    assert left('{"a":1,"output_config":{"effort":"high"}}', "output_config.effort") == '{"a":1}'
    edits = '{"a":1,"context_management":{"edits":[{"type":"compact_20260112"}]}}'
    assert left(edits, "context_management.edits.type=compact_20260112") == '{"a":1}'


def test_a_system_message_becomes_a_user_message_with_its_content():
    before = messages(
        '{"role":"user","content":"a"}',
        '{"role": "system", "content":[{"type":"text","text":"b"},{"type":"tool_addition"}], "clear_at":"x"}',
    )
    after = messages(
        '{"role":"user","content":"a"}', '{"role": "user", "content":[{"type":"text","text":"b"}]}'
    )
    assert left(before, "messages.role=system") == after


def test_a_message_whose_blocks_are_all_dropped_is_dropped():
    before = messages(
        '{"role":"user","content":"a"}', '{"role":"system","content":[{"type":"tool_removal"}]}'
    )
    assert left(before, "messages.content.type=tool_removal") == messages('{"role":"user","content":"a"}')


def test_a_tool_result_stays_when_its_only_content_is_dropped():
    block = '{"type":"tool_result","tool_use_id":"t","content":[{"type":"tool_reference","tool_name":"x"}]}'
    before = messages(f'{{"role":"user","content":[{block}]}}')
    after = messages('{"role":"user","content":[{"type":"tool_result","tool_use_id":"t"}]}')
    assert left(before, "messages.content.content.type=tool_reference") == after


def test_clearing_of_thinking_is_dropped_with_the_thinking_in_use():
    clears = '"context_management":{"edits":[{"type":"clear_thinking_20251015"}]}'
    adaptive = f'{{"a":1,"thinking":{{"type":"adaptive"}},{clears}}}'
    enabled = f'{{"a":1,"thinking":{{"type":"enabled"}},{clears}}}'
    assert left(adaptive, "thinking.type=adaptive") == '{"a":1}'
    assert left(adaptive, "thinking") == '{"a":1}'
    assert left(enabled, "thinking.type=adaptive") == enabled


def test_the_only_tools_stay():
    only = '{"tools":[{"type":"advisor_20260301"}]}'
    assert left(only, "tools.type=advisor_20260301") == only


@pytest.mark.parametrize(
    "name",
    [
        *sorted(ESSENTIAL),
        "messages.content",
        "messages.content.thinking",
        "messages.content.type=tool_use",
        "messages.role=user",
        "tools.input_schema",
    ],
)
def test_an_essential_field_is_never_dropped(name):
    assert is_essential(name)
    *above, last = name.partition("=")[0].split(".")
    value: Any = {last: name.partition("=")[2] or 1, "more": 1}
    for part in reversed(above):
        value = {part: [value], "more": 1}
    raw = json.dumps(value)
    assert left(raw, name) == raw


def test_unreadable_values_stay():
    twice = '{"tools":[{"strict":true,"a":1,"a":2}],"speed":"fast"}'
    assert left(twice, "tools.strict", "speed") == '{"tools":[{"strict":true,"a":1,"a":2}]}'


def test_values_of_the_header_are_no_fields():
    assert left('{"a":"effort-2025-11-24"}', "effort-2025-11-24") == '{"a":"effort-2025-11-24"}'


KEYS = sorted({part.partition("=")[0] for field in FIELDS for part in field.split(".")} | {"a"})
VALUES = st.sampled_from(["adaptive", "system", "tool_addition", "updates", "ü", 1.50, None])
TREES = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)
BODIES = st.dictionaries(st.sampled_from(KEYS), TREES, max_size=6)
NAMES = st.sets(st.sampled_from(sorted(FIELDS | {"thinking.type=adaptive", "output_config", "tools.a"})))


@given(BODIES, NAMES, st.sampled_from([None, 1]))
def test_the_result_is_valid_json_without_the_dropped_fields(value, names, indent):
    after = left(json.dumps(value, indent=indent, ensure_ascii=False), *names)
    json.loads(after)
    assert left(after, *names) == after


@given(BODIES, NAMES)
def test_no_byte_is_made_but_the_users_role(value, names):
    body = Body.parse(json.dumps(value).encode())
    assert {edit.new for edit in edits_without(body, names)} <= {b"", b'"user"'}


@given(BODIES)
def test_without_names_nothing_changes(value):
    assert edits_without(Body.parse(json.dumps(value).encode()), ()) == []
