"""The pages below `/ui` (the contract, section 11): which page a path is, what its query asks, its answer.

`Dashboard.answer` reads the ledger and renders, which takes long: it is called on a thread, never on the
event loop, with the state of the router as that found it.
"""

import base64
import hashlib
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

import jinja2
import msgspec

from signalbox import __version__
from signalbox.config.rules import LedgerSettings, Rules
from signalbox.database_errors import DatabaseError
from signalbox.record.queries import Filter, LedgerSource, parse_moment
from signalbox.ui import conversation, format, overview, request_page, session_page
from signalbox.ui.pages import JSON, PageResponse
from signalbox.ui.state import ROOT, State

FILTERS = ("provider", "model", "client", "session", "project", "rule", "status", "since", "until")
FIELDS = 50
"""Parts of a query at the most."""
TIMES = (("All", None), ("24 hours", "24h"), ("7 days", "7d"), ("30 days", "30d"))
STATUSES = ("success", "error", "cancelled")

_HERE = Path(__file__).parent
_STATIC = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_GUARDS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
KEEP = 5.0
"""Figures are shown again for this many times the time that they took: to look at them costs a fifth of a
processor at the most, however many look."""
KEPT = 32
"""Queries whose figures are kept."""


class _RefusedError(Exception):
    """The request gets this status, with a sentence for people."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Query(NamedTuple):
    """A query with its filters, and the number of the page of rows, from 1."""

    given: Mapping[str, str]
    """As they are written: those of FILTERS that are not empty."""
    filter: Filter
    page: int
    others: Mapping[str, str]

    @classmethod
    def read(cls, query: str, now: datetime) -> "Query":
        """Raises _RefusedError."""
        try:
            asked = dict(parse_qsl(query, max_num_fields=FIELDS))
        except ValueError:
            raise _RefusedError(400, f"A query has no more than {FIELDS} fields.") from None
        if "\0" in "".join(asked.values()):
            raise _RefusedError(400, "A query has no characters of code 0.")
        given = {name: asked[name].strip() for name in FILTERS if asked.get(name, "").strip()}
        values: dict[str, Any] = dict(given)
        for name in ("since", "until"):
            if name in given:
                try:
                    values[name] = parse_moment(given[name], now)
                except ValueError as error:
                    raise _RefusedError(400, f"{name}: {error}") from None
        number = asked.get("page", "1")
        if not (number.isascii() and number.isdigit() and int(number[:9]) >= 1 and len(number) < 9):
            raise _RefusedError(400, f"page: {number!r} is not a number from 1 on")
        return cls(given, Filter(**values), int(number), asked)

    def link(self, path: str, **changes: str | None) -> str:
        """The address of `path` with these filters; None takes one away."""
        kept = {**self.given, **changes}
        written = urlencode({name: value for name, value in kept.items() if value is not None})
        return f"{path}?{written}" if written else path


class Dashboard:
    """The pages of one ledger; for several threads."""

    def __init__(self, folder: Path) -> None:
        """`folder` is that of the ledger, where it is a file."""
        self._folder = folder
        self._url = LedgerSettings().url
        self.ledger = LedgerSource(folder, self._url)
        self._figures: dict[tuple[tuple[str, str], ...], tuple[float, float, dict[str, Any]]] = {}
        """By filters: when they were added up, how long that took, and the figures."""
        self._lock = threading.Lock()
        """One thread adds up at a time: the others may find what it found."""
        self._files = {name: (_HERE / "static" / name).read_bytes() for name in _STATIC}
        self._digests = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in self._files.items()}
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        self._templates.globals |= {"static": self._static, "version": __version__}
        shown = (format.usd, format.tokens, format.whole, format.percent, format.duration)
        self._templates.filters |= {one.__name__: one for one in shown}
        self._templates.filters["segment"] = lambda name: quote(name, safe="")

    def follow(self, rules: Rules) -> None:
        """Read the ledger that these rules name."""
        if rules.ledger.url != self._url:
            self.ledger.close()
            self._url = rules.ledger.url
            self.ledger = LedgerSource(self._folder, self._url)
            self._figures.clear()

    def close(self) -> None:
        self.ledger.close()

    def answer(self, path: str, query: str, state: State) -> PageResponse:
        """Blocks. Raises nothing that is due to the request or to the ledger."""
        try:
            return self._page(path, query, state)
        except _RefusedError as refused:
            return self._html("message.html", state, status=refused.status, title=str(refused), here="")
        except DatabaseError as error:
            title = f"The ledger cannot be read: {error}"
            return self._html("message.html", state, status=503, title=title, here="")

    def _page(self, path: str, query: str, state: State) -> PageResponse:
        name = path.removeprefix(ROOT).strip("/")
        if name in self._files:
            return self._file(name, query)
        asked = Query.read(query, state.now)
        match name.split("/"):
            case [""]:
                return self._overview(asked, state)
            case ["data.json"]:
                return self._data(asked, state)
            case ["requests"]:
                return self._requests(asked, state)
            case ["requests.csv"]:
                return self._csv(asked)
            case ["sessions"]:
                return self._sessions(asked, state)
            case ["sessions", name] if name.endswith(".html"):
                return self._session(unquote(name).removesuffix(".html"), asked, state, alone=True)
            case ["sessions", name]:
                return self._session(unquote(name), asked, state)
        raise _RefusedError(404, "There is no such page.")

    # the figures of now

    def _figures_of(self, query: Query, state: State) -> dict[str, Any]:
        """Those of a moment ago, where to add them up again would take long."""
        written = tuple(query.given.items())
        with self._lock:
            begun, took, kept = self._figures.get(written, (0.0, 0.0, {}))
            if kept and time.monotonic() - begun < KEEP * took:
                return kept
            begun = time.monotonic()
            with self.ledger.open() as reader:
                found = overview.figures(reader, query.filter, state.rules.week, state.now)
            self._figures.pop(written, None)
            while len(self._figures) >= KEPT:
                del self._figures[next(iter(self._figures))]
            self._figures[written] = (begun, time.monotonic() - begun, found)
            return found

    def _data(self, query: Query, state: State) -> PageResponse:
        data = {"now": now_of(state), **self._figures_of(query, state)}
        return _reply(200, JSON, msgspec.json.encode(data))

    def _overview(self, query: Query, state: State) -> PageResponse:
        try:
            figures, fault = self._figures_of(query, state), None
        except DatabaseError as error:
            with LedgerSource.empty() as reader:
                figures = overview.figures(reader, query.filter, state.rules.week, state.now)
            fault = str(error)
        values = overview.page(figures, now_of(state), state.rules.week)
        return self._html("overview.html", state, query, here="/ui", title="Now", fault=fault, **values)

    # rows

    def _requests(self, query: Query, state: State) -> PageResponse:
        with self.ledger.open() as reader:
            values = request_page.page(reader, query.filter, query.page, state)
        return self._html("requests.html", state, query, here="/ui/requests", title="Requests", **values)

    def _csv(self, query: Query) -> PageResponse:
        page = query.page if "page" in query.others else None
        with self.ledger.open() as reader:
            body = request_page.csv_of(reader, query.filter, page)
        headers = {"content-disposition": 'attachment; filename="requests.csv"'}
        return _reply(200, "text/csv; charset=utf-8", body, headers)

    def _sessions(self, query: Query, state: State) -> PageResponse:
        with self.ledger.open() as reader:
            values = session_page.sessions(reader, query.filter, query.page, state)
        return self._html("sessions.html", state, query, here="/ui/sessions", title="Sessions", **values)

    def _session(self, session: str, query: Query, state: State, *, alone: bool = False) -> PageResponse:
        """`alone`: one file that needs no other."""
        if "\0" in session:
            raise _RefusedError(404, "No request of this session is recorded.")
        with self.ledger.open() as reader:
            values = session_page.session(reader, session, query.page, state, whole=alone)
        if values is None:
            raise _RefusedError(404, "No request of this session is recorded.")
        turn, against = (_number(query.others.get(name, "")) for name in ("turn", "against"))
        held = [] if alone else state.held
        values["conversation"] = conversation.view(held, values["turns"], turn, against)
        style = self._files["style.css"].decode() if alone else None
        reply = self._html(
            "session.html",
            state,
            query,
            here="/ui/sessions",
            title=f"Session {session}",
            session=session,
            style=style,
            policy=policy_of_style(style) if style else "",
            **values,
        )
        if style is None:
            return reply
        headers = {**reply.headers, "content-security-policy": policy_of_style(style)}
        if query.others.get("download") == "1":
            name = quote(session, safe="")[:100]
            headers["content-disposition"] = f'attachment; filename="session-{name}.html"'
        return reply._replace(headers=headers)

    # how

    def _static(self, name: str) -> str:
        return f"{ROOT}/{name}?v={self._digests[name]}"

    def _file(self, name: str, query: str) -> PageResponse:
        is_current = query == f"v={self._digests[name]}"
        cache = "private, max-age=31536000, immutable" if is_current else "no-cache"
        return _reply(200, f"{_STATIC[name]}; charset=utf-8", self._files[name], {"cache-control": cache})

    def _html(
        self, template: str, state: State, query: Query | None = None, *, status: int = 200, **values: Any
    ) -> PageResponse:
        zone = overview.zone_of(state.rules.week)
        asked = query or Query({}, Filter(), 1, {})

        def when(at: datetime | str | int) -> str:
            return format.moment(_moment(at), state.now, zone)

        page = self._templates.get_template(template).render(
            now=now_of(state), query=asked, link=asked.link, times=TIMES, when=when, status=status, **values
        )
        return _reply(status, "text/html; charset=utf-8", page.encode(errors="replace"))


def _number(written: str) -> int | None:
    """None where it is none."""
    return int(written) if written.isascii() and written.isdigit() and len(written) < 9 else None


def policy_of_style(style: str) -> str:
    """Of a file that holds its own style, and nothing else that is loaded or runs."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def now_of(state: State) -> dict[str, Any]:
    """The part `now` of data.json."""
    health = state.health
    return {
        "timestamp": health["timestamp"],
        "status": health["status"],
        "in_flight": state.in_flight,
        "rules": health["rules"],
        "providers": health["providers"],
        "budgets": dict(state.budgets),
    }


def _moment(at: datetime | str | int) -> datetime:
    if isinstance(at, datetime):
        return at
    return datetime.fromisoformat(at) if isinstance(at, str) else format.of_ms(at)


def _reply(status: int, kind: str, body: bytes, headers: Mapping[str, str] | None = None) -> PageResponse:
    return PageResponse(status, body, kind, _GUARDS | dict(headers or {}))
