"""Errors in Anthropic's shape, and those of others understood."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.errors import (
    ERROR_TYPES,
    as_prompt_too_long,
    error_body,
    error_type,
    read_error,
    with_request_id,
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


def test_an_error_has_one_request_id():
    error = with_request_id(with_request_id(error_body(500, "no"), "req_first"), "req_fake")
    assert json.loads(error) == json.loads(error_body(500, "no")) | {"request_id": "req_fake"}
    assert error.count(b"request_id") == 1


@given(st.sampled_from(sorted(ERROR_TYPES)), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_written_error_is_read_back(status, message):
    assert read_error(error_body(status, message)).type_and_message == (ERROR_TYPES[status], message)


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
        ({"choices": [{"index": 0, "error": {"code": 429, "message": "m"}}]}, ("429", "m")),
    ],
)
def test_errors_of_all_kinds_are_understood(body, error):
    assert read_error(json.dumps(body).encode()).type_and_message == error


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
        b"[" * 100_000,
        b'{"error":' * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_without_error_gives_none(body):
    assert read_error(body).type_and_message is None


@given(st.binary())
def test_reading_an_error_never_raises(body):
    read_error(body)


# a prompt that is too long

LENGTH = "This model's maximum context length is"


def said(
    message: str, kind: str = "invalid_request_error", status: int = 400, estimate: int | None = None
) -> str | None:
    error = {"error": {"type": kind, "message": message}}
    estimated = None if estimate is None else lambda: estimate
    body = as_prompt_too_long(status, json.dumps(error).encode(), estimated)
    if body is None:
        return None
    told = json.loads(body)
    assert (told["type"], told["error"]["type"]) == ("error", "invalid_request_error")
    return told["error"]["message"]


@pytest.mark.parametrize(
    ("message", "sizes"),
    [
        (
            "Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)",
            (269030, 262144),
        ),
        (
            f"{LENGTH} 131072 tokens. You requested 131134 tokens (122942 in the messages, 8192 more).",
            (131134, 131072),
        ),
        (
            f"{LENGTH} 102400 tokens. You requested 300000 tokens (250000 in the messages, 50000 more).",
            (300000, 102400),
        ),
        (
            "The input (345516 tokens) is longer than the model's context length (262144 tokens).",
            (345516, 262144),
        ),
        ("Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens).", (160062, 59862)),
        (
            "The input token count (1,200,000) exceeds the maximum number of tokens allowed (1,048,576).",
            (1200000, 1048576),
        ),
        ("prompt token count of 130000 exceeds the limit of 128000", (130000, 128000)),
        (
            "request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it",
            (9000, 8192),
        ),
        (
            f"litellm.ContextWindowExceededError: {LENGTH} 8192 tokens. Your messages have 9001 tokens.",
            (9001, 8192),
        ),
        (
            "claude-3-5-sonnet-20241022: prompt is too long: 250000 tokens > 200000 maximum",
            (250000, 200000),
        ),
        (
            "claude-sonnet-4@20250514 (limit 200000): prompt is too long: 250000 tokens",
            (250000, 200000),
        ),
        (
            "maximum context length of anthropic/claude-3-5-haiku-20241022 is 200,000, you sent 250,000",
            (250000, 200000),
        ),
        ("gpt-4.1-2025-04-14: maximum context length is 8192 tokens, got 9001.", (9001, 8192)),
    ],
)
def test_both_sizes_are_in_the_message_if_the_error_has_them(message, sizes):
    assert said(message) == "prompt is too long: {} tokens > {} maximum".format(*sizes)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("The model has reached its context window limit.", "invalid_request_error"),
        ("Input is too much", "1261"),
        ("Too much", "context_length_exceeded"),
        ("invalid params, context window exceeds limit (2013)", "invalid_request_error"),
        ("too many tokens in the prompt", "BadRequest"),
        ("prompt of claude-3-5-sonnet-20241022 exceeds the context window", "BadRequest"),
    ],
)
def test_an_error_without_sizes_keeps_its_text(message, kind):
    assert said(message, kind) == f"prompt is too long: {message}"


LIMIT_ALONE = f"{LENGTH} 128000 tokens. Please reduce the length of the messages."
NO_NUMBERS = "Your input exceeds the context window of this model"


@pytest.mark.parametrize(
    "message",
    [
        LIMIT_ALONE,
        f"prompt is too long: {LIMIT_ALONE}",
        "Your request exceeded model token limit: 128,000",
        "too many tokens in the prompt, the limit of 128000 was exceeded",
    ],
)
def test_a_maximum_without_a_count_is_told_with_the_estimate(message):
    assert said(message, estimate=150_000) == "prompt is too long: 150000 tokens > 128000 maximum"


@pytest.mark.parametrize(
    "message",
    [
        "The context window is exceeded by the 128000 tokens of the input",
        "the maximum context length is exceeded: 128000 tokens",
        "prompt exceeds the context window of gpt-5 (128000 tokens)",
    ],
)
def test_a_number_that_may_be_the_count_is_no_maximum(message):
    assert said(message, estimate=150_000) == f"prompt is too long: {message}"


@pytest.mark.parametrize("estimate", [90_000, 128_000, None])
def test_an_estimate_below_the_maximum_is_not_told(estimate):
    assert said(LIMIT_ALONE, estimate=estimate) == f"prompt is too long: {LIMIT_ALONE}"


def test_no_maximum_is_made_up():
    told = f"prompt is too long: {NO_NUMBERS} (about 150000 tokens)"
    assert said(NO_NUMBERS, estimate=150_000) == told
    assert said(f"prompt is too long: {NO_NUMBERS}", estimate=150_000) == told
    assert said(told, estimate=150_001) is None
    assert said(NO_NUMBERS, estimate=0) == f"prompt is too long: {NO_NUMBERS}"


def test_a_providers_own_count_goes_before_the_estimate():
    assert said(f"{LENGTH} 8192 tokens, got 9001.", estimate=7000) == (
        "prompt is too long: 9001 tokens > 8192 maximum"
    )


@pytest.mark.parametrize("status", [200, 413, 422, 429, 500])
def test_anthropics_wording_with_another_status_becomes_a_400(status):
    message = "prompt is too long: 215000 tokens > 200000 maximum"
    assert said(message, status=status) == message


def test_anthropics_own_words_stay():
    assert said("prompt is too long: 215000 tokens > 200000 maximum", estimate=300_000) is None
    assert said("Prompt is too long") == "prompt is too long"
    assert said("prompt is too long") is None


@pytest.mark.parametrize(
    "message",
    [
        "input length and `max_tokens` exceed context limit: 189727 + 16000 > 200000, decrease input length",
        "max_tokens: 64000 > 32000, which is the maximum allowed number of output tokens",
        "Rate limit reached: tokens per minute (TPM): Limit 6000, Requested 9000",
        "Number of request tokens has exceeded your per-minute rate limit",
        "Extra usage is required for long context requests.",
        "context_management: Extra inputs are not permitted",
        "Usage limit reached for 5 hour.",
    ],
)
def test_other_errors_stay(message):
    assert said(message) is None


@pytest.mark.parametrize("status", [401, 404, 529])
def test_other_statuses_stay(status):
    assert said("The model has reached its context window limit.", status=status) is None


@pytest.mark.parametrize("body", [b"", b"<html>maximum context length</html>", b"[1]", b"{"])
def test_a_body_without_error_is_not_reworded(body):
    assert as_prompt_too_long(400, body) is None


def test_the_text_is_one_line_of_bounded_length():
    told = said("The model has reached its context window limit.\n" + "x" * 10_000)
    assert told is not None
    assert "\n" not in told
    assert len(told) < 400
