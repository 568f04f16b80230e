"""What mitmweb and mitmproxy keep of finished flows, and what is stored of streamed answers.

mitmproxy keeps every flow for ever, and of a streamed body nothing or all. Here `inspect.keep` and
`inspect.bodies` bound both. mitmdump has no list of flows: only what goes into a file is stored there.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary, WeakSet

from mitmproxy import http
from mitmproxy.flow import Flow
from mitmproxy.master import Master

from signalbox.anthropic.encoding import ContentDecoder, EncodingError, known, names
from signalbox.config.rules import Inspect
from signalbox.exchange import Exchange, HiddenBody
from signalbox.inspect.annotations import METADATA, annotate_attempt, noted
from signalbox.inspect.masking import MOST_DECODED, MaskedBody, masked, shown_secrets
from signalbox.inspect.recorded import REQUEST, kept_request
from signalbox.routing.work import Work

UPDATE_EVERY = 1.0
"""Seconds between two updates of a flow whose answer is coming: mitmweb hashes its bodies at each."""
SETTLE_AFTER = 0.1
"""Seconds from the hook of a flow's end until it is over."""
LIVE_AGAIN = 1.0
"""Seconds until a flow is looked at again that is still live, such as one that was intercepted."""
FILES = ("store_streamed_bodies", "save_stream_file", "hardump")
"""Options of mitmproxy that want whole bodies."""

type Part = Literal["request", "response"]
type Stream = Callable[[bytes], bytes] | bool
"""How a body passes, for `Message.stream`."""


class Retention:
    """The bounds of one master."""

    def __init__(self, master: Master, settings: Callable[[], Inspect]) -> None:
        """`settings` gives those of the rules in force."""
        self._master = master
        self._settings = settings
        self._ended: list[http.HTTPFlow] = []
        """Those whose bodies are not bounded yet."""
        self._dropped: WeakSet[http.HTTPFlow] = WeakSet()
        """Those that do not stay."""
        self._passing: WeakKeyDictionary[http.HTTPFlow, list[StoredBody]] = WeakKeyDictionary()
        """Bodies under way of requests that are not routed."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _view(self) -> Any:
        return self._master.addons.get("view")

    def flows(self) -> list[Flow]:
        """Those that are shown, in the order of their beginnings; none in mitmdump."""
        return list(self._view._store.values()) if self._view is not None else []

    @property
    def shows(self) -> bool:
        """Whether a person or a file gets to see flows. Asked once a request: options are slow to read."""
        return self._view is not None or self._saves

    @property
    def _saves(self) -> bool:
        options = self._master.options
        return any(name in options and bool(getattr(options, name)) for name in FILES)

    def show_attempt(self, flow: http.HTTPFlow, exchange: Exchange) -> Work[None]:
        """The flow's request is that of the attempt under way: note what is known of it, and the client's
        request, and show its body without credentials. The exchange keeps the real one for the moment of
        sending."""
        annotate_attempt(flow, exchange)
        exchange.hidden_body = None
        if not exchange.is_shown:
            return
        secrets = shown_secrets(exchange)
        if REQUEST not in flow.metadata and (kept := (yield partial(kept_request, exchange, secrets))):
            flow.metadata[REQUEST] = kept
        sent, encoding = flow.request.data.content or b"", flow.request.headers.get("content-encoding", "")
        shown: bytes = yield partial(masked, sent, secrets, encoding)
        if shown != sent:
            exchange.hidden_body = HiddenBody(shown, sent, encoding)
            flow.request.data.content = shown
            flow.request.headers.pop("content-encoding", None)

    def show_failed(self, flow: http.HTTPFlow, exchange: Exchange, body: bytes) -> None:
        """`body` is what came, decoded, of the answer of an attempt that has failed."""
        assert flow.response is not None
        flow.response.headers.pop("content-encoding", None)
        flow.response.data.content = masked(body, shown_secrets(exchange)) if exchange.is_shown else b""

    def store(self, flow: http.HTTPFlow, exchange: Exchange, part: Part = "response") -> "StoredBody | None":
        """Where this body of the flow is stored on its way; None where nothing shows it."""
        if not exchange.is_shown:
            return None
        limit = None if self._saves else exchange.rules.inspect.bodies
        view = self._view
        update = view.update if view is not None and part == "response" else None
        return StoredBody(flow, part, shown_secrets(exchange), limit=limit, update=update)

    def pass_on(self, flow: http.HTTPFlow, exchange: Exchange, part: Part) -> "Stream":
        """What a streamed body that is not routed goes through, for `Message.stream`."""
        stored = self.store(flow, exchange, part)
        if stored is None:
            return True
        self._passing.setdefault(flow, []).append(stored)
        return stored.passed

    def ended(self, flow: http.HTTPFlow, *, keep: bool = True) -> None:
        """The flow is over, or will be in a moment; `keep`: it stays among those that are shown."""
        for stored in self._passing.pop(flow, ()):
            stored.close()
        if self._view is not None:
            self._ended.append(flow)
            if not keep:
                self._dropped.add(flow)
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
            elif flow in self._dropped and not flow.marked:
                view.remove([flow])
            elif cut(flow, settings.bodies):
                view.update([flow])
        for old in surplus(self.flows(), settings.keep):
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


class StoredBody:
    """What is shown and saved of a body on its way: its first `limit` bytes, without credentials. A flow
    shows it while it comes, at most once a second."""

    def __init__(
        self,
        flow: http.HTTPFlow,
        part: Part,
        secrets: list[str],
        *,
        limit: int | None,
        update: Callable[[list[Flow]], None] | None,
    ) -> None:
        self._flow = flow
        self._part = part
        self._limit = MOST_DECODED if limit is None else limit
        self._update = update
        self._body = MaskedBody(secrets)
        self._taken = 0
        """Bytes stored, decoded where they are."""
        self._length = 0
        """Bytes that came."""
        self._is_cut = False
        self._decoder = _decoder(self._message) if secrets else None
        self._shown_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _message(self) -> http.Message | None:
        return self._flow.request if self._part == "request" else self._flow.response

    def passed(self, data: bytes) -> bytes:
        """As mitmproxy calls a stream: gives what it is given."""
        if data:
            self.add(data)
        return data

    def add(self, data: bytes) -> None:
        self._length += len(data)
        try:
            for piece in (data,) if self._decoder is None else self._decoder.pieces(data):
                room = self._limit - self._taken
                self._is_cut = self._is_cut or len(piece) > room
                if room <= 0:
                    break
                self._taken += len(piece)
                self._body.add(piece[:room])
        except EncodingError:  # what came before is shown
            self._is_cut, self._limit = True, 0
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
        if (message := self._message) is not None:
            message.data.content = self._body.shown()
            if self._decoder is not None:
                message.headers.pop("content-encoding", None)

    def close(self) -> None:
        """The body is over, or cut."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._put()
        if self._is_cut:
            _note(self._flow, {f"{self._part}_length": self._length})


def _decoder(message: http.Message | None) -> ContentDecoder | None:
    """For a body that is compressed, in a way that is known."""
    encoding = message.headers.get("content-encoding", "") if message is not None else ""
    return ContentDecoder(encoding) if names(encoding) and known(encoding) else None
