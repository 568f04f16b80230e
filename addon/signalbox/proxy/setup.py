"""What is done to a mitmproxy master: options, listeners, the guard, and our layers in place of its own."""

import atexit
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mitmproxy import optmanager
from mitmproxy.addonmanager import AddonManager
from mitmproxy.connection import Client, Server
from mitmproxy.flow import Flow
from mitmproxy.log import MitmFormatter
from mitmproxy.master import Master
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer, NextLayer
from mitmproxy.proxy.layers import TCPLayer
from mitmproxy.proxy.layers.tls import parse_client_hello
from mitmproxy.proxy.mode_specs import ProxyMode, RegularMode, ReverseMode, Socks5Mode, UpstreamMode

from signalbox import ports
from signalbox.config.document import nearest
from signalbox.config.fields import Url
from signalbox.config.rules import ANTHROPIC_HOST, Rules
from signalbox.exchange import Exchange
from signalbox.inspect import views
from signalbox.ports import url_of
from signalbox.proxy import connections, outbound
from signalbox.proxy.classify import LOOPBACK_ONLY, REPLAY_REFUSED, is_anthropic, is_refused_replay
from signalbox.proxy.hook_dispatch import install as install_hook_dispatch
from signalbox.proxy.layer import take_over
from signalbox.proxy.reload_guard import ReloadGuard
from signalbox.record import console
from signalbox.record.entry import milliseconds
from signalbox.routing.browsers import is_loopback

if TYPE_CHECKING:
    from mitmproxy.proxy.mode_servers import ServerInstance

    from signalbox.app import App

log = logging.getLogger("signalbox")

DEFAULTS = {"connection_strategy": "lazy", "flow_detail": 0}
"""Options set unless the user has set them: no upstream is connected to before a rule says so, and the
console has one line a request, ours."""
KEYS = {
    "T": ("console.command signalbox.replay @focus ", "Replay to another target"),
    "Y": ("signalbox.explain @focus", "Explain by the rules"),
}
"""By key of mitmproxy's console, a command and what its help says; neither is one of mitmproxy's own."""
FLOW_VIEWS = ("flowlist", "flowview")
OPTIONS = ("router_rules", "router_state")
STARTING = "The router is starting."

_FILTERS = ("dumper_filter", "view_filter", "readfile_filter")


class Listener(NamedTuple):
    host: str
    port: int
    mode: str


# once for each master


def installed_app(master: Master) -> "App | None":
    guard = master.addons.get(ReloadGuard.name)
    return guard.app if guard is not None else None


def install(app: "App") -> None:
    """Prepare a master for the router when `router.py` is loaded for the first time."""
    master = app.master
    master.addons.register(app.guard)
    master.addons.chain.insert(0, app.guard)
    if not app.is_plain:
        install_hook_dispatch(master.addons)
    refuse_replays(master.addons)
    views.register()
    bind_keys(master)
    for name, value in DEFAULTS.items():
        if name in master.options and not _is_set(master.options, name):
            master.options.update(**{name: value})
    if (termlog := master.addons.get("termlog")) is not None:
        console.setup("info")
        termlog.logger.addFilter(console.NotOurs())
        if os.environ.get("NO_COLOR"):
            termlog.logger.formatter = MitmFormatter(colorize=False)
    for name in ("mitmproxy.proxy.server", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for line in option_errors(master.options):
        log.error("%s", line)


def bind_keys(master: Master) -> None:
    """Keys for our commands in mitmproxy's console, where the user has not bound them to something else."""
    keymap = getattr(master, "keymap", None)
    if keymap is None:
        return
    for key, (command, help) in KEYS.items():
        contexts = [context for context in FLOW_VIEWS if keymap.get(context, key) is None]
        if contexts:
            keymap.add(key, command, contexts, help)


def exit_at_once_after_failed_start(master: Master) -> None:
    """Skip the interpreter's clean-up where mitmproxy ends itself during the start, because of errors that it
    was told: its listeners and native threads are still alive then, and about one process in ten crashes with
    a segmentation fault instead of status 1."""

    def end() -> None:
        errors = master.addons.get("errorcheck")
        if errors is not None and errors.logger.has_errored:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

    atexit.register(end)


def user_block_private(master: Master) -> bool | None:
    """What the user set `block_private` to; None where it was left alone."""
    return master.options.block_private if _is_set(master.options, "block_private") else None


def _is_set(options: Options, name: str) -> bool:
    return options._options[name].value is not optmanager.unset


# options


def option_errors(options: Options) -> Iterator[str]:
    """One line for each fault in what mitmproxy was started with; any of them should end the start.

    mitmproxy itself keeps an unknown option without a word, and takes any argument that is no option for a
    filter of flows.
    """
    yield from _misspelt(options)
    words = {word for name in _FILTERS if name in options for word in (getattr(options, name) or "").split()}
    for word in sorted(words):
        if word.lower().endswith((".yaml", ".yml")):
            yield f"{word} would be a filter of flows here: write --set router_rules={word}"
    if "web_port" in options and options.web_port and not ports.is_free(options.web_port, options.web_host):
        yield f"{ports.taken(options.web_port)}: end that, or take another with --web-port"
    yield from _taken_ports(options)


def _misspelt(options: Options) -> Iterator[str]:
    for name, value in options.deferred.items():
        if name in OPTIONS and len(getattr(value, "val", ())) > 1:
            yield f"--set {name} is given {len(value.val)} times"
        elif name not in OPTIONS and (meant := nearest(name, OPTIONS) or ("rules" in name and OPTIONS[0])):
            yield f"--set {name}: there is no such option, did you mean {meant}?"


def _taken_ports(options: Options) -> Iterator[str]:
    """A line for each port to listen on that another process has. To look for that is slow, and mitmproxy may
    have bound the port already."""
    for mode in map(ProxyMode.parse, options.mode):
        host, port = mode.listen_host(options.listen_host), mode.listen_port(options.listen_port)
        if port is None or ports.is_free(port, host) or ports.is_own(port):
            continue
        if (owner := ports.owner(port)) is not None and owner.pid != os.getpid():
            yield f"{ports.taken(port)}: end that, or take another in --mode"


def warn_of_upstreams(master: Master) -> None:
    """The reverse upstream gets the caller's own login; log where that is not Anthropic."""
    for mode in map(ProxyMode.parse, master.options.mode):
        if isinstance(mode, ReverseMode) and mode.address[0] != ANTHROPIC_HOST:
            log.warning("%s: what no rule matches goes there with the caller's own login", mode.full_spec)


# listeners


def listeners(master: Master) -> list[Listener]:
    """Where this process listens, as mitmproxy bound it; once for TCP and UDP."""
    bound = (
        Listener(host, port, server.mode.full_spec)
        for server in master.addons.get("proxyserver").servers
        for host, port in _addresses(server)
    )
    return list(dict.fromkeys(bound))


def leads_back(master: Master, connection: Server) -> bool:
    """Whether an open connection leads to one of the process's own listeners, under whatever name it was
    asked for. mitmproxy refuses some names before it connects; by others a request would go round."""
    if connection.peername is None or connection.sockname is None:
        return False
    host, port, *_ = connection.peername
    if host != connection.sockname[0] and not is_loopback(host):
        return False
    return any(one.port == port and one.host in (host, *ports.ALL_ADDRESSES) for one in listeners(master))


def _addresses(server: "ServerInstance[Any]") -> list[tuple[str, int]]:
    """Those that it listens on, of IPv4 first: a listener on all addresses has both, in an order of the
    system's."""
    return sorted(((host, port) for host, port, *_ in server.listen_addrs), key=lambda one: ":" in one[0])


def flow_links(master: Master, exchanges: Mapping[Any, Exchange]) -> dict[tuple[str, int], str]:
    """By id and moment of a request, as the ledger has both, the address of its flow in mitmweb; empty
    elsewhere. Some providers give the same id to several."""
    options = master.options
    if "web_port" not in options or master.addons.get("view") is None:
        return {}
    start = f"{url_of(options.web_host, options.web_port)}/#/flows/"
    return {
        (exchange.request_id, milliseconds(exchange.ts)): f"{start}{flow.id}/request"
        for flow, exchange in exchanges.items()
        if exchange.is_messages_request
    }


def base_url(master: Master) -> str | None:
    """Of the first listener that stands for Anthropic; None where this is a forward proxy."""
    bound = {listener.mode: listener for listener in reversed(listeners(master))}
    modes = (mode for mode in map(ProxyMode.parse, master.options.mode) if isinstance(mode, ReverseMode))
    listener = next((bound[mode.full_spec] for mode in modes if mode.full_spec in bound), None)
    return url_of(listener.host, listener.port) if listener else None


def client_commands(master: Master) -> Iterator[str]:
    """How Claude Code gets to each listener, as a command of the shell."""
    for server in master.addons.get("proxyserver").servers:
        addresses = _addresses(server)
        if not isinstance(server.mode, ReverseMode | RegularMode) or not addresses:
            continue
        url = url_of(*addresses[0])
        variables = {"ANTHROPIC_BASE_URL": url}
        if isinstance(server.mode, RegularMode):
            ca = Path(master.options.confdir).expanduser() / "mitmproxy-ca-cert.pem"
            variables = {"HTTPS_PROXY": url, "NODE_EXTRA_CA_CERTS": str(ca)}
        if os.name == "nt":
            command = "".join(f'$env:{name}="{value}"; ' for name, value in variables.items())
        else:
            command = "".join(f"{name}={shlex.quote(value)} " for name, value in variables.items())
        yield f"point Claude Code here: {command}claude"


# replays


def refuse_replays(manager: AddonManager) -> None:
    """Have mitmproxy refuse to replay flows that the router has handled, before it empties them.

    Replays come from mitmweb, from commands and from files; all pass `check` of its add-on `clientplayback`.
    """
    playback: Any = manager.get("clientplayback")
    if playback is None:
        return
    check: Callable[[Flow], str | None] = playback.check
    playback.check = lambda flow: REPLAY_REFUSED if is_refused_replay(flow) else check(flow)


# connections


def client_connected(app: "App", client: Client) -> None:
    """Use our connection handler, and refuse peers that may not connect."""
    connections.adopt_handler(app.master, client, None if app.is_plain else app.reading)
    if not app.is_running:
        client.error = STARTING
    elif not app.admits(client.peername[0]):
        client.error = LOOPBACK_ONLY
        log.warning("connection from %s refused: %s", client.peername[0], LOOPBACK_ONLY)


def next_layer(app: "App", nextlayer: NextLayer) -> None:
    """mitmproxy decides on the protocol; where that is HTTP, the layer becomes ours. Tunnels to other hosts
    than Anthropic's are passed undecrypted."""
    wanted = _tunnel_address(nextlayer)
    if wanted is not None and not is_anthropic(*wanted, app.rules):
        nextlayer.layer = undecrypted(nextlayer.context, app.rules)
        return
    app.master.addons.get("nextlayer").next_layer(nextlayer)
    take_over(nextlayer.layer, app)


def undecrypted(context: Context, rules: Rules) -> Layer:
    """A tunnel whose bytes pass as they are, by way of the environment's proxy, if there is one. In mode
    `upstream` mitmproxy has made the way already."""
    assert context.server.address is not None
    host, port = context.server.address[:2]
    tunnel = TCPLayer(context, ignore=True)
    proxy = rules.outbound.to(Url("https", host, port))
    if proxy is None or isinstance(context.client.proxy_mode, UpstreamMode):
        return tunnel
    return outbound.through(proxy, context, tunnel)


def _tunnel_address(nextlayer: NextLayer) -> tuple[str, int] | None:
    """Where a forward proxy's client wants a tunnel or a TLS connection to; None if neither."""
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
