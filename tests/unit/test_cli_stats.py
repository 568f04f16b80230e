import csv
import io
import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from signalbox.cli.stats import FIELDS, stats_command
from signalbox.database import FILE
from signalbox.record.entry import Entry
from signalbox.routing.quota import Quotas
from signalbox.routing.rate_limit_headers import RateLimitHeaders
from tests.support.ledger import record

NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)
TABLE = """\
model       requests  errors  cancelled  input  output  cache write  cache read  cache hit     cost  list price    saved  median     p95
glm-4.7            3       1          1   1.3k     930          200        1.0M       100%  $0.0125     $0.5000  $0.4880   412ms  3421ms
[bold]\\x1b         1       0          0      5       7            0           0         0%        —           —        —   100ms   100ms
total              4       1          1   1.3k     937          200        1.0M       100%  $0.0125     $0.5000  $0.4880   362ms  3421ms
Requests without a known price, which the cost leaves out: 1
"""  # noqa: E501


def entry(**fields: Any) -> Entry:
    usual = {"ts": NOON, "model": "glm-4.7", "backend": "zai", "status": "success", "session": "s1"}
    return Entry(**usual | fields)


ENTRIES = [
    entry(
        input_tokens=1250,
        output_tokens=890,
        cache_creation_input_tokens=200,
        cache_read_input_tokens=1_000_000,
        cost=0.012,
        list_cost=0.5,
        latency_ms=3421,
        client="laptop",
        rule="coding",
        project="/home/x/shop",
        agent="main",
    ),
    entry(backend="anthropic", status="error", latency_ms=312, rule="#2", cache_cause="message 3"),
    entry(
        ts=NOON + timedelta(days=2),
        status="cancelled",
        output_tokens=40,
        cost=0.0005,
        latency_ms=412,
        rule="coding",
        cache_cause="message 14",
    ),
    entry(
        model="[bold]\x1b", input_tokens=5, output_tokens=7, latency_ms=100, session=None, agent="subagent"
    ),
]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    record(tmp_path, ENTRIES)
    return tmp_path


def stats(state: Path, *args: str) -> Result:
    return CliRunner().invoke(stats_command, ["--state", str(state), *args])


def test_a_pipe_gets_a_plain_table(state):
    result = stats(state)
    assert [line.rstrip() for line in result.stdout.splitlines()] == TABLE.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")


def test_large_sums_have_no_hundredths_of_a_cent_and_a_loss_has_its_sign(tmp_path):
    record(tmp_path, [entry(cost=12345.6789, list_cost=12300.0, input_tokens=1)])
    table = stats(tmp_path).stdout
    assert "$12,345.68" in table
    assert "-$45.68" in table


def test_a_terminal_gets_a_table_that_no_name_breaks_out_of(state, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for variable, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "80")):
        monkeypatch.setenv(variable, value)
    table = stats(state).stdout
    assert "\x1b[1m" in table
    assert "\x1b " not in table
    assert all(number in table for number in ("930", "1.0M", "100%", "$0.0125", "$0.4880", "3421ms"))
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", table).splitlines()) <= 80


def test_json_has_groups_and_totals_with_stable_keys(state):
    answer = json.loads(stats(state, "--json").stdout)
    assert list(answer) == ["by", "groups", "totals"]
    assert answer["groups"][0] == {
        "model": "glm-4.7",
        "requests": 3,
        "errors": 1,
        "cancelled": 1,
        "input_tokens": 1250,
        "output_tokens": 930,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": 1_000_000,
        "cost": 0.0125,
        "list_cost": 0.5,
        "saved": 0.488,
        "cache_hit": 100,
        "unpriced": 0,
        "median_ms": 412,
        "p95_ms": 3421,
    }
    assert answer["groups"][1]["cost"] is None
    assert list(answer["totals"]) == list(answer["groups"][0])[1:]
    assert answer["totals"]["requests"] == 4


def test_csv_has_a_header_and_a_row_for_each_group(state):
    rows = list(csv.DictReader(io.StringIO(stats(state, "--csv").stdout)))
    assert list(rows[0]) == ["model", *FIELDS]
    assert [(row["model"], row["requests"], row["cost"], row["saved"]) for row in rows] == [
        ("glm-4.7", "3", "0.0125", "0.488"),
        ("[bold]\x1b", "1", "", ""),
    ]


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("model", [("glm-4.7", 3), ("[bold]\x1b", 1)]),
        ("provider", [("zai", 3), ("anthropic", 1)]),
        ("rule", [("coding", 2), ("", 1), ("#2", 1)]),
        ("day", [("2026-11-19", 3), ("2026-11-21", 1)]),
        ("session", [("s1", 3), (None, 1)]),
        ("client", [(None, 3), ("laptop", 1)]),
        ("project", [(None, 3), ("/home/x/shop", 1)]),
        ("agent", [(None, 2), ("main", 1), ("subagent", 1)]),
        ("cache", [("message", 2), (None, 2)]),
    ],
)
def test_requests_can_be_grouped(state, by, groups):
    answer = json.loads(stats(state, "--by", by, "--json").stdout)
    assert [(group[by], group["requests"]) for group in answer["groups"]] == groups


def test_only_what_is_recent_enough_counts(tmp_path):
    now = datetime.now(UTC)
    record(tmp_path, [entry(ts=now - timedelta(days=days), model=f"d{days}") for days in (1, 6, 8)])
    told = json.loads(stats(tmp_path, "--since", "7d", "--json").stdout)
    assert {group["model"] for group in told["groups"]} == {"d1", "d6"}
    assert told["totals"]["requests"] == 2
    day = (now - timedelta(days=7)).astimezone().date().isoformat()
    assert json.loads(stats(tmp_path, "--since", day, "--json").stdout)["totals"]["requests"] == 2


@pytest.mark.parametrize("since", ["yesterday", "7", "-7d", "", "999999999d"])
def test_invalid_since_is_a_clear_error(state, since):
    result = stats(state, "--since", since)
    assert result.exit_code == 2
    assert "is neither a duration such as 30m, 12h or 7d nor a date" in result.stderr


def test_nothing_on_record_is_a_friendly_line(tmp_path):
    result = stats(tmp_path / "missing")
    assert (result.exit_code, result.stdout) == (0, f"No requests on record in {tmp_path / 'missing'} yet.\n")


def test_nothing_on_record_is_still_json_and_csv(tmp_path):
    answer = json.loads(stats(tmp_path, "--json").stdout)
    assert (answer["groups"], answer["totals"]["requests"], answer["totals"]["p95_ms"]) == ([], 0, None)
    assert stats(tmp_path, "--csv").stdout.startswith("model,requests,")


def test_output_ends_with_the_forecast_of_the_windows(state):
    quotas, now = Quotas(), time.time()
    for ago, percent in ((600, 40.0), (0, 80.0)):
        told = RateLimitHeaders({}, {"5h": percent, "7d": 10.0}, dict.fromkeys(("5h", "7d"), now + 9000))
        for account in ("", "/home/x/.claude-work"):
            quotas.observe("anthropic", account, told, now - ago)
    (state / "quota.json").write_bytes(quotas.saved())
    last = stats(state).stdout.splitlines()[-2:]
    full = datetime.fromtimestamp(now + 300).astimezone().strftime("~%H:%M")
    assert [line.partition(" on ")[0] for line in last] == [
        f"anthropic: 5h full at {full}",
        f"anthropic (/home/x/.claude-work): 5h full at {full}",
    ]
    assert "full at" not in stats(state, "--json").stdout + stats(state, "--csv").stdout


def test_the_rules_name_the_ledger(tmp_path):
    record(tmp_path, ENTRIES)
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"ledger: sqlite:///{tmp_path / FILE}\n")
    result = stats(tmp_path / "elsewhere", "--rules", str(rules), "--json")
    assert json.loads(result.stdout)["totals"]["requests"] == 4


def test_rules_that_are_named_and_broken_are_an_error(tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("rulez: []\n")
    result = stats(tmp_path, "--rules", str(rules))
    assert (result.exit_code, "rules.yaml:1: unknown key" in result.stderr) == (1, True)


def test_broken_rules_that_nobody_named_leave_the_ledger_of_the_state_folder(state, tmp_path, monkeypatch):
    (tmp_path / "rules.yaml").write_text("rulez: []\n")
    monkeypatch.chdir(tmp_path)
    result = stats(state, "--json")
    assert json.loads(result.stdout)["totals"]["requests"] == 4
    assert result.stderr.startswith("rules.yaml:1: unknown key")


def test_stats_read_while_a_router_writes(tmp_path):
    record(tmp_path, ENTRIES[:1])
    assert "glm-4.7" in stats(tmp_path).stdout
    record(tmp_path, ENTRIES[1:])
    assert json.loads(stats(tmp_path, "--json").stdout)["totals"]["requests"] == 4


def test_a_damaged_ledger_is_a_clear_error(tmp_path):
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    result = stats(tmp_path)
    assert result.exit_code == 1
    assert result.stderr == "Error: the ledger cannot be read: file is not a database\n"
