"""`signalbox stats`, the status line's page and /metrics of routers that share a PostgreSQL."""

import json
import urllib.error
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from signalbox.cli.stats import stats_command
from signalbox.config.rules import LedgerSettings
from signalbox.database import ledger_url
from signalbox.record.database import LedgerDatabase
from signalbox.record.queries import LedgerSource
from signalbox.ui.session_summary import summary_page
from tests.support.answers import USAGE
from tests.support.fake_provider import Upstream
from tests.support.metrics import samples
from tests.support.postgres import PASSWORD
from tests.support.raw_client import Caller
from tests.support.router import Router
from tests.support.router_process import OPENER, wait_until

pytestmark = pytest.mark.slow

TOTAL = sum(USAGE.values())


def rules(up: Upstream, ledger: str) -> str:
    return f"""
providers:
  zai: {{url: "{up.url}", key: zai-key-for-tests-0001, budget: {{tokens: {10 * TOTAL}, per: month}}}}
rules:
  - {{match: "*", to: zai/glm-4.7}}
ledger: {ledger}
"""


@pytest.fixture
def routers(start_router, postgres, upstream) -> list[Router]:
    text = rules(upstream, postgres.new_database())
    return [start_router(upstream.url, rules=text) for _ in range(2)]


def ask(router: Router, session: str) -> None:
    with Caller(router, session) as caller:
        caller.ask("claude-sonnet-4-5", stream=False)
        assert caller.answer().status == 200


def session_of(router: Router, session: str) -> dict[str, Any]:
    try:
        with OPENER.open(f"{router.url}/signalbox/sessions/{session}", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        with error:
            return {"requests": 0}


def stats(rules_file: Path, *args: str) -> Any:
    done = CliRunner().invoke(stats_command, ["--rules", str(rules_file), *args])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_each_of_them_and_stats_see_the_requests_of_all(routers):
    for router in routers:
        ask(router, "shared")
    for router in routers:
        wait_until(lambda r=router: session_of(r, "shared")["requests"] == 2, 10, lambda: "both requests")
    told = stats(routers[0].rules_file, "--by", "session", "--json")
    assert told["totals"]["requests"] == 2
    assert told["groups"][0]["session"] == "shared"
    assert told["groups"][0]["input_tokens"] == 2 * USAGE["input_tokens"]


def test_the_budget_at_metrics_is_that_of_all(routers):
    for router in routers:
        ask(router, "budget")

    def used(router: Router) -> float:
        with OPENER.open(f"{router.url}/metrics", timeout=5) as answer:
            return samples(answer.read().decode())["signalbox_budget_used_ratio", "zai"]

    for router in routers:
        wait_until(lambda r=router: used(r) == pytest.approx(0.2), 10, lambda: "the use of both")


def test_a_database_that_is_away_is_a_clear_error_without_its_password(tmp_path):
    file = tmp_path / "rules.yaml"
    file.write_text(f"ledger: postgresql://me:{PASSWORD}@127.0.0.1:1/nothing\n")
    done = CliRunner().invoke(stats_command, ["--rules", str(file)])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: the ledger cannot be read: ")
    assert PASSWORD not in done.output


def test_a_session_whose_name_no_row_can_have_is_not_found(postgres, tmp_path):
    """PostgreSQL takes no NUL in a text."""
    url = postgres.new_database()
    source = LedgerSource(tmp_path, url)
    with closing(LedgerDatabase(ledger_url(tmp_path, LedgerSettings(url=url)))) as database:
        database.version("makes the tables")
    with closing(source):
        assert summary_page(source, "/signalbox/sessions/a%00b", {}).status == 404
