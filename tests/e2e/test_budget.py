"""Budgets of a running router: who is passed over once one is spent, and what is remembered of it."""

import re
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta

import pytest
from click.testing import CliRunner

from signalbox.cli.explain import explain_command
from tests.support.answers import USAGE
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller
from tests.support.router import Router
from tests.support.router_process import wait_until

ZAI = "zai-key-for-tests-0001"
TOTAL = sum(USAGE.values())


def rules(home: Upstream, zai: Upstream, tokens: float, more: str = "") -> str:
    """Z.ai has a budget of so many answers, then comes Anthropic."""
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: {ZAI}, budget: {{tokens: {int(tokens * TOTAL)}, per: month, at: 90}}}}
rules:
  - {{match: "*opus*", to: [zai/glm-4.7, anthropic]}}
  - {{match: "*sonnet*", to: [zai/glm-4.7, {{reject: 429, message: spent}}]}}
  - {{match: "*haiku*", to: zai/glm-4.5-air}}
{more}"""


@pytest.fixture(autouse=True)
def this_month() -> None:
    """No month ends within a test."""
    now = datetime.now().astimezone()
    if (now + timedelta(minutes=2)).month != now.month:
        pytest.skip("a month is about to end")


def ask(router: Router, model: str = "claude-opus-4-5") -> str | None:
    """Who answers."""
    with Caller(router) as caller:
        caller.ask(model, stream=False)
        return caller.answer().headers.get("x-signalbox-provider")


def explained(router: Router) -> str:
    options = ["--rules", str(router.rules_file), "--state", str(router.state)]
    return CliRunner().invoke(explain_command, ["claude-opus-4-5", *options]).output


@pytest.mark.slow
def test_a_spent_budget_passes_the_provider_over_and_is_reported_everywhere(start_router, upstream, second):
    router: Router = start_router(upstream.url, rules=rules(upstream, second, 2.2))
    assert [ask(router) for _ in range(4)] == ["zai", "zai", "anthropic", "anthropic"]
    used = rf"{2 * TOTAL:,} of {int(2.2 * TOTAL):,} tokens a month used, until \d{{4}}-\d\d-01 00:00"
    router.wait_log("dispatch: anthropic reason=budget model=claude-opus-4-5")
    page = router.health()
    assert page["status"] == "unhealthy"  # of the rule for haiku
    assert page["providers"]["zai"]["available"] is False
    assert re.fullmatch(f"budget: {used}", page["providers"]["zai"]["reason"])
    assert router.records(4)[3]["reason"] == "budget"
    wait_until(lambda: "skipped" in explained(router), 5, lambda: explained(router))
    assert re.search(rf"skipped zai/glm-4.7: budget \({used}\)", explained(router))
    assert "1. anthropic" in explained(router)
    assert ask(router, "claude-haiku-4-5") == "zai", "the last one left is asked all the same"
    with Caller(router) as caller:
        caller.ask("claude-sonnet-4-5")
        assert caller.answer().status == 429, "a reject holds"


@pytest.mark.slow
def test_a_budget_counts_over_restarts_and_edits_but_not_what_was_before_its_period(
    tmp_path, upstream, second
):
    text = rules(upstream, second, 2)
    without = re.sub(", budget: {.*?}", "", text)
    with Router(tmp_path, upstream.url, rules=without) as router:
        assert [ask(router) for _ in range(2)] == ["zai", "zai"]
        router.rules(text)
        wait_until(lambda: ask(router) == "anthropic", 5, router.log)
        router.rules(rules(upstream, second, 50))
        wait_until(lambda: ask(router) == "zai", 5, router.log)
        assert router.stop() == 0
    with Router(tmp_path, upstream.url, rules=text) as router:
        assert ask(router) == "anthropic"
        assert router.stop() == 0
    with closing(sqlite3.connect(router.state / "ledger.sqlite")) as database, database:
        database.execute("UPDATE attempts SET started = started - 32 * 86400000")
    with Router(tmp_path, upstream.url, rules=text) as router:
        assert [ask(router) for _ in range(3)] == ["zai", "zai", "anthropic"]


@pytest.mark.slow
def test_routers_that_share_a_folder_see_what_the_others_use(start_router, tmp_path, upstream, second):
    text, state = rules(upstream, second, 2), tmp_path / "state"
    one, other = (start_router(upstream.url, rules=text, state=state) for _ in range(2))
    assert [ask(one), ask(one)] == ["zai", "zai"]
    wait_until(lambda: not other.health()["providers"]["zai"]["available"], 10, other.log)
    assert ask(other) == "anthropic"


@pytest.mark.slow
def test_it_counts_while_the_ledger_cannot_be_written(tmp_path, upstream, second):
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "ledger.sqlite").write_bytes(b"no database" * 1000)
    with Router(tmp_path, upstream.url, rules=rules(upstream, second, 2)) as router:
        assert [ask(router) for _ in range(3)] == ["zai", "zai", "anthropic"]
