"""The pages below /ui over a small ledger: figures equal its sums, filters, escaping, CSV, JSON."""

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from signalbox.config.rules import LedgerSettings, Rules, Week
from signalbox.database import FILE
from signalbox.record.entry import Entry, milliseconds
from signalbox.record.prefixes import MESSAGES, CachedBlock, pack
from signalbox.record.tables import REQUESTS
from signalbox.ui.dashboard import Dashboard
from signalbox.ui.pages import PageResponse
from signalbox.ui.session_page import TURNS
from signalbox.ui.state import State
from tests.support.ledger import record

NOW = datetime(2026, 11, 19, 15, 30, tzinfo=UTC)
"""A Thursday."""
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ATTACK = "<script>alert('model')</script>"


def entry(back: timedelta, **fields: Any) -> Entry:
    usual: dict[str, Any] = {
        "ts": NOW - back,
        "model": "claude-sonnet-4-6",
        "tier": "sonnet",
        "backend": "zai",
        "upstream_model": "glm-4.7",
        "status": "success",
        "http_status": 200,
        "rule": "coding",
        "reason": "rule:coding",
        "attempts": "zai:200",
        "latency_ms": 2000,
        "first_byte_ms": 400,
        "input_tokens": 100,
        "output_tokens": 50,
        "cache_creation_input_tokens": 250,
        "cache_read_input_tokens": 650,
        "cost": 0.25,
        "list_cost": 1.0,
        "session": "s-1",
        "agent": "main",
        "project": "/home/x/shop",
    }
    return Entry(**usual | fields)


ENTRIES = [
    entry(12 * DAY, cost=4.0, list_cost=10.0, session="s-0"),
    entry(2 * HOUR, client="laptop"),
    entry(HOUR, agent="subagent", model="claude-haiku-4-5", tier="haiku", agent_id="a1", blocks=b"\0"),
    entry(
        30 * MINUTE,
        backend="anthropic",
        upstream_model="claude-sonnet-4-6",
        attempts="zai:429 anthropic:200",
        reason="cooldown",
        cache_cause="tools",
        missed_tokens=900,
        cache_creation_input_tokens=900,
        cache_read_input_tokens=0,
        cost=None,
        list_cost=None,
        first_byte_ms=900,
    ),
    entry(
        10 * MINUTE,
        model=ATTACK,
        tier=None,
        status="error",
        http_status=529,
        error_type="overloaded_error",
        session="s-2",
        input_tokens=0,
        output_tokens=0,
        cache_creation_input_tokens=0,
        cache_read_input_tokens=0,
        cost=None,
        list_cost=None,
        first_byte_ms=None,
    ),
]

HEALTH = {
    "status": "degraded",
    "timestamp": "2026-11-19T15:30:00Z",
    "rules": {"file": "/x/rules.yaml", "loaded_at": "2026-11-19T10:00:00Z", "error": None, "source": "file"},
    "providers": {
        "zai": {
            "url": "https://api.z.ai/api/anthropic",
            "available": False,
            "reason": "ZAI_API_KEY is not set",
            "circuit": "closed",
            "quota": None,
        },
        "anthropic": {
            "url": "https://api.anthropic.com",
            "available": True,
            "reason": None,
            "circuit": "closed",
            "quota": {
                "windows": {
                    "5h": {
                        "percent": 42.0,
                        "status": "allowed",
                        "resets_at": "2026-11-19T17:00:00Z",
                        "forecast": "5h full at ~16:40",
                    }
                }
            },
        },
    },
}
RULES = Rules(week=Week(timezone="UTC"))
STATE = State(
    rules=RULES,
    health=HEALTH,
    in_flight=3,
    budgets={
        "zai": {"used": 31_000, "tokens": 50_000, "percent": 62.0, "at": 90, "per": "week", "resets_at": ""}
    },
    now=NOW,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("state")
    record(folder, ENTRIES)
    return folder


@pytest.fixture(scope="module")
def pages(folder) -> Iterator["Pages"]:
    with closing(Dashboard(folder)) as dashboard:
        yield Pages(dashboard)


class Pages:
    def __init__(self, dashboard: Dashboard, state: State = STATE) -> None:
        self.dashboard, self.state = dashboard, state

    def answer(self, path: str) -> PageResponse:
        address, _, query = path.partition("?")
        return self.dashboard.answer(address, query, self.state)

    def html(self, path: str) -> str:
        answer = self.answer(path)
        assert (answer.status, answer.content_type) == (200, "text/html; charset=utf-8")
        return answer.body.decode()

    def text(self, path: str) -> str:
        return text_of(self.html(path))

    def data(self, query: str = "") -> Any:
        return json.loads(self.answer(f"/ui/data.json?{query}").body)

    def csv(self, query: str = "") -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.answer(f"/ui/requests.csv?{query}").body.decode())))


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def text_of(page: str) -> str:
    """What is read on a page, in one line."""
    parser = _Text()
    parser.feed(page)
    return " ".join(" ".join(parser.parts).split())


# the figures


def test_totals_are_the_sums_of_the_ledger(pages):
    assert pages.data()["totals"] == {
        "requests": 5,
        "errors": 1,
        "cancelled": 0,
        "input_tokens": 400,
        "output_tokens": 200,
        "cache_creation_input_tokens": 1650,
        "cache_read_input_tokens": 1950,
        "cost": 4.5,
        "list_cost": 12.0,
        "saved": 7.5,
        "cache_hit": 49,
        "unpriced": 1,
    }


def test_the_page_shows_the_same_figures_as_the_json(pages):
    shown = pages.text("/ui")
    for figure in ("$4.50", "$7.50", "4.2k", "49%", "3 in flight", "1 failed", "1 without a price"):
        assert figure in shown


@pytest.mark.parametrize("chart", ["recent", "hours", "days", "weeks"])
def test_parts_of_each_chart_add_up_to_the_ledger(pages, chart):
    parts = pages.data()[chart]
    since = datetime.fromisoformat(parts[0]["start"])
    within = [one for one in ENTRIES if one.ts >= since]
    assert len(parts) == {"recent": 60, "hours": 24, "days": 30, "weeks": 8}[chart]
    assert sum(part["requests"] for part in parts) == len(within)
    assert sum(part["cost"] or 0 for part in parts) == sum(one.cost or 0 for one in within)


def test_hours_are_shown_by_model(pages):
    models = [name for hour in pages.data()["hours"] for name in hour["models"]]
    assert sorted(models) == [ATTACK, "claude-haiku-4-5", "claude-sonnet-4-6", "claude-sonnet-4-6"]


def test_weeks_begin_as_the_rules_say(folder):
    week = Week(starts=(2, 9, 0), timezone="Europe/Berlin")  # Wednesday 9:00
    with closing(Dashboard(folder)) as dashboard:
        found = Pages(dashboard, STATE._replace(rules=replace(RULES, week=week))).data()["weeks"]
    assert found[-1]["start"] == "2026-11-18T08:00:00Z"
    assert found[0]["start"] == "2026-09-30T07:00:00Z"  # before the clocks changed
    assert [day["start"] for day in found[-1]["days"]][1] == "2026-11-19T08:00:00Z"


def test_providers_have_their_sums_and_first_bytes(pages):
    zai, anthropic = pages.data()["providers"]
    assert (zai["provider"], zai["requests"], zai["cost"]) == ("zai", 4, 4.5)
    assert (zai["first_byte_p50_ms"], zai["first_byte_p95_ms"]) == (400, 400)
    assert (anthropic["provider"], anthropic["first_byte_p50_ms"], anthropic["cost"]) == (
        "anthropic",
        900,
        None,
    )


def test_now_shows_the_state_of_the_router(pages):
    now = pages.data()["now"]
    assert (now["status"], now["in_flight"]) == ("degraded", 3)
    assert now["budgets"]["zai"]["used"] == 31_000
    shown = pages.text("/ui")
    for told in ("degraded", "anthropic 5h", "42%", "5h full at ~16:40", "ZAI_API_KEY is not set"):
        assert told in shown
    assert "31k of 50k a week" in shown


def test_a_fault_in_the_rules_is_shown(pages):
    fault = 'rules.yaml:3: unknown key "modle" (at $.rules[0])'
    health = HEALTH | {"rules": HEALTH["rules"] | {"error": fault}}
    broken = Pages(pages.dashboard, STATE._replace(health=health))
    assert fault in broken.text("/ui")
    assert "last good rules" not in pages.text("/ui")


@pytest.mark.slow
def test_an_empty_ledger_is_a_page_too(tmp_path):
    with closing(Dashboard(tmp_path)) as dashboard:
        empty = Pages(dashboard)
        assert "No requests in this period" in empty.text("/ui")
        assert empty.data()["totals"]["cost"] is None
        assert "No requests are recorded yet" in empty.text("/ui/requests")
        assert "No sessions are recorded yet" in empty.text("/ui/sessions")
        assert empty.csv() == []


@pytest.mark.slow
def test_a_ledger_that_cannot_be_read_hides_nothing_else(tmp_path):
    (tmp_path / FILE).write_bytes(b"this is no database" * 100)
    with closing(Dashboard(tmp_path)) as dashboard:
        damaged = Pages(dashboard)
        assert "The ledger cannot be read" in damaged.text("/ui")
        assert "ZAI_API_KEY is not set" in damaged.text("/ui")
        assert damaged.answer("/ui/requests").status == 503


def test_the_ledger_that_the_rules_name_is_read(tmp_path, folder):
    with closing(Dashboard(tmp_path)) as dashboard:
        dashboard.follow(replace(RULES, ledger=LedgerSettings(f"sqlite:///{folder / FILE}")))
        assert Pages(dashboard).data()["totals"]["requests"] == 5


# filters

FILTERS = [
    ("provider=anthropic", 1),
    ("model=claude-haiku-4-5", 1),
    ("model=glm-4.7", 4),
    ("client=laptop", 1),
    ("session=s-2", 1),
    ("project=/home/x/shop", 5),
    ("rule=coding", 5),
    ("status=error", 1),
    ("status=529", 1),
    ("since=3h", 4),
    ("since=3h&until=20m", 3),
    ("since=2026-11-19T14:00:00Z", 3),
    ("until=2026-11-10", 1),
    ("provider=nobody", 0),
    ("provider=", 5),
    ("nonsense=1", 5),
]


@pytest.mark.parametrize(("query", "requests"), FILTERS)
def test_filters_hold_for_figures_and_rows_alike(pages, query, requests):
    assert pages.data(query)["totals"]["requests"] == requests
    assert len(pages.csv(query)) == requests
    assert f"{requests} request" in pages.text(f"/ui/requests?{query}")


@pytest.mark.parametrize("query", ["since=yesterday", "until=7x", "page=0", "page=x", "page=99999999999"])
@pytest.mark.parametrize("path", ["/ui", "/ui/requests", "/ui/requests.csv", "/ui/sessions", "/ui/data.json"])
def test_what_cannot_be_read_in_a_query_is_said(pages, path, query):
    answer = pages.answer(f"{path}?{query}")
    assert answer.status == 400
    assert query.partition("=")[0] in text_of(answer.body.decode())


@pytest.mark.parametrize("query", ["provider=%00", "&".join(f"a{number}=1" for number in range(60))])
def test_a_strange_query_is_refused(pages, query):
    assert pages.answer(f"/ui?{query}").status == 400


def test_a_session_may_have_any_name(tmp_path):
    name = "a/b?c#d <e>.html"
    record(tmp_path, [entry(MINUTE, session=name)])
    with closing(Dashboard(tmp_path)) as dashboard:
        named = Pages(dashboard)
        for page in ("/ui/requests", "/ui/sessions"):
            assert 'href="/ui/sessions/a%2Fb%3Fc%23d%20%3Ce%3E.html"' in named.html(page)
        assert named.answer("/ui/sessions/a%00b").status == 404


def test_a_filter_can_be_taken_away(pages):
    page = pages.html("/ui/requests?provider=zai&rule=coding")
    assert 'href="/ui/requests?rule=coding"' in page
    assert 'name="provider" value="zai"' in page


# rows


def test_requests_are_shown_with_rule_attempts_reason_tokens_and_cost(pages):
    shown = pages.text("/ui/requests?provider=anthropic")
    for told in ("coding", "zai:429 anthropic:200", "cooldown", "tools", "1k", "0%", "200"):
        assert told in shown


@pytest.mark.slow
def test_pages_have_a_hundred_rows(tmp_path):
    record(tmp_path, [entry(number * MINUTE, request_id=f"req_{number}") for number in range(230)])
    with closing(Dashboard(tmp_path)) as dashboard:
        many = Pages(dashboard)
        assert many.html("/ui/requests").count("<tr>") == 101
        assert many.html("/ui/requests?page=3").count("<tr>") == 31
        assert "page 2 of 3" in many.text("/ui/requests?page=2")
        assert [row["request_id"] for row in many.csv("page=2")] == [f"req_{n}" for n in range(100, 200)]
        assert len(many.csv()) == 230


def test_csv_has_the_columns_of_the_ledger_newest_first(pages):
    rows = pages.csv()
    assert list(rows[0]) == [column.name for column in REQUESTS.c]
    assert [row["ts"] for row in rows] == sorted((row["ts"] for row in rows), reverse=True)
    assert rows[-1]["ts"] == "2026-11-07T15:30:00.000Z"
    assert sum(float(row["cost"] or 0) for row in rows) == 4.5


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@x"])
def test_no_cell_of_the_csv_is_a_formula(tmp_path, name):
    record(tmp_path, [entry(MINUTE, model=name)])
    with closing(Dashboard(tmp_path)) as dashboard:
        assert Pages(dashboard).csv()[0]["model"] == f"'{name}"


def test_a_request_leads_to_its_flow_where_mitmweb_shows_it(tmp_path):
    """By its moment too: some providers give the same id to several requests."""
    record(tmp_path, [entry(MINUTE, request_id="req_1"), entry(HOUR, request_id="req_1")])
    with closing(Dashboard(tmp_path)) as dashboard:
        moment = milliseconds(NOW - MINUTE)
        shown = STATE._replace(flows={("req_1", moment): "http://127.0.0.1:8081/#/flows/1"})
        page = Pages(dashboard, shown).html("/ui/requests")
        assert page.count('href="http://127.0.0.1:8081/#/flows/1"') == 1
        assert ">flow</th>" not in Pages(dashboard).html("/ui/requests")


# sessions


def test_sessions_are_listed_with_their_sums_newest_first(pages):
    page = pages.html("/ui/sessions")
    assert re.findall(r'href="/ui/sessions/(s-\d)"', page) == ["s-2", "s-1", "s-0"]
    assert "$0.50" in text_of(page)


def test_a_session_is_shown_turn_by_turn_with_its_subagents(pages):
    shown = pages.text("/ui/sessions/s-1")
    for told in ("main", "subagent 1", "Turn by turn", "$0.50", "$1.50"):
        assert told in shown
    assert pages.html("/ui/sessions/s-1").count('<tr id="turn-') == 3


def test_a_cache_miss_is_shown_with_cause_and_tokens(pages):
    shown = pages.text("/ui/sessions/s-1")
    assert "tools the tools changed 900" in shown


def test_a_cache_miss_has_the_price_that_was_recorded_with_it(tmp_path):
    missed = {"cache_cause": "system", "missed_tokens": 100_000}
    turns = [entry(HOUR), entry(2 * MINUTE, **missed, missed_cost=0.4), entry(MINUTE, **missed)]
    record(tmp_path, turns)
    with closing(Dashboard(tmp_path)) as dashboard:
        shown = Pages(dashboard).text("/ui/sessions/s-1")
    assert "$0.40 more than with cache hits" in shown
    assert "system the system text changed 100k $0.40" in shown
    assert "system the system text changed 100k —" in shown


@pytest.mark.slow
def test_the_first_turns_of_a_page_are_compared_with_the_one_before(tmp_path):
    """What it missed was recorded with it; what it added is seen from the digests of both."""
    blocks = [CachedBlock(bytes([number] * 8), 10, MESSAGES + number) for number in range(TURNS + 1)]
    turns = [
        entry((TURNS + 1 - number) * MINUTE, blocks=pack(blocks[: number + 1])) for number in range(TURNS)
    ]
    last = {"cache_cause": "tools", "missed_tokens": 900, "blocks": pack(blocks)}
    record(tmp_path, [*turns, entry(MINUTE, **last)])
    with closing(Dashboard(tmp_path)) as dashboard:
        shown = Pages(dashboard).text("/ui/sessions/s-1?page=2")
    assert "tools the tools changed 900" in shown
    assert "1 message" in shown
    assert f"{TURNS + 1}" in shown


def test_days_that_cost_more_than_list_prices_are_below_the_line(tmp_path):
    record(tmp_path, [entry(DAY, cost=1.0, list_cost=4.0), entry(2 * DAY, cost=5.0, list_cost=3.0)])
    with closing(Dashboard(tmp_path)) as dashboard:
        chart = Pages(dashboard).html("/ui").partition('id="money"')[2].partition("</figure>")[0]
    assert "-$2.00" in chart
    assert "saved <b>$1.00</b>" in chart


def test_an_unknown_session_is_not_found(pages):
    assert pages.answer("/ui/sessions/nobody").status == 404
    assert pages.answer("/ui/sessions/nobody.html").status == 404


def test_a_session_can_be_had_as_one_file(pages):
    answer = pages.answer("/ui/sessions/s-1.html?download=1")
    page = answer.body.decode()
    assert answer.headers["content-disposition"] == 'attachment; filename="session-s-1.html"'
    assert re.findall(r'(?:href|src)="(?!#)([^"]*)"', page) == ["/ui"]
    assert "<style>" in page
    assert "<script" not in page
    assert "unsafe" not in answer.headers["content-security-policy"]


# what a browser may do with them

PATHS = ["/ui", "/ui/requests", "/ui/sessions", "/ui/sessions/s-2", "/ui/sessions/s-2.html"]


@pytest.mark.parametrize("path", PATHS)
def test_what_a_caller_named_is_text(pages, path):
    page = pages.html(path)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(&#39;model&#39;)&lt;/script&gt;" in page


@pytest.mark.parametrize("path", PATHS[:4])
def test_pages_ask_nobody_else_and_hold_no_script(pages, path):
    page = pages.html(path)
    assert re.findall(r'(?:src|href)="(https?:|//)', page) == []
    assert not re.search(r"""<[^>]+\s(on\w+|style)=["']""", page)
    assert re.findall(r"<script[^>]*>", page) == [re.search(r'<script src="/ui/live.js[^>]*>', page)[0]]


@pytest.mark.parametrize("path", [*PATHS[:4], "/ui/data.json", "/ui/requests.csv", "/ui/nothing"])
def test_pages_are_guarded_by_their_headers(pages, path):
    headers = pages.answer(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert not [name for name in headers if name.startswith("access-control-")]


@pytest.mark.parametrize("name", ["style.css", "live.js", "icon.svg"])
def test_files_of_the_pages_are_kept_by_the_browser_under_their_digest(pages, name):
    address = re.search(rf'"(/ui/{re.escape(name)}\?v=\w+)"', pages.html("/ui"))[1]
    assert "immutable" in pages.answer(address).headers["cache-control"]
    assert pages.answer(f"/ui/{name}").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["/ui/nothing", "/ui/../x", "/ui/static/style.css", "/ui/sessions/a/b", "/ui//x"]
)
def test_other_paths_are_not_found(pages, path):
    assert pages.answer(path).status == 404
