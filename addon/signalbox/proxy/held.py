"""An upstream's answer that is held back until it has begun, or has failed."""

from datetime import datetime
from math import ceil

from mitmproxy import http
from mitmproxy.net.http import status_codes
from mitmproxy.proxy.layers.http import (
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseTrailers,
)

from signalbox.messages.context import in_anthropics_words
from signalbox.messages.encoding import EncodingError, TooLarge, decode
from signalbox.messages.errors import error_body, refused_key, with_request_id, without_secrets
from signalbox.messages.reader import Reader
from signalbox.routing.outcome import EMPTY, STREAM_ERROR, Outcome, classify, classify_event, success
from signalbox.routing.report import HEAD
from signalbox.routing.resets import limits
from signalbox.translate.translation import Translation

WHOLE = 1024 * 1024
"""Bytes after which a JSON answer that has shown no error counts as begun, and up to which one is decoded."""

type Event = ResponseData | ResponseTrailers | ResponseEndOfMessage


def is_stream(response: http.Response) -> bool:
    """Whether the head says that this is a stream of an answer."""
    return response.status_code < 300 and "event-stream" in response.headers.get("content-type", "").lower()


class Held:
    """Feed it the events after the head; `feed` says how the answer turned out, once that can be told."""

    def __init__(
        self, head: ResponseHeaders, *, own_key: bool, provider: str, secrets: tuple[str, ...]
    ) -> None:
        """`secrets` are what the outcome's detail must not hold."""
        self.head = head
        self.events: list[Event] = []
        self.complete = False
        """Whether the answer was read to its end."""
        self._own_key = own_key
        self._provider = provider
        self._secrets = secrets
        headers = head.response.headers
        self._coding = headers.get("content-encoding", "")
        self.reader = Reader(headers.get("content-type", ""), self._coding)
        """Its tally counts where the client leaves before anything was delivered."""
        self.reported: bytes | None = None
        """An error within the answer, in the provider's own words where what is held is a translation."""
        self.is_error = head.response.status_code >= 300
        self.is_stream = is_stream(head.response)

    @property
    def response(self) -> http.Response:
        return self.head.response

    def feed(self, event: Event, now: datetime) -> Outcome | None:
        self.events.append(event)
        if isinstance(event, ResponseData):
            for _ in self.reader.pieces(event.data):  # none is decoded that need not be
                if (told := self._told(now)) is not None:
                    return told
        elif isinstance(event, ResponseEndOfMessage):
            self.complete = True
            self.reader.end()
        return self._told(now)

    def _told(self, now: datetime) -> Outcome | None:
        if self.is_error:
            return self.judged(now) if self.complete or self.reader.size > HEAD else None
        self.is_stream = self.is_stream or bool(self.reader.events)  # some do not say that it is one
        if self.is_stream:
            return self._stream(now)
        return self._whole(now)

    def _stream(self, now: datetime) -> Outcome | None:
        reader = self.reader
        if reader.began:
            return success(self.response.status_code)
        if reader.error is not None and self.reported is not None:
            return self.judged(now)
        if reader.error is not None:
            raw = (one.encode(errors="replace") for one in reader.error)
            kind, said = (without_secrets(one, self._secrets).decode() for one in raw)
            return classify_event(kind, said, now=now, provider=self._provider)
        if self.complete:
            return EMPTY
        return success(self.response.status_code) if self.reader.size > WHOLE else None

    def _whole(self, now: datetime) -> Outcome | None:
        if self.complete:
            told = self.judged(now)
            if told.kind == "success" and self.reader.foreign:
                return STREAM_ERROR.because(self.reader.foreign)
            return EMPTY if told.kind == "success" and not self.reader.understood else told
        return success(self.response.status_code) if self.reader.size > WHOLE else None

    def judged(self, now: datetime) -> Outcome:
        told = classify(
            self.response.status_code,
            self.response.headers,
            without_secrets(self.body() if self.reported is None else self.reported, self._secrets),
            now=now,
            own_key=self._own_key,
            provider=self._provider,
        )
        is_none = self.reported is not None and told.kind == "success"
        return STREAM_ERROR.because("it is neither an answer nor an error") if is_none else told

    def reworded(self, request_id: str) -> bool:
        """Where this says that a prompt is too long, say it in the words on which Claude Code compacts, in a
        whole answer with status 400. Says whether that was so."""
        said = in_anthropics_words(self.response.status_code, self.error())
        if said is not None:
            self.response.status_code, self.response.reason = 400, "Bad Request"
            self.response.headers["content-type"] = "application/json"
            self._becomes(with_request_id(said, request_id))
        return said is not None

    def translate(self, translation: Translation, told: Outcome, request_id: str, now: datetime) -> bool:
        """Where this is an error in another protocol, say it in Anthropic's shape, and with a status that is
        one; and when to come back, however the provider says that (translation.md, 9). Says whether that was
        so."""
        response, status = self.response, self.response.status_code
        said = self.body() if self.is_error and not translation.passes else self.reported
        if said is None:
            return False
        if translation.passes:  # an error in an answer of the other form than was asked for
            status = told.status or 500
        response.status_code, said = translation.error(status, said)
        response.reason = status_codes.RESPONSES.get(response.status_code, "")
        response.headers["content-type"] = "application/json"
        wait = told.wait or limits(response.headers, now)
        if response.status_code in (429, 529) and wait is not None:
            response.headers["retry-after"] = str(ceil(wait))
        self._becomes(with_request_id(said, request_id))
        return True

    def refuses_key(self, provider: str, request_id: str) -> bool:
        """Where this is a 401 for the router's own key, say it with 403 and the provider's name. Says whether
        that was so."""
        if self.response.status_code != 401 or not self._own_key:
            return False
        said = refused_key(provider, without_secrets(self.body(), self._secrets))
        self.response.status_code, self.response.reason = 403, "Forbidden"
        self.response.headers["content-type"] = "application/json"
        self._becomes(with_request_id(said, request_id))
        return True

    def finish(self) -> None:
        """What has come is all that the client gets."""
        if not self.complete:
            self._becomes(self.body())

    def _becomes(self, said: bytes) -> None:
        response = self.response
        self.complete = True
        self._coding = ""
        for name in ("content-encoding", "transfer-encoding"):
            response.headers.pop(name, None)
        response.headers["content-length"] = str(len(said))
        stream = self.head.stream_id
        self.events = [ResponseData(stream, said), ResponseEndOfMessage(stream)]

    def error(self) -> bytes:
        """What came as an error: a body, or the data of an `event: error`."""
        told = self.reader.error
        return error_body(500, told[1], told[0] or None) if told is not None else self.body()

    def body(self) -> bytes:
        """What came of the body so far, decoded as far as that goes."""
        raw = b"".join(event.data for event in self.events if isinstance(event, ResponseData))
        try:
            return decode(raw, self._coding, WHOLE)
        except (EncodingError, TooLarge):
            return raw
