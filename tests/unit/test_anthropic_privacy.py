"""What providers other than Anthropic do not get: the billing block, and the ids in `metadata.user_id`."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.privacy import (
    with_opaque_user,
    without_billing,
    without_billing_block,
    without_billing_in_json,
)

BILLING = '{"type":"text","text":"x-anthropic-billing-header: cc_version=1; cch=abc"}'


def _after(raw: str) -> str:
    body = Body.parse(raw.encode())
    return body.edited(edits=without_billing_block(body)).decode()


def test_the_billing_block_is_deleted_with_its_comma():
    rest = '{"type":"text" , "text":"You are", "cache_control":{"type":"ephemeral"}}'
    assert _after(f'{{"system":[{BILLING}, {rest}],"n":1e0}}') == f'{{"system":[{rest}],"n":1e0}}'


def test_system_is_dropped_if_the_billing_block_was_alone():
    assert json.loads(_after(f'{{"model":"x","system":[{BILLING}],"n":1}}')) == {"model": "x", "n": 1}
    assert _after(f'{{"system":[{BILLING}]}}') == "{}"


def test_the_billing_block_is_deleted_wherever_it_stands():
    first, last = '{"type":"text","text":"first"}', '{"text":"last"  }'
    assert _after(f'{{"system":[{first} , {BILLING}],"n":1}}') == f'{{"system":[{first}],"n":1}}'
    assert _after(f'{{"system":[{first}, {BILLING}, {last}]}}') == f'{{"system":[{first}, {last}]}}'
    assert _after(f'{{"system":[{BILLING},5,{first},{BILLING}]}}') == f'{{"system":[5,{first}]}}'
    assert _after(f'{{"system":[{BILLING}, {BILLING}],"n":1}}') == '{"n":1}'


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (r'"x-anthropic-billing-header: cc_version=1;\nYou are \u00e9\n\nx"', r'"You are \u00e9\n\nx"'),
        (r'"x-anthropic-billing-header: a \" b \\n c\n\n\nYou"', '"You"'),
        (r'"x-anthropic-billing-header: cc_version=1;\n"', None),
        ('"x-anthropic-billing-header"', None),
    ],
)
def test_of_a_text_that_goes_on_only_the_billing_line_is_deleted(text, left):
    assert _after(f'{{"system": {text}, "n":1}}') == (f'{{"system": {left}, "n":1}}' if left else '{"n":1}')
    blocks = f'[{{"type":"text","text": {text}}},{{"text":"b"}}]'
    rest = f'[{{"type":"text","text": {left}}},{{"text":"b"}}]' if left else '[{"text":"b"}]'
    assert _after(f'{{"system":{blocks}}}') == f'{{"system":{rest}}}'
    said, kept = json.loads(text), json.loads(left) if left else ""
    assert without_billing(said) == kept
    assert json.loads(without_billing_in_json(text.encode())) == kept


@pytest.mark.parametrize(
    "raw",
    [
        '{"model":"x"}',
        '{"system":"about x-anthropic-billing-header"}',
        '{"system":[{"type":"text","text":"about x-anthropic-billing-header"}]}',
        '{"system":["x-anthropic-billing-header"]}',
        '{"system":[],"messages":"x-anthropic-billing-header"}',
    ],
)
def test_all_else_stays(raw):
    assert _after(raw) == raw


KEY = b"key of a state folder"
CLAUDE = json.dumps({"device_id": "d1", "account_uuid": "a1", "session_id": "s1"})


def sent(raw: bytes, key: bytes = KEY) -> bytes:
    body = Body.parse(raw)
    return body.edited(edits=with_opaque_user(body, key))


def named(user_id: object, key: bytes = KEY) -> str:
    raw = json.dumps({"metadata": {"user_id": user_id}}).encode()
    return json.loads(sent(raw, key))["metadata"]["user_id"]


@given(st.text(min_size=8) | st.integers() | st.dictionaries(st.text(), st.text()))
def test_the_opaque_user_id_has_one_form_and_hides_the_original(user_id):
    name = named(user_id)
    assert name.startswith("user_")
    assert len(name) == 37
    assert int(name[5:], 16) >= 0
    assert name == named(user_id)
    assert name != named(user_id, b"another key")


def test_sessions_have_names_of_their_own():
    assert named(CLAUDE) != named(CLAUDE.replace("s1", "s2"))


def test_the_name_is_the_same_at_every_start():
    """Providers know a session by it; another one after an update would cost their caches."""
    assert named(CLAUDE) == "user_a87cb179c210a159fb800ce8940e4342"


def test_all_other_bytes_stay():
    raw = b'{ "a":1.0, "metadata" : {"more" : 1,\n"user_id":"x" , "z":[]},"b":"\\u00e9"}'
    before, after = raw.split(b'"x"')
    assert sent(raw) == before + b'"%s"' % named("x").encode() + after


@pytest.mark.parametrize(
    "raw", [b'{"a":1}', b'{"metadata":{}}', b'{"metadata":{"more":[1]}}', b'{"metadata":{"user_id": null}}']
)
def test_metadata_without_a_user_id_is_unchanged(raw):
    assert sent(raw) is raw


@pytest.mark.parametrize("metadata", [b"null", b'"text"', b'{"user_id":"a","user_id":"b"}', b"[1]"])
def test_unreadable_metadata_is_dropped(metadata):
    assert sent(b'{"a":1,"metadata":%s,"b":2}' % metadata) == b'{"a":1,"b":2}'


def test_a_session_id_cut_in_half_a_character_is_hidden_too():
    assert b"s1" not in sent(rb'{"metadata":{"user_id":"s1\ud83d"}}')
