"""Which key a target is asked with, and what becomes of a key that fails."""

import time
from pathlib import Path

import pytest

from tests.support.answers import error_json, json_answer, message_json, message_sse
from tests.support.playbook import Playbook, Provider, played
from tests.support.played_wire import LOGIN, Asked

KEYS = ["zai-key-for-tests-0001", "zai-key-for-tests-0002"]
RULES = """
providers:
  home: {url: "http://home.invalid", key: home-key-for-tests-01, circuit: &never {degraded_after: 100000, open_after: 100000}}
  login: {url: "http://home.invalid", auth: client, circuit: *never}
  rotates: &pair {url: "http://zai.invalid", keys: [zai-key-for-tests-0001, zai-key-for-tests-0002], circuit: *never}
  refused: *pair
  stays: *pair
  spent: *pair
  valid: *pair
  account: *pair
  counts: *pair
  broken: *pair
  own: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: *never}
  messages: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: *never}
  windows: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: *never}
  quota: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: *never}
rules:
  - {match: rotates, to: [rotates, home]}
  - {match: refused, to: [refused, home]}
  - {match: stays, to: [stays, home]}
  - {match: spent, to: [spent, home]}
  - {match: valid, to: [valid, home]}
  - {match: account, to: account}
  - {match: counts, to: [counts, home]}
  - {match: broken, to: [broken, home]}
  - {match: own, to: own}
  - {match: login, to: login}
  - {match: messages, to: [messages, home]}
  - {match: windows, to: [windows, home]}
  - {name: quota, match: quota, to: [quota, home]}
"""  # noqa: E501  as rules are written
COUNT = "/v1/messages/count_tokens"


@pytest.fixture
def up(played_router) -> Provider:
    return played_router.provider("zai")


def keys(provider: Provider) -> list[str | None]:
    return [asked.header("x-api-key") for asked in provider.requests]


def attempts(play: Playbook, model: str, **fields: object) -> str | None:
    return play.ask(model, **fields).headers.get("x-signalbox-attempts")


@pytest.mark.parametrize(
    ("provider", "failure"),
    [
        ("rotates", error_json(429, "rate_limit_error", headers=[("retry-after", "30")])),
        ("refused", error_json(401, "authentication_error")),
    ],
)
def test_another_key_is_tried_at_once_and_the_session_stays_there(play, up, home, provider, failure):
    up.answer(failure, message_json("glm"))
    assert attempts(play, provider) == f"{provider}:{failure.status} {provider}:200"
    first, other = keys(up)
    assert {first, other} == set(KEYS)
    assert attempts(play, provider) == f"{provider}:200"
    assert keys(up) == [first, other, other]
    assert not home.requests


@pytest.mark.parametrize("status", [500, 503, 529])
def test_a_failure_that_is_not_the_keys_tries_no_other_key(play, up, home, status):
    up.answer(error_json(status, "api_error"))
    assert attempts(play, "broken") == f"broken:{status} home:200"


def test_a_session_keeps_its_key_and_many_sessions_use_all(play, up):
    for session in [f"s-{number}" for number in range(8)] * 2:
        play.session = session
        play.ask("stays")
    assert keys(up)[:8] == keys(up)[8:]
    assert set(keys(up)) == set(KEYS)


def test_when_every_key_is_spent_the_next_target_answers(play, up, home):
    up.answer(error_json(429, "rate_limit_error", headers=[("retry-after", "30")]))
    assert attempts(play, "spent") == "spent:429 spent:429 home:200"
    assert attempts(play, "spent") == "home:200"


def test_a_refused_key_is_shown_though_another_one_answered(play, up, home):
    up.answer(error_json(401, "authentication_error"))
    assert attempts(play, "valid") == "valid:401 valid:401 home:200"
    shown = play.router.health("valid")
    assert (shown["key_valid"], shown["available"]) == (False, False)
    assert "authentication_error" in shown["reason"]


SPENT = "You're out of extra usage. Add more at claude.ai/settings/usage and keep going."
DISABLED = "This organization has been disabled."


@pytest.mark.parametrize("said", [SPENT, DISABLED])
def test_a_400_of_the_account_moves_on_to_the_next_key(play, up, said):
    up.answer(error_json(400, "invalid_request_error", said), message_json("glm"))
    told = [attempts(play, "account") for _ in range(2)]
    assert told in (["account:400 account:200", "account:200"], ["account:200", "account:200"])
    if len(up.requests) == 3:
        assert (set(keys(up)), keys(up)[1]) == (set(KEYS), keys(up)[2])


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_refused_key_of_the_router_is_reported_as_403_with_the_providers_name(play, up, stream):
    up.answer(error_json(401, "authentication_error", "invalid x-api-key"))
    for path in ("/v1/messages", COUNT):
        got = play.ask("own", stream=stream, path=path)
        assert got.status == 403
        assert got.error == {"type": "permission_error", "message": "own: invalid x-api-key"}
        assert got.headers["x-signalbox-attempts"] == "own:401"
        assert int(got.headers["content-length"]) == len(got.body)


def test_a_refused_login_of_the_caller_stays_a_401(play, home):
    refused = error_json(401, "authentication_error", "Invalid bearer token")
    home.answer(refused)
    got = play.ask("login")
    assert (got.status, got.body) == (401, refused.body)
    assert keys(home) == [LOGIN]


# counting tokens has a cooldown of its own


@pytest.mark.parametrize(
    "failure",
    [
        error_json(429, "rate_limit_error", headers=(("retry-after", "50"),)),
        error_json(403, "permission_error"),
        error_json(500, "api_error"),
    ],
    ids=["429", "403", "500"],
)
def test_count_tokens_says_nothing_about_messages(play, up, home, failure):
    up.answer(lambda asked: failure if asked.path == COUNT else message_json("glm"))
    play.ask("messages")
    for _ in range(7):
        play.ask("messages", path=COUNT)
    shown = play.router.health("messages")
    assert (shown["available"], shown["circuit"], shown["key_valid"]) == (True, "closed", True)
    assert attempts(play, "messages") == "messages:200"


def test_messages_tell_nothing_about_count_tokens(play, up, home):
    def answer(asked: Asked):
        if asked.path == COUNT:
            return json_answer({"input_tokens": 7})
        return error_json(429, "rate_limit_error", headers=(("retry-after", "50"),))

    up.answer(answer)
    assert attempts(play, "counts") == "counts:429 counts:429 home:200"
    assert attempts(play, "counts") == "home:200"
    assert attempts(play, "counts", path=COUNT) == "counts:200"
    assert len(home.requests) == 2


def rejected(**more: str) -> tuple[tuple[str, str], ...]:
    """Headers of a seven-day window that is used up for another hour."""
    reset = str(int(time.time()) + 3600)
    limits = {"status": "rejected", "7d-status": "rejected", "7d-reset": reset} | more
    return tuple((f"anthropic-ratelimit-unified-{name}", value) for name, value in limits.items())


def test_a_window_that_counting_tokens_has_used_up_is_left_to_counting_tokens(play, up, home):
    spent = error_json(429, "rate_limit_error", headers=rejected())
    up.answer(lambda asked: spent if asked.path == COUNT else message_json("glm"))
    assert attempts(play, "windows", path=COUNT) == "windows:429"
    assert attempts(play, "windows", path=COUNT) == "home:200"
    assert attempts(play, "windows") == "windows:200"


def test_spent_quota_is_in_cooldown_until_its_reset_and_the_log_says_which(play, up, home, caplog):
    caplog.set_level("INFO", "signalbox")
    soon = str(int(time.time()) + 60)
    up.answer(
        error_json(429, "rate_limit_error", headers=rejected(**{"5h-status": "allowed", "5h-reset": soon})),
        message_json(),
    )
    assert attempts(play, "quota") == "quota:429 home:200"
    assert attempts(play, "quota") == "home:200"
    assert "mode transition: quota -> home (5h=0%, 7d=0%, overage=0%)" in caplog.text
    assert "dispatch: home reason=quota:7d model=quota" in caplog.text
    assert [record["reason"] for record in play.records(2)] == ["rule:quota", "quota:7d"]


# keys that a command prints


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("up.invalid", 401),
        ("bedrock-mantle.eu-west-1.api.aws", 401),
        ("bedrock-mantle.eu-west-1.api.aws", 403),
    ],
)
def test_a_key_printed_anew_is_used_for_the_request_that_was_refused(tmp_path: Path, host, status):
    """Claude Code's own habit with an apiKeyHelper: on a 401 it is run again. Amazon refuses an expired
    short-term key by 403 (clouds.md, 3)."""
    printed = tmp_path / "key"
    printed.write_text("first-key-for-tests-01")
    rules = f"""
providers:
  renewed: {{url: "http://{host}", key: {{command: [cat, "{printed}"]}}}}
rules:
  - {{match: "*", to: renewed}}
"""
    (tmp_path / "router").mkdir()
    with played(tmp_path / "router", rules) as router:
        up, play = router.provider(host.removesuffix(".invalid")), router.connect()
        assert play.ask("glm").status == 200
        printed.write_text("second-key-for-tests-1")
        up.answer(
            lambda asked: (
                error_json(status, "authentication_error")
                if asked.header("x-api-key") == "first-key-for-tests-01"
                else message_sse("glm")
            )
        )
        assert attempts(play, "glm", stream=True) == f"renewed:{status} renewed:200"
        assert keys(up) == ["first-key-for-tests-01"] * 2 + ["second-key-for-tests-1"]
