"""Replay: a recorded request once more, as a flow of its own, to a target of one's choice.

The client's request goes the way of every request, through our own layer and stream: it is prepared for the
target with that provider's credentials, translated, recorded and shown. Its client wants no answer.
"""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mitmproxy import http
from mitmproxy.addons.clientplayback import ReplayHandler
from mitmproxy.connection import Server
from mitmproxy.proxy import events
from msgspec.structs import replace

from signalbox.anthropic.json_edit import Body, BodyError
from signalbox.config.document import unknown
from signalbox.config.rules import Failover, Match, Provider, Rule, Rules, Target, parse_target
from signalbox.inspect.explain import RecordedRequest
from signalbox.proxy.headers import to_headers
from signalbox.proxy.layer import take_over
from signalbox.routing.credentials import is_mask, is_secret, path_without_masks
from signalbox.routing.facts import SESSION_HEADER

if TYPE_CHECKING:
    from signalbox.app import App

LABEL = "replay"
"""The rule's, in the record and in the flow."""
FRAMING = ("content-encoding", "content-length", "transfer-encoding", "connection", "expect")
"""Headers of how the client sent the body, which is kept decoded."""


class NotReplayable(ValueError):
    """A recorded request cannot be sent to this target. Its text says why, for people."""


@dataclass(eq=False)
class Replay:
    """One that is under way."""

    rules: Rules
    """Those in force, with one rule: all goes to the target, and nothing follows it."""
    client: str | None
    """The configured client that sent the request at first."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the answer is over and recorded."""


def rules_for(rules: Rules, written: str) -> Rules:
    """The rules by which all goes to this target, `provider/model` or `provider`. Raises NotReplayable."""
    try:
        to = parse_target(written)
    except ValueError:
        raise NotReplayable(f'write the target as provider/model, not "{written}"') from None
    if to.provider not in rules.providers:
        raise NotReplayable(unknown("provider", to.provider, rules.providers))
    _check(rules.providers[to.provider])
    rule = Rule(LABEL, Match(), ((Target(to.provider, to.model),),), None, Failover(on=frozenset()), 0)
    return replace(rules, rules=(rule,))


def _check(provider: Provider) -> None:
    if provider.auth == "client":
        raise NotReplayable(
            f"{provider.name} is asked with its caller's own login (auth: client), which is not kept:"
            " choose a provider with a key or login of its own"
        )
    if provider.unavailable:
        raise NotReplayable(f"{provider.name} is unavailable: {provider.unavailable}")


def new_flow(recorded: http.HTTPFlow, request: RecordedRequest) -> http.HTTPFlow:
    """A flow that asks what `request` asks. It is a session of its own: what that has in a provider's cache,
    and what it cost, stays apart. Raises NotReplayable for a request that no rule can match: it would go to
    the reverse upstream."""
    if not _model(request):
        raise NotReplayable("The request names no model or cannot be read: no target would get it")
    flow = http.HTTPFlow(recorded.client_conn.copy(), Server(address=None))
    headers = [
        (name, value)
        for name, value in request.headers
        if not (is_secret(name, value) or is_mask(value)) and name.lower() not in (*FRAMING, SESSION_HEADER)
    ]
    session = (SESSION_HEADER, f"{LABEL}-{flow.id}")
    flow.request = http.Request(
        host=recorded.request.host,
        port=recorded.request.port,
        method=b"POST",
        scheme=b"http",
        authority=b"",
        path=path_without_masks(request.path).encode(),
        http_version=b"HTTP/1.1",
        headers=to_headers([*headers, session, ("content-length", str(len(request.body)))]),
        content=request.body,
        trailers=None,
        timestamp_start=time.time(),
        timestamp_end=time.time(),
    )
    flow.is_replay = "request"
    return flow


def _model(request: RecordedRequest) -> str | None:
    try:
        return Body.parse(request.body).get("model", str)
    except BodyError:
        return None


class _Connection(ReplayHandler):
    """To a client that is not there."""

    def __init__(self, flow: http.HTTPFlow, app: "App") -> None:
        super().__init__(flow, app.master.options)
        take_over(self.layer, app)

    def log(self, message: str, level: int = logging.INFO, exc_info: Any = None) -> None:
        """mitmproxy tells of each connection here that it does not tell of elsewhere."""
        if level > logging.INFO:
            super().log(message, level, exc_info)


async def send(app: "App", flow: http.HTTPFlow, replay: Replay) -> None:
    """Send the flow's request, and return when its answer is over."""
    app.replays[flow] = replay
    handler = _Connection(flow, app)
    connections = app.master.addons.get("proxyserver").connections
    connections[handler.client.id] = handler  # where `UpstreamCall` finds transports
    try:
        await handler.server_event(events.Start())
        await replay.ended.wait()
    finally:
        connections.pop(handler.client.id, None)
        tasks = [one.handler for one in handler.transports.values() if one.handler is not None]
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
