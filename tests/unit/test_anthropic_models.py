"""Model lists: read whatever providers give, and merged into one of Anthropic's shape."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.models import (
    LONGEST,
    UNKNOWN,
    ModelListPage,
    listed,
    merged,
    parse_page,
    takes_system_turns,
)

OWN = {
    "type": "model",
    "id": "claude-opus-5-5",
    "display_name": "Claude Opus 5.5",
    "created_at": "2026-09-28T00:00:00Z",
    "capabilities": {"thinking": {"supported": True, "types": {"new-one": {"supported": False}}}},
    "of_tomorrow": [1.50, None],
}


def named(ids: list[str]) -> list[dict]:
    return [{"id": id} for id in ids]


def never(_: str) -> bool:
    return False


def always(_: str) -> bool:
    return True


def page(*entries: object, **more: object) -> bytes:
    return json.dumps({"data": entries, **more}).encode()


def ids(entries: list[dict]) -> list[str]:
    return [entry["id"] for entry in entries]


def test_anthropics_own_entries_stay_as_they_are():
    assert merged([ModelListPage(parse_page(page(OWN)).entries, never, is_own=True)]) == [OWN]


def test_others_are_listed_so_that_claude_code_takes_them_with_their_real_name():
    openai = page({"id": "glm-4.7", "object": "model", "created": 1766361600, "owned_by": "z-ai"})
    assert merged([ModelListPage(parse_page(openai).entries, never)]) == [
        {
            "type": "model",
            "created_at": "2025-12-22T00:00:00Z",
            "id": "claude-router-glm-4.7",
            "display_name": "glm-4.7",
        }
    ]


@pytest.mark.parametrize("id", ["claude-sonnet-5-5", "anthropic/claude-sonnet-5-5", "anthropic.claude-v9"])
def test_ids_that_speak_of_claude_or_anthropic_keep_them_and_their_names(id):
    (entry,) = merged([ModelListPage(parse_page(page({"id": id, "display_name": "Sonnet"})).entries, never)])
    assert (entry["id"], entry["display_name"]) == (listed(id), "Sonnet") == (id, "Sonnet")


def test_a_label_and_a_description_of_the_rules_are_listed():
    entry = {"id": "glm-4.5-air", "display_name": "GLM Air", "description": "quick"}
    (found,) = merged([ModelListPage([entry], never, is_written=True)])
    assert (found["id"], found["display_name"]) == ("claude-router-glm-4.5-air", "GLM Air")
    assert found["description"] == "quick"
    assert "description" not in merged([ModelListPage([entry], never)])[0]


@pytest.mark.parametrize("id", ["Claude-x", "my-claude", "z-ai/glm"])
def test_all_other_ids_get_the_prefix(id):
    assert listed(id) == f"claude-router-{id}"


def test_the_order_is_that_of_the_parts_and_the_first_of_an_id_stays():
    parts = [
        ModelListPage(
            [{"id": "b", "display_name": "x"}, {"id": "claude-a", "display_name": "first"}], never, True
        ),
        ModelListPage([{"id": "claude-a", "display_name": "second"}, {"id": "c"}, {"id": "b"}], never),
    ]
    entries = merged(parts)
    assert ids(entries) == ["claude-router-b", "claude-a", "claude-router-c"]
    assert entries[1]["display_name"] == "first"


def test_a_model_with_long_context_is_offered_twice():
    part = ModelListPage(named(["glm-5.2", "glm-4.7"]), lambda id: id == "glm-5.2")
    assert [(entry["id"], entry["display_name"]) for entry in merged([part])] == [
        ("claude-router-glm-5.2", "glm-5.2"),
        ("claude-router-glm-5.2[1m]", "glm-5.2 (1M context)"),
        ("claude-router-glm-4.7", "glm-4.7"),
    ]


def test_the_plain_entry_of_a_long_context_model_names_its_window():
    plain, long = merged([ModelListPage([OWN], always, is_own=True)])
    assert plain == OWN | {"display_name": "Claude Opus 5.5 (200K)"}
    assert long == OWN | {"id": "claude-opus-5-5[1m]", "display_name": "Claude Opus 5.5 (1M context)"}


def test_an_id_with_the_suffix_gets_no_second_suffix():
    assert ids(merged([ModelListPage(named(["claude-x[1m]"]), always)])) == ["claude-x[1m]"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"created_at": "2026-01-02T03:04:05+02:00"}, "2026-01-02T01:04:05Z"),
        ({"created_at": "yesterday"}, UNKNOWN),
        ({"created_at": None, "created": 0}, UNKNOWN),
        ({"created": 10**30}, UNKNOWN),
        ({"created": "1"}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)
def test_every_entry_has_a_time(entry, expected):
    (listed_entry,) = merged([ModelListPage([{"id": "m", **entry}], never)])
    assert listed_entry["created_at"] == expected


@pytest.mark.parametrize("name", [None, 7, "", "red \x1b[31m", "two\nlines", "x" * (LONGEST + 1)])
def test_a_name_that_cannot_be_shown_gives_way_to_the_id(name):
    entries = [{"id": "claude-x", "display_name": name}]
    assert merged([ModelListPage(entries, never, is_own=True)])[0]["display_name"] == "claude-x"


@pytest.mark.parametrize(
    "entry", [None, 7, "m", [], {}, {"id": None}, {"id": 5}, {"id": ""}, {"id": "a\x1b"}, {"id": "m" * 999}]
)
def test_entries_without_a_usable_id_are_left_out(entry):
    assert ids(parse_page(page(entry, {"id": "good"})).entries) == ["good"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'[{"id": "together"}]', ["together"]),
        (b'{"object": "list", "data": null}', []),
        (b'{"data": []}', []),
        (b"[]", []),
    ],
)
def test_lists_of_other_forms_are_understood(body, expected):
    assert ids(parse_page(body).entries) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"null",
        b'"data"',
        b"7",
        b'{"error": {"message": "no"}}',
        b'{"data": {"id": "m"}}',
        b'{"data": [{"id": "m"}',
        b"[" * 100_000,
        b'{"data": ' + b'[{"a":' * 5000,
    ],
)
def test_anything_but_a_list_of_models_is_an_error(body):
    with pytest.raises(ValueError, match=r"."):
        parse_page(body)


@pytest.mark.parametrize(
    ("more", "last"),
    [
        ({"has_more": True, "last_id": "z"}, "z"),
        ({"has_more": True}, "b"),
        ({"has_more": True, "last_id": 7}, "b"),
        ({"has_more": False, "last_id": "z"}, None),
        ({"has_more": "yes"}, None),
        ({}, None),
    ],
)
def test_where_the_next_page_begins(more, last):
    assert parse_page(page({"id": "a"}, {"id": "b"}, **more)).last == last


def test_an_empty_page_is_the_last():
    assert parse_page(page(has_more=True)).last is None


JSON = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.just([{}])
)
IDS = st.sampled_from(["claude-x", "glm", "anthropic/y", "z[1m]"]) | JSON


@given(st.lists(st.fixed_dictionaries({"id": IDS}, optional={"display_name": JSON, "created": JSON})))
def test_every_entry_has_the_fields_that_claude_code_reads(data):
    parts = [ModelListPage(parse_page(page(*data)).entries, always, is_own=own) for own in (True, False)]
    entries = merged(parts)
    assert len(set(ids(entries))) == len(entries)
    for entry in entries:
        assert entry["id"].startswith(("claude", "anthropic"))
        assert entry["display_name"].isprintable()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-opus-4-8", True),
        ("anthropic.claude-opus-4-7", False),
        ("claude-opus-4-20250514", False),
        ("claude-sonnet-4-5@20250929", False),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", False),
        ("claude-3-5-sonnet-20241022", False),
        ("claude-sonnet-4.6", False),
        ("claude-haiku-5-5", True),
        ("claude-sonnet-5-5", True),
        ("claude-opus-5.5", True),
        ("claude-fable-5-1", True),
        ("my-deployment", True),
        ("", True),
    ],
)
def test_claudes_that_take_messages_of_the_system_within_a_conversation(model, expected):
    """By clouds.md, 1. What is not known is asked, and learned from the refusal."""
    assert takes_system_turns(model) is expected
