"""The process: rules in force, stores, background tasks, start, stop, reload and peer check.

There is one `App` for each mitmproxy master. It outlives `router.py`, which mitmproxy loads again whenever
that file changes, and it is passed to whatever needs it, so that one process can hold several.
"""

import asyncio
import gc
import logging
import os
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import platformdirs

from signalbox import places
from signalbox.background.model_list import ListResponse
from signalbox.background.model_publisher import ModelPublisher
from signalbox.background.quota_tracker import QuotaTracker
from signalbox.background.sharing import LimitsSharing
from signalbox.config.load import RulesError
from signalbox.config.rules import Level, Provider, Rules, display_name
from signalbox.config.watch import Live
from signalbox.errors import log_error
from signalbox.exchange import Exchange, RequestKind
from signalbox.inspect.recorded import held_turns
from signalbox.inspect.retention import Retention
from signalbox.lifecycle.spec import BACKGROUND, FAIL_OPEN
from signalbox.proxy import setup
from signalbox.proxy.connections import ReadTurns
from signalbox.proxy.dispatch import Services
from signalbox.proxy.early_connection import LikelyProviders
from signalbox.proxy.reload_guard import ReloadGuard
from signalbox.proxy.replay import Replay
from signalbox.proxy.stream import MAX_SILENCE
from signalbox.proxy.upstream import KEEPALIVE_EXPIRY
from signalbox.record.console import LEVELS
from signalbox.record.metrics import CONTENT_TYPE, Gauges, Metrics
from signalbox.record.prices import shipped
from signalbox.record.recorder import Recorder
from signalbox.routing import local_pages
from signalbox.routing.browsers import is_loopback
from signalbox.routing.health import ProviderHealth
from signalbox.routing.local_pages import METRICS
from signalbox.routing.sessions import Sessions
from signalbox.state.good_rules import GoodRules
from signalbox.state.provenance import ProvenanceStore
from signalbox.state.unsupported_store import UnsupportedStore
from signalbox.tls import client_ssl_context
from signalbox.ui import health, model_page, pages
from signalbox.ui.ledger_pages import LedgerPages
from signalbox.ui.state import State, session_of

if TYPE_CHECKING:
    from mitmproxy.connection import Server
    from mitmproxy.master import Master

log = logging.getLogger("signalbox")

TASK_RETRY = 10.0
"""Seconds after which a background task that failed starts again."""
THREADS_TURN = 0.0005
"""Seconds for which a thread may work while the event loop waits. To pass on a piece of a stream the loop
waits several times, so that Python's own 5 ms are felt."""
CIRCUIT_OPEN = {"half-open": 0.5, "open": 1.0}
FAIL_OPEN_SHOWN = 300.0
"""Seconds for which the status stays `degraded` after a request was passed on unrouted."""


class Stores:
    """Everything that belongs to one rules file and one state folder."""

    def __init__(self, app: "App", rules: Path, state: Path) -> None:
        self.live = Live(rules, app.environ, log=_log, given=app.given)
        self.good_rules = GoodRules(state, rules)
        self.sessions = Sessions()
        self.provider_health = ProviderHealth()
        self.counting = ProviderHealth(metered=False)
        """The same for count_tokens, whose limits are separate and say nothing about messages."""
        self.recorder = Recorder(state, app.metrics, shows_prompts=not app.is_background)
        self.quota = QuotaTracker(
            state, lambda: self.rules, self.recorder.ledger.used, tls=app.client_ssl_context
        )
        self.models = ModelPublisher(
            state,
            self.live,
            self.quota,
            tls=app.client_ssl_context,
            base_url=lambda: setup.base_url(app.master),
        )
        self.ledger_pages = LedgerPages(state)
        health = {"messages": self.provider_health, "count_tokens": self.counting}
        self.sharing = LimitsSharing(self.quota, health, lambda: self.rules)
        self.provenance: ProvenanceStore
        self.unsupported: UnsupportedStore
        self._login_tokens: dict[str, str] = {}
        """By provider, its login when a request last depended on it."""
        self.key_valid: dict[str, bool] = {}
        """By provider, whether it accepted the key of the last request."""
        self._state = state
        self._fails_open = app.fails_open

    @property
    def rules(self) -> Rules:
        return self.live.rules

    def start(self) -> None:
        """Load the rules and open the stores. Raises OSError, and RulesError unless the router fails open."""
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.live.on_change += [
            self.recorder.follow,
            self.ledger_pages.follow,
            lambda rules: self.provider_health.forget(rules.providers),
            lambda rules: self.counting.forget(rules.providers),
            self.quota.follow,
            self._keep_good,
        ]
        try:
            self.live.start()
        except RulesError as error:
            if not self._fails_open:
                raise
            self.live.start_despite(error, self.good_rules.read())
        self.quota.logins.read(self.rules)
        self.recorder.ledger.ready()
        self.provenance = ProvenanceStore(self._state)
        self._share(self.rules)
        self.live.on_change.append(self._share)
        self.provenance.ready()
        self.unsupported = UnsupportedStore(self._state)

    def _keep_good(self, _rules: Rules) -> None:
        if self._fails_open and self.live.source == "file":
            self.good_rules.keep(self.live.text)

    def _share(self, rules: Rules) -> None:
        """Routers with the same PostgreSQL share their state (the contract, section 11)."""
        url = rules.ledger.shared_url
        self.provenance.follow(url)
        self.sharing.follow(url)

    def resume(self) -> None:
        """Writes again after `close`. Requests in flight keep the same stores."""
        self.recorder.follow(self.rules)

    def close(self) -> None:
        """Returns when everything is written, or cannot be."""
        self.recorder.close()
        self.sharing.close()
        self.ledger_pages.close()
        self.provenance.close()
        self.quota.close()
        self.unsupported.close()
        self.good_rules.close()

    def services(self, kind: RequestKind) -> Services:
        """The services that route a request of this kind."""
        health = self.provider_health if kind == "messages" else self.counting
        return Services(self.quota, self.sessions, health, self.provenance, self.unsupported)

    def answered(self, provider: str, status: int) -> None:
        """Notes whether the provider accepted the key, by the status of an answer."""
        if status < 500:
            self.key_valid[provider] = status not in (401, 403)

    def observe_head(self, exchange: Exchange, status: int, headers: Mapping[str, str]) -> None:
        """The head of an answer of any attempt has come; its headers may report quota.

        count_tokens has limits of its own, so its refusals say nothing about messages. A refusal is observed
        now, because the choice of the next attempt depends on it; otherwise the client gets the head first.
        """
        if exchange.provider is None or (exchange.kind != "messages" and status >= 400):
            return
        observe = partial(
            self.quota.observe, exchange.provider, exchange.caller, status, headers, exchange.model or ""
        )
        if status >= 400:
            observe()
        else:
            _call_soon(observe)

    def refresh(self, rules: Rules) -> Awaitable[None] | None:
        """Reads what the next request depends on, if it may have changed: the logins, and the provenance of
        thinking blocks. None if there is nothing to wait for."""
        if not (rules.login_folders or rules.codex_folders):
            return None if self.provenance.is_current else self.provenance.refreshed()
        return self._refresh(rules)

    async def _refresh(self, rules: Rules) -> None:
        await asyncio.gather(self.read_logins(rules), self.provenance.refreshed())

    async def read_logins(self, rules: Rules) -> None:
        """Reads the logins that have changed. A new one ends the cooldown of a refused one."""
        await self.quota.read_logins(rules)
        for provider in rules.providers.values():
            token = self.quota.token(provider) if provider.uses_login else None
            if token is None:
                continue
            if self._login_tokens.get(provider.name, token) != token:
                renewed = [one.login_renewed(provider) for one in (self.provider_health, self.counting)]
                if any(renewed):
                    log.info("%s: has a new login, and is asked again", provider.name)
            self._login_tokens[provider.name] = token

    async def run_tasks(self) -> None:
        """Run the background tasks until cancelled."""
        await keep_running(
            {
                "rules watcher": self.live.watch,
                "request log rotation": self.recorder.watch,
                "quota probe": self.quota.prober.run,
                "sharing of limits": self.sharing.run,
                "model list": self.models.watch,
            }
        )


class App:
    stores: Stores
    """The stores of the files in force; before a successful start, those of the files that failed."""

    def __init__(
        self, master: "Master", environ: Mapping[str, str] = os.environ, *, given: Rules | None = None
    ) -> None:
        """`given` are rules to use in the place of a file's; nothing runs in the background then."""
        self.master = master
        self.given = given
        self.environ = environ
        self.reading = ReadTurns()
        self.is_plain = environ.get("SIGNALBOX_PLAIN", "") not in ("", "0")
        """Whether the router's shortcuts through mitmproxy are off; see docs/performance.md."""
        self.fails_open = environ.get(FAIL_OPEN, "") not in ("", "0")
        """Whether rules that are broken at the start do not end it, as `signalbox run` wants."""
        self.is_background = environ.get(BACKGROUND, "") not in ("", "0")
        """Whether the console is a file, which gets no words of a prompt."""
        self.exchanges: WeakKeyDictionary[Any, Exchange] = WeakKeyDictionary()
        """Flow to exchange: kept as long as the flow, never written to a flow file."""
        self.client_hosts: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        """Request to the client's own `Host`, or `:authority`; mitmproxy replaces it by that of the reverse
        upstream before any hook (mitmproxy.md, 16)."""
        self.replays: WeakKeyDictionary[Any, Replay] = WeakKeyDictionary()
        """By flow, the replay that made it."""
        self.closing = False
        """True during shutdown; errors from now on are recorded as cancelled (mitmproxy.md, 7)."""
        self.failed_open_at: float | None = None
        """When, on the monotonic clock, a request was last passed on unrouted after an error."""
        self.prices = shipped()
        self.likely = LikelyProviders()
        self.metrics = Metrics()
        self._page_threads = pages.PageThreads("pages")
        self._summary_threads = pages.PageThreads("summaries")
        self.max_silence = MAX_SILENCE
        self.keepalive_expiry = KEEPALIVE_EXPIRY
        self._files: tuple[Path, Path] | None = None
        self._tasks: asyncio.Task[None] | None = None
        self._is_running = False
        self.guard = ReloadGuard(self)
        self.retention = Retention(master, lambda: self.rules.inspect)
        self._block_private = setup.user_block_private(master)

    @classmethod
    def of(cls, master: "Master") -> "App":
        """The app of this master; made and installed when `router.py` is loaded for the first time."""
        if (app := setup.installed_app(master)) is None:
            app = cls(master)
            setup.install(app)
            setup.exit_at_once_after_failed_start(master)
        return app

    @property
    def rules(self) -> Rules:
        return self.stores.rules

    @property
    def shows_prompts(self) -> bool:
        """Whether the console may show words of a conversation."""
        return self.rules.log.prompts and not self.is_background

    def open(self, rules: str, state: str) -> None:
        """Starts with these files, or goes on if they are in force. Problems are logged as errors, which end
        the start of mitmproxy (mitmproxy.md, 3)."""
        files = (
            Path(rules).expanduser() if rules else places.default_rules(),
            Path(state).expanduser() if state else Path(platformdirs.user_state_dir("signalbox")),
        )
        if files != self._files:
            stores = Stores(self, *files)
            try:
                stores.start()
            except RulesError as error:
                for line in error.errors:
                    log.error("%s", line)
            except OSError as error:
                log.error("router_state: cannot use %s: %s", files[1], error.strerror)
            else:
                self._replace_stores(stores)
                self._files = files
            if self._files is None:
                self.stores = stores
                return
        self._resume()

    def _replace_stores(self, stores: Stores) -> None:
        """Puts new stores in force. Requests in flight end with them; the old stores write no more."""
        self._stop_tasks()
        if self._files is not None:
            self.stores.close()
        self.closing = False
        self.stores = stores
        stores.live.on_change.append(self._restrict_to_loopback)
        self._restrict_to_loopback(stores.rules)
        if self._is_running:
            self.run()

    def _resume(self) -> None:
        """router.py was loaded again; the process goes on."""
        self.guard.active = False
        if self.closing:
            self.closing = False
            self.stores.resume()

    def run(self) -> None:
        """Starts the background tasks. mitmproxy accepts connections now."""
        self._is_running = True
        if self._tasks is None and self._files is not None and self.given is None:
            self._tasks = asyncio.get_running_loop().create_task(self.stores.run_tasks())
            sys.setswitchinterval(THREADS_TURN)
            gc.freeze()  # a look through all objects of the imports would stop streams for 0.15 s
            setup.warn_of_upstreams(self.master)
            for line in setup.client_commands(self.master):
                log.info("%s", line)

    def close(self) -> None:
        """router.py is unloaded, or the process ends."""
        self._stop_tasks()
        self.guard.active = True
        self.closing = True
        self.retention.close()
        if self._files is not None:
            self.stores.close()

    def _stop_tasks(self) -> None:
        if self._tasks is not None:
            self._tasks.cancel()
            self._tasks = None

    # who may connect

    @property
    def is_running(self) -> bool:
        """Whether mitmproxy has started. Listeners are bound before that."""
        return self._is_running

    @property
    def is_open(self) -> bool:
        """Whether the user allows all machines, with `block_private=false`."""
        return self._block_private is False

    def admits(self, host: str) -> bool:
        """Whether a peer may connect: without clients in the rules only this machine, whatever the listener.

        mitmproxy's own `block_private` allows 100.64.0.0/10 (mitmproxy.md, 8).
        """
        return bool(self.rules.clients) or self.is_open or is_loopback(host)

    def leads_back(self, connection: "Server") -> bool:
        """Whether an upstream connection leads to a listener of this process."""
        return setup.leads_back(self.master, connection)

    def _restrict_to_loopback(self, rules: Rules) -> None:
        if self._block_private is None:
            self.master.options.update(block_private=not rules.clients)

    # for hooks, pages and tasks

    def client_ssl_context(self) -> ssl.SSLContext:
        """The TLS context for the router's own requests; see `tls.client_ssl_context`."""
        return client_ssl_context(self.master.options)

    def refusal(self, provider: Provider, model: str | None) -> tuple[str, str] | None:
        """Why no request for this model is sent there now, for any caller, as in `plan.RefusalCheck`."""
        refused = self.stores.quota.refusal_of_all(provider, model)
        return refused or self.stores.provider_health.refusal(provider, model, time.monotonic())

    async def models_page(self, exchange: Exchange, upstream: Provider) -> bytes | ListResponse:
        """The answer to `/v1/models`, or Anthropic's refusal of the client's credentials."""
        _, _, query = exchange.path.partition("?")
        less_paging = model_page.less_paging(query)
        gathered = await self.stores.models.gather(exchange.rules, exchange.caller, upstream, less_paging)
        return gathered.refusal or model_page.page(gathered.entries, query)

    async def render_page(self, path: str, query: str, *, conversations: bool) -> pages.PageResponse:
        """A page that is made off the event loop. That its reader may see it was decided before, and whether
        also `conversations` of which flows are held."""
        if path == METRICS:
            body = await asyncio.to_thread(self.metrics.page, self._gauges())
            return pages.PageResponse(200, body, CONTENT_TYPE)
        if path.startswith(local_pages.SESSIONS):
            percents = self.stores.quota.quotas.percents(time.time())
            return await self._summary_threads.make(self.stores.ledger_pages.session_summary, path, percents)
        if local_pages.page_at("GET", path) == "ui":
            state = self._state(session_of(path) if conversations else None)
            return await self._page_threads.make(self.stores.ledger_pages.dashboard, path, query, state)
        return pages.not_found("There is no such page.")

    def _state(self, session: str | None) -> State:
        """What the dashboard shows of this moment, and what is held of the conversation of `session`."""
        rules, now = self.rules, datetime.now(UTC)
        return State(
            rules=rules,
            health=self._health(port=None),
            in_flight=self.in_flight,
            budgets=dict(self.stores.quota.budgets.shown(rules, now)),
            now=now,
            flows=setup.flow_links(self.master, self.exchanges),
            held=held_turns(self.retention.flows(), session) if session is not None else [],
        )

    @property
    def in_flight(self) -> int:
        """Requests to /v1/messages that are not over."""
        return sum(
            exchange.kind == "messages" and not exchange.recorded for exchange in self.exchanges.values()
        )

    def _gauges(self) -> Gauges:
        stores, rules = self.stores, self.rules
        now, moment = datetime.now(UTC), time.monotonic()
        circuits = stores.provider_health.circuits(moment)
        budgets = {
            provider.name: stores.quota.budgets.used_part(provider, rules.week, now)
            for provider in rules.providers.values()
        }
        return Gauges(
            in_flight=self.in_flight,
            circuits={name: CIRCUIT_OPEN.get(circuits.get(name, "closed"), 0.0) for name in rules.providers},
            quota={
                (display_name(provider), account, window): percent / 100
                for (provider, account), used in stores.quota.quotas.percents(now.timestamp()).items()
                for window, percent in used.items()
            },
            budgets={name: part for name, part in budgets.items() if part is not None},
            ledger_waiting=stores.recorder.ledger.waiting,
            rules_loaded=stores.live.loaded_at.timestamp(),
        )

    def health_page(self, port: int, *, full: bool) -> bytes:
        """`/health` as the listener on `port` shows it."""
        return health.encode(self._health(port), full=full)

    def _health(self, port: int | None) -> dict[str, Any]:
        """`port` None: without the tiers, which differ by listener."""
        stores = self.stores
        failed = self.failed_open_at
        seen = health.Seen(
            stores.key_valid,
            failed is not None and time.monotonic() - failed < FAIL_OPEN_SHOWN,
            stores.provider_health,
            self.refusal,
            stores.quota.quotas,
            stores.unsupported.all(),
        )
        listeners = [listener._asdict() for listener in setup.listeners(self.master)]
        return health.page(stores.live, seen, listeners, port, datetime.now(UTC))


async def keep_running(tasks: Mapping[str, Callable[[], Awaitable[None]]], retry: float = TASK_RETRY) -> None:
    """Runs all tasks until cancelled. A task that fails is logged and starts again after `retry` seconds; the
    others are not affected."""

    async def run(name: str, task: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await task()
            except Exception as error:
                log_error(f"the task {name}", error)
                await asyncio.sleep(retry)

    async with asyncio.TaskGroup() as group:
        for name, task in tasks.items():
            group.create_task(run(name, task))


def _call_soon(do: Callable[[], None]) -> None:
    """Calls `do` after the bytes at hand are written; at once if no event loop runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        do()
    else:
        loop.call_soon(do)


def _log(level: Level, text: str) -> None:
    log.log(LEVELS[level], "%s", text)
