"""Context errors of third parties in the words on which Claude Code compacts."""

import json

import pytest

from signalbox.messages.context import in_anthropics_words

LENGTH = "This model's maximum context length is"


def said(message: str, kind: str = "invalid_request_error", status: int = 400) -> str | None:
    error = {"error": {"type": kind, "message": message}}
    body = in_anthropics_words(status, json.dumps(error).encode())
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
def test_both_sizes_are_told_where_the_error_tells_them(message, sizes):
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
def test_else_the_text_itself_is_told(message, kind):
    assert said(message, kind) == f"prompt is too long: {message}"


@pytest.mark.parametrize("status", [200, 413, 422, 429, 500])
def test_anthropics_wording_with_another_status_becomes_a_400(status):
    message = "prompt is too long: 215000 tokens > 200000 maximum"
    assert said(message, status=status) == message


def test_anthropics_own_words_stay():
    assert said("prompt is too long: 215000 tokens > 200000 maximum") is None


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
def test_what_is_no_error_stays(body):
    assert in_anthropics_words(400, body) is None


def test_the_text_is_one_line_of_bounded_length():
    told = said("The model has reached its context window limit.\n" + "x" * 10_000)
    assert told is not None
    assert "\n" not in told
    assert len(told) < 400
