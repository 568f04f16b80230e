"""What mitmweb and mitmproxy keep of finished flows, and what is stored of streamed answers.

mitmproxy keeps every flow for ever, and of a streamed body nothing or all. Here `inspect.keep` and
`inspect.bodies` bound both. mitmdump has no list of flows: only what goes into a file is stored there.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary, WeakSet

from mitmproxy import http
from mitmproxy.flow import Flow
from mitmproxy.master import Master

from signalbox.anthropic.encoding import ContentDecoder, EncodingError, known, names
from signalbox.config.rules import Inspect
from signalbox.errors import log_error
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
MASKED_AT_ONCE = 4 * 1024 * 1024
"""Bytes of the longest body that is masked on the event loop."""
PRINTED = 3
"""The least `flow_detail` with which mitmdump prints bodies."""
FILES = ("store_streamed_bodies", "save_stream_file", "hardump")
"""Options of mitmproxy that want whole bodies."""
WRITER = "save"
"""mitmproxy's add-on that writes flows to a file, at the hooks of their ends. Files in the HAR format have no
metadata, by which a failed attempt could be told from a request: they hold the last attempts only."""

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
        self._failed: WeakKeyDictionary[http.HTTPFlow, list[http.HTTPFlow]] = WeakKeyDictionary()
        """Of requests under way, the flows of attempts that failed."""
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
        return self._view is not None or self._saves or self._prints

    @property
    def _prints(self) -> bool:
        options = self._master.options
        return "flow_detail" in options and options.flow_detail >= PRINTED

    @property
    def _saves(self) -> bool:
        options = self._master.options
        return any(name in options and bool(getattr(options, name)) for name in FILES)

    def show_attempt(self, flow: http.HTTPFlow, exchange: Exchange) -> Work[None]:
        """The flow's request is that of the attempt under way: note what is known of it, and the client's
        request, and show its body without credentials. The exchange keeps the real one for the moment of
        sending."""
        annotate_attempt(flow, exchange)
        exchange.hidden_body = exchange.shown_body = None
        if not exchange.is_shown:
            return
        secrets = shown_secrets(exchange)
        if REQUEST not in flow.metadata and (kept := (yield partial(kept_request, exchange, secrets))):
            flow.metadata[REQUEST] = kept
        sent, encoding = flow.request.data.content or b"", flow.request.headers.get("content-encoding", "")
        shown: bytes = yield partial(masked, sent, secrets, encoding)
        _put_masked(flow, exchange, shown)

    def mask_rest(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """The flow is passed on without being routed, or is over: mask its request's body where
        `show_attempt` did not come to that. Of one that would take long nothing is shown."""
        content = flow.request.data.content
        if not exchange.is_shown or not content or content is exchange.shown_body:
            return
        shown = b""
        try:
            secrets = shown_secrets(exchange)
            if not secrets or len(content) <= MASKED_AT_ONCE:
                shown = masked(content, secrets, flow.request.headers.get("content-encoding", ""))
        except Exception as error:
            log_error("the masking of a request", error)
        _put_masked(flow, exchange, shown)

    def mask_passing(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """A body that is not routed is whole, and mitmproxy may have stored it as it came."""
        options = self._master.options
        if "store_streamed_bodies" not in options or not options.store_streamed_bodies:
            return
        for stored in (passing := self._passing.get(flow, [])):
            stored.put()
        if not passing and exchange.rules.inspect.secrets == "mask":  # of another API: it may be a login
            for message in filter(None, (flow.request, flow.response)):
                if message.stream:
                    message.data.content = None

    def show_failed(self, flow: http.HTTPFlow, exchange: Exchange, body: bytes) -> None:
        """`body` is what came, decoded, of the answer of an attempt that has failed."""
        assert flow.response is not None
        flow.response.headers.pop("content-encoding", None)
        flow.response.data.content = masked(body, shown_secrets(exchange)) if exchange.is_shown else b""

    @property
    def holds_attempts(self) -> bool:
        """Whether each failed attempt becomes a flow of its own."""
        options = self._master.options
        return self._view is not None or ("save_stream_file" in options and bool(options.save_stream_file))

    def add_failed(self, flow: http.HTTPFlow, failed: http.HTTPFlow) -> None:
        """`failed` is a copy of `flow` that shows an attempt that failed. It is shown now; when its request
        is over it is written to files, before that, and its bodies are bounded."""
        self._failed.setdefault(flow, []).append(failed)
        if (view := self._view) is not None:
            view.add([failed])

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
        for failed in self._failed.pop(flow, ()):
            self._write(failed)
            self.ended(failed)
        if self._view is not None:
            self._ended.append(flow)
            if not keep:
                self._dropped.add(flow)
            self._settle_in(SETTLE_AFTER)

    def close(self) -> None:
        """The process ends: write the failed attempts of the requests under way."""
        for failed in self._failed.values():
            for flow in failed:
                self._write(flow)
        self._failed.clear()

    def _write(self, flow: http.HTTPFlow) -> None:
        """Of a flow that meets no hooks of mitmproxy's: to the file that the user wants."""
        if (writer := self._master.addons.get(WRITER)) is not None:
            writer.response(flow)

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


def _put_masked(flow: http.HTTPFlow, exchange: Exchange, shown: bytes) -> None:
    """Show this of the request's body. The exchange keeps the real one."""
    sent = flow.request.data.content or b""
    if shown != sent:
        encoding = flow.request.headers.pop("content-encoding", "")
        exchange.hidden_body = HiddenBody(shown, sent, encoding)
        flow.request.data.content = shown
        if not shown:
            _note(flow, {"request_length": len(sent)})
    exchange.shown_body = flow.request.data.content


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
        secrets: Collection[str],
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
        encoding = self._message.headers.get("content-encoding", "") if self._message is not None else ""
        self._decoder = ContentDecoder(encoding) if secrets and names(encoding) and known(encoding) else None
        if secrets and not known(encoding):  # it may hold a secret, and cannot be decoded
            self._is_cut, self._limit = True, 0
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
        self.put()
        if self._update is not None:
            self._update([self._flow])

    def put(self) -> None:
        """Show what has come. What did not come this way was set by another add-on."""
        message = self._message
        if message is not None and (self._length or message.data.content is None):
            message.data.content = self._body.shown()
            if self._decoder is not None:
                message.headers.pop("content-encoding", None)

    def close(self) -> None:
        """The body is over, or cut."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.put()
        if self._is_cut:
            _note(self._flow, {f"{self._part}_length": self._length})
