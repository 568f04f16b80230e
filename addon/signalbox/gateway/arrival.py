"""A request comes in: is it for us, whose is it, what of it may be shown."""

from ipaddress import ip_address

from mitmproxy import ctx, http
from mitmproxy.net.http.http1 import expected_http_body_size
from mitmproxy.proxy.mode_specs import ReverseMode

from signalbox.config.rules import ANTHROPIC_HOST, Rules
from signalbox.messages.paths import COUNT_TOKENS, MESSAGES, MODELS
from signalbox.pages.health import Listener
from signalbox.proxy import answers
from signalbox.proxy.requests import hide, to_headers
from signalbox.routing.credentials import Caller, Headers
from signalbox.routing.exchange import Exchange, Kind

ROUTED: dict[str, Kind] = {MESSAGES: "messages", COUNT_TOKENS: "count_tokens"}
OWN = {("GET", "/health"), ("HEAD", "/"), ("HEAD", "/api/hello")}

_LOCAL_NAMES = {"127.0.0.1", "::1", "localhost"}


def path(flow: http.HTTPFlow) -> str:
    """Without its query: Claude Code posts to `/v1/messages?beta=true`."""
    return flow.request.path.partition("?")[0]


def is_reverse(flow: http.HTTPFlow) -> bool:
    return isinstance(flow.client_conn.proxy_mode, ReverseMode)


def is_for_us(flow: http.HTTPFlow, rules: Rules) -> bool:
    """All that comes to a reverse listener; of a forward proxy's what goes to Anthropic, or to us."""
    if flow.is_replay:
        return False
    if is_reverse(flow):
        return True
    if _names_listener(flow):
        return (flow.request.method, path(flow)) in OWN
    return is_anthropic(flow.request.host, flow.request.port, rules)


def kind(flow: http.HTTPFlow, rules: Rules) -> Kind:
    if (flow.request.method, path(flow)) in OWN and (is_reverse(flow) or _names_listener(flow)):
        return "own"
    if flow.request.method == "POST" and rules.rules:
        return ROUTED.get(path(flow), "pipe")
    if flow.request.method == "GET" and path(flow) == MODELS and rules.rules and rules.lists_models:
        return "models"
    return "pipe"


def is_api(flow: http.HTTPFlow) -> bool:
    """Whether a path is one of those that a forward proxy routes (the contract, section 1)."""
    return is_reverse(flow) or path(flow) in (*ROUTED, MODELS)


def is_anthropic(host: str, port: int, rules: Rules) -> bool:
    """Whether "Anthropic itself" is there (the contract, section 5)."""
    name = host.lower().rstrip(".")
    known = ((p.url.host.lower(), p.url.port) for p in rules.providers.values() if p.is_anthropic)
    return name == ANTHROPIC_HOST or (name, port) in known


def _names_listener(flow: http.HTTPFlow) -> bool:
    host, port, *_ = flow.client_conn.sockname
    return flow.request.port == port and flow.request.host in {host, *_LOCAL_NAMES}


def came_from_upstream(flow: http.HTTPFlow) -> bool:
    """Whether the answer is a provider's, not one that the router or another add-on made."""
    return flow.server_conn.timestamp_start is not None


def is_trusted(flow: http.HTTPFlow, caller: Caller | None) -> bool:
    """Whether the caller may see more than the health page's status: from this machine, or with a secret."""
    has_secret = caller is not None and caller.client is not None
    return has_secret or is_loopback(flow.client_conn.peername[0])


def is_loopback(address: str) -> bool:
    ip = ip_address(address.partition("%")[0])
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def announced_size(flow: http.HTTPFlow) -> int:
    """Bytes that the body is said to have; 0 where that is not said."""
    try:
        return max(expected_http_body_size(flow.request) or 0, 0)
    except ValueError:
        return 0


def mask(flow: http.HTTPFlow, exchange: Exchange, headers: Headers) -> None:
    """Take the caller's secrets out of what is shown and saved, and a client's secret out altogether."""
    kept = exchange.caller.headers
    if kept != headers:
        flow.request.headers = to_headers(kept)
    hide(flow, exchange)


def refuse(flow: http.HTTPFlow, exchange: Exchange, response: http.Response) -> None:
    """Answer before the body is in; see `RouterStream`."""
    exchange.kind = "refused"
    flow.response = response


def no_secret(exchange: Exchange) -> http.Response:
    return answers.error(
        401, "This router asks for a client's secret, as x-api-key, Bearer or x-signalbox-client.", exchange
    )


def listeners() -> list[Listener]:
    """Where this process listens, as mitmproxy bound it; once for TCP and UDP."""
    servers = ctx.master.addons.get("proxyserver").servers
    bound = (
        Listener(host, port, server.mode.full_spec)
        for server in servers
        for host, port, *_ in server.listen_addrs
    )
    return list(dict.fromkeys(bound))
