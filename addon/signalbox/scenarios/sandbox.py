"""The router with the user's rules and without anything of the user's outside them: fakes in the place of
providers, fake keys and logins, an empty state folder, no way to any other machine.

What the rules say stays as it is, and so do hosts, by which dialects, prices and Anthropic itself are known;
but nothing is encrypted, and every connection ends at a fake.
"""

import asyncio
import errno
import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from mitmproxy import http
from mitmproxy.options import Options
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tools.dump import DumpMaster
from msgspec.structs import replace

from signalbox import places
from signalbox.app import App
from signalbox.config.document import unknown
from signalbox.config.fields import Secret, Url
from signalbox.config.outbound import Outbound
from signalbox.config.rules import (
    ANTHROPIC_HOST,
    LedgerSettings,
    Log,
    Match,
    Provider,
    Quota,
    Rules,
    unlisted,
)
from signalbox.exchange import Exchange
from signalbox.proxy import setup
from signalbox.scenarios.fakes import Fakes
from signalbox.scenarios.format import ScenarioError
from signalbox.state.login_files import CLAUDE

UPSTREAM = unlisted("anthropic")
"""Who gets what no rule decides about, where no provider of the rules is the same."""
TURNS = 100
"""Turns of the event loop in which a request ends after its client has seen the end."""
FAR_FUTURE = 4_102_444_800_000
"""Unix milliseconds, of the year 2100."""


def with_fakes(rules: Rules, folder: Path) -> Rules:
    """The rules with fake keys and logins, without a ledger, accounts and files of the user's."""
    providers = {name: _faked(provider, folder) for name, provider in rules.providers.items()}
    return replace(
        rules,
        providers=providers,
        clients={name: f"fake-secret-of-{name}" for name in rules.clients},
        client_commands={},
        ledger=LedgerSettings(),
        log=replace(rules.log, file=Log().file),
        picker=False,
        outbound=Outbound(),
        reads=(),
        warnings=(),
    )


def _faked(provider: Provider, folder: Path) -> Provider:
    quota = provider.quota
    status_file = quota.status_file and folder / "usage-status.md"
    auth = provider.auth if provider.auth in ("client", "claude-login", "none") else "key"
    return replace(
        provider,
        auth=auth,
        keys=tuple(Secret(f"fake-key-{i}-of-{provider.name}") for i in range(max(1, len(provider.keys))))
        if auth == "key"
        else (),
        login=folder / "login",
        proxy=None,
        quota=Quota(quota.redirect_at, quota.hysteresis, probe=0.0, status_file=status_file),
        unavailable="",
    )


def without_tls(rules: Rules, urls: Mapping[str, Url], listeners: Mapping[int, int]) -> Rules:
    """The rules with these URLs of providers, and with other ports of listeners."""

    def moved(match: Match) -> Match:
        return replace(match, port=tuple(listeners.get(int(p), int(p)) for p in match.port))

    return replace(
        rules,
        providers={name: replace(one, url=urls[name]) for name, one in rules.providers.items()},
        rules=tuple(replace(rule, match=moved(rule.match)) for rule in rules.rules),
    )


def urls_without_tls(providers: Mapping[str, Provider]) -> dict[str, Url]:
    """The URL of each provider, without TLS. No two have the same host and port, which tell them apart."""
    urls: dict[str, Url] = {}
    taken: set[tuple[str, int]] = set()
    for name, provider in providers.items():
        port = provider.url.port
        while (provider.url.host, port) in taken:
            port += 1
        taken.add((provider.url.host, port))
        urls[name] = replace(provider.url, scheme="http", port=port)
    return urls


def upstream_of(rules: Rules) -> Provider:
    """Who gets what no rule decides about."""
    own = (p for p in rules.providers.values() if p.auth == "client" and p.url.host == ANTHROPIC_HOST)
    return next(own, Provider(UPSTREAM, Url("https", ANTHROPIC_HOST, 443), auth="client"))


class Sandbox:
    """A router before fakes. A context manager, for the event loop that it runs in."""

    def __init__(self, rules: Rules, folder: Path, ports: Mapping[int, int]) -> None:
        """`ports`: by port of a listener as the rules have it, the one that is free for it."""
        self.ports = ports
        self._folder = folder
        self._states = 0
        self._rules = with_fakes(rules, folder)
        self._upstream = upstream_of(self._rules)
        everyone = {self._upstream.name: self._upstream, **self._rules.providers}
        self.fakes, self._urls = Fakes(everyone), urls_without_tls(everyone)
        self._flows: list[http.HTTPFlow] = []

    @property
    def secrets(self) -> Mapping[str, str]:
        """Those of the clients."""
        return self._rules.clients

    async def __aenter__(self) -> Self:
        await self.fakes.__aenter__()
        login = self._folder / "login"
        login.mkdir(mode=0o700)
        token = {"accessToken": "sk-ant-oat01-fake-login-of-the-router", "expiresAt": FAR_FUTURE}
        (login / CLAUDE.file).write_text(json.dumps({"claudeAiOauth": token}), encoding="utf-8")
        there = self._urls[self._upstream.name]
        modes = [f"reverse:{replace(there, path='')}@127.0.0.1:{port}" for port in self.ports.values()]
        options = Options(confdir=str(self._folder / "mitmproxy"), mode=modes)
        master = DumpMaster(options, with_termlog=False, with_dumper=False)
        rules = without_tls(self._rules, self._urls, self.ports)
        self.app = App(master, {}, given=rules)
        setup.install(self.app)
        ready = asyncio.Event()
        options.set(f"router_state={self._folder / 'state'}", defer=True)
        master.addons.add(*_router_addons(), self, _Ready(ready))
        self._master, self._running = master, asyncio.create_task(master.run())
        await asyncio.wait([self._running, asyncio.create_task(ready.wait())], return_when="FIRST_COMPLETED")
        if self._running.done():
            self._running.result()
            raise RuntimeError("the router did not start")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._master.shutdown()
        await self._running
        await self.fakes.__aexit__()

    def forget(self) -> None:
        """All that was learned: a new state folder."""
        self._flows.clear()
        self._states += 1
        self.app.open(str(self._rules.file), str(self._folder / f"state-{self._states}"))

    async def last_exchange(self) -> Exchange | None:
        """What the router knows of the request that was answered last, once that is over."""
        if not self._flows:
            return None
        flow = self._flows[-1]
        for _ in range(TURNS):
            if not flow.live:
                break
            await asyncio.sleep(0)
        return self.app.exchanges.get(flow)

    # mitmproxy's hooks

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        self._flows.append(flow)

    def server_connect(self, data: ServerConnectionHookData) -> None:
        """Have the connection end at a fake."""
        asked = data.server.address
        name = next((name for name, url in self._urls.items() if (url.host, url.port) == asked), None)
        if name is None:
            data.server.error = "only fakes are asked here"
        elif self.fakes.cast.is_refused(name):
            data.server.error = f"[Errno {errno.ECONNREFUSED}] Connect call failed"
        else:
            data.server.address = ("127.0.0.1", self.fakes.ports[name])


class _Ready:
    """The last add-on: when it runs, all do."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def running(self) -> None:
        self._event.set()


def _router_addons() -> list[Any]:
    """Those of `router.py`. As a script, mitmproxy would look every second whether it has changed."""
    spec = importlib.util.spec_from_file_location("signalbox_router", places.ROUTER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    addons: list[Any] = module.addons
    return addons


def listener_ports(rules: Rules, wanted: Iterable[int | str | None], default: int) -> list[int]:
    """The ports, as the rules have them, of the listeners that scenarios ask. Raises ScenarioError."""
    named = {name: one.port for name, one in rules.listen.items()}
    first = next(iter(named.values()), default)
    found = []
    for one in wanted:
        if isinstance(one, str) and one not in named:
            raise ScenarioError(unknown("listener", one, named))
        found.append(first if one is None else named[one] if isinstance(one, str) else one)
    return list(dict.fromkeys(found))
