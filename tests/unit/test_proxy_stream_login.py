"""`auth: claude-login`: the login of a subscription as a target between an API key and another provider.

What a background probe does with it is in `tests/e2e/test_quota.py`.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.answers import Answer, error_json, json_answer, message_json, message_sse
from tests.support.playbook import Playbook, PlayedRouter, played
from tests.support.played_wire import Asked, Got

CALLER = "sk-ant-oat01-fake-login-of-caller"
TOKEN = "sk-ant-oat01-fake-login-of-nobody"
API_KEY = "sk-ant-api03-fake-key-of-nobody"
ZAI = "zai-key-for-tests-0001"
LIMITED = error_json(429, "rate_limit_error")
REJECTED = error_json(
    429,
    "rate_limit_error",
    headers=(
        ("anthropic-ratelimit-unified-status", "rejected"),
        ("anthropic-ratelimit-unified-5h-status", "rejected"),
    ),
)


def write_login(folder: Path, token: str = TOKEN, expires_in: float = 10 * 86400) -> None:
    folder.mkdir(exist_ok=True)
    written = folder / "new"
    expires = int((time.time() + expires_in) * 1000)
    written.write_text(
        json.dumps({"claudeAiOauth": {"accessToken": token, "refreshToken": "fake", "expiresAt": expires}})
    )
    written.replace(folder / ".credentials.json")


class Anthropic:
    """Answers keys and logins each as it is told."""

    def __init__(self, router: PlayedRouter) -> None:
        self.provider = router.provider("anthropic")
        self.provider.answer(self._answer)
        self.api: Answer | None = None
        self.plan: Answer | None = None

    def _answer(self, asked: Asked) -> Answer:
        scripted = self.api if asked.header("x-api-key") else self.plan
        model = asked.json["model"]
        return scripted or (message_sse(model) if asked.json.get("stream") else message_json(model))

    def sent(self, header: str) -> list[str | None]:
        return [asked.header(header) for asked in self.provider.requests]


@pytest.fixture
def login(tmp_path: Path) -> Path:
    return tmp_path / "config"


@pytest.fixture
def router(tmp_path: Path, login: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedRouter]:
    """Its key is not in the rules, of which a copy is kept."""
    monkeypatch.setenv("KEY_OF_NOBODY", API_KEY)
    rules = f"""
providers:
  api: {{url: "http://anthropic.invalid", key: "${{KEY_OF_NOBODY}}"}}
  subscription: {{url: "http://anthropic.invalid", auth: claude-login, login: "{login}"}}
  zai: {{url: "http://zai.invalid", key: {ZAI}}}
rules:
  - {{match: alone, to: subscription}}
  - {{match: "*", to: [api, subscription, zai]}}
"""
    (tmp_path / "router").mkdir()
    with played(tmp_path / "router", rules) as router:
        write_login(login)
        router.provider("zai")
        yield router


@pytest.fixture
def anthropic(router: PlayedRouter) -> Anthropic:
    return Anthropic(router)


@pytest.fixture
def play(router: PlayedRouter, anthropic: Anthropic) -> Playbook:
    return router.connect()


def ask(play: Playbook, model: str = "claude-opus-4-5", **headers: str) -> Got:
    usual = {"x-api-key": "", "authorization": f"Bearer {CALLER}"}
    return play.ask(model, stream=True, headers=usual | headers)


def attempts(play: Playbook) -> str:
    return ask(play).headers["x-signalbox-attempts"]


def test_the_chain_goes_from_key_to_subscription_to_another_provider(play, router, anthropic):
    assert attempts(play) == "api:200"
    anthropic.api = LIMITED
    assert attempts(play) == "api:429 subscription:200"
    anthropic.plan = REJECTED
    assert attempts(play) == "subscription:429 zai:200"
    assert attempts(play) == "zai:200"
    zai = router.providers["zai"].requests
    assert [asked.header("x-api-key") for asked in zai] == [ZAI, ZAI]


def test_a_login_that_was_renewed_while_it_was_asked_is_used_at_once(play, login, anthropic):
    newer = f"{TOKEN}-newer"

    def renews(asked: Asked) -> Answer:
        write_login(login, newer)
        anthropic.provider.answer(lambda again: message_sse(again.json["model"]))
        return error_json(401, "authentication_error")

    anthropic.provider.answer(LIMITED, renews)
    assert attempts(play) == "api:429 subscription:401 subscription:200"
    assert anthropic.sent("authorization")[1:] == [f"Bearer {TOKEN}", f"Bearer {newer}"]


def test_a_new_login_ends_the_cooldown_of_a_refused_one(play, login, anthropic):
    anthropic.api, anthropic.plan = LIMITED, error_json(401, "authentication_error")
    assert [attempts(play), attempts(play)] == ["api:429 subscription:401 zai:200", "zai:200"]
    anthropic.plan = None
    write_login(login, f"{TOKEN}-newer")
    assert attempts(play) == "subscription:200"


@pytest.mark.parametrize(
    ("beta", "sent"),
    [
        ("a-2026-01-01,b-2026-01-01", "a-2026-01-01,b-2026-01-01,oauth-2025-04-20"),
        ("oauth-2025-04-20,a-2026-01-01", "oauth-2025-04-20,a-2026-01-01"),
    ],
)
def test_it_is_asked_with_its_own_token_as_bearer_and_the_oauth_beta(play, anthropic, beta, sent):
    ask(play, "alone", **{"anthropic-beta": beta})
    assert anthropic.sent("authorization") == [f"Bearer {TOKEN}"]
    assert anthropic.sent("anthropic-beta") == [sent]
    assert CALLER not in str(anthropic.provider.requests)


def test_a_renewed_login_is_used_at_the_next_request(play, anthropic, login):
    ask(play, "alone")
    write_login(login, f"{TOKEN}-renewed")
    ask(play, "alone")
    assert anthropic.sent("authorization") == [f"Bearer {TOKEN}", f"Bearer {TOKEN}-renewed"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: write_login(folder, expires_in=-1), "the login in {} has expired"),
        (lambda folder: (folder / ".credentials.json").unlink(), "there is no login in {}"),
    ],
    ids=["expired", "missing"],
)
def test_without_a_login_that_is_valid_it_is_passed_over(play, router, anthropic, login, change, reason):
    change(login)
    anthropic.api = LIMITED
    assert attempts(play) == "api:429 zai:200"
    got = ask(play, "alone")
    assert got.status == 503
    assert reason.format(login) in got.error["message"]
    page = router.health_page
    told = page["providers"]["subscription"]
    assert (told["available"], page["status"]) == (False, "unhealthy")
    assert told["reason"].startswith(f"no-login: {reason.format(login)}")
    write_login(login)
    assert attempts(play) == "subscription:200"


def test_a_token_that_anthropic_refuses_gives_way(play, anthropic):
    anthropic.api = LIMITED
    anthropic.plan = error_json(401, "authentication_error")
    assert attempts(play) == "api:429 subscription:401 zai:200"


def test_the_login_is_never_written_or_shown(play, router, anthropic, login, caplog):
    file = login / ".credentials.json"
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    anthropic.api = LIMITED
    anthropic.plan = error_json(401, "authentication_error", f"bad token {TOKEN}")
    ask(play)
    health = json.dumps(router.health_page)
    play.records(1)
    router.close()
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert [path.name for path in login.iterdir()] == [".credentials.json"]
    texts = [caplog.text, health, *(path.read_text("latin-1") for path in router.state.rglob("*.*"))]
    assert not any(secret in text for text in texts for secret in (TOKEN, CALLER, API_KEY))


def test_its_quota_is_watched_like_every_plans(play, router, anthropic):
    used = (("anthropic-ratelimit-unified-5h-utilization", "0.4"),)
    anthropic.plan = json_answer(json.loads(message_json("alone").body), headers=used)
    play.ask("alone")
    assert router.health("subscription")["quota"]["windows"]["5h"]["percent"] == 40
