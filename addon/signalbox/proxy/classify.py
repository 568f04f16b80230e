"""Classify a request: whether it is ours, of which kind, from whom, and what of it may be shown."""

from collections.abc import Callable

from mitmproxy import http
from mitmproxy.flow import Flow
from mitmproxy.net.http.http1 import expected_http_body_size
from mitmproxy.proxy.mode_specs import ReverseMode

from signalbox.anthropic.api import COUNT_TOKENS, MESSAGES, MODELS
from signalbox.config.rules import ANTHROPIC_HOST, Rules
from signalbox.exchange import Exchange, RequestKind
from signalbox.inspect.annotations import METADATA, noted
from signalbox.proxy import local_responses
from signalbox.proxy.headers import hide, to_headers
from signalbox.routing import browsers, local_pages
from signalbox.routing.credentials import (
    Headers,
    forwardable,
    is_masked,
    path_less_clients,
    path_without_masks,
)
from signalbox.routing.local_pages import LocalPage

ROUTED: dict[str, RequestKind] = {MESSAGES: "messages", COUNT_TOKENS: "count_tokens"}

LOOPBACK_ONLY = "Only this machine may connect while rules.yaml has no clients."

REPLAY_REFUSED = (
    "Can't replay a flow that shows masked credentials, or a part of its request: use the command"
    " signalbox.replay FLOW PROVIDER/MODEL, which sends the request with that provider's own."
)

_LOCAL_NAMES = {"127.0.0.1", "::1", "localhost"}


def path(flow: http.HTTPFlow) -> str:
    """Without its query: Claude Code posts to `/v1/messages?beta=true`."""
    return flow.request.path.partition("?")[0]


def is_reverse(flow: http.HTTPFlow) -> bool:
    return isinstance(flow.client_conn.proxy_mode, ReverseMode)


def local_page(flow: http.HTTPFlow) -> LocalPage | None:
    """The page of the router's own whose path this is; on a forward proxy it may be another server's."""
    return local_pages.page_at(flow.request.method, path(flow))


def is_for_us(flow: http.HTTPFlow, rules: Rules) -> bool:
    """All that comes to a reverse listener; of a forward proxy's what goes to Anthropic, or to us."""
    if flow.is_replay:
        return False
    if is_reverse(flow):
        return True
    if _names_listener(flow):
        return local_page(flow) is not None
    return is_anthropic(flow.request.host, flow.request.port, rules)


def is_refused_replay(flow: Flow) -> bool:
    """Whether what a flow shows cannot be sent again: its credentials are masked, also where it was loaded
    from a file that does not tell who handled it, or its body is cut."""
    if not isinstance(flow, http.HTTPFlow):
        return False
    values = noted(flow)
    is_ours = METADATA in flow.metadata and values.get("masked", True)
    headers, path = flow.request.headers.items(multi=True), flow.request.path
    is_masked_now = path_without_masks(path) != path or any(is_masked(*header) for header in headers)
    return bool(is_ours or "request_length" in values or is_masked_now)


def kind(flow: http.HTTPFlow, rules: Rules) -> RequestKind:
    if local_page(flow) is not None and (is_reverse(flow) or _names_listener(flow)):
        return "own"
    if flow.request.method == "POST" and (rules.rules or rules.fails_open):
        return ROUTED.get(path(flow), "pipe")
    if flow.request.method == "GET" and path(flow) == MODELS and rules.rules and rules.lists_models:
        return "models"
    return "pipe"


def is_api(flow: http.HTTPFlow) -> bool:
    """Whether a path is one of those that a forward proxy routes (the contract, section 1)."""
    return is_reverse(flow) or path(flow) in (*ROUTED, MODELS)


def is_shown(flow: http.HTTPFlow) -> bool:
    """Whether the bodies of a request that is not routed are shown and saved: those of the API are."""
    return path(flow) in (*ROUTED, MODELS)


def is_anthropic(host: str, port: int, rules: Rules) -> bool:
    """Whether "Anthropic itself" is there (the contract, section 5)."""
    name = host.lower().rstrip(".")
    known = ((p.url.host.lower(), p.url.port) for p in rules.providers.values() if p.is_anthropic)
    return name == ANTHROPIC_HOST or (name, port) in known


def _names_listener(flow: http.HTTPFlow) -> bool:
    host, port, *_ = flow.client_conn.sockname
    return flow.request.port == port and flow.request.host.lower().rstrip(".") in {host, *_LOCAL_NAMES}


def came_from_upstream(flow: http.HTTPFlow) -> bool:
    """Whether the answer is a provider's, not one that the router or another add-on made."""
    return flow.server_conn.timestamp_start is not None


def page_refusal(
    flow: http.HTTPFlow, exchange: Exchange, headers: Headers, host: str | None, *, any_host: bool
) -> str | None:
    """Why a request, which came with `headers`, is refused as one that a web page sent or may have sent.

    `any_host`: its peer is another machine that the user lets in without a secret, which may know this one
    by any name; but a page there must still be one of the router's own, and those that show what is recorded
    are asked for by a name of `ui.hosts`.
    """
    page = local_page(flow) if exchange.kind == "own" else None
    is_page = page not in (None, "hello")
    if not is_page and (exchange.rules.clients or (exchange.kind != "own" and not is_api(flow))):
        return None
    if browsers.is_preflight(flow.request.method, headers):
        return "it asks whether a page of another origin may send one"
    known = exchange.rules.ui.hosts
    if not is_reverse(flow) and exchange.kind != "own":
        asked = f"{flow.request.pretty_host}:{flow.request.port}"
        return browsers.cross_site_refusal(headers, asked, known, by_site=False)
    refused = browsers.cross_site_refusal(headers, host, known, by_site=True)
    any_host = any_host and page in (None, "hello", "health")
    if refused is None and (not any_host or browsers.is_of_a_page(headers)):
        refused = browsers.host_refusal(host, known, flow.client_conn.sockname[0])
    return refused


def drop_foreign_headers(flow: http.HTTPFlow, exchange: Exchange) -> None:
    """Take out of an answer what tells a browser that pages of other origins may read it."""
    assert flow.response is not None
    if exchange.kind != "pipe" or is_api(flow):
        for name in {name for name in flow.response.headers if name.lower().startswith("access-control-")}:
            del flow.response.headers[name]


def announced_size(flow: http.HTTPFlow) -> int:
    """Bytes that the body is said to have; 0 where that is not said."""
    try:
        return max(expected_http_body_size(flow.request) or 0, 0)
    except ValueError:
        return 0


def request_has_body(flow: http.HTTPFlow) -> bool:
    return announced_size(flow) > 0 or "transfer-encoding" in flow.request.headers


def mask(flow: http.HTTPFlow, exchange: Exchange, headers: Headers) -> None:
    """Take the caller's secrets out of what is shown and saved, and what is for this router alone out of the
    request."""
    _keep(flow.request, headers, exchange.caller.headers, exchange.rules)
    hide(flow, exchange)


def let_pass(request: http.Request, rules: Rules) -> None:
    """A request that is not routed goes on as it came, less what is for this router alone."""
    headers = tuple(request.headers.items(multi=True))
    _keep(request, headers, forwardable(headers, rules.clients), rules)


def _keep(request: http.Request, came: Headers, kept: Headers, rules: Rules) -> None:
    """Leave of the headers that `came` those that are `kept`, and of the query what is no client's secret."""
    if kept != came:
        request.headers = to_headers(kept)
    if (path := path_less_clients(request.path, rules.clients)) != request.path:
        request.path = path


def refuse(flow: http.HTTPFlow, exchange: Exchange, answer: Callable[[Exchange], http.Response]) -> None:
    """Answer before the body is in (see `RoutedStream`), and say nothing of how it would be routed."""
    exchange.refuse()
    flow.response = answer(exchange)


def no_secret(exchange: Exchange) -> http.Response:
    return local_responses.error(
        401, "This router asks for a client's secret, as x-api-key, Bearer or x-signalbox-client.", exchange
    )
