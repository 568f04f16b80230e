"""What reads one answer on its way to the client: usage on the side, and the few things that may change."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Literal

import msgspec

from .api import NAMES, Usage
from .encoding import Decoder, EncodingError, known, names
from .errors import as_prompt_too_long, error_in, read_error
from .issued import MARK, ThinkingDigester
from .json_edit import Body, BodyError
from .sse import Event, Splitter, parse_event

WHOLE_LIMIT = 16 * 1024 * 1024
"""Bytes of a JSON answer that are kept to be read at its end; a larger one passes unread."""

_START_LIMIT = 1024 * 1024
"""Bytes that may wait for a first event to be complete."""

_TELLING = re.compile(rb'"usage"|message_(?:start|delta|stop)|error|%b' % MARK)
_NAMES = frozenset({"message_start", "message_delta", "message_stop", "error"})
_BEGINS = frozenset({"content_block_delta", "message_delta"})


class Reader:
    """Feed it the answer's bytes as they come, then call `end`; neither raises.

    `echo_model` is the name that the client asked for: the answer's `model` becomes it. `estimate` gives
    what is shown as the input tokens of a `message_start` that reports none, and is asked only then. With
    `reword` an error event before anything of the answer, which says that the prompt is too long, says it in
    the words on which Claude Code compacts. With none of them `feed` returns what it is given. With one a
    compressed answer is decoded (`decodes`: its content-encoding no longer holds), a stream waits until its
    first events are complete, and a JSON answer waits for `end`. With a `key` it is read whose thinking the
    answer holds.
    """

    def __init__(
        self,
        content_type: str,
        content_encoding: str = "",
        *,
        echo_model: str | None = None,
        estimate: Callable[[], int] | None = None,
        reword: bool = False,
        decode: bool = False,
        key: bytes | None = None,
    ) -> None:
        self.usage = Usage()
        self.model: str | None = None
        """As the provider said."""
        self.message_id: str | None = None
        self.stop_reason: str | None = None
        self.error: tuple[str, str] | None = None
        """Type and message of an `event: error` or of a JSON error body."""
        self.foreign = ""
        """Why it is nothing that a client of Anthropic's could read, for people: another protocol, or an
        error of another shape. Then there is an `error`."""
        self.complete = False
        """Whether `message_stop` or a whole JSON answer was seen."""
        self.size = 0
        """Decoded bytes that were read."""
        self.events = 0
        self.began = False
        """Whether there is something of the answer itself: a tool's start, a delta, a whole message."""
        self.fault = ""
        """Why the answer could not be read, without anything of it."""
        self.broken = False
        """What is left cannot be decoded for the client: nothing more comes, the connection is to be cut."""

        self._trace = None if key is None else ThinkingDigester(key)
        self.issued: list[bytes] = [] if self._trace is None else self._trace.digests
        """What the thinking blocks that have ended are known by, under `key`."""

        self._echo = echo_model
        self._estimate = estimate
        self._reword = reword
        self._streamed = content_type.strip().lower().startswith("text/event-stream")
        self._form: Literal["unknown", "events", "json", "unread"] = "unknown"
        self._splitter = Splitter()
        self._held = bytearray()
        is_compressed = bool(names(content_encoding))
        wanted = echo_model is not None or estimate is not None or reword or (decode and is_compressed)
        self.changes = known(content_encoding) and wanted
        self._started = not self.changes
        self.decodes = self.changes and is_compressed
        self._decoder = Decoder(content_encoding if known(content_encoding) else "")
        if not known(content_encoding):
            self._give_up("its content-encoding is not known")

    @property
    def understood(self) -> bool:
        """Whether there is an answer, or may be one that cannot be read for its content-encoding."""
        return self.complete or self.began or "content-encoding" in self.fault

    @property
    def ended(self) -> bool:
        """Whether what was read is a whole answer. A stream whose connection just closes, which HTTP cannot
        always tell from its end, has neither a stop reason nor `message_stop`. True where it was not read."""
        return self.complete or self.stop_reason is not None or bool(self.fault)

    def feed(self, data: bytes) -> bytes:
        """What the client gets now."""
        given = [piece for piece in self.pieces(data) if piece]
        return given[0] if len(given) == 1 else b"".join(given)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The same in pieces of bounded size, however well `data` is compressed. Each is decoded when it is
        asked for; an empty one says that there is nothing to give yet."""
        if self.broken:
            return
        try:
            for piece in self._decoder.pieces(data):
                if not self.changes and self._form == "unread":
                    break
                self.size += len(piece)
                out = self._through(piece)
                yield out if self.changes else b""
        except EncodingError as error:
            self._undecodable(error)
            yield self._released() if self.changes else b""
        if not self.changes:
            yield data

    def end(self) -> bytes:
        """What the client still gets."""
        if not self.broken and self._form != "unread":
            try:
                self._decoder.end()
                self._finish()
            except EncodingError as error:
                self._undecodable(error)
            except Exception as error:
                self._give_up(f"{type(error).__name__} while it was read")
        self._form = "unread"
        rest = self._released()
        return rest if self.changes else b""

    def _undecodable(self, error: EncodingError) -> None:
        self._give_up(f"its content-encoding is {error}")
        self.broken = self.decodes

    def _give_up(self, fault: str) -> None:
        self.fault = self.fault or fault
        self._form = "unread"

    def _through(self, piece: bytes) -> bytes:
        self._held += piece
        try:
            self._read(piece)
        except Exception as error:
            # A fault of ours must cost the tally only, never a byte of the answer.
            self._give_up(f"{type(error).__name__} while it was read")
        return self._released()

    @property
    def _waits(self) -> bool:
        """Whether an event may still be changed, so that none is let go in parts."""
        return not self._started or (self._reword and not self.began)

    def _released(self) -> bytes:
        """What need not wait."""
        if self._form == "json" or (self._form == "events" and self._waits and self._splitter.pending):
            return b""
        out = bytes(self._held)
        self._held.clear()
        return out

    def _read(self, piece: bytes) -> None:
        if self._form == "unknown":
            self._form = self._form_of(piece)
        if self._form == "events":
            for block in self._splitter.feed(piece):
                if self._matters(block):
                    self._event(parse_event(block))
                else:
                    self.events += 1
            if len(self._held) > _START_LIMIT:
                self._started, self._reword = True, False
        elif self._form == "json" and len(self._held) > WHOLE_LIMIT:
            self._give_up("it is too large")

    def _form_of(self, piece: bytes) -> Literal["unknown", "events", "json", "unread"]:
        """By its first byte, since some send JSON errors as streams and streams without saying so."""
        first = piece.lstrip()[:1]
        if not first:
            return "unknown"
        if first in b"{[":
            return "json"
        if self._streamed or first in b"edir:":
            return "events"
        self.fault = "it is neither a stream nor JSON"
        return "unread"

    def _finish(self) -> None:
        if self._form == "events":
            for event in map(parse_event, self._splitter.end()):
                with suppress(BodyError):  # cut short it is no event
                    Body.parse(event.data)
                    self._event(event)
        elif self._form == "json":
            self._whole(bytes(self._held))

    def _matters(self, block: bytes) -> bool:
        """Whether an event may tell anything: most are only further pieces of a text."""
        is_thinking = self._trace is not None and self._trace.is_open
        return not self.began or is_thinking or _TELLING.search(block) is not None

    def _event(self, event: Event) -> None:
        if not event.data:
            return
        self.events += 1
        if self._trace is not None:
            self._trace.take(event)
        if self.began and event.name not in _NAMES and not _TELLING.search(event.data):
            return
        try:
            body = Body.parse(event.data)
        except BodyError:
            body = Body.parse(b"{}")
            self.fault = self.fault or "an event is not a JSON object"
        kind = body.get("type", str) or event.name
        self.began = self.began or kind in _BEGINS or _is_tool(body)
        if not self.began:
            self._tell_foreign(body, None if kind else _reported(body, of_any_status=False))
        self._take_usage(body)
        if kind == "message_start":
            self._message_start(event.data, body)
        elif kind == "message_delta":
            self._take_stop_reason(body.inner("delta"))
        elif kind == "message_stop":
            self.complete = True
        elif kind == "error":
            self.error = read_error(event.data).type_and_message or ("", "")
            self._say_otherwise(event.data)

    def _message_start(self, data: bytes, body: Body) -> None:
        message = body.inner("message")
        if message is None:
            return
        self._take_message(message)
        if not self._started:
            self._started = True
            new = body.edited({"message": self._changed(message)})
            self._held = self._held.replace(data, new, 1)

    def _say_otherwise(self, error: bytes) -> None:
        if self._reword and not self.began and (said := as_prompt_too_long(400, error)):
            self._held = self._held.replace(error, said, 1)

    def _whole(self, data: bytes) -> None:
        try:
            body = Body.parse(data)
        except BodyError:
            self.error = read_error(data).type_and_message
            self.complete = self.error is not None
            self.fault = "" if self.complete else "it is not a JSON object"
            return
        self.error = _reported(body)
        self.complete = True
        self._tell_foreign(body, self.error if body.get("type", str) != "error" else None)
        self.began = self.error is None
        if self.began:
            self._take_message(body)
            if self._trace is not None:
                self._trace.take_whole(body)
            self.usage.take({"input_tokens": body.get("input_tokens", int)})
            self._held[:] = self._changed(body, at_start=False)

    def _tell_foreign(self, body: Body, error: tuple[str, str] | None) -> None:
        """`error` is one of another shape that it reports."""
        if error is None and (protocol := _other_protocol(body)):
            error = "api_error", f"the answer is {protocol} and no message; look at the provider's api"
        if error is not None and not self.foreign:
            self.error, self.foreign = error, error[1] or "an error without a message"

    def _take_message(self, message: Body) -> None:
        self.model = message.get("model", str) or self.model
        self.message_id = message.get("id", str) or self.message_id
        self._take_usage(message)
        self._take_stop_reason(message)

    def _take_usage(self, body: Body) -> None:
        if (usage := body.get("usage", dict[str, Any])) is not None:
            self.usage.take(usage)

    def _take_stop_reason(self, body: Body | None) -> None:
        if body is not None:
            self.stop_reason = body.get("stop_reason", str) or self.stop_reason

    def _changed(self, message: Body, at_start: bool = True) -> bytes:
        """A message with the asked model, and with usage where it has none."""
        change = {}
        if self._echo is not None and "model" in message and message.get("model", str) != self._echo:
            change["model"] = msgspec.json.encode(self._echo)
        if (usage := self._filled(message, at_start)) is not None:
            change["usage"] = usage
        return message.edited(change)

    def _filled(self, message: Body, at_start: bool) -> bytes | None:
        """The usage with what a client reads of it: counts of input and output tokens, and the estimate where
        a stream begins with none of input, or a message has none. None where nothing is to be filled in."""
        if self._estimate is None or not (at_start or "content" in message):
            return None
        usage = message.inner("usage") or Body.parse(b"{}")
        told = [usage.get(name, float) for name in NAMES if name != "output_tokens"]
        change = {}
        if not any(told) and (at_start or usage.get("input_tokens", float) is None):
            change["input_tokens"] = b"%d" % self._estimate()
        elif usage.get("input_tokens", float) is None:
            change["input_tokens"] = b"0"
        if usage.get("output_tokens", float) is None:
            change["output_tokens"] = b"0"
        return usage.edited(change) if change else None


def _reported(body: Body, *, of_any_status: bool = True) -> tuple[str, str] | None:
    """Type and message of the error in an answer or an event."""
    report = error_in(body, of_any_status=of_any_status)
    return None if report is None else report.type_and_message


def _other_protocol(body: Body) -> str:
    """What an answer or an event is instead of one of the Messages API; empty where it may be one."""
    kind = body.get("type", str) or ""
    if kind.startswith("response.") or body.get("object", str) == "response":
        return "one of the Responses API"
    if kind or "content" in body:
        return ""
    if body.get("candidates", list[Any]) is not None:
        return "one of the Gemini API"
    if body.get("done", bool) is not None:
        return "one of Ollama's own API"
    is_chat = (body.get("object", str) or "").startswith("chat.completion")
    return "a chat completion" if is_chat or body.get("choices", list[Any]) is not None else ""


def _is_tool(body: Body) -> bool:
    """Whether this is the start of a tool's block: `tool_use`, `server_tool_use`, `mcp_tool_use`."""
    block = body.inner("content_block")
    return block is not None and (block.get("type", str) or "").endswith("tool_use")
