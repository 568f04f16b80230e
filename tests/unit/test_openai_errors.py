"""Errors of providers of chat completions, in Anthropic's words."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.openai.errors import anthropic_error

OPENAI = {"message": "m", "type": "invalid_request_error", "param": None, "code": None}


def _told(status: int, body: Any) -> tuple[int, str, str]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return tuple(anthropic_error(status, raw, "fake", "some-model"))


@pytest.mark.parametrize(
    "body",
    [
        {"error": OPENAI},
        {"error": {"message": "m"}},
        {"error": "m"},
        [{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}],
        {
            "error": {"code": 400, "message": "m", "metadata": {"error_type": "invalid_request"}},
            "user_id": "u",
        },
        {"error": {"code": "1210", "message": "m"}},
        {"object": "error", "message": "m", "type": "BadRequestError", "param": None, "code": 400},
        {"object": "error", "message": "m", "type": "invalid", "code": "3280", "raw_status_code": 400},
        {"detail": "m"},
        {"error": {"code": "content_filter", "message": "m", "innererror": {"code": "x"}}},
        {"base_resp": {"status_code": 2013, "status_msg": "m"}},
        {"type": "error", "error": {"type": "invalid_request_error", "message": "m"}},
        {"choices": [{"error": {"code": 400, "message": "m"}}]},
        b"m",
        b" <html><head><title>m</title></head><body>more</body></html>",
        b"<html><style>p {}</style><p>m</p></html>",
    ],
)
def test_all_shapes_of_an_error_are_understood(body):
    assert _told(400, body) == (400, "invalid_request_error", "fake: m")


@pytest.mark.parametrize(
    ("status", "told", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (401, 403, "permission_error"),
        (402, 402, "billing_error"),
        (403, 403, "permission_error"),
        (404, 404, "not_found_error"),
        (408, 504, "timeout_error"),
        (413, 413, "request_too_large"),
        (422, 400, "invalid_request_error"),
        (429, 429, "rate_limit_error"),
        (500, 500, "api_error"),
        (502, 502, "api_error"),
        (503, 529, "overloaded_error"),
        (504, 504, "timeout_error"),
        (521, 502, "api_error"),
        (524, 504, "timeout_error"),
        (529, 529, "overloaded_error"),
        (418, 418, "invalid_request_error"),
        (302, 502, "api_error"),
        (304, 502, "api_error"),
    ],
)
def test_each_status_has_its_own(status, told, kind):
    assert _told(status, {"error": {"message": "some-model"}}) == (told, kind, "fake: some-model")


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (429, {"code": "insufficient_quota", "type": "insufficient_quota"}, 402),
        (429, {"type": "exceeded_current_quota_error"}, 402),
        (429, {"code": "1113"}, 402),
        (500, {"type": "api_error", "message": "insufficient balance (1008)"}, 402),
        (403, {"message": "You exceeded your current quota"}, 402),
        (429, {"type": "engine_overloaded_error"}, 529),
        (429, {"code": "1305"}, 529),
        (429, {"code": "1312"}, 529),
        (429, {"code": "1302"}, 429),
        (429, {"code": "1308"}, 429),
        (429, {"code": "1309"}, 402),
        (422, {"type": "budget_exceeded", "code": "422"}, 402),
        (500, {"type": "api_error", "message": "token limit (1039)"}, 429),
        (500, {"type": "api_error", "message": "request timeout (1001)"}, 504),
        (403, {"message": "Your account in arrears, please recharge"}, 402),
        (429, {"message": "The engine is currently overloaded, please try again later"}, 529),
        (502, {"code": 502, "metadata": {"error_type": "provider_unavailable"}}, 502),
        (403, {"code": "content_policy_violation"}, 400),
        (429, {"code": "rate_limit_exceeded", "type": "requests"}, 429),
        (400, {"code": 429, "message": "m"}, 400),
    ],
)
def test_a_name_with_its_own_meaning_overrides_the_status(status, error, told):
    assert _told(status, {"error": error})[0] == told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"code": 429, "message": "m"}, 429),
        ({"code": 402, "message": "m"}, 402),
        ({"code": "429", "message": "m"}, 429),
        ({"code": 502, "message": "m", "metadata": {"error_type": "provider_overloaded"}}, 529),
        ({"code": "1302", "message": "m"}, 429),
        ({"code": 503, "status": "UNAVAILABLE", "message": "m"}, 529),
        ({"code": "minimax_1039", "message": "m"}, 429),
        ({"code": "minimax_1001", "message": "m"}, 504),
        ({"status": "UNAVAILABLE", "message": "m"}, 529),
        ({"type": "invalid_request_error", "code": "rate_limit_exceeded", "message": "m"}, 429),
        ({"type": "server_error", "message": "m"}, 500),
        ({"type": "rate_limit_error", "message": "m"}, 429),
        ({"code": "invalid_api_key", "message": "m"}, 403),
        ({"status": "RESOURCE_EXHAUSTED", "message": "m"}, 429),
        ({"code": True, "message": "m"}, 500),
        ("m", 500),
    ],
)
def test_an_error_within_an_answer_gets_the_status_of_its_name(error, told):
    assert _told(200, {"error": error})[0] == told


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "too long", "code": "context_length_exceeded", "type": "invalid_request_error"}),
        (400, {"message": "Your request exceeded model token limit: 262144 (requested: 269030)"}),
        (400, {"message": "m", "metadata": {"error_type": "context_length_exceeded"}, "code": 400}),
        (400, {"code": "1261", "message": "Prompt exceeds max length"}),
        (
            200,
            {
                "code": 400,
                "message": "The input token count (9) exceeds the maximum number of tokens allowed (8)",
            },
        ),
        (500, {"message": "This model's maximum context length is 10 tokens. You requested 20 tokens."}),
    ],
)
def test_a_prompt_that_is_too_long_is_reported_in_the_words_that_make_a_client_compact(status, error):
    told, kind, message = _told(status, {"error": error})
    assert (told, kind) == (400, "invalid_request_error")
    assert message.startswith("prompt is too long: ")


def test_known_sizes_are_in_the_message():
    error = {
        "message": "Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)"
    }
    assert _told(400, {"error": error})[2] == "prompt is too long: 269030 tokens > 262144 maximum"


def test_an_unknown_model_is_named():
    told = _told(404, {"error": {"code": "DeploymentNotFound", "message": "no such thing"}})
    assert told == (404, "not_found_error", "fake: no such thing (model: some-model)")


@pytest.mark.parametrize(
    "page",
    [b"<title>Not Found</title>", b"Not Found", {"detail": "Not Found"}, {"error": {"message": "Not Found"}}],
)
def test_a_404_without_a_model_may_mean_a_wrong_path(page):
    wrong = "no model some-model, or the provider's url or path is wrong"
    assert _told(404, page) == (404, "not_found_error", f"fake: Not Found ({wrong})")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (302, b"", "a redirect, which is not followed; look at the provider's url"),
        (200, {}, "the answer is no chat completion; look at the provider's url and api"),
        (200, {"error": {"code": 500}}, "an error without a message"),
        (500, b"", "an error without a message"),
    ],
)
def test_an_answer_without_message_is_described(status, body, message):
    assert _told(status, body)[2] == f"fake: {message}"


def test_a_validation_error_has_its_field_path():
    detail = [{"type": "extra_forbidden", "loc": ["body", "messages", 1], "msg": "Extra inputs"}]
    assert _told(422, {"detail": detail})[2] == "fake: Extra inputs (at body.messages.1)"


def test_an_error_without_message_says_so():
    for body in ({"base_resp": {"status_code": 2013}}, {"error": {"code": "1210"}}, b""):
        assert _told(400, body) == (400, "invalid_request_error", "fake: an error without a message")


def test_a_text_of_any_length_is_cut():
    assert len(_told(502, b"x" * 10**6)[2]) < 400
    for part in (b"<title>", b"<title", b"<style>", b"<"):
        assert len(_told(502, part * 10**5)[2]) < 400


@given(st.integers(100, 999), st.binary() | st.recursive(
    st.none() | st.text() | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["error", "message", "code", "type", "detail", "choices", "base_resp"]), inner
    ),
))  # fmt: skip
def test_no_error_raises(status, body):
    told, kind, message = _told(status, body)
    assert told >= 100
    assert kind.isascii()
    assert message
