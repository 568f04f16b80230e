"""Errors in Anthropic's shape, and those of others understood."""

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.messages.errors import (
    ERROR_TYPES,
    error_body,
    error_type,
    read_error,
    with_request_id,
    without_secrets,
)


@pytest.mark.parametrize(
    ("status", "type"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (413, "request_too_large"),
        (418, "invalid_request_error"),
        (429, "rate_limit_error"),
        (502, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_each_status_has_its_type(status, type):
    assert error_type(status) == type
    assert json.loads(error_body(status, "no")) == {"type": "error", "error": {"type": type, "message": "no"}}


def test_a_type_may_be_given():
    assert json.loads(error_body(500, "ü", "overloaded_error"))["error"]["type"] == "overloaded_error"


def test_an_error_tells_the_id_of_its_request_once():
    error = with_request_id(with_request_id(error_body(500, "no"), "req_first"), "req_fake")
    assert json.loads(error) == json.loads(error_body(500, "no")) | {"request_id": "req_fake"}
    assert error.count(b"request_id") == 1


@pytest.mark.parametrize(
    "said", ["{}", "Bearer {}.", "{}{}", '{{"a": "{}"}}'], ids=["alone", "between", "twice", "json"]
)
@pytest.mark.parametrize(
    "secret", ["plain-key-for-tests", "a/b+c=d-for-tests", 'quo"ted-\\-tests', "schlüssel"]
)
def test_a_secret_is_masked_however_it_is_written(said, secret):
    for written in (
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret).replace("/", "\\/")[1:-1],
        quote(secret, ""),
    ):
        raw = said.replace("{}", written).encode()
        assert without_secrets(raw, [secret]) == said.replace("{}", "***").encode()


def test_a_secret_within_another_leaves_nothing_of_it():
    assert without_secrets(b"abcdefgh and abcd", ["abcd", "abcdefgh"]) == b"*** and ***"
    assert without_secrets(b"a key \xff", ["half-\udcff-key"]) == b"a key \xff"


@given(st.sampled_from(sorted(ERROR_TYPES)), st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_written_is_read_again(status, message):
    assert read_error(error_body(status, message)) == (ERROR_TYPES[status], message)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"type": "error", "error": {"type": "1308", "message": "Usage limit"}}, ("1308", "Usage limit")),
        ({"error": {"message": "m", "type": "t", "param": None, "code": "c"}}, ("t", "m")),
        ({"error": {"message": "m", "type": None, "code": "1302"}}, ("1302", "m")),
        (
            {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}},
            ("RESOURCE_EXHAUSTED", "m"),
        ),
        ([{"error": {"code": 429, "message": "m"}}], ("429", "m")),
        ({"error": "Unexpected endpoint"}, ("", "Unexpected endpoint")),
        ({"object": "error", "message": "m", "type": "t", "code": None}, ("t", "m")),
        ({"detail": "Not Found"}, ("", "Not Found")),
        ({"error": {"message": {"deep": 1}, "type": 5}}, ("5", '{"deep":1}')),
        ({"error": {"type": "t"}}, ("t", "")),
        ({"choices": None, "error_message": "m"}, ("", "m")),
        ({"code": 1302, "msg": "m", "success": False}, ("1302", "m")),
        ({"errors": [{"code": "c", "detail": "m"}, {"code": "d"}]}, ("c", "m")),
        ({"errors": ["m"]}, ("", "m")),
        ({"base_resp": {"status_code": 1008, "status_msg": "m"}}, ("minimax_1008", "m")),
    ],
)
def test_errors_of_all_kinds_are_understood(body, error):
    assert read_error(json.dumps(body).encode()) == error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502 Bad Gateway</html>",
        b"[]",
        b"[1]",
        b'"text"',
        b'{"type":"message","content":[],"error":null}',
        b'{"input_tokens":3}',
        b'{"error":{}}',
        b'{"error":"\xff"}',
        b"[" * 100_000,
        b'{"error":' * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_error_gives_none(body):
    assert read_error(body) is None


@given(st.binary())
def test_reading_an_error_never_raises(body):
    read_error(body)
