"""Reads answers of the Messages API: fills the facts of an answer, and rewrites a few fields."""

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal

import msgspec

from .answer_facts import AnswerFacts
from .api import TOKEN_FIELDS
from .encoding import PIECE, ContentDecoder, EncodingError, known, names
from .errors import (
    as_prompt_too_long,
    error_event,
    error_in,
    error_type,
    in_anthropics_shape,
    is_anthropics,
    prompt_too_long,
    read_error,
    with_request_id,
)
from .issued import MARK, ThinkingDigester
from .json_edit import UNREADABLE, Body, BodyError
from .sse import Event, Splitter, form_of, is_event_stream, parse_event

WHOLE_LIMIT = 16 * 1024 * 1024
"""Bytes of a JSON answer that are held to be read at its end; a larger one is passed on unread."""

_START_LIMIT = 1024 * 1024
"""Bytes that are held until the first event is complete."""

_RELEVANT = re.compile(rb'"usage"|message_(?:start|delta|stop)|error|%b' % MARK)
_NAMES = frozenset({"message_start", "message_delta", "message_stop", "error"})
_BEGINS = frozenset({"content_block_delta", "message_delta"})


class _Typed(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None


class _ToldMessage(msgspec.Struct, frozen=True, gc=False):
    id: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    stop_reason: str | None = None


class _ToldEvent(msgspec.Struct, gc=False):
    """The fields of an event from which facts are read."""

    type: Literal[
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
    ]
    message: _ToldMessage = _ToldMessage()
    content_block: _Typed = _Typed()
    delta: _ToldMessage = _ToldMessage()
    usage: dict[str, Any] | None = None


_stream_event = msgspec.json.Decoder(_ToldEvent)
_encode = msgspec.json.Encoder().encode
_MODEL = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*+")')
"""A member `model` of any object. It cannot occur inside a text, where quotes are escaped."""


class Observer:
    """Fills `facts` from the events of a stream, or from a whole answer."""

    def __init__(self, facts: AnswerFacts, key: bytes | None) -> None:
        """`key` is the key for digests of thinking blocks; None digests none."""
        self.facts = facts
        self._thinking = None if key is None else ThinkingDigester(key, facts.issued)

    def is_relevant(self, block: bytes) -> bool:
        """Whether an event may change the facts; most are only further pieces of a text."""
        return self._reads_all or _RELEVANT.search(block) is not None

    def may_skip(self, chunk: bytes) -> bool:
        """True if no event of the chunk is relevant; faster than a look at each event."""
        return not (
            self._reads_all or b"message_" in chunk or b"usage" in chunk or b"error" in chunk or MARK in chunk
        )

    @property
    def _reads_all(self) -> bool:
        return not self.facts.began or (self._thinking is not None and self._thinking.is_open)

    def event(self, event: Event) -> str:
        """The type of a relevant event; empty for any other."""
        if not event.data:
            return ""
        facts = self.facts
        facts.is_stream = True
        if self._thinking is not None:
            self._thinking.event(event)
        if facts.began and event.name not in _NAMES and not _RELEVANT.search(event.data):
            return ""
        try:
            parsed = _stream_event.decode(event.data)
        except UNREADABLE:
            return self._unusual(event)
        kind, is_tool = parsed.type, (parsed.content_block.type or "").endswith("tool_use")
        facts.began = facts.began or kind in _BEGINS or is_tool
        if parsed.usage is not None:
            facts.usage.take(parsed.usage)
        if kind == "message_start":
            facts.message_id = parsed.message.id or facts.message_id
            if parsed.message.usage is not None:
                facts.usage.take(parsed.message.usage)
            facts.stopped = facts.stopped or bool(parsed.message.stop_reason)
        elif kind == "message_delta":
            facts.stopped = facts.stopped or bool(parsed.delta.stop_reason)
        elif kind == "message_stop":
            facts.complete = True
        return kind

    def _unusual(self, event: Event) -> str:
        """An error, an event of another API, or one with fields of other types."""
        facts = self.facts
        try:
            body = Body.parse(event.data)
        except BodyError:
            body = Body.parse(b"{}")
            facts.fault = facts.fault or "an event is not a JSON object"
        kind = body.get("type", str) or event.name
        facts.began = facts.began or kind in _BEGINS or _is_tool(body)
        if not facts.began:
            self._note_foreign(body, None if kind else _reported(body, of_any_status=False))
        self._note_usage(body)
        if kind == "message_start" and (message := body.inner("message")) is not None:
            self._note_message(message)
        elif kind == "message_delta":
            self._note_stop_reason(body.inner("delta"))
        elif kind == "message_stop":
            facts.complete = True
        elif kind == "error":
            facts.error = read_error(event.data).type_and_message or ("", "")
        return kind

    def whole(self, data: bytes) -> Body | None:
        """The message, or the token count, in a JSON answer; None if it holds neither."""
        facts = self.facts
        try:
            body = Body.parse(data)
        except BodyError:
            facts.error = read_error(data).type_and_message
            facts.complete = facts.error is not None
            facts.fault = "" if facts.complete else "it is not a JSON object"
            return None
        facts.error = _reported(body)
        facts.complete = True
        is_anthropics = body.get("type", str) == "error"
        self._note_foreign(body, facts.error if not is_anthropics else None)
        if is_anthropics:
            facts.provider_error = facts.provider_error or data
        facts.began = facts.error is None
        if not facts.began:
            return None
        self._note_message(body)
        if self._thinking is not None:
            self._thinking.message(body)
        facts.usage.take({"input_tokens": body.get("input_tokens", int)})
        return body

    def _note_foreign(self, body: Body, error: tuple[str, str] | None) -> None:
        """Notes that the answer is no Messages answer. `error` is an error in another format."""
        if error is None and (protocol := _other_protocol(body)):
            error = "api_error", f"the answer is {protocol} and no message; look at the provider's api"
        if error is not None and not self.facts.foreign:
            self.facts.error, self.facts.foreign = error, error[1] or "an error without a message"

    def _note_message(self, message: Body) -> None:
        self.facts.message_id = message.get("id", str) or self.facts.message_id
        if (diagnostics := message.get("diagnostics", dict[str, Any])) is not None:
            self.facts.cache_miss_reason = str(diagnostics.get("cache_miss_reason") or "")
        self._note_usage(message)
        self._note_stop_reason(message)

    def _note_usage(self, body: Body) -> None:
        if (usage := body.get("usage", dict[str, Any])) is not None:
            self.facts.usage.take(usage)

    def _note_stop_reason(self, body: Body | None) -> None:
        reason = body.get("stop_reason", str) if body is not None else None
        self.facts.stopped = self.facts.stopped or bool(reason)


class Rewrites(msgspec.Struct, frozen=True):
    """Changes to a provider's answer before the client gets it."""

    model: str | None = None
    """The model that the client asked for, for the answer's `model`."""
    estimate: Callable[[], int] | None = None
    """Gives the input tokens for a `message_start` that reports none; called only then, since it is slow."""
    error_events: bool = False
    """Whether an error event before the answer begins gets Anthropic's shape and, where a prompt is too long,
    the wording on which Claude Code compacts the conversation."""

    def __bool__(self) -> bool:
        return self.model is not None or self.estimate is not None or self.error_events

    def message_start(self, event: bytes) -> bytes | None:
        """The data of a `message_start` event; None if it has no message."""
        places = [found.span(1) for found in _MODEL.finditer(event)]
        with suppress(*UNREADABLE):
            begun = _stream_event.decode(event).message
            if len(places) == 1 and begun.model is not None and self._is_counted(begun.usage or {}):
                (start, end), model = places[0], self.model or begun.model
                return (
                    event if model == begun.model else b"".join((event[:start], _encode(model), event[end:]))
                )
        with suppress(BodyError):
            body = Body.parse(event)
            if (message := body.inner("message") or _with_each_key_once(body)) is not None:
                return body.edited({"message": self._message(message, at_start=True)})
        return None

    def _is_counted(self, usage: Mapping[str, Any]) -> bool:
        """Whether the usage of a `message_start` has all counts that a client reads."""
        counts = (usage.get("input_tokens"), usage.get("output_tokens"))
        return self.estimate is None or (all(type(one) is int for one in counts) and counts[0] != 0)

    def message(self, message: Body) -> bytes:
        """A whole answer."""
        return self._message(message, at_start=False)

    def error(self, event: bytes) -> bytes | None:
        """The new data of an error event; None if it stays."""
        if not self.error_events:
            return None
        said = as_prompt_too_long(400, event, self.estimate) or (
            None if is_anthropics(event) else in_anthropics_shape(500, event)
        )
        with suppress(BodyError):
            if said is not None and (id := Body.parse(event).get("request_id", str)):
                return with_request_id(said, id)
        return said

    def _message(self, message: Body, *, at_start: bool) -> bytes:
        change = {}
        is_message = at_start or "model" in message or "content" in message
        if self.model is not None and is_message and message.get("model", str) != self.model:
            change["model"] = msgspec.json.encode(self.model)
        if (usage := self._usage(message, at_start)) is not None:
            change["usage"] = usage
        return message.edited(change)

    def _usage(self, message: Body, at_start: bool) -> bytes | None:
        """The usage with counts of input and output tokens, which clients read: the estimate if the provider
        reports no input tokens, else 0 for a missing count. None if nothing is missing."""
        if self.estimate is None or not (at_start or "content" in message):
            return None
        usage = message.inner("usage") or Body.parse(b"{}")
        counts = [usage.get(name, float) for name in TOKEN_FIELDS if name != "output_tokens"]
        change = {}
        if not any(counts) and (at_start or usage.get("input_tokens", float) is None):
            change["input_tokens"] = b"%d" % self.estimate()
        elif usage.get("input_tokens", float) is None:
            change["input_tokens"] = b"0"
        if usage.get("output_tokens", float) is None:
            change["output_tokens"] = b"0"
        return usage.edited(change) if change else None


class MessagesReader:
    """A `ResponseReader` for the Messages API.

    Without `rewrites` the output is the input. With any of them a compressed answer is decoded, a stream is
    held until its first events are complete, and a JSON answer until `end`.
    """

    content_type: str | None = None
    finished = over = False

    def __init__(
        self,
        content_type: str,
        content_encoding: str = "",
        *,
        rewrites: Rewrites | None = None,
        decode: bool = False,
        key: bytes | None = None,
        provider: str = "",
        request_id: str = "",
    ) -> None:
        """`decode` asks for decoded output even without rewrites. `provider` and `request_id` are for the
        error that the client gets instead of a stream in another protocol."""
        self.facts = AnswerFacts()
        rewrites = rewrites or Rewrites()
        is_compressed, is_known = bool(names(content_encoding)), known(content_encoding)
        self.changes = is_known and (bool(rewrites) or (decode and is_compressed))
        self.decodes = self.changes and is_compressed
        self._observer = Observer(self.facts, key)
        self._rewrites = rewrites
        self._provider = provider
        self._request_id = request_id
        self._is_announced = is_event_stream(content_type)
        self._form: Literal["unknown", "events", "json", "unread"] = "unknown"
        self._splitter = Splitter()
        self._held = bytearray()
        self._awaits_start = self.changes
        """True until `message_start`, which may have to be changed, has come."""
        self._awaits_error = self.changes and rewrites.error_events
        self._reported_foreign = False
        self._decoder = ContentDecoder(content_encoding) if is_compressed and is_known else None
        if not is_known:
            self._give_up_decoding("not known")

    def feed(self, data: bytes) -> bytes:
        """The client's bytes for this input."""
        given = [piece for piece in self.pieces(data) if piece]
        return given[0] if len(given) == 1 else b"".join(given)

    def pieces(self, data: bytes) -> Iterable[bytes]:
        """`feed` in pieces of bounded size; see `ResponseReader`."""
        if self._form == "unread" and not self.changes:
            return (data,)
        if self._decoder is None and len(data) <= PIECE:
            out = self._process(data)
            return (out if self.changes else data,)
        return self._decoded(data)

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        decoder = self._decoder or ContentDecoder("")
        if self.facts.broken:
            return
        try:
            for piece in decoder.pieces(data):
                if self._form == "unread" and not self.changes:
                    break
                out = self._process(piece)
                yield out if self.changes else b""
        except EncodingError as error:
            self._give_up_decoding(str(error))
            yield self._output() if self.changes else b""
        if not self.changes:
            yield data

    def end(self) -> bytes:
        """The client's last bytes."""
        if not self.facts.broken and self._form != "unread":
            try:
                if self._decoder is not None:
                    self._decoder.end()
                self._finish()
            except EncodingError as error:
                self._give_up_decoding(str(error))
            except Exception as error:
                self._give_up(f"{type(error).__name__} while it was read")
        self._form = "unread"
        rest = self._output()
        return rest if self.changes else b""

    def _give_up_decoding(self, why: str) -> None:
        self._give_up(f"its content-encoding is {why}")
        self.facts.undecodable = True
        self.facts.broken = self.decodes

    def _give_up(self, fault: str) -> None:
        self.facts.fault = self.facts.fault or fault
        self._form = "unread"

    def _process(self, piece: bytes) -> bytes:
        """Reads a decoded piece and gives the bytes that need not be held."""
        self.facts.size += len(piece)
        if is_held := bool(self._held) or self._is_holding:
            self._held += piece
        try:
            self._read(piece)
        except Exception as error:
            # An error of ours may lose facts, but no byte of the answer.
            self._give_up(f"{type(error).__name__} while it was read")
        return self._output() if is_held or self._is_replaced else piece

    def _output(self) -> bytes:
        """The bytes that need not be held any longer."""
        if self._is_replaced:
            self._held.clear()
            return self._foreign_error()
        if self._form == "json" or (self._form == "events" and self._may_change and self._splitter.pending):
            return b""
        out = bytes(self._held)
        self._held.clear()
        return out

    @property
    def _is_holding(self) -> bool:
        """Whether the next bytes are held, because they may be changed or are read as a whole."""
        if self._form == "events":
            return self._may_change
        return self._form in ("unknown", "json")

    @property
    def _is_replaced(self) -> bool:
        """Whether the client gets an error event instead of a stream in another protocol."""
        return self.changes and self.facts.is_stream and bool(self.facts.foreign)

    @property
    def _may_change(self) -> bool:
        """Whether an event may still be changed; then only whole events are passed on."""
        return self._awaits_start or (self._awaits_error and not self.facts.began)

    def _read(self, piece: bytes) -> None:
        if self._form == "unknown":
            self._form = self._form_of(piece)
        if self._form == "events":
            if self._splitter.size <= PIECE:
                pending = self._splitter.held + piece
                if self._observer.may_skip(pending) and self._splitter.skip(pending):
                    return
            for block in self._splitter.feed(piece):
                if self._observer.is_relevant(block):
                    self._event(parse_event(block))
            if len(self._held) > _START_LIMIT:
                self._awaits_start = self._awaits_error = False
        elif self._form == "json" and len(self._held) > WHOLE_LIMIT:
            self._give_up("it is too large")

    def _form_of(self, piece: bytes) -> Literal["unknown", "events", "json", "unread"]:
        """The form by the first byte, since some providers declare a JSON error as a stream, or a stream as
        something else."""
        form = form_of(piece, is_announced=self._is_announced)
        if form == "page" or form == "other":  # mypy narrows only this
            self.facts.fault = "it is neither a stream nor JSON"
            return "unread"
        return form

    def _finish(self) -> None:
        if self._form == "events":
            for event in map(parse_event, self._splitter.end()):
                with suppress(BodyError):  # one that is cut short is ignored
                    Body.parse(event.data)
                    self._event(event)
        elif self._form == "json":
            text = bytes(self._held).removeprefix(BOM_UTF8)
            message = self._observer.whole(text)
            if message is not None and (rewritten := self._rewrites.message(message)) != text:
                self._held[:] = rewritten

    def _event(self, event: Event) -> None:
        kind = self._observer.event(event)
        if not kind or not self._may_change:
            return
        if kind == "message_start" and self._awaits_start:
            if (new := self._rewrites.message_start(event.data)) is not None:
                self._awaits_start = False
                self._held = self._held.replace(event.data, new, 1)
        elif kind == "error":
            self._rewrite_error(event.data)

    def _rewrite_error(self, error: bytes) -> None:
        if self._awaits_error and not self.facts.began and (new := self._rewrites.error(error)):
            self._held = self._held.replace(error, new, 1)

    def _foreign_error(self) -> bytes:
        if self._reported_foreign:
            return b""
        self._reported_foreign = True
        message = self.facts.foreign
        names = self.facts.error[:1] if self.facts.error is not None else ()
        if in_other_words := prompt_too_long(message, names, self._rewrites.estimate):
            return error_event(error_type(400), in_other_words, self._request_id)
        return error_event("api_error", f"{self._provider} gave no answer: {message}", self._request_id)


def _with_each_key_once(event: Body) -> Body | None:
    """The message of an event, where a key of it stands twice: the last one counts. None if it has none."""
    message = event.get("message", dict[str, Any])
    return None if message is None else Body.parse(_encode(message))


def _reported(body: Body, *, of_any_status: bool = True) -> tuple[str, str] | None:
    """Type and message of the error in an answer or an event."""
    report = error_in(body, of_any_status=of_any_status)
    return None if report is None else report.type_and_message


def _other_protocol(body: Body) -> str:
    """The protocol of an answer or event that is not of the Messages API; empty if it may be."""
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
    """Whether this is the start of a tool call: `tool_use`, `server_tool_use`, `mcp_tool_use`."""
    block = body.inner("content_block")
    return block is not None and (block.get("type", str) or "").endswith("tool_use")
