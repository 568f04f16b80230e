"""The story of a plan that fills up: who answers, what is told, and how it comes back."""

import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.fake_provider import Upstream
from tests.support.plan import Plan
from tests.support.router import Router
from tests.support.router_process import wait_until

LOGIN = "sk-ant-oat01-fake-login-of-nobody"
WORK = "sk-ant-oat01-fake-login-for-work"
PROBE_KEY = "sk-ant-api03-fake-key-for-probes"
LITELLM = "litellm-key-for-tests-01"
SECRETS = (LOGIN, WORK, PROBE_KEY)
OPUS = "claude-opus-4-5"


class Answered(NamedTuple):
    status: int
    attempts: str
    headers: dict[str, str]


def ask(
    router: Router, login: str = LOGIN, *, model: str = OPUS, stream: bool = False, path: str = "/v1/messages"
) -> Answered:
    with closing(HTTPConnection("127.0.0.1", router.ports[0], timeout=10)) as connection:
        body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "x"}]})
        method = "GET" if path == "/v1/models" else "POST"
        connection.request(
            method, path, body if method == "POST" else None, {"Authorization": f"Bearer {login}"}
        )
        answer = connection.getresponse()
        answer.read()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answered(answer.status, headers.get("x-signalbox-attempts", ""), headers)


def rules(home: Upstream, other: Upstream, quota: str, more: str = "") -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client, quota: {quota}}}
  litellm: {{url: "{other.url}", key: {LITELLM}}}
rules:
{more}
  - {{match: "*", to: [anthropic, litellm]}}
log: {{level: debug}}
"""


MARKS = "redirect_at: {5h: 90, 7d: 90, overage: 80}"


@pytest.fixture
def plan(upstream: Upstream) -> Plan:
    return Plan(upstream)


@pytest.fixture
def status(tmp_path: Path) -> Path:
    return tmp_path / "config" / "usage-status.md"


@pytest.fixture
def start(start_router: Callable[..., Router], plan: Plan, second: Upstream, status: Path) -> Any:
    """Starts a router whose quota has these settings."""

    def start(settings: str, more: str = "", **options: Any) -> Router:
        quota = f'{{status_file: "{status}", {settings}}}'
        return start_router(plan.upstream.url, rules=rules(plan.upstream, second, quota, more), **options)

    return start


def wait_status(file: Path, pattern: str) -> str:
    """The file's line, once it matches."""

    def text() -> str:
        return file.read_text() if file.exists() else ""

    wait_until(lambda: re.search(pattern, text()), 5, lambda: f"{pattern} in {text()!r}")
    return text()


@pytest.mark.slow
def test_the_story_of_a_plan_that_fills_up_and_comes_back(start, plan, status):
    router = start(f"{MARKS}, probe: 50ms")
    plan.stands(LOGIN, w5h=0.09, w7d=0.4)
    assert ask(router).attempts == "anthropic:200"
    assert re.fullmatch(
        r"5h=9% 7d=40% overage=0% bottleneck=five_hour \(\d\d/\d\d/\d{4}, \d\d:\d\d:\d\d\)\n",
        wait_status(status, "5h=9%"),
    )
    plan.stands(LOGIN, w5h=0.899, w7d=0.4)
    assert ask(router, stream=True).attempts == "anthropic:200"
    assert ask(router).attempts == "anthropic:200"
    assert "mode transition" not in router.log()
    assert plan.probes() == []

    plan.stands(LOGIN, w5h=0.91, w7d=0.4)
    assert ask(router).attempts == "anthropic:200"
    assert ask(router).attempts == "litellm:200"
    router.wait_log(r"\[proxy\] mode transition: anthropic -> litellm \(5h=91%, 7d=40%, overage=0%\)\n")
    router.wait_log(rf"dispatch: litellm reason=quota:5h model={OPUS}")
    before = len(plan.upstream.wait_for(5))

    plan.stands(LOGIN, w5h=0.86, w7d=0.4)
    wait_status(status, "5h=86%")
    assert len(plan.upstream.requests) > before
    assert ask(router).attempts == "litellm:200"

    plan.stands(LOGIN, w5h=0.849, w7d=0.4)
    router.wait_log(r"mode transition: litellm -> anthropic \(5h=85%, 7d=40%, overage=0%\)")
    assert ask(router).attempts == "anthropic:200"
    assert len(re.findall("mode transition", router.log())) == 2
    records = [(row["backend"], row["reason"]) for row in router.records(6)]
    assert records.count(("litellm", "quota:5h")) == 2


@pytest.mark.slow
def test_a_probe_is_the_cheapest_request_and_goes_with_the_callers_credential_to_that_provider_only(
    start, plan, second
):
    router = start(f"{MARKS}, probe: 50ms, probe_model: claude-haiku-4-5")
    plan.stands(LOGIN, w7d=0.95)
    ask(router)
    wait_until(plan.probes, 5, lambda: "a probe")
    probe = plan.probes()[0]
    assert probe.header("authorization") == f"Bearer {LOGIN}"
    assert probe.header("anthropic-beta") == "oauth-2025-04-20"
    assert probe.header("host") == f"127.0.0.1:{plan.upstream.port}"
    assert probe.json == {"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "Hi"}]}
    assert second.requests == []
    assert "count_tokens" not in [row["model"] for row in router.records()]
    plan.stands(WORK, w7d=0.1)
    assert ask(router, WORK).attempts == "litellm:200"
    router.wait_log("mode transition: litellm -> anthropic")
    assert plan.probes()[-1].header("authorization") == f"Bearer {WORK}", "the newest is probed with"


@pytest.mark.slow
def test_without_a_probe_it_comes_back_when_the_named_reset_has_passed(start, plan):
    router = start(f"{MARKS}, probe: 0s")
    plan.stands(LOGIN, w5h=0.95, resets_in=3)
    assert [ask(router).attempts for _ in range(2)] == ["anthropic:200", "litellm:200"]
    router.wait_log(r"mode transition: litellm -> anthropic \(5h=0%, 7d=0%, overage=0%\)")
    assert ask(router).attempts == "anthropic:200"
    assert plan.probes() == []


@pytest.mark.slow
def test_a_reader_sees_the_line_before_or_after_and_never_half_of_it(start, plan, status):
    router = start("")
    plan.stands(LOGIN, w5h=0.09)
    ask(router)
    wait_status(status, "5h=9%")
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(re.sub(r"\d+", "N", status.read_text()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(10, 40):
            plan.stands(LOGIN, w5h=number / 100)
            ask(router)
    finally:
        done.set()
        reader.join()
    assert seen == {"Nh=N% Nd=N% overage=N% bottleneck=five_hour (N/N/N, N:N:N)\n"}


# accounts


def login_file(folder: Path, token: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "new"
    written.write_text(json.dumps({"claudeAiOauth": {"accessToken": token, "expiresAt": 4_102_444_800_000}}))
    written.replace(folder / ".credentials.json")


@pytest.mark.slow
def test_two_accounts_stand_side_by_side(start, plan, status, tmp_path):
    work, home = tmp_path / "work", status.parent
    login_file(work, WORK)
    login_file(home, LOGIN)
    router = start(f'{MARKS}, probe: 50ms, accounts: ["{home}", "{work}"]')
    plan.stands(LOGIN, w5h=0.2)
    plan.stands(WORK, w5h=0.95)
    plan.stands("sk-ant-oat01-fake-third-login", w5h=0.99)
    assert [ask(router, login).attempts for login in (LOGIN, WORK, LOGIN, WORK)] == [
        "anthropic:200",
        "anthropic:200",
        "anthropic:200",
        "litellm:200",
    ]
    wait_status(home / "usage-status.md", "5h=20%")
    wait_status(work / "usage-status.md", "5h=95%")
    wait_until(plan.probes, 5, lambda: "a probe")
    assert {probe.header("authorization") for probe in plan.probes()} == {f"Bearer {WORK}"}
    router.wait_log(re.escape(f"overage=0%) of {work}"))

    third = "sk-ant-oat01-fake-third-login"
    assert [ask(router, third).attempts for _ in range(2)] == ["anthropic:200", "litellm:200"]
    assert ask(router, LOGIN).attempts == "anthropic:200"
    assert "5h=20%" in (home / "usage-status.md").read_text()  # an account's file is no default's
    quota = router.health()["providers"]["anthropic"]["quota"]
    assert quota["windows"]["5h"]["percent"] == 99
    assert {Path(folder).name: of["redirected"] for folder, of in quota["accounts"].items()} == {
        "work": True,
        home.name: False,
    }

    plan.stands(WORK, w5h=0.1)
    router.wait_log(re.escape(f"overage=0%) of {work}") + r"(.|\n)*" + re.escape(f"overage=0%) of {work}"))
    assert ask(router, WORK).attempts == "anthropic:200"


def test_a_full_plan_is_probed_with_the_login_of_its_provider(start_router, plan, second, tmp_path):
    login_file(tmp_path / "work", WORK)
    settings = "quota: {probe: 50ms, redirect_at: {5h: 90}}"
    login = f'auth: claude-login, login: "{tmp_path / "work"}"'
    text = rules(plan.upstream, second, "{}").replace("auth: client, quota: {}", f"{login}, {settings}")
    router = start_router(plan.upstream.url, rules=text)
    plan.stands(WORK, w5h=0.95)
    assert [ask(router).attempts for _ in range(2)] == ["anthropic:200", "litellm:200"]
    plan.stands(WORK, w5h=0.1)
    router.wait_log("mode transition: litellm -> anthropic")
    assert {probe.header("authorization") for probe in plan.probes()} == {f"Bearer {WORK}"}


# starting again


@pytest.mark.slow
def test_a_restart_goes_on_where_it_was(start, plan, tmp_path, status):
    state = tmp_path / "state"
    router = start(f"{MARKS}, probe: 50ms", state=state)
    plan.stands(LOGIN, w5h=0.95)
    ask(router)
    plan.stands(LOGIN, w5h=0.87)
    wait_status(status, "5h=87%")
    router.stop()
    again = start(f"{MARKS}, probe: 0s", state=state)
    assert ask(again).attempts == "litellm:200", "within the hysteresis"
    again.stop()
    third = start(f"{MARKS}, probe: 50ms", state=state)
    assert ask(third).attempts == "litellm:200"
    plan.stands(LOGIN, w5h=0.1)
    third.wait_log("mode transition: litellm -> anthropic")
    assert ask(third).attempts == "anthropic:200"


@pytest.mark.slow
def test_a_restart_after_the_reset_asks_again(start, plan, tmp_path):
    state = tmp_path / "state"
    router = start("", state=state)
    plan.stands(LOGIN, w5h="rejected", refuses=True, resets_in=3)
    assert ask(router).attempts == "anthropic:429 litellm:200"
    reset = time.time() + 3
    router.stop()
    again = start("", state=state)
    wait_until(lambda: time.time() > reset, 5, lambda: "the reset")
    plan.stands(LOGIN, w5h=0.0)
    assert ask(again).attempts == "anthropic:200"


# secrets


@pytest.mark.slow
def test_no_credential_is_in_any_log_or_file(start, plan, tmp_path):
    work = tmp_path / "work"
    login_file(work, WORK)
    router = start(
        f'{MARKS}, probe: 50ms, accounts: ["{work}"]', options=("-w", str(tmp_path / "flows.mitm"))
    )
    plan.stands(LOGIN, w5h=0.95)
    plan.stands(WORK, w5h="rejected", refuses=True)
    for login in (LOGIN, WORK):
        ask(router, login)
    wait_until(lambda: len(plan.probes()) >= 2, 5, lambda: "probes of both")
    health = json.dumps(router.health())
    router.stop()
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != ".credentials.json"]
    assert (router.state / "quota.json") in written
    texts = {str(file): file.read_bytes() for file in written}
    assert [name for name, text in texts.items() for secret in SECRETS if secret.encode() in text] == []
    assert not any(secret in health for secret in SECRETS)
    assert (router.state / "quota.json").stat().st_mode & 0o077 == 0
