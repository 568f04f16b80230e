"""`signalbox test`: situations played through rules, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.router_process import ROOT, clean_environment

LIMIT = 170
"""Seconds for a run, which takes five of them on an idle machine."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT + 10)]

RULES = """
providers:
  anthropic: {url: "https://api.anthropic.com", auth: client, quota: {status_file: STATUS}}
  login: {url: "https://api.anthropic.com", auth: claude-login, login: NOWHERE}
  zai: {url: "https://api.z.ai/api/anthropic", key: "${UNSET_KEY_FOR_TESTS}", proxy: "http://proxy.invalid:1"}
  chat: {url: "https://openrouter.ai/api/v1", api: openai, key: {command: [touch, RAN]}}
rules:
  - {name: fast, match: "*haiku*", to: [zai/glm-4.5-air, anthropic]}
  - {name: coding, match: "*sonnet*", to: [chat/glm-4.7, zai/glm-4.7, login]}
  - {name: work, match: {port: 8099, model: "*"}, to: zai/of-work}
  - {name: rest, match: "*", to: anthropic}
clients: {ann: secret-of-ann-for-tests, bob: secret-of-bob-for-tests}
ledger: "postgresql+psycopg://nobody:fake@database.invalid/none"
"""
OWN = """
about: The team's listener, and a client of its own.
asks: {model: claude-opus-4-5, port: 8099, client: bob}
"""


LIMITS = ("overloaded", "plan-spent", "throttled", "prompt-too-long")
PLAYED = (*LIMITS, "down", "never-starts", "cut-in-words", "team")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "signalbox.cli", "test", *arguments],
        cwd=folder,
        env={**clean_environment(folder, {}), "PYTHONPATH": str(ROOT / "addon")},
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, list[dict[str, Any]]]:
    """The folder, the exit code and what came of all situations."""
    folder = tmp_path_factory.mktemp("rules")
    text = RULES
    for name in ("STATUS", "NOWHERE", "RAN"):
        text = text.replace(name, str(folder / name))
    (folder / "rules.yaml").write_text(text)
    (folder / "scenarios").mkdir()
    (folder / "scenarios" / "team.yaml").write_text(OWN)
    done = run(folder, *PLAYED, "--json")
    assert done.stderr == b""
    return folder, done.returncode, json.loads(done.stdout)


def of(played, scenario: str, rule: str) -> list[dict[str, Any]]:
    return [one for one in played[2] if (one["scenario"], one["rule"]) == (scenario, rule)]


def outcomes(one: dict[str, Any]) -> list[str]:
    return [f"{attempt['provider']}:{attempt['outcome']}" for attempt in one["attempts"]]


def test_an_outage_leads_to_the_next_target(played):
    (fast,) = of(played, "down", "fast")
    assert outcomes(fast) == ["zai:connect", "anthropic:200"]
    assert fast["answered_by"] == "anthropic/claude-haiku-4-5"
    assert fast["seen"]["text"] == "It works as it should."
    (coding,) = of(played, "overloaded", "coding")
    assert outcomes(coding) == ["chat:529", "zai:200"]


def test_where_nobody_answers_the_exit_code_says_so(played):
    (rest,) = of(played, "overloaded", "rest")
    assert (rest["ok"], rest["answered_by"]) == (False, None)
    assert rest["seen"]["error"] == "overloaded_error: Overloaded"
    assert played[1] == 1


def test_a_limit_is_remembered_for_the_next_request_and_not_for_the_next_situation(played):
    first, second = of(played, "plan-spent", "fast")
    assert outcomes(first) == ["zai:429", "anthropic:200"]
    assert outcomes(second) == ["anthropic:200"]
    assert [skip["provider"] for skip in second["skipped"]] == ["zai"]
    first, second = of(played, "throttled", "fast")
    assert outcomes(second) == ["zai:200"]


def test_times_are_those_of_the_situation(played):
    (fast,) = of(played, "never-starts", "fast")
    assert outcomes(fast) == ["zai:timeout", "anthropic:200"]
    assert fast["attempts"][0]["took"] == pytest.approx(120, abs=5)
    seen = fast["seen"]
    assert seen["head_after"] == pytest.approx(10, abs=5)
    assert seen["pings"] >= 10
    assert seen["text_after"] == pytest.approx(120, abs=5)


def test_a_client_asks_again_after_a_cut(played):
    (coding,) = of(played, "cut-in-words", "coding")
    assert (coding["repeats"], outcomes(coding)) == (1, ["chat:stream_error", "chat:200"])


def test_an_error_may_be_what_the_client_is_to_get(played):
    (fast,) = of(played, "prompt-too-long", "fast")
    assert fast["ok"]
    assert "prompt is too long" in fast["seen"]["error"]


def test_situations_of_the_users_own_are_played_too(played):
    (team,) = of(played, "team", "work")
    assert team["answered_by"] == "zai/of-work"


def test_nothing_of_the_users_is_read_run_or_written(played):
    """Nor is there any trace outside: the only files are those that were there."""
    folder = played[0]
    assert sorted(file.name for file in folder.rglob("*") if file.is_file()) == ["rules.yaml", "team.yaml"]


def test_all_that_are_shipped_end_in_an_answer_where_there_are_enough_targets(tmp_path):
    (tmp_path / "rules.yaml").write_text(
        """
providers:
  zai: {url: "https://api.z.ai/api/anthropic", key: zai-key-for-tests-0001}
  kimi: {url: "https://api.moonshot.ai/anthropic", key: kimi-key-for-tests-0001}
rules:
  - {match: "*", to: [zai/glm-4.7, kimi/kimi-k2]}
"""
    )
    done = run(tmp_path)
    assert (done.stderr, done.returncode) == (b"", 0), done.stdout.decode()
    *_, last = done.stdout.decode().splitlines()
    assert "requests got what they should" in last
