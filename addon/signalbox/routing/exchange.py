"""What is known of one request, from its head to its record: the one value that travels along."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal, Protocol
from urllib.parse import quote

from signalbox.config.rules import Provider, Rules, Timeout, shown
from signalbox.messages.reader import Reader
from signalbox.messages.redaction import without_secrets
from signalbox.messages.usage import Usage
from signalbox.routing.course import Attempt, Course
from signalbox.routing.credentials import LOGIN, Caller, leak, secrets_of
from signalbox.routing.facts import Facts
from signalbox.routing.outcome import CANCELLED, Outcome
from signalbox.routing.outgoing import Outgoing
from signalbox.routing.plan import PERMANENT, Skip
from signalbox.routing.tried import Tried


class Provenance(Protocol):
    """`upkeep.issued.Issued`."""

    key: bytes

    def learn(self, digests: list[bytes], provider: str) -> None: ...


type Kind = Literal["messages", "count_tokens", "models", "pipe", "own", "refused"]
type Ending = Literal["done", "error", "cancelled"]

type Listener = Callable[[Exchange, int, Mapping[str, str]], None]
"""Told the status and headers of every answer, of failed attempts too."""

LONGEST = 500
"""Characters of a name that a header tells at the most; a client's model may be of any length."""

_IDS = ("request-id", "x-request-id", "apim-request-id", "x-generation-id")
"""Headers by which providers name a request: Anthropic's, OpenAI's and most others', Azure's, OpenRouter's
(anthropic-messages.md, 9; openai-chat.md, 5 and 6; providers.md)."""
_ID = re.compile(r"[\w.:/=+-]{1,200}", re.ASCII)

PLAIN = " !#$&'()*+,/:;=?@[]^`{|}~"
"""What stands in a header's value as it is, beside letters and digits."""


def told_id(headers: Mapping[str, str]) -> str:
    """The id by which the provider that answers with these headers knows the request, or nothing."""
    told = {name.lower(): value for name, value in headers.items()}
    return next((told[name] for name in _IDS if _ID.fullmatch(told.get(name, ""))), "")


class Exchange:
    """One request and its answer. `rules` are those in force when it began, and stay.

    Times are seconds of a monotonic clock, but for `ts`. `id` is the flow's.
    """

    def __init__(
        self, rules: Rules, kind: Kind, caller: Caller, *, id: str, started: float, ts: datetime
    ) -> None:
        self.id = id
        self.rules = rules
        self.kind: Kind = kind
        self.caller = caller
        self.started = started
        self.ts = ts
        self.provider: Provider | None = None
        """Who is asked. None until that is decided, and where the router answers itself."""
        self.facts: Facts | None = None
        self.outgoing: Outgoing | None = None
        self.label = "none"
        """The rule's, for the log and `x-signalbox-rule`."""
        self.reason = ""
        """Why it goes there, as in the line `dispatch:`."""
        self.reader: Reader | None = None
        self.hidden: dict[str, tuple[list[str], list[str]]] = {}
        """Header to what a person sees of its values, and the values: put back when the request is sent."""
        self.path = self.shown_path = ""
        """Path and query of the flow's request, and what a person sees of them."""
        self.closes = False
        """Whether the client wants its connection closed after the answer."""
        self.course: Course | None = None
        """The attempts, where a rule decided."""
        self.renewed: Provider | None = None
        """The provider that is asked, as the rules have it after a command printed another key."""
        self.skipped: tuple[Skip, ...] = ()
        """Targets that the plan passed over."""
        self.outcome: Outcome | None = None
        """How the last attempt ended, where that was told by anything but its answer."""
        self.tried: list[Tried] = []
        """Every attempt, in order; the last one may be under way."""
        self.first_byte: float | None = None
        self.head_given = False
        """Whether the client has the head of an answer that nobody has given yet."""
        self.ending: Ending = "done"
        self.recorded = False
        self.listener: Listener | None = None
        self.provenance: Provenance | None = None
        """Where it is kept whose thinking is whose."""
        self._began = False
        self.answered: Callable[[str], None] | None = None
        """Told the id of the answer that is delivered, once it has begun."""

    @property
    def provenance_key(self) -> bytes | None:
        """Under which thinking blocks are known."""
        return self.provenance.key if self.provenance is not None else None

    @property
    def streams(self) -> bool:
        """Whether the client wants a stream."""
        return self.facts is not None and self.facts.stream

    def passing(self, reader: Reader, now: float) -> None:
        """Something of the answer is about to go to the client. Block provenance is stored before, so that
        its next request finds it, also where this answer is cut."""
        if self.first_byte is None:
            self.first_byte = now
        if reader.issued and self.provenance is not None and self.provider is not None:
            self.provenance.learn(reader.issued, self.provider.name)
            reader.issued.clear()
        if reader.began and not self._began and self.course is not None:
            self._began = True
            self.course.began()
            if self.answered is not None and reader.message_id:
                self.answered(reader.message_id)

    @property
    def ours(self) -> bool:
        """Whether this is a request to one of the two messages paths."""
        return self.kind in ("messages", "count_tokens")

    @property
    def model(self) -> str | None:
        """The model as sent upstream."""
        if self.outgoing is not None:
            return self.outgoing.model
        return self.facts.asked if self.facts is not None else None

    @property
    def request_id(self) -> str:
        """What the client knows this request by: the id that the provider whose answer it gets has for it,
        as that can look it up; else `req_` and the flow's, which stands in mitmweb's address."""
        given = self.tried[-1].request_id if self.tried and not self.head_given else ""
        return given or f"req_{self.id}"

    def callers_key(self, provider: Provider) -> str | None:
        """The caller's credential where that is what this provider gets."""
        if provider.auth != "client":
            return None
        return next((value for name, value in self.caller.headers if name.lower() in LOGIN), None)

    def told(self, said: bytes) -> bytes:
        """What the provider that is asked said, less the credentials that it was asked with."""
        return without_secrets(said, self.secrets)

    def told_text(self, said: str) -> str:
        """The same of a text."""
        return self.told(said.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    @property
    def secrets(self) -> tuple[str, ...]:
        """The credentials that whoever is asked gets: the target's, else those that the caller sent."""
        if self.outgoing is not None:
            return self.outgoing.secrets
        return secrets_of(self.caller.headers, self.path)

    def take(self, attempt: Attempt, now: float) -> None:
        """This attempt is made now."""
        self.provider, self.outgoing, self.outcome = attempt.provider, attempt.outgoing, None
        self.tried.append(Tried(attempt.provider.name, self.model, attempt.ticket.key_index, now))

    def estimate(self) -> int:
        """Input tokens to show where the provider reports none; takes its time where asked first."""
        return self.facts.tokens_at(self.model) if self.facts is not None else 0

    def pass_to(self, provider: Provider, now: float) -> None:
        """The request goes there as it came: no rule decided."""
        self.provider = provider
        self.tried.append(Tried(provider.name, self.model, None, now))

    def attempted(self, label: str) -> None:
        """Note how the attempt goes: a status, `connect`, `timeout`, `stream_error` or `cancelled`."""
        if (tried := self._under_way) is not None:
            tried.label = label

    def failed(self, outcome: Outcome, usage: Usage, now: float) -> None:
        """The attempt under way has failed, and something follows it."""
        self.outcome = outcome
        self.attempted(outcome.label)
        self._over(outcome, usage, now)

    def over(self, outcome: Outcome | None, now: float) -> None:
        """The attempt that was delivered is over; None where the client left."""
        self._over(outcome or CANCELLED, self.reader.usage if self.reader is not None else Usage(), now)

    def _over(self, outcome: Outcome, usage: Usage, now: float) -> None:
        if (tried := self._under_way) is not None:
            tried.outcome, tried.usage, tried.ended = outcome, usage, now

    @property
    def _under_way(self) -> Tried | None:
        return self.tried[-1] if self.tried and self.tried[-1].ended is None else None

    @property
    def attempts(self) -> tuple[str, ...]:
        """`zai:429`, one each."""
        return tuple(f"{shown(tried.provider)}:{tried.label}" for tried in self.tried if tried.label)

    def others(self, now: float) -> str:
        """Why the targets of the chain beside the one under way did not answer, for people: `zai: 429,
        rate_limit_error; kimi: circuit, open for another 42 s`. Each failure is told once. Empty where there
        are none."""
        told = [
            (shown(tried.provider), f"{tried.label}, {tried.detail}") for tried in self.tried if tried.ended
        ]
        told += self.course.not_asked(now) if self.course is not None else []
        told += [(skip.provider, skip.why) for skip in self.skipped if skip.reason in PERMANENT]
        return "; ".join(dict.fromkeys(f"{name}: {why.rstrip(', ')}" for name, why in told))

    @property
    def timeout(self) -> Timeout:
        return self.provider.timeout if self.provider is not None else Timeout()

    @property
    def first_byte_limit(self) -> float:
        """Seconds; an answer that is not streamed comes only when all of it is written."""
        streamed = self.facts is not None and self.facts.stream
        return self.timeout.first_byte_limit(streamed=streamed)

    def headers(self) -> dict[str, str]:
        """What every answer on the messages paths tells (the contract, section 3), as far as it is known.
        Where nobody was asked, provider and model are those of the last target that was passed over."""
        if not self.ours:
            return {}
        provider, model = self.provider.shown if self.provider else "", self.model
        if self.provider is None and self.skipped:
            provider, model = self.skipped[-1].provider, self.skipped[-1].model
        told = {
            "x-signalbox-provider": provider,
            "x-signalbox-model": model or "",
            "x-signalbox-rule": self.label,
            "x-signalbox-attempts": " ".join(self.attempts),
            "request-id": self.request_id,
        }
        return {name: quote(value[:LONGEST], safe=PLAIN) for name, value in told.items() if value}

    def hear(self, status: int, headers: Mapping[str, str], now: float) -> None:
        """The head of an answer has come, of this attempt and not yet judged."""
        if (tried := self._under_way) is not None:
            tried.status, tried.answered, tried.request_id = status, now, told_id(headers)
        if self.listener is not None:
            self.listener(self, status, headers)

    def forget(self) -> None:
        """The request is over: mitmweb may keep its flow for long, and with it this."""
        self.facts = self.outgoing = self.course = self.answered = None
        self.hidden, self.path = {}, self.shown_path
        self.caller = Caller(())

    def leak(self, path: str, headers: list[tuple[str, str]]) -> str | None:
        """What must not leave for the provider chosen; see `credentials.leak`."""
        if self.outgoing is None:
            return None
        return leak(self.outgoing.provider, path, headers, self.outgoing.login)
