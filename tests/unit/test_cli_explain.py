"""`signalbox explain`: who would answer, and why."""

import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from signalbox.cli.explain import explain_command
from signalbox.routing.quota import Quotas
from signalbox.routing.rate_limit_headers import RateLimitHeaders
from tests.support.router_process import free_ports

RULES = """\
providers:
  anthropic:
    url: https://api.anthropic.com
    auth: client
  zai:
    url: https://api.z.ai/api/anthropic
    key: ${ZAI_API_KEY}
    headers: {X-Title: signalbox}
    body: {drop: [safeguards]}
    max_tokens: 8192
    beta: drop
    count_tokens: reject
  local:
    url: http://127.0.0.1:4000/proxy
    thinking: strip
rules:
  - match: "*haiku*"
    to: zai/glm-4.5-air
  - name: coding
    match: {model: "*sonnet*", stream: true}
    to: [zai/glm-4.7, anthropic]
  - match: {agent: subagent, port: 9000, client: ci, header: {x-team: blue}}
    to: [local/qwen3, {reject: 429, message: come back later}]
  - match: {thinking: true}
    to: {reject: 403, message: not here}
  - match: "*opus*"
    to: anthropic
"""
KEY = "zai-key-for-tests"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The rules above, with the key they name."""
    monkeypatch.setenv("ZAI_API_KEY", KEY)
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def explain(file: Path, *arguments: str) -> Result:
    given = [*arguments, "--rules", str(file), "--state", str(file.parent / "state")]
    return CliRunner().invoke(explain_command, given)


def test_the_first_rule_that_matches_is_named_with_its_line(file):
    result = explain(file, "claude-haiku-4-5")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "rules.yaml:17 #1 matches claude-haiku-4-5"


def test_without_a_file_the_rules_of_this_folder_are_explained(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    result = CliRunner().invoke(explain_command, ["claude-haiku-4-5"])
    assert result.stdout.startswith("rules.yaml:17 #1 matches")


def test_all_changes_to_the_request_are_listed(file):
    result = explain(file, "anthropic/claude-sonnet-4-5[1m]", "--header", "anthropic-beta=effort-2025-11-24")
    assert result.stdout == (
        'rules.yaml:17 #1 does not match: model "claude-sonnet-4-5" is not *haiku*\n'
        "rules.yaml:19 coding matches anthropic/claude-sonnet-4-5[1m]\n"
        "1. zai: POST https://api.z.ai/api/anthropic/v1/messages\n"
        "   model: glm-4.7\n"
        "   key: zai-k...tests (x-api-key)\n"
        "   thinking: other providers' is dropped from the history\n"
        "   changed: model anthropic/claude-sonnet-4-5[1m] → glm-4.7\n"
        "   changed: max_tokens lowered to 8192\n"
        "   changed: body field safeguards dropped\n"
        "   changed: beta effort-2025-11-24 dropped\n"
        "   changed: key swapped\n"
        "   changed: header X-Title set\n"
        "2. anthropic: POST https://api.anthropic.com/v1/messages\n"
        "   model: claude-sonnet-4-5[1m]\n"
        "   key: caller's own\n"
        "   thinking: other providers' is dropped from the history\n"
        "   changed: model anthropic/claude-sonnet-4-5[1m] → claude-sonnet-4-5[1m]\n"
        "the next one is asked after: 408 429 500 502 503 504 529 auth connect stream_error timeout\n"
        "a running router also skips what is in cooldown or has an open circuit\n"
    )


def test_failover_of_a_rule_is_shown(file):
    own = "    to: [zai/glm-4.7, anthropic]\n    failover: {on: [429], retries: 2, wait: 5s}\n"
    file.write_text(RULES.replace("    to: [zai/glm-4.7, anthropic]\n", own))
    told = (
        "the next one is asked after: 429; before that 2 retries and a retry-after of at most 5 s waited out"
    )
    assert told in explain(file, "claude-sonnet-4-5").stdout


def test_one_target_alone_has_none_after_it(file):
    assert "the next one" not in explain(file, "claude-opus-4-5").stdout


def test_unchanged_request_is_said_to_be_unchanged(file):
    assert "   changed: nothing\n" in explain(file, "claude-opus-4-5").stdout


def test_skipped_target_is_shown_with_its_reason(file, monkeypatch):
    monkeypatch.delenv("ZAI_API_KEY")
    output = explain(file, "claude-sonnet-4-5").stdout
    assert "1. anthropic: POST https://api.anthropic.com/v1/messages\n" in output
    assert output.endswith("skipped zai/glm-4.7: no-key (ZAI_API_KEY is not set)\n")


def test_plan_that_was_nearly_used_up_is_skipped(file):
    marks = "auth: client\n    quota: {redirect_at: {5h: 90}}"
    conditions = (
        'to: zai/glm-4.5-air\n  - {match: {model: "*fable*", quota: {anthropic.5h: ">=95"}}, to: zai}'
    )
    text = RULES.replace("auth: client", marks, 1).replace("to: zai/glm-4.5-air", conditions)
    file.write_text(text.replace("to: anthropic", "to: [anthropic, zai]"))
    quotas, now = Quotas(), time.time()
    quotas.observe("anthropic", "", RateLimitHeaders({}, {"5h": 95.0}, {"5h": now + 3590}), now)
    (file.parent / "state").mkdir()
    (file.parent / "state" / "quota.json").write_bytes(quotas.saved())
    output = explain(file, "claude-opus-4-5").stdout
    assert "1. zai: POST" in output
    assert output.endswith(
        "skipped anthropic/claude-opus-4-5: quota:5h (5h is at 95%, its mark is 90%, resets in 60 min)\n"
    )
    assert "#2 matches claude-fable-5" in explain(file, "claude-fable-5").stdout


def test_the_plan_is_that_of_claude_code_here(file, monkeypatch):
    work = file.parent / "work"
    quota = f"auth: client\n    quota: {{redirect_at: {{5h: 90}}, accounts: [{work}]}}"
    file.write_text(RULES.replace("auth: client", quota, 1).replace("to: anthropic", "to: [anthropic, zai]"))
    quotas, now = Quotas(), time.time()
    quotas.observe("anthropic", str(work), RateLimitHeaders({}, {"5h": 95.0}, {"5h": now + 3590}), now)
    (file.parent / "state").mkdir()
    (file.parent / "state" / "quota.json").write_bytes(quotas.saved())
    assert "skipped" not in explain(file, "claude-opus-4-5").stdout
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(work))
    assert "skipped anthropic/claude-opus-4-5: quota:5h" in explain(file, "claude-opus-4-5").stdout


def test_missing_login_is_reported(file, tmp_path):
    file.write_text(RULES.replace("auth: client", f"auth: claude-login\n    login: {tmp_path / 'none'}", 1))
    output = explain(file, "claude-opus-4-5").stdout
    assert f"skipped anthropic/claude-opus-4-5: no-login (there is no login in {tmp_path}/none)" in output


def test_without_available_target_the_refusal_is_shown(file, monkeypatch):
    monkeypatch.delenv("ZAI_API_KEY")
    output = explain(file, "claude-haiku-4-5").stdout
    assert output.endswith("no target is available: refused here with 503\n")


def test_a_request_can_be_described_in_full(file):
    described = [
        "--agent",
        "subagent",
        "--port",
        "9000",
        "--client",
        "ci",
        "--header",
        "X-Team=blue",
        "--no-stream",
    ]
    output = explain(file, "claude-sonnet-4-5", *described).stdout
    assert "rules.yaml:19 coding does not match: stream is not true\n" in output
    assert "1. local: POST http://127.0.0.1:4000/proxy/v1/messages\n" in output
    assert "   key: none\n   thinking: all is dropped from the history\n" in output
    assert output.endswith("then refused here: 429 come back later\n")


def test_a_request_that_asks_for_thinking_may_meet_another_rule(file):
    assert explain(file, "gpt-5", "--thinking").stdout.endswith("refused here: 403 not here\n")


def test_a_model_that_no_rule_matches_goes_to_the_upstream(file):
    output = explain(file, "gpt-5").stdout
    assert output.endswith("gpt-5 matches no rule and goes to the reverse upstream as it came\n")
    assert output.count("does not match: ") == 5


def test_counting_may_be_answered_without_the_provider(file):
    output = explain(file, "claude-haiku-4-5", "--path", "/v1/messages/count_tokens").stdout
    assert "   not sent, count_tokens: reject\n" in output


def test_a_key_is_never_shown_whole(file):
    result = explain(file, "claude-sonnet-4-5", "--header", "x-api-key=sk-ant-fake-0123456789")
    assert KEY not in result.output
    assert "sk-ant-fake-0123456789" not in result.output


def test_errors_in_the_rules_go_to_stderr(file):
    file.write_text(RULES.replace("to: zai/", "to: zay/"))
    result = explain(file, "claude-haiku-4-5")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("rules.yaml:18: ")


@pytest.mark.parametrize("header", ["x-team", "=blue"])
def test_a_header_needs_a_name_and_a_value(file, header):
    result = explain(file, "claude-haiku-4-5", "--header", header)
    assert result.exit_code == 2
    assert "write NAME=VALUE" in result.stderr


def test_without_the_ledgers_database_budgets_count_as_unused_and_that_is_said_once(file):
    (port,) = free_ports(1)
    budget = "budget: {tokens: 1M, per: week}"
    text = RULES.replace("count_tokens: reject", f"count_tokens: reject\n    {budget}")
    text = text.replace("    thinking: strip", f"    thinking: strip\n    {budget}")
    text = text.replace("to: zai/glm-4.5-air", "to: [zai/glm-4.5-air, local]")
    file.write_text(f"{text}ledger: postgresql+psycopg://me:password-for-tests@127.0.0.1:{port}/usage\n")
    result = explain(file, "claude-haiku-4-5")
    assert result.exit_code == 0
    assert "1. zai: POST" in result.stdout
    assert result.stderr.count("budgets count as unused here") == 1
    assert "password-for-tests" not in result.output
