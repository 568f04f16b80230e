"""The billing block of Claude Code."""

import json

import pytest

from signalbox.messages.body import Body
from signalbox.messages.system import without_billing_block

BILLING = '{"type":"text","text":"x-anthropic-billing-header: cc_version=1; cch=abc"}'


def _after(raw: str) -> str:
    body = Body.parse(raw.encode())
    return body.edited(edits=without_billing_block(body)).decode()


def test_the_first_block_goes_with_its_comma():
    rest = '{"type":"text" , "text":"You are", "cache_control":{"type":"ephemeral"}}'
    assert _after(f'{{"system":[{BILLING}, {rest}],"n":1e0}}') == f'{{"system":[{rest}],"n":1e0}}'


def test_the_field_goes_where_nothing_else_is_in_it():
    assert json.loads(_after(f'{{"model":"x","system":[{BILLING}],"n":1}}')) == {"model": "x", "n": 1}
    assert _after(f'{{"system":[{BILLING}]}}') == "{}"


@pytest.mark.parametrize(
    "raw",
    [
        '{"model":"x"}',
        '{"system":"x-anthropic-billing-header: as text"}',
        '{"system":[{"type":"text","text":"first"},%s]}' % BILLING,  # noqa: UP031  braces are JSON here
        '{"system":[{"type":"text","text":"about x-anthropic-billing-header"}]}',
        '{"system":["x-anthropic-billing-header"]}',
        '{"system":[],"messages":"x-anthropic-billing-header"}',
    ],
)
def test_all_else_stays(raw):
    assert _after(raw) == raw
