"""The response of one attempt while it is not decided whether the client gets it, and how the attempt ended.

Until the answer has begun the stream buffers the reader's output; from then on it goes to the client at once.
"""

import logging
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from math import ceil

from mitmproxy import http
from mitmproxy.net.http import status_codes

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.encoding import ContentDecoder, EncodingError, TooLarge
from signalbox.anthropic.errors import (
    HEAD,
    as_prompt_too_long,
    error_body,
    in_anthropics_shape,
    refused_key,
    with_request_id,
)
from signalbox.anthropic.identity import IdentityTranslator
from signalbox.anthropic.reader import MessagesReader
from signalbox.anthropic.sse import form_of, is_event_stream
from signalbox.anthropic.unsupported_fields import STATUSES
from signalbox.anthropic.writer import EVENTS, JSON
from signalbox.errors import log_error
from signalbox.exchange import Exchange
from signalbox.proxy.headers import has_body
from signalbox.routing.outcome import (
    EMPTY,
    STREAM_ERROR,
    UNFINISHED,
    Outcome,
    classify,
    classify_event,
    success,
)
from signalbox.routing.retry_after import limits
from signalbox.routing.translator import Translator

log = logging.getLogger("signalbox")

WHOLE = 1024 * 1024
"""Bytes after which a JSON answer that has shown no error counts as begun, and up to which one is decoded."""
REPAIRABLE = (*STATUSES, 404, 500)
"""Statuses of refusals that may name what a request can do without; the last two those of images alone."""
NOT_PASSED = ("location", "set-cookie", "set-cookie2")
"""Headers of providers other than Anthropic itself: a client would follow the first with its own credentials,
and send a cookie to the next provider that is asked."""
ANTHROPICS = "anthropic-"
"""How headers begin that tell of accounts and limits. Those of another protocol's provider Claude Code would
take for limits of the user's plan (translation.md, 9)."""


def is_stream(response: http.Response) -> bool:
    """Whether the head says that this is a stream of an answer."""
    return response.status_code < 300 and is_event_stream(response.headers.get("content-type", ""))


class PendingResponse:
    """`response` is the head that the client gets; it changes if the answer is translated."""

    def __init__(
        self, response: http.Response, exchange: Exchange, *, key: bytes | None, decode: bool
    ) -> None:
        """`key` is the one of the digests of thinking blocks; without `decode` a compressed answer passes."""
        assert exchange.provider is not None
        self.response = response
        self.exchange = exchange
        self.provider = exchange.provider
        self.is_error = response.status_code >= 300
        self.is_announced = is_stream(response)
        """Whether the provider says that it sends a stream."""
        self.complete = False
        """Whether the answer was read to its end."""
        self.buffered: list[bytes] = []
        """Output for the client until the answer has begun."""
        self.rest: Iterator[bytes] = iter(())
        """Output of the last chunk that was not made yet when the answer began."""
        self._raw = bytearray()
        """The body as received, as long as it may be an error's."""
        self._content_encoding = response.headers.get("content-encoding", "")
        self._has_logged = False

        outgoing = exchange.outgoing
        self.translator: Translator = outgoing.translator if outgoing is not None else IdentityTranslator()
        translator = IdentityTranslator() if self.is_error else self.translator
        estimates = outgoing is not None and outgoing.estimates and not self.is_error
        self._new_reader = partial(
            translator.reader,
            content_encoding=self._content_encoding,
            request_id=exchange.request_id,
            key=key,
            estimate=exchange.estimate if estimates else None,
            decode=decode,
        )
        self.reader = self._new_reader(response.headers.get("content-type", ""))
        self._may_be_mislabelled = (
            outgoing is not None
            and not (self.is_error or self.provider.is_anthropic or self._content_encoding)
            and self.reader.content_type is None
        )
        """Whether the first byte still decides what the answer is."""
        if self.reader.content_type is not None:
            self._become_translated(self.reader.content_type)
        self.is_stream = is_stream(response)
        """Whether the client gets a stream."""

    def _become_translated(self, content_type: str) -> None:
        headers = self.response.headers
        for name in ("content-length", "content-encoding", "transfer-encoding"):
            headers.pop(name, None)
        headers["content-type"] = content_type
        self.response.status_code, self.response.reason = 200, "OK"  # a 204 could hold nothing of it

    @property
    def facts(self) -> AnswerFacts:
        """What the reader has learned so far."""
        return self.reader.facts

    # as it comes

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The client's bytes for this input; see `ResponseReader.pieces`. Never raises."""
        if self.is_error or (not self.is_stream and len(self._raw) <= WHOLE):
            self._raw += data
        if self._may_be_mislabelled:
            self._read_as_what_it_is(data)
        try:
            for out in self.reader.pieces(data):
                if not self.is_stream:
                    self.is_stream = self.facts.is_stream and not self.is_error
                yield out
        except Exception as fault:  # costs the facts, never a byte
            self._log(fault)
            yield data

    def _read_as_what_it_is(self, data: bytes) -> None:
        """Some providers declare a message as a stream, or a stream as a message: the first byte decides.
        Then nothing of it has been read yet."""
        form = form_of(data, is_announced=self.is_announced)
        if form == "unknown":
            return
        self._may_be_mislabelled = False
        if form not in ("events", "json") or (form == "events") is self.is_announced:
            return
        before, self.reader = self.facts, self._new_reader(EVENTS if form == "events" else JSON)
        if self.exchange.answer is before:
            self.exchange.answer = self.facts
        if (content_type := self.reader.content_type) is not None:
            self.response.headers["content-type"] = content_type  # its framing stays: the head may be out
            self.response.headers.pop("content-length", None)

    def end(self) -> bytes:
        """The client's last bytes. Never raises."""
        self.complete = True
        try:
            return self.reader.end()
        except Exception as fault:
            self._log(fault)
            return b""

    def _log(self, fault: Exception) -> None:
        if not self._has_logged:
            log_error("the reader of an answer", fault)
        self._has_logged = True

    @property
    def is_reshaped(self) -> bool:
        """Whether the answer is in the Messages API, but streamed or not otherwise than was asked for."""
        return self.reader.content_type is not None and self.translator.is_identity

    @property
    def may_change(self) -> bool:
        """True if the router must read the start of this answer before the client gets it: it may be an error
        that is repaired or reworded, or an answer that is converted to another form."""
        if self.provider.is_anthropic:
            status, own_key = self.response.status_code, self.provider.auth != "client"
            return status in STATUSES or (status == 401 and own_key) or self.is_reshaped
        # What is no stream may be an error, whatever its status.
        return self.may_be_refusal or not (self.is_announced and self.is_stream)

    @property
    def may_be_refusal(self) -> bool:
        """Whether this answer with a 200 may turn out to be a refusal that is repaired."""
        return self.translator.may_refuse_late and not self.is_error

    # its head, for the client

    def drop_private_headers(self) -> None:
        """Drop headers that only Anthropic itself may give its clients, and those that only a provider may
        that speaks its protocol."""
        headers = self.response.headers
        names = [] if self.translator.is_identity else [name.lower() for name in headers]
        for name in (*NOT_PASSED, *(name for name in names if name.startswith(ANTHROPICS))):
            headers.pop(name, None)

    def frame(self, http_version: str) -> None:
        """Set length, coding and connection by what a client with this HTTP version gets."""
        headers, changes = self.response.headers, self.reader.changes
        if self.reader.decodes:
            headers.pop("content-encoding", None)
        if http_version == "HTTP/1.0":  # it knows no chunks: the answer ends with its connection
            headers.pop("transfer-encoding", None)
        if changes and self.complete:
            headers.pop("transfer-encoding", None)
            headers["content-length"] = str(sum(map(len, self.buffered)))
        elif changes and has_body(self.response):
            headers.pop("content-length", None)
            if http_version == "HTTP/1.1":
                headers["transfer-encoding"] = "chunked"
        if self.exchange.close_after_response:
            headers["connection"] = "close"

    # what it means

    def outcome(self, now: datetime) -> Outcome | None:
        """How the attempt ended, as soon as that can be told; success once the answer has begun."""
        if self.is_error:
            return self.classify(now) if self.complete or self.facts.size > HEAD else None
        if self.is_stream:
            return self._outcome_of_stream(now)
        if self.complete:
            told = self.classify(now)
            if told.kind == "success" and self.facts.foreign:
                return STREAM_ERROR.because(self.facts.foreign)
            return EMPTY if told.kind == "success" and not self.facts.is_answer else told
        return success(self.response.status_code) if self.facts.size > WHOLE else None

    def _outcome_of_stream(self, now: datetime) -> Outcome | None:
        if self.facts.began:
            return success(self.response.status_code)
        if self.facts.error is not None:
            return (
                self.classify(now)
                if self.facts.provider_error is not None
                else self._outcome_of_error_event(now)
            )
        if self.complete:
            return EMPTY
        return success(self.response.status_code) if self.facts.size > WHOLE else None

    def final(self, now: datetime) -> Outcome:
        """How the attempt ended whose answer was delivered to its end."""
        if self.is_error:
            return self.classify(now)
        if self.facts.error is not None:
            return self._outcome_of_error_event(now)
        if self.facts.broken:
            return STREAM_ERROR.because(self.facts.fault)
        if not self.facts.is_answer:
            return EMPTY
        return success(self.response.status_code) if self.facts.ended else UNFINISHED

    def _outcome_of_error_event(self, now: datetime) -> Outcome:
        assert self.facts.error is not None
        kind, said = map(self.exchange.redact_text, self.facts.error)
        return self._without_prompt(classify_event(kind, said, now=now, provider=self.provider.url.host))

    def classify(self, now: datetime) -> Outcome:
        """The outcome by status, headers and as much of the body as came."""
        reported = self.facts.provider_error
        told = classify(
            self.response.status_code,
            self.response.headers,
            self.exchange.redact(self.body() if reported is None else reported),
            now=now,
            own_key=self.provider.auth != "client",
            provider=self.provider.url.host,
        )
        is_none = reported is not None and told.kind == "success"
        if is_none:
            return STREAM_ERROR.because("it is neither an answer nor an error")
        return self._without_prompt(told)

    def _without_prompt(self, told: Outcome) -> Outcome:
        """Its detail goes to logs and records, which hold no prompts."""
        detail = self.exchange.without_prompt(told.detail)
        return told if detail == told.detail else told.because(detail)

    def body(self) -> bytes:
        """The body received so far, decoded as far as that succeeds."""
        return self.decoded() or bytes(self._raw)

    def decoded(self) -> bytes:
        """As much of it as can be decoded."""
        try:
            return ContentDecoder(self._content_encoding, WHOLE).feed(bytes(self._raw))
        except (EncodingError, TooLarge):
            return b""

    def refusal(self, told: Outcome) -> tuple[int, bytes] | None:
        """Status and body of an error that may name what the request can do without; None if it is none. An
        error that came with a 200 counts as a 400 where it is neither about the account nor about load."""
        if self.response.status_code in REPAIRABLE:
            return self.response.status_code, self.body()
        is_inside = self.facts.error is not None or self.facts.provider_error is not None
        if self.is_error or not is_inside or told.kind not in ("request", "stream_error"):
            return None
        reported = self.facts.provider_error
        return 400, self.reported_error() if reported is None else reported

    def reported_error(self) -> bytes:
        """The error as a body, also where it came as an `event: error`."""
        told = self.facts.error
        return error_body(500, told[1], told[0] or None) if told is not None else self.body()

    # an error becomes Anthropic's

    def translate_error(self, told: Outcome, now: datetime) -> bool:
        """Put an error in another protocol, or one that came as an answer, into Anthropic's shape, with the
        status that belongs to it and `retry-after` (translation.md, 9). False if it is none."""
        response = self.response
        if self.is_error:
            came = self.exchange.redact(self.body())
            translated, said = self.translator.error(response.status_code, came)
            if said is came:
                return False
        elif self.facts.provider_error is None:
            return False
        elif self.translator.is_identity:
            translated = told.status or 500
            said = in_anthropics_shape(translated, self.exchange.redact(self.facts.provider_error))
        else:
            translated, said = self.translator.error(response.status_code, self.facts.provider_error)
        response.status_code = translated
        response.reason = status_codes.RESPONSES.get(response.status_code, "")
        wait = told.wait or limits(response.headers, now)
        if response.status_code in (429, 529) and wait is not None:
            response.headers["retry-after"] = str(ceil(wait))
        self._replace_with_error(with_request_id(said, self.exchange.request_id))
        return True

    def refuse_key(self) -> bool:
        """Make a 401 for the router's own key a 403 that names the provider: Claude Code would take a 401 for
        its own login's. False if it is none."""
        if self.response.status_code != 401 or self.provider.auth == "client":
            return False
        said = refused_key(self.provider.shown, self.exchange.redact(self.body()))
        self.response.status_code, self.response.reason = 403, "Forbidden"
        self._replace_with_error(with_request_id(said, self.exchange.request_id))
        return True

    def normalize_context_error(self) -> bool:
        """Make an error of a prompt that is too long a 400 in the words on which Claude Code compacts. False
        if it is none."""
        said = as_prompt_too_long(self.response.status_code, self.reported_error(), self.exchange.estimate)
        if said is not None:
            self.response.status_code, self.response.reason = 400, "Bad Request"
            self._replace_with_error(with_request_id(said, self.exchange.request_id))
        return said is not None

    def cut_short(self) -> None:
        """The client gets no more than has come, and what can be decoded of it."""
        if not self.complete or self.facts.broken:
            self._replace_body(self.body())
            self.facts.broken = False

    def _replace_body(self, said: bytes) -> None:
        headers = self.response.headers
        for name in ("content-encoding", "transfer-encoding"):
            headers.pop(name, None)
        headers["content-length"] = str(len(said))
        self.complete = True
        self._content_encoding = ""
        self._raw[:] = said
        self.buffered, self.rest = [said], iter(())

    def _replace_with_error(self, said: bytes) -> None:
        self.response.headers["content-type"] = "application/json"
        self._replace_body(said)
        used = self.facts.usage
        self.reader = MessagesReader("application/json")
        self.reader.feed(said)
        self.reader.end()
        self.facts.usage = used
