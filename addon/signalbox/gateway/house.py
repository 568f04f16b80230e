"""The router as mitmproxy's guest: options, start and end, who may connect, whose HTTP layer it is."""

import asyncio
import logging
import os
import shlex
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import platformdirs
from mitmproxy import ctx, optmanager
from mitmproxy.connection import Client
from mitmproxy.log import MitmFormatter
from mitmproxy.master import Master
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import TCPLayer
from mitmproxy.proxy.layers.tls import parse_client_hello
from mitmproxy.proxy.mode_specs import ProxyMode, RegularMode, ReverseMode, Socks5Mode, UpstreamMode

from signalbox.config.load import PROJECT, RulesError
from signalbox.config.rules import ANTHROPIC_HOST, Rules
from signalbox.gateway import usage
from signalbox.gateway.arrival import is_anthropic
from signalbox.gateway.gateway import WALL, Gateway
from signalbox.gateway.guard import Guard
from signalbox.proxy import replays
from signalbox.proxy.connections import adopt_handler
from signalbox.proxy.faults import place
from signalbox.proxy.handlers import look_up_once
from signalbox.proxy.layers import take_over
from signalbox.record import console

log = logging.getLogger("signalbox")

QUIET = {"connection_strategy": "lazy", "flow_detail": 0}
"""Options set unless the user has set them: nothing is asked of an upstream before a rule says so, and the
console has one line a request, ours."""

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  they are read, not bound
STARTING = "The router is starting."


AGAIN = 10.0
"""Seconds after which a watch that failed starts again."""


class House:
    """Lives as long as the process; `router.py` may come and go."""

    gateway: Gateway

    def __init__(self) -> None:
        self._guard: Guard | None = None
        self._opened: tuple[Path, Path] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_running = False
        self._private: bool | None = None
        """What the user set `block_private` to, if anything."""

    def set_up(self, master: Master) -> None:
        """The addon is loaded, for the first time or again."""
        if self._guard is not None:
            return
        self._guard = guard = Guard()
        master.addons.register(guard)
        master.addons.chain.insert(0, guard)
        look_up_once(master.addons)
        replays.refuse(master.addons)
        self._private = ctx.options.block_private if _is_set("block_private") else None
        for name, value in QUIET.items():
            if name in ctx.options and not _is_set(name):
                ctx.options.update(**{name: value})
        if (termlog := master.addons.get("termlog")) is not None:
            console.setup("info")
            termlog.logger.addFilter(console.NotOurs())
            if os.environ.get("NO_COLOR"):
                termlog.logger.formatter = MitmFormatter(colorize=False)
        for name in ("mitmproxy.proxy.server", "httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for line in (*usage.faults(ctx.options), *usage.taken_ports(_ports())):
            log.error("%s", line)

    def open(self, rules: str, state: str) -> None:
        """Start with these rules, or go on with them where they are the ones in force.

        What is wrong with them is logged as errors, which is what ends a start (mitmproxy.md, 3).
        """
        assert self._guard is not None
        files = (
            Path(rules).expanduser() if rules else PROJECT / "rules.yaml",
            Path(state).expanduser() if state else Path(platformdirs.user_state_dir("signalbox")),
        )
        if files != self._opened:
            gateway = Gateway(*files)
            try:
                files[1].mkdir(mode=0o700, parents=True, exist_ok=True)
                gateway.start()
            except RulesError as fault:
                for line in fault.errors:
                    log.error("%s", line)
            except OSError as fault:
                log.error("router_state: cannot use %s: %s", files[1], fault.strerror)
            else:
                self._opened = files
                self._take(gateway)
            if self._opened is None:
                self.gateway = gateway
                return
        self._guard.on_duty = False
        self.gateway.resume()

    def _take(self, gateway: Gateway) -> None:
        """Go on with this one. Requests in flight end with it; the one before writes no more."""
        self._stop_watching()
        assert self._guard is not None
        if self._guard.gateway is not None:
            self._guard.gateway.done()
        self.gateway = self._guard.gateway = gateway
        gateway.unwalled = self._private is False
        gateway.live.on_change.append(self._wall)
        self._wall(gateway.rules)
        if self._is_running:
            self.watch()

    def _wall(self, rules: Rules) -> None:
        if self._private is None:
            ctx.options.update(block_private=not rules.clients)

    def watch(self) -> None:
        """mitmproxy runs: follow the rules file from now on."""
        self._is_running = True
        if self._watching is None and self._opened is not None:
            self._watching = asyncio.get_running_loop().create_task(self._look_after(self.gateway))
            _warn_of_upstreams()
            for line in _ways_in():
                log.info("%s", line)

    async def _look_after(self, gateway: Gateway) -> None:
        async with asyncio.TaskGroup() as tasks:
            for what, watch in (
                ("rules", gateway.live.watch),
                ("request log", gateway.recorder.watch),
                ("quota", gateway.metering.prober.run),
                ("model list", gateway.listing.watch),
            ):
                tasks.create_task(_go_on(what, watch))

    def close(self) -> None:
        """The addon is taken away, or the process ends."""
        self._stop_watching()
        if self._guard is not None:
            self._guard.on_duty = True
        if self._opened is not None:
            self.gateway.done()

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def admit(self, client: Client) -> None:
        """Listeners are bound before mitmproxy has started everything that a request needs."""
        adopt_handler(client)
        if not self._is_running:
            client.error = STARTING
        elif not self.gateway.admits(client):
            client.error = WALL
            log.warning("connection from %s refused: %s", client.peername[0], WALL)

    def lay(self, nextlayer: NextLayer) -> None:
        """mitmproxy decides on the protocol; where that is HTTP, the layer becomes ours."""
        context = nextlayer.context
        asked = _asked(nextlayer)
        if asked is not None and not is_anthropic(*asked, self.gateway.rules):
            nextlayer.layer = TCPLayer(context, ignore=True)
            return
        ctx.master.addons.get("nextlayer").next_layer(nextlayer)
        take_over(nextlayer.layer)


def _warn_of_upstreams() -> None:
    """The reverse upstream gets the caller's own login; say so where that is not Anthropic."""
    for mode in map(ProxyMode.parse, ctx.options.mode):
        if isinstance(mode, ReverseMode) and mode.address[0] != ANTHROPIC_HOST:
            log.warning("%s: what no rule matches goes there with the caller's own login", mode.full_spec)


def _ports() -> Iterator[int]:
    """The ports that mitmproxy is told to listen on."""
    for mode in map(ProxyMode.parse, ctx.options.mode):
        if (port := mode.listen_port(ctx.options.listen_port)) is not None:
            yield port


def _ways_in() -> Iterator[str]:
    """How Claude Code gets to each listener, as a command of the shell."""
    for server in ctx.master.addons.get("proxyserver").servers:
        host, port, *_ = next(iter(server.listen_addrs), ("", 0))
        if not isinstance(server.mode, ReverseMode | RegularMode) or not port:
            continue
        if host in WILDCARDS:
            host = "127.0.0.1"
        host = f"[{host}]" if ":" in host else host
        url = f"http://{host}:{port}"
        variables = {"ANTHROPIC_BASE_URL": url}
        if isinstance(server.mode, RegularMode):
            ca = Path(ctx.options.confdir).expanduser() / "mitmproxy-ca-cert.pem"
            variables = {"HTTPS_PROXY": url, "NODE_EXTRA_CA_CERTS": str(ca)}
        if os.name == "nt":
            command = "".join(f'$env:{name}="{value}"; ' for name, value in variables.items())
        else:
            command = "".join(f"{name}={shlex.quote(value)} " for name, value in variables.items())
        yield f"point Claude Code here: {command}claude"


async def _go_on(what: str, watch: Callable[[], Awaitable[None]]) -> None:
    """Watch until cancelled: one that fails is told and starts again, and the others go on meanwhile."""
    while True:
        try:
            await watch()
        except Exception as fault:
            log.error("error in the watch of the %s: %s", what, place(fault))
            await asyncio.sleep(AGAIN)


def _is_set(option: str) -> bool:
    return ctx.options._options[option].value is not optmanager.unset


def _asked(nextlayer: NextLayer) -> tuple[str, int] | None:
    """Where a client of a forward proxy wants to have a tunnel to, or a TLS connection; None if neither."""
    context = nextlayer.context
    mode, address = context.client.proxy_mode, context.server.address
    if isinstance(mode, ReverseMode) or address is None:
        return None
    if isinstance(mode, RegularMode | UpstreamMode | Socks5Mode):
        return address
    data = nextlayer.data_client()
    if not starts_like_tls_record(data):
        return None
    with suppress(ValueError):
        if (hello := parse_client_hello(data)) is not None and hello.sni:
            return hello.sni, address[1]
    return address


house = House()
"""The one router of this process."""
