"""What the headers of answers say of a plan, and who answers because of it.

Probes, restarts and several accounts are in `tests/e2e/test_quota.py`.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.answers import error_json
from tests.support.plan import COUNT_TOKENS, Plan
from tests.support.playbook import Playbook, eventually, played
from tests.support.played_wire import LOGIN as KEY

OPUS = "claude-opus-4-5"
MARKS = "redirect_at: {5h: 90, 7d: 90, overage: 80}, probe: 0s"
WORK = "sk-ant-oat01-fake-login-for-work"


@pytest.fixture
def status(tmp_path: Path) -> Path:
    return tmp_path / "config" / "usage-status.md"


@pytest.fixture
def start(tmp_path: Path, status: Path, caplog) -> Iterator[Callable[..., tuple[Playbook, Plan]]]:
    """A client of a router whose quota has these settings, and the plan."""
    caplog.set_level("INFO", "signalbox")
    with ExitStack() as stack:

        def start(
            settings: str, rule: str = '{match: "*", to: [anthropic, litellm]}'
        ) -> tuple[Playbook, Plan]:
            rules = f"""
providers:
  anthropic: {{url: "http://home.invalid", auth: client, quota: {{status_file: "{status}", {settings}}}}}
  litellm: {{url: "http://litellm.invalid", key: litellm-key-for-tests-01}}
rules: {f"[{rule}]" if rule else "[]"}
"""
            (tmp_path / "router").mkdir()
            router = stack.enter_context(played(tmp_path / "router", rules))
            for name in ("litellm", "upstream"):
                router.provider(name)
            plan = Plan(router.provider("home"))
            return router.connect(), plan

        yield start


def attempts(play: Playbook, model: str = OPUS, **options: Any) -> str:
    return play.ask(model, **options).headers["x-signalbox-attempts"]


def wait_status(file: Path, pattern: str) -> None:
    def text() -> str:
        return file.read_text() if file.exists() else ""

    eventually(lambda: re.search(pattern, text()), lambda: f"{pattern} in {text()!r}")


def test_a_window_that_is_used_up_in_mid_use_moves_the_request_in_hand(start, caplog):
    play, plan = start(MARKS)
    plan.stands(KEY, w5h=0.5)
    assert attempts(play) == "anthropic:200"
    plan.stands(KEY, w5h="rejected", refuses=True)
    assert attempts(play, stream=True) == "anthropic:429 litellm:200"
    assert attempts(play) == "litellm:200"
    assert caplog.text.count("mode transition") == caplog.text.count("transition: anthropic -> litellm") == 1
    assert "anthropic-ratelimit-unified-5h-status" not in play.ask(OPUS).headers
    assert play.router.health("anthropic")["reason"].startswith("quota:5h: 5h is used up")


def test_the_request_in_hand_asks_no_other_model_of_a_plan_that_is_used_up(start):
    play, plan = start("", '{match: "*", to: [anthropic/a, anthropic/b, litellm]}')
    plan.stands(KEY, w5h="rejected", refuses=True)
    assert attempts(play) == "anthropic:429 litellm:200"


def test_a_window_of_one_family_leaves_the_others(start, caplog):
    play, plan = start(MARKS)
    plan.stands(KEY, w5h=0.1, w7d_opus="rejected")
    said = [attempts(play, model) for model in (OPUS, OPUS, "claude-sonnet-4-5")]
    assert said == ["anthropic:200", "litellm:200", "anthropic:200"]
    shown = "(5h=10%, 7d=0%, overage=0%, 7d_opus=0%) for 7d_opus"
    assert f"mode transition: anthropic -> litellm {shown}" in caplog.text


def test_without_marks_it_is_only_watched(start, status, caplog):
    play, plan = start("")
    plan.stands(KEY, w5h=1.01, w7d="allowed_warning")
    assert {attempts(play) for _ in range(3)} == {"anthropic:200"}
    wait_status(status, "5h=101% 7d=0%! overage=0%")
    assert "mode transition" not in caplog.text


@pytest.mark.slow
def test_quota_is_heard_from_every_kind_of_answer(start, status):
    play, plan = start("")
    for number, told in enumerate([{"stream": True}, {"path": COUNT_TOKENS}, {}], 1):
        plan.stands(KEY, w5h=number / 100)
        assert play.ask(OPUS, **told).status == 200
        wait_status(status, f"5h={number}% ")
    refused = error_json(400, "invalid_request_error", "no", [*unified("5h", "0.5")])
    play.router.providers["home"].answer(refused)
    assert play.ask(OPUS).status == 400
    wait_status(status, "5h=50% ")


def unified(window: str, used: str) -> list[tuple[str, str]]:
    return [(f"anthropic-ratelimit-unified-{window}-utilization", used)]


def test_a_pure_pipe_hears_quota(tmp_path, status):
    quota = f'{{{MARKS}, status_file: "{status}"}}'
    rules = f'providers: {{a: {{url: "http://upstream.invalid", auth: client, quota: {quota}}}}}'
    with played(tmp_path, rules) as router:
        plan = Plan(router.provider("upstream"))
        plan.stands(KEY, w5h=0.95)
        play = router.connect()
        assert [play.ask(OPUS, stream=True).status for _ in range(2)] == [200, 200]
        wait_status(status, "5h=95%")
        assert router.health("a")["quota"]["windows"]["5h"]["percent"] == 95


def test_rules_may_depend_on_quota(start):
    rule = '{match: {quota: {anthropic.5h: ">=50"}}, to: litellm}, {match: "*", to: anthropic}'
    play, plan = start("", rule)
    assert attempts(play) == "anthropic:200"
    plan.stands(KEY, w5h=0.5)
    assert [attempts(play) for _ in range(2)] == ["anthropic:200", "litellm:200"]


def test_health_reports_windows_and_forecast(start):
    play, plan = start(MARKS)
    assert play.router.health("anthropic")["quota"] is None
    plan.stands(KEY, w5h=0.95, w7d=0.4)
    play.ask(OPUS)
    page = play.router.health_page
    told = page["providers"]["anthropic"]
    assert (told["available"], page["status"]) == (False, "degraded")
    assert re.fullmatch(r"quota:5h: 5h is at 95%, its mark is 90%, resets in 60 min", told["reason"])
    assert told["quota"]["redirected"] is True
    assert told["quota"]["windows"]["7d"]["percent"] == 40
    assert told["quota"]["windows"]["7d"]["full_at"] is None
    assert told["quota"]["bottleneck"] == "five_hour"


def test_a_symbolic_link_in_the_place_of_the_status_file_becomes_a_real_file(start, status, tmp_path):
    status.parent.mkdir()
    other = tmp_path / "kept.md"
    other.write_text("stays")
    status.symlink_to(other)
    play, plan = start("")
    plan.stands(KEY, w5h=0.09)
    play.ask(OPUS)
    wait_status(status, "5h=9%")
    assert not status.is_symlink()
    assert other.read_text() == "stays"
    assert [file.name for file in status.parent.iterdir()] == [status.name]


def test_a_status_file_that_cannot_be_written_costs_one_warning(start, status, caplog):
    status.mkdir(parents=True)
    play, plan = start("")
    plan.stands(KEY, w5h=0.09)
    said = f"{status} cannot be written: "
    for _ in range(2):
        assert play.ask(OPUS).status == 200
        eventually(lambda: said in caplog.text, lambda: caplog.text)
    play.router.close()
    assert caplog.text.count("cannot be written") == 1


def login_file(folder: Path, token: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "new"
    written.write_text(json.dumps({"claudeAiOauth": {"accessToken": token, "expiresAt": 0}}))
    written.replace(folder / ".credentials.json")


def test_a_login_that_is_renewed_stays_the_same_account(start, tmp_path):
    work = tmp_path / "work"
    login_file(work, WORK)
    play, plan = start(f'{MARKS}, accounts: ["{work}"]')
    plan.stands(WORK, w5h=0.95)

    def ask(login: str) -> str:
        return attempts(play, headers={"x-api-key": "", "authorization": f"Bearer {login}"})

    assert ask(WORK) == "anthropic:200"
    login_file(work, f"{WORK}-renewed")
    assert [ask(login) for login in (f"{WORK}-renewed", WORK)] == ["litellm:200"] * 2
