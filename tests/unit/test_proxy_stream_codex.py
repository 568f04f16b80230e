"""`auth: codex-login`: OpenAI's models by the ChatGPT plan of a Codex login, as in examples/codex.yaml."""

import base64
import json
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.answers import Answer
from tests.support.chat import error
from tests.support.conversation import SESSION, Conversation
from tests.support.playbook import Playbook, PlayedRouter, eventually, played
from tests.support.played_wire import LOGIN, Asked, request
from tests.support.router_process import ROOT
from tests.support.strict_codex import Codex
from tests.support.strict_providers import StrictAnthropic

ACCOUNT = "account-fake-0001"


def jwt(**claims: Any) -> str:
    parts = ({"alg": "none"}, claims)
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return ".".join([*encoded, "fake"])


def token(expires_in: float = 3600, number: int = 1) -> str:
    return jwt(exp=int(time.time() + expires_in), number=number)


TOKEN = token(10 * 86400)


def write_login(home: Path, access_token: str = TOKEN, **fields: Any) -> Path:
    (home / ".codex").mkdir(exist_ok=True)
    tokens = {"access_token": access_token, "refresh_token": "fake-refresh", "account_id": ACCOUNT}
    written = home / ".codex" / "new"
    written.write_text(json.dumps({"auth_mode": "chatgpt", "tokens": tokens} | fields))
    return written.replace(home / ".codex" / "auth.json")


@pytest.fixture
def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedRouter]:
    """With the example of the repository, without TLS, and its login in the home of nobody."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_login(tmp_path)
    (tmp_path / "router").mkdir()
    text = (ROOT / "examples" / "codex.yaml").read_text().replace("https://", "http://")
    with played(tmp_path / "router", text) as router:
        router.provider("api.anthropic.com").answer(StrictAnthropic())
        yield router


@pytest.fixture
def codex(router: PlayedRouter) -> Codex:
    codex = Codex(TOKEN, ACCOUNT)
    router.provider("chatgpt.com").answer(codex)
    return codex


@pytest.fixture
def play(router: PlayedRouter, codex: Codex) -> Playbook:
    play = router.connect()
    play.session = SESSION
    return play


SONNET = "claude-sonnet-5"


def attempts(play: Playbook) -> str:
    return play.ask(SONNET, stream=True).headers["x-signalbox-attempts"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_conversation_of_tools_goes_on_without_one_error(play, router, stream):
    def send(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        play.hears_anew()
        play.client_sends(request(body, "/v1/messages?beta=true", **headers))
        return play.got.status, play.got.body

    conversation = Conversation(send, stream=stream)
    for _ in range(6):
        conversation.turn(SONNET)
    assert {record["attempts"] for record in play.records(6)} == {"codex:200"}
    for asked in router.providers["chatgpt.com"].requests:
        assert asked.path == "/backend-api/codex/responses"
        assert LOGIN not in str(asked)
        assert SESSION not in str(asked)


def test_a_login_that_was_renewed_while_it_was_asked_is_used_at_once(play, router, codex, tmp_path):
    newer = token(9 * 86400, number=2)

    def renews(asked: Asked) -> Answer:
        write_login(tmp_path, newer)
        router.providers["chatgpt.com"].answer(Codex(newer, ACCOUNT))
        return error(401, "expired", code="token_expired")

    router.providers["chatgpt.com"].answer(renews)
    assert attempts(play) == "codex:401 codex:200"
    assert router.health("codex")["reason"] is None


def test_a_refused_login_is_in_cooldown_until_it_expires_or_another_one_is_there(
    play, router, codex, tmp_path, caplog
):
    caplog.set_level("INFO", "signalbox")
    newer = token(9 * 86400, number=2)
    router.providers["chatgpt.com"].answer(Codex(newer, ACCOUNT))
    assert [attempts(play), attempts(play)] == ["codex:401 anthropic:200", "anthropic:200"]
    write_login(tmp_path, newer)
    assert attempts(play) == "codex:200"
    assert "codex: has a new login, and is asked again" in caplog.text


def test_a_new_login_ends_no_cooldown_but_that_of_a_refused_one(play, router, codex, tmp_path):
    newer = token(9 * 86400, number=2)
    router.providers["chatgpt.com"].answer(error(429, "Too many", code="rate_limit_exceeded"))
    assert attempts(play) == "codex:429 anthropic:200"
    write_login(tmp_path, newer)
    router.providers["chatgpt.com"].answer(Codex(newer, ACCOUNT))
    assert attempts(play) == "anthropic:200"


def test_a_new_login_that_is_refused_too_is_not_tried_a_third_time(play, router, tmp_path):
    numbers = count(2)

    def renews(asked: Asked) -> Answer:
        write_login(tmp_path, token(9 * 86400, next(numbers)))
        return error(401, "expired", code="token_expired")

    router.provider("chatgpt.com").answer(renews)
    assert attempts(play) == "codex:401 codex:401 anthropic:200"


def test_the_plans_windows_are_quota_by_their_length(play, router, tmp_path):
    attempts(play)
    windows = router.health("codex")["quota"]["windows"]
    assert (windows["5h"]["percent"], windows["7d"]["percent"]) == (10, 20)
    status = tmp_path / ".codex" / "usage-status.md"
    eventually(status.exists, lambda: "no status file")  # which another thread writes
    assert status.read_text().startswith("5h=10% 7d=20% overage=0% bottleneck=none")


def test_a_window_at_its_mark_passes_it_over_until_it_resets(play, router, codex, caplog):
    codex.week = 91
    assert [attempts(play), attempts(play)] == ["codex:200", "anthropic:200"]
    assert "mode transition: codex -> anthropic (5h=10%, 7d=91%, overage=0%)" in caplog.text
    codex.week = 0
    play.passes(86401)
    assert attempts(play) == "codex:200"


def test_a_plan_that_is_used_up_is_left_alone_until_it_resets(play, router, codex):
    codex.week = 100
    assert [attempts(play), attempts(play)] == ["codex:429 anthropic:200", "anthropic:200"]


def test_a_login_that_codex_has_renewed_is_used_at_the_next_request(play, router, codex, tmp_path):
    attempts(play)
    codex.token = token(number=2)
    write_login(tmp_path, codex.token)
    assert attempts(play) == "codex:200"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda home: (home / ".codex/auth.json").unlink(), "there is no auth.json in {}: run codex login"),
        (lambda home: write_login(home, token(-1)), "the login in {} has expired: run codex login"),
        (
            lambda home: write_login(home, auth_mode="apikey", tokens=None, OPENAI_API_KEY="sk-fake"),
            "the login in {} is an API key and no plan's: run codex login",
        ),
    ],
    ids=["missing", "expired", "no plan's"],
)
def test_without_a_plans_login_that_is_valid_it_is_passed_over(play, router, tmp_path, change, reason):
    change(tmp_path)
    assert attempts(play) == "anthropic:200"
    told = router.health("codex")
    assert told["available"] is False
    assert told["reason"].startswith(f"no-login: {reason.format(tmp_path / '.codex')}")


def test_the_login_is_never_written_or_shown(play, router, codex, tmp_path, caplog):
    file = tmp_path / ".codex" / "auth.json"
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    codex.token = "another"
    attempts(play)
    health = json.dumps(router.health_page)
    play.records(1)
    router.close()
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    texts = [caplog.text, health, *(path.read_text("latin-1") for path in router.state.rglob("*.*"))]
    assert not any(TOKEN in text for text in texts)
