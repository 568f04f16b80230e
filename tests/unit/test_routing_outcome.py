"""How an attempt ended: recorded cases of every provider, and what holds for any answer.

A case is its source (a document, a report, code that handles it), who answered with what status (or
`event` and its type), headers, a body, and after the dashes what it is with the default `failover.on`.
"""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.config.rules import Failover
from signalbox.routing.outcome import (
    CANCELLED,
    CONNECT,
    EMPTY,
    STREAM_ERROR,
    TIMEOUT,
    Outcome,
    classify,
    classify_event,
    retry_after,
    success,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
"""1795176000 in unix seconds; eight in the evening in Beijing."""

DEFAULT_ON = Failover().on
GOLDEN = sorted((Path(__file__).parents[1] / "golden/outcomes").glob("*.txt"))
HEAD = re.compile(r"(\S+) (?:(\d+), (own|caller's) key|event (\S+))")


class Case(NamedTuple):
    name: str
    given: str
    expected: str


def cases() -> list[Case]:
    found = []
    for file in GOLDEN:
        for number, text in enumerate(file.read_text().split("\n=====\n"), 1):
            given, expected = text.removesuffix("\n").split("\n---\n")
            found.append(Case(f"{file.stem}-{number}", given, expected))
    return found


CASES = cases()


def outcome_of(recorded: str) -> Outcome:
    head, _, body = recorded.partition("\n\n")
    source, asked, *lines = head.splitlines()
    assert source.startswith("# ")
    found = HEAD.fullmatch(asked)
    assert found
    provider, status, whose, error_type = found.groups()
    if error_type:
        return classify_event(error_type, body, now=NOW, provider=provider)
    headers = dict(line.split(": ", 1) for line in lines)
    return classify(int(status), headers, body.encode(), now=NOW, own_key=whose == "own", provider=provider)


def in_words(outcome: Outcome) -> str:
    cooldown = (
        "no cooldown"
        if outcome.cooldown is None
        else f"the {outcome.scope} in cooldown for {outcome.cooldown:.10g} s"
    )
    return f"{outcome.kind}, {cooldown}, {'moves on' if outcome.moves_on(DEFAULT_ON) else 'stays'}"


def judged(status: int, body: Any = None, *, own_key: bool = True, **headers: str) -> Outcome:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(status, named, raw, now=NOW, own_key=own_key, provider="api.example")


def error(message: str, type: str = "rate_limit_error") -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": message}}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_recorded_case_has_its_outcome(case: Case):
    assert in_words(outcome_of(case.given)) == case.expected


def test_there_are_cases_enough_of_every_kind():
    kinds = {case.expected.split(",")[0] for case in CASES}
    assert len(CASES) >= 40
    assert kinds == {
        *("success", "quota", "throttle", "request", "overload", "server", "timeout", "auth", "client"),
        "stream_error",
    }


# whether the next target is tried


@pytest.mark.parametrize(
    "outcome", [CONNECT, TIMEOUT, STREAM_ERROR, EMPTY], ids=lambda o: o.detail or o.label
)
def test_a_failure_without_a_status_moves_on_by_its_name(outcome: Outcome):
    assert outcome.moves_on(DEFAULT_ON)
    assert outcome.moves_on(frozenset({outcome.label}))
    assert not outcome.moves_on(DEFAULT_ON - {outcome.label})


@pytest.mark.parametrize("outcome", [success(200), CANCELLED], ids=lambda o: o.label)
def test_an_answer_and_a_client_that_left_end_the_request(outcome: Outcome):
    assert not outcome.moves_on(DEFAULT_ON)
    assert not outcome.counts()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_of_the_router_moves_on_by_auth_or_its_status(status: int):
    outcome = judged(status, error("no", "permission_error"))
    assert outcome.moves_on(frozenset({"auth"}))
    assert outcome.moves_on(frozenset({str(status)}))
    assert not outcome.moves_on(DEFAULT_ON - {"auth"})


@pytest.mark.parametrize("status", [401, 402, 403])
def test_refused_credentials_of_the_caller_do_not_move_on_unless_their_status_is_asked_for(status: int):
    outcome = judged(status, error("insufficient balance", "billing_error"), own_key=False)
    assert in_words(outcome) == "client, no cooldown, stays"
    assert outcome.moves_on(frozenset({str(status)}))


def test_quota_is_a_429_whatever_it_comes_as():
    spent = judged(500, error("insufficient balance (1008)", "api_error"))
    assert spent.moves_on(frozenset({"429"}))
    assert spent.moves_on(frozenset({"500"}))
    assert not spent.moves_on(DEFAULT_ON - {"429", "500"})
    assert judged(402, error("Payment required", "billing_error")).moves_on(frozenset({"auth"}))


def test_a_fault_of_the_request_moves_on_only_where_its_status_is_asked_for():
    outcome = judged(422, error("max_tokens: must be positive", "invalid_request_error"))
    assert not outcome.moves_on(DEFAULT_ON)
    assert outcome.moves_on(DEFAULT_ON | {"422"})


def test_an_error_in_a_stream_moves_on_by_its_name_or_by_the_status_of_its_type():
    outcome = classify_event("overloaded_error", "Overloaded", now=NOW, provider="api.anthropic.com")
    assert (outcome.label, outcome.status) == ("stream_error", 529)
    assert outcome.moves_on(frozenset({"stream_error"}))
    assert outcome.moves_on(frozenset({"529"}))
    assert not outcome.moves_on(DEFAULT_ON - {"stream_error", "529"})


def test_an_error_with_a_200_has_the_status_that_it_names_or_that_belongs_to_its_kind():
    named = judged(200, {"error": {"code": 502, "message": "Provider returned error"}})
    unnamed = judged(200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}})
    assert [(outcome.label, outcome.status) for outcome in (named, unnamed)] == [
        ("stream_error", 502),
        ("stream_error", 429),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"type": "message", "content": []},
        {"choices": [], "error": None},
        {"input_tokens": 3},
        b"event: ping\n\n",
        b"",
    ],
    ids=repr,
)
def test_a_200_without_an_error_is_a_success(body: Any):
    assert judged(200, body) == success(200)


# the circuit


@pytest.mark.parametrize("status", [401, 408, 429, 500, 502, 503, 504, 522, 529])
def test_faults_of_the_provider_count_for_its_circuit_breaker(status: int):
    assert judged(status, error("no", "")).counts()


def test_spent_quota_and_faults_of_the_request_do_not_count_for_the_circuit_breaker():
    assert not judged(429, error("no", "insufficient_quota")).counts()
    assert not judged(429, error("Extra usage is required for long context requests.")).counts()
    assert not judged(400, error("no", "invalid_request_error")).counts()


# cooldown


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "86400"}, 86400.0),
        ({"retry-after": "Fri, 20 Nov 2026 12:01:30 GMT"}, 90.0),
        ({"retry-after": "Fri, 20 Nov 2026 20:01:30 +0800"}, 90.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Fri, 20 Nov 2026 11:59:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
    ids=repr,
)
def test_retry_after_is_seconds_or_nothing(headers: dict[str, str], seconds: float | None):
    assert retry_after(headers, NOW) == seconds


def test_quota_cooldown_lasts_until_the_most_exact_reset():
    body = error("Usage limit reached, reset at 2026-11-20T14:00:00Z", "1308")
    window = {
        "anthropic_ratelimit_unified_5h_status": "rejected",
        "anthropic_ratelimit_unified_5h_reset": "1795179600",
    }
    assert judged(429, body, retry_after="60", **window).cooldown == 3600
    assert judged(429, body, retry_after="60").cooldown == 7200
    assert judged(429, error("", "1308"), retry_after="60").cooldown == 60


@pytest.mark.parametrize(
    ("headers", "window"),
    [
        ({}, None),
        ({"anthropic_ratelimit_unified_5h_status": "rejected"}, "5h"),
        ({"anthropic_ratelimit_unified_5h_status": "allowed"}, None),
        (
            {
                "anthropic_ratelimit_unified_status": "blocked",
                "anthropic_ratelimit_unified_reset": "1795179600",
            },
            "plan",
        ),
    ],
)
def test_a_window_that_is_used_up_is_named(headers, window):
    assert judged(429, error(""), **headers).window == window


def test_a_window_without_future_reset_falls_back_to_other_sources():
    past = {
        "anthropic_ratelimit_unified_5h_status": "rejected",
        "anthropic_ratelimit_unified_5h_reset": "1795175999",
    }
    assert judged(429, error(""), retry_after="60", **past).cooldown == 60
    assert judged(429, error(""), anthropic_ratelimit_unified_5h_status="rejected").cooldown == 300


def test_a_throttle_without_wait_need_not_wait():
    assert judged(429, error(""), retry_after="0").cooldown == 0


# what people read


def test_the_detail_is_type_and_message_in_one_line():
    outcome = judged(429, error("Slow\n  down,\tplease\x1b[31m"))
    assert outcome.detail == "rate_limit_error: Slow down, please [31m"


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [
        (502, b"<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", "502 Bad Gateway"),
        (503, b"<p>Back <b>soon</b></p>", "Back soon"),
        (500, b"upstream connect error", "upstream connect error"),
        (404, b"", "Not Found"),
        (529, b"", ""),
        (404, b'{"error":"no such model"}', "no such model"),
        (422, b'{"detail":"no such field"}', "no such field"),
    ],
    ids=repr,
)
def test_the_detail_of_other_bodies(status: int, body: bytes, detail: str):
    assert judged(status, body).detail == detail


def test_a_long_message_is_cut():
    detail = judged(400, error("word " * 100)).detail
    assert len(detail) == 200
    assert detail.endswith("…")


SECRETS = [
    "sk-ant-fake-0123456789",
    "Bearer fake.token-of-someone",
    "bearer\tfake",
    "f" * 36,
    "0123456789abcdef0123456789abcdef",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_the_detail_holds_no_secret(secret: str):
    assert judged(401, error(f'The key "{secret}" is wrong', "auth")).detail == 'auth: The key "***" is wrong'
    assert CONNECT.because(f"refused: {secret}").detail == "refused: ***"


# whatever comes

TEXTS = st.text(max_size=60) | st.sampled_from(
    [
        *("rejected", "-1", "9" * 400, "1795180000", "5m", "2026-13-45 99:99:99", "0001-01-01T00:00:00Z"),
        *("Fri, 99 Foo 2026 12:00:00 +9999", "overloaded", "insufficient balance (1008)", *SECRETS),
    ]
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-remaining"),
            *("anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-unified-status"),
            *("anthropic-ratelimit-unified-reset", "anthropic-ratelimit-unified-7d_opus-status"),
            "anthropic-ratelimit-unified-representative-claim",
        ]
    ),
    TEXTS,
)
FIELDS = st.sampled_from(
    [
        "error",
        "type",
        "code",
        "status",
        "message",
        "details",
        "metadata",
        "retryDelay",
        "base_resp",
        "status_code",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | TEXTS, inner, max_size=4),
    max_leaves=8,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    VALUES.map(lambda value: json.dumps(value).encode()),
    VALUES.map(lambda value: json.dumps({"error": value}).encode()[:-1]),
    TEXTS.map(lambda text: f"<title>{text}".encode("utf-16", "surrogatepass")),
)


def is_sound(outcome: Outcome) -> bool:
    """What holds for any outcome whatsoever."""
    has_cooldown = outcome.cooldown is not None and 0 <= outcome.cooldown <= 7 * 86400
    return (
        (has_cooldown or outcome.cooldown is None)
        and has_cooldown == (outcome.scope != "none")
        and len(outcome.detail) <= 200
        and all(char.isprintable() for char in outcome.detail)
        and re.search(r"sk-|bearer\s+\w", outcome.detail, re.IGNORECASE) is None
    )


@given(st.integers(100, 999), HEADERS, BODIES, st.booleans())
def test_any_answer_has_a_sound_outcome(status: int, headers: dict[str, str], body: bytes, own_key: bool):
    outcome = classify(status, headers, body, now=NOW, own_key=own_key, provider="api.z.ai")
    assert is_sound(outcome)
    assert own_key or outcome.kind != "auth"


@given(TEXTS, TEXTS)
def test_any_error_in_a_stream_is_a_sound_failure(error_type: str, message: str):
    outcome = classify_event(error_type, message, now=NOW, provider="api.z.ai")
    assert is_sound(outcome)
    assert outcome.moves_on(DEFAULT_ON)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"error":' * 20_000,
        b'{"error":{"message":' + b"[" * 900 + b"]" * 900 + b"}}",
        b'{"error":{"message":{"a":"\\ud800"}}}',
        b'{"error":{"code":' + b"9" * 5000 + b"}}",
        b"<" * 1_000_000,
        b"\xff\xfe" * 40_000,
        json.dumps(error("x" * 1_000_000)).encode(),
    ],
    ids=["deep", "deeper", "deep message", "lone surrogate", "huge number", "tags", "not utf-8", "long"],
)
def test_a_hostile_body_is_judged_by_its_status(body: bytes):
    assert judged(500, body).kind == "server"
    assert is_sound(judged(500, body))


@given(st.timedeltas(timedelta(seconds=1), timedelta(days=7)))
def test_a_reset_is_understood_however_it_is_written(ahead: timedelta):
    ahead -= timedelta(microseconds=ahead.microseconds)
    moment, seconds = NOW + ahead, ahead.total_seconds()
    window = {"anthropic_ratelimit_unified_5h_status": "rejected"}
    written = {
        str(int(moment.timestamp())),
        str(int(moment.timestamp() * 1000)),
        moment.isoformat(),
        f"{int(seconds)}s",
        str(int(seconds)),
    }
    for reset in written:
        assert (
            judged(429, error(""), anthropic_ratelimit_unified_5h_reset=reset, **window).cooldown == seconds
        )
