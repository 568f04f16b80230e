"""What mitmweb and mitmproxy keep of finished flows, and what is stored of streamed answers.

mitmproxy keeps every flow for ever, and of a streamed body nothing or all. Here `inspect.keep` and
`inspect.bodies` bound both. mitmdump has no list of flows: only what goes into a file is stored there.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from mitmproxy import http
from mitmproxy.flow import Flow
from mitmproxy.master import Master

from signalbox.config.rules import Inspect
from signalbox.exchange import Exchange
from signalbox.inspect.annotations import METADATA, noted

UPDATE_EVERY = 1.0
"""Seconds between two updates of a flow whose answer is coming: mitmweb hashes its bodies at each."""
SETTLE_AFTER = 0.1
"""Seconds from the hook of a flow's end until it is over."""
LIVE_AGAIN = 1.0
"""Seconds until a flow is looked at again that is still live, such as one that was intercepted."""
FILES = ("store_streamed_bodies", "save_stream_file", "hardump")
"""Options of mitmproxy that want whole bodies."""


class Retention:
    """The bounds of one master."""

    def __init__(self, master: Master, settings: Callable[[], Inspect]) -> None:
        """`settings` gives those of the rules in force."""
        self._master = master
        self._settings = settings
        self._ended: list[http.HTTPFlow] = []
        """Those whose bodies are not bounded yet."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _view(self) -> Any:
        return self._master.addons.get("view")

    def store(self, flow: http.HTTPFlow, exchange: Exchange) -> "StoredAnswer | None":
        """Where the answer of this flow is stored on its way to the client; None where nothing shows it."""
        options, view = self._master.options, self._view
        is_saved = any(name in options and getattr(options, name) for name in FILES)
        if view is None and not is_saved:
            return None
        limit = None if is_saved else exchange.rules.inspect.bodies
        return StoredAnswer(flow, exchange, limit=limit, update=None if view is None else view.update)

    def ended(self, flow: http.HTTPFlow) -> None:
        """The flow is over, or will be in a moment."""
        if self._view is not None:
            self._ended.append(flow)
            self._settle_in(SETTLE_AFTER)

    def _settle_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._settle)

    def _settle(self) -> None:
        self._timer = None
        ended, self._ended = self._ended, []
        settings, view = self._settings(), self._view
        if view is None:
            return
        for flow in ended:
            if flow.live:
                self._ended.append(flow)
            elif cut(flow, settings.bodies):
                view.update([flow])
        for old in surplus(list(view._store.values()), settings.keep):
            view.remove([old])
        if self._ended:
            self._settle_in(LIVE_AGAIN)


def surplus(flows: list[Flow], keep: int) -> list[Flow]:
    """The flows beyond `keep`, oldest first. Live flows and those marked by hand stay and do not count."""
    if len(flows) <= keep:
        return []
    finished = [flow for flow in flows if not flow.live and not _is_marked_by_hand(flow)]
    return finished[: max(len(finished) - keep, 0)]


def _is_marked_by_hand(flow: Flow) -> bool:
    own = noted(flow).get("marker", "") if isinstance(flow, http.HTTPFlow) else ""
    return bool(flow.marked) and flow.marked != own


def cut(flow: http.HTTPFlow, limit: int) -> bool:
    """Bound both bodies to `limit` bytes, and note the length of what was cut. Says whether anything was."""
    lengths = {}
    for part, message in (("request", flow.request), ("response", flow.response)):
        content = message.data.content if message is not None else None
        if message is None or content is None or len(content) <= limit:
            continue
        lengths[f"{part}_length"] = len(content)
        if message.headers.pop("content-encoding", None) is not None:
            content = b""  # no part of it could be read
        message.data.content = content[:limit]
    _note(flow, lengths)
    return bool(lengths)


def _note(flow: http.HTTPFlow, lengths: dict[str, int]) -> None:
    """The key in the metadata also keeps mitmproxy from replaying a flow that is not whole."""
    if lengths:
        flow.metadata[METADATA] = {**noted(flow), **lengths}


class StoredAnswer:
    """What is shown and saved of an answer that is streamed to the client: its first `limit` bytes, less the
    credentials that its provider repeats. The flow shows it while it comes, at most once a second."""

    def __init__(
        self,
        flow: http.HTTPFlow,
        exchange: Exchange,
        *,
        limit: int | None,
        update: Callable[[list[Flow]], None] | None,
    ) -> None:
        self._flow = flow
        self._exchange = exchange
        self._limit = limit
        self._update = update
        self._body = bytearray()
        self._length = 0
        self._shown_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, data: bytes) -> None:
        self._length += len(data)
        self._body += data if self._limit is None else data[: max(self._limit - len(self._body), 0)]
        if self._update is not None and self._timer is None:
            wait = max(self._shown_at + UPDATE_EVERY - time.monotonic(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(wait, self._show)

    def _show(self) -> None:
        self._timer = None
        self._shown_at = time.monotonic()
        self._put()
        if self._update is not None:
            self._update([self._flow])

    def _put(self) -> None:
        response, body = self._flow.response, bytes(self._body)
        if response is not None:
            hides = self._exchange.rules.inspect.secrets == "mask"
            response.data.content = self._exchange.redact(body) if hides else body

    def close(self) -> None:
        """The answer is over, or cut."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._put()
        if self._length > len(self._body):
            _note(self._flow, {"response_length": self._length})
