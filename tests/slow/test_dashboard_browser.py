"""The dashboard in a real browser, over a ledger of 50,000 requests.

`SCREENSHOTS=docs just test tests/slow/test_dashboard_browser.py` also writes the documentation's pictures.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.answers import message_json
from tests.support.browser import CHROMIUM, FLAGS, needs_browser
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller
from tests.support.router import Router
from tests.support.seeded_ledger import seed

pytestmark = [
    pytest.mark.usefixtures("home_folder"),
    pytest.mark.slow,
    pytest.mark.timeout(240),
    needs_browser,
]

REQUESTS = 50_000
PAINT = 1000
"""Milliseconds until the whole page has painted."""
FIRST_PAINT = """() => new Promise(told => new PerformanceObserver(list => {
    for (const {startTime} of list.getEntriesByName("first-contentful-paint")) told(startTime);
}).observe({type: "paint", buffered: true}))"""
"""The observer may be called with "first-paint" alone, and again with what is waited for."""
PICTURE = {"width": 1280, "height": 800}
DESKTOP, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}


class Seeded(NamedTuple):
    router: Router
    upstream: Upstream
    rows: list[dict[str, Any]]
    session: str
    """A late one, with subagents and cache misses."""

    until: str
    """The moment after all of `rows`."""

    def url(self, path: str) -> str:
        return f"{self.router.url}{path}"

    def ask(self, model: str) -> None:
        """A request that is answered and recorded."""
        before = len(self.router.records())
        with Caller(self.router) as caller:
            caller.ask(model, stream=False)
            assert caller.answer().status == 200
        self.router.records(before + 1)


PRICES = "{'*': {input: 0.6, output: 2.2, cache_read: 0.11, cache_write: 0.6}}"


def rules(home: str) -> str:
    return f"""
providers:
  anthropic: {{url: "{home}", auth: client, quota: {{redirect_at: {{5h: 95, 7d: 95}}}}}}
  zai: {{url: "{home}", key: zai-key-for-tests-0001, budget: {{tokens: 4000M, per: month}}, prices: {PRICES}}}
  openrouter: {{url: "{home}", api: openai, key: openrouter-key-for-tests}}
rules:
  - {{name: background, match: {{tier: haiku}}, to: [zai/glm-4.5-air, openrouter/qwen3-coder]}}
  - {{name: coding, match: {{tier: sonnet}}, to: [zai/glm-4.7, anthropic]}}
  - {{name: planning, match: "*", to: anthropic}}
"""


def with_quota(now: datetime) -> Any:
    """An answer of Anthropic's that tells the windows of a plan."""
    hours = {"5h": (0.42, 3), "7d": (0.78, 61)}
    headers = [("anthropic-ratelimit-unified-status", "allowed")]
    for name, (used, left) in hours.items():
        reset = int((now + timedelta(hours=left)).timestamp())
        start = f"anthropic-ratelimit-unified-{name}"
        headers += [
            (f"{start}-utilization", str(used)),
            (f"{start}-reset", str(reset)),
            (f"{start}-status", "allowed"),
        ]
    answer = message_json("claude-opus-4-7")
    return answer.__class__(**answer.__dict__ | {"headers": (*answer.headers, *headers)})


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    folder = tmp_path_factory.mktemp("seeded")
    now = datetime.now(UTC)
    rows = seed(folder / "state", REQUESTS, now)
    misses = Counter(row["session"] for row in rows[-2000:] if row["cache_cause"])
    with_subagents = {row["session"] for row in rows[-2000:] if row["agent"] == "subagent"}
    session = max(with_subagents, key=lambda name: (misses[name], name))
    with Upstream() as upstream, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        upstream.answer(with_quota(now))
        with Router(folder, upstream.url, rules=rules(upstream.url), state=folder / "state") as router:
            one = Seeded(router, upstream, rows, session, f"{now:%Y-%m-%dT%H:%M:%S.%fZ}")
            one.ask("claude-opus-4-7")
            yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Watched(NamedTuple):
    """A page, and what must not have happened on it."""

    page: Page
    elsewhere: list[str]
    """Requests to another host than the router."""
    complaints: list[str]
    """Errors and warnings on the console, and exceptions."""


@contextmanager
def opened(browser: Browser, seeded: Seeded, path: str, **settings: Any) -> Iterator[Watched]:
    context = browser.new_context(**{"viewport": DESKTOP} | settings)
    page = context.new_page()
    watched = Watched(page, [], [])
    page.on(
        "request", lambda request: _outside(request.url, seeded) and watched.elsewhere.append(request.url)
    )
    page.on(
        "console", lambda said: said.type in ("error", "warning") and watched.complaints.append(said.text)
    )
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    try:
        page.goto(seeded.url(path))
        yield watched
        assert watched.elsewhere == []
        assert watched.complaints == []
    finally:
        context.close()


def _outside(url: str, seeded: Seeded) -> bool:
    return not url.startswith((f"{seeded.router.url}/", "data:"))


def tile(page: Page, heading: str) -> str:
    return (
        page.locator(".tile", has=page.get_by_role("heading", name=heading, exact=True))
        .locator(".big")
        .inner_text()
    )


PATHS = ["/ui", "/ui/requests", "/ui/sessions", "SESSION"]


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, seeded: Seeded) -> str:
    return f"/ui/sessions/{seeded.session}" if request.param == "SESSION" else request.param


def test_figures_are_those_of_the_ledger(browser, seeded):
    cost = sum(row["cost"] for row in seeded.rows)
    with opened(browser, seeded, f"/ui?until={seeded.until}") as shown:
        assert tile(shown.page, "Requests") == f"{REQUESTS:,}"
        assert tile(shown.page, "Cost") == f"${cost:,.0f}"
        for name in ("Last 3 hours", "Last 24 hours by model", "Weeks compared: cost"):
            assert shown.page.get_by_role("img", name=name).is_visible()


def test_every_chart_has_its_figures_as_a_table(browser, seeded):
    with opened(browser, seeded, "/ui") as shown:
        charts = shown.page.locator("figure:has(svg.plot)")
        assert charts.count() == 6
        for number in range(charts.count()):
            chart = charts.nth(number)
            assert not chart.locator("table").is_visible()
            chart.locator("summary").click()
            assert chart.locator("table").is_visible()
            assert chart.locator("tbody tr").count() >= 7


def test_filters_are_a_form(browser, seeded):
    errors = sum(row["backend"] == "zai" and row["status"] == "error" for row in seeded.rows)
    with opened(browser, seeded, "/ui/requests") as shown:
        shown.page.get_by_label("provider").fill("zai")
        shown.page.get_by_label("status").fill("error")
        shown.page.get_by_role("button", name="Filter").click()
        assert f"{errors:,} requests" in shown.page.locator(".pages").inner_text()
        shown.page.get_by_role("link", name="older").click()
        assert "page 2 of" in shown.page.locator(".pages").inner_text()
        shown.page.get_by_role("link", name=re.compile("status error")).click()
        assert "page 1 of" in shown.page.locator(".pages").inner_text()


def test_the_first_paint_of_the_whole_page_takes_less_than_a_second(browser, seeded):
    """The best of five; where more runs than the machine has cores for, all takes that much longer."""
    crowd = max(os.getloadavg()[0] / (os.cpu_count() or 1), 1)
    times = []
    for turn in range(5):
        with opened(browser, seeded, f"/ui?until={turn + 1}s") as shown:
            times.append(shown.page.evaluate(FIRST_PAINT))
    assert min(times) < PAINT * crowd, f"{[round(one) for one in times]} ms"


def test_the_system_says_whether_it_is_dark(browser, seeded, path):
    for scheme, is_dark in (("light", False), ("dark", True)):
        with opened(browser, seeded, path, color_scheme=scheme) as shown:
            colour = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(int(part) for part in re.findall(r"\d+", colour)[:3]) < 128) is is_dark


def test_nothing_is_wider_than_a_phone(browser, seeded, path):
    with opened(browser, seeded, path, viewport=PHONE) as shown:
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, seeded, path, scheme):
    with opened(browser, seeded, path, color_scheme=scheme) as shown:
        found = Axe().run(shown.page).response["violations"]
        serious = [
            (one["id"], one["nodes"][0]["html"][:200], one["nodes"][0]["failureSummary"][:300])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
    assert serious == []


def test_without_javascript_the_page_says_the_same(browser, seeded):
    with opened(browser, seeded, f"/ui?until={seeded.until}", java_script_enabled=False) as shown:
        assert tile(shown.page, "Requests") == f"{REQUESTS:,}"
        shown.page.locator("figure summary").first.click()
        assert shown.page.locator("figure table").first.is_visible()


def test_a_request_appears_by_itself_and_what_was_opened_stays_open(browser, seeded):
    with opened(browser, seeded, "/ui") as shown:
        before = tile(shown.page, "Requests")
        shown.page.locator("#recent summary").click()
        seeded.ask("claude-opus-4-7")
        shown.page.wait_for_function(
            "before => document.querySelector('.tile:nth-of-type(5) .big').textContent !== before",
            arg=before,
            timeout=30_000,
        )
        assert tile(shown.page, "Requests") == f"{int(before.replace(',', '')) + 1:,}"
        assert shown.page.locator("#recent table").is_visible()


def test_a_session_leads_from_its_misses_to_its_turns(browser, seeded):
    with opened(browser, seeded, f"/ui/sessions/{seeded.session}") as shown:
        turns = [row for row in seeded.rows if row["session"] == seeded.session]
        assert tile(shown.page, "Requests") == f"{len(turns):,}"
        lanes = shown.page.locator(".lanes svg[role=img]")
        assert lanes.count() >= 2
        assert lanes.first.locator("rect.part").count() >= sum(row["agent"] == "main" for row in turns)


def test_a_session_as_one_file_needs_no_router(browser, seeded, tmp_path):
    with opened(browser, seeded, f"/ui/sessions/{seeded.session}") as shown:
        with shown.page.expect_download() as download:
            shown.page.get_by_role("link", name="Download as one file").click()
        file = tmp_path / "session.html"
        download.value.save_as(file)
    context = browser.new_context(offline=True, viewport=DESKTOP)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text))
    page.goto(file.as_uri())
    assert page.locator(".tile .big").first.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.bar')).display") == "grid"
    assert complaints == []
    context.close()


@pytest.mark.skipif(
    "SCREENSHOTS" not in os.environ, reason="writes pictures where SCREENSHOTS names a folder"
)
def test_pictures_of_the_documentation(browser, seeded):
    folder = Path(os.environ["SCREENSHOTS"])
    shots = {
        "dashboard.png": ("/ui", "light"),
        "dashboard-session.png": (f"/ui/sessions/{seeded.session}", "dark"),
    }
    for name, (path, scheme) in shots.items():
        with opened(browser, seeded, path, color_scheme=scheme, viewport=PICTURE) as shown:
            shown.page.get_by_text("live", exact=True).first.wait_for()
            shown.page.screenshot(path=folder / name)
            assert (folder / name).stat().st_size < 200_000
