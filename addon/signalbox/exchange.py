"""What is known of one request, from its head to its record: the one value that travels along."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.api import Usage
from signalbox.anthropic.redaction import without_secrets
from signalbox.config.rules import Provider, Rule, Rules, Timeout
from signalbox.routing.attempts import Attempt
from signalbox.routing.credentials import LOGIN, Caller, leak, masked_value, secrets_of
from signalbox.routing.facts import Facts
from signalbox.routing.outcome import CANCELLED, Outcome
from signalbox.routing.outgoing import Outgoing
from signalbox.routing.plan import PERMANENT, Plan, Skip
from signalbox.routing.repair import Provenance

if TYPE_CHECKING:
    from signalbox.proxy.dispatch import Dispatch


type RequestKind = Literal["messages", "count_tokens", "models", "pipe", "own", "refused"]
"""What is done with a request: routed (the first two), answered with the merged model list, piped through
untouched, answered by the router itself, or refused."""

type Ending = Literal["done", "error", "cancelled"]

LONGEST = 500
"""Characters of a name that a header tells at the most; a client's model may be of any length."""

_IDS = ("request-id", "x-request-id", "apim-request-id", "x-generation-id")
"""Headers by which providers name a request: Anthropic's, OpenAI's and most others', Azure's, OpenRouter's
(anthropic-messages.md, 9; openai-chat.md, 5 and 6; providers.md)."""
_ID = re.compile(r"[\w.:/=+-]{1,200}", re.ASCII)

PLAIN = " !#$&'()*+,/:;=?@[]^`{|}~"
"""What stands in a header's value as it is, beside letters and digits."""


def upstream_request_id(headers: Mapping[str, str]) -> str:
    """The id by which the provider that answers with these headers knows the request, or nothing."""
    lower = {name.lower(): value for name, value in headers.items()}
    return next((lower[name] for name in _IDS if _ID.fullmatch(lower.get(name, ""))), "")


class HiddenBody(NamedTuple):
    """A body in which something is masked: what a person sees, what is sent, and the latter's encoding."""

    shown: bytes
    sent: bytes
    encoding: str


class Exchange:
    """One request and its answer. `rules` are those in force when it began, and stay.

    Times are seconds of a monotonic clock, but for `ts`. `id` is the flow's.
    """

    def __init__(
        self,
        rules: Rules,
        kind: RequestKind,
        caller: Caller,
        *,
        id: str,
        started: float,
        ts: datetime,
        provenance: Provenance | None = None,
    ) -> None:
        """`provenance` stores which provider issued which thinking block."""
        self.id = id
        self.rules = rules
        self.kind: RequestKind = kind
        self.caller = caller
        self.started = started
        self.ts = ts
        self._provenance = provenance
        self.facts: Facts | None = None
        self.provider: Provider | None = None
        """The one that is asked, or whose answer the router gives itself. None until that is decided."""
        self.label = "none"
        """The rule's, for the log and `x-signalbox-rule`."""
        self.reason = ""
        """Why it goes there, as in the line `dispatch:`."""
        self.rule: Rule | None = None
        """The one that matched."""
        self.skipped: tuple[Skip, ...] = ()
        """Targets that the plan skipped."""
        self.failed_open = False
        """Whether an error in the router sends it on as it came."""
        self.dispatch: Dispatch | None = None
        """Makes the attempts, where a rule decided."""
        self.attempts: list[Attempt] = []
        """In order; the last one may be under way."""
        self.renewed: Provider | None = None
        """The provider that is asked, as the rules have it after a command printed another key."""
        self.hidden: dict[str, tuple[list[str], list[str]]] = {}
        """Header to what a person sees of its values, and the values: put back when the request is sent."""
        self.path = self.shown_path = ""
        """Path and query of the flow's request, and what a person sees of them."""
        self.asked_path = ""
        """Path and query of the client's request."""
        self.hidden_body: HiddenBody | None = None
        """The body of the flow's request, where it shows another: put back when the request is sent."""
        self.close_after_response = False
        """Whether the client wants its connection closed after the answer."""
        self.answer: AnswerFacts | None = None
        """Facts of the answer that the client gets, where it is a provider's."""
        self.outcome: Outcome | None = None
        """How the last attempt ended, where anything but its answer decided that."""
        self.first_byte: float | None = None
        """When the first byte of the answer went to the client."""
        self.head_given = False
        """Whether the client has an early response head, of no provider's answer."""
        self.failed_notes: list[dict[str, Any]] = []
        """What was noted in the flows of failed attempts, which do not know yet how many follow."""
        self.ending: Ending = "done"
        self.recorded = False
        self._answer_began = False

    # what is done with it

    def refuse(self) -> None:
        """Answer with an error before the request is routed."""
        self.kind = "refused"

    def pipe(self) -> None:
        """It passes to the upstream untouched, and so does the answer."""
        self.kind = "pipe"

    def plan(self, chosen: Plan) -> None:
        """A rule decided, or none did."""
        self.rule, self.label, self.reason = chosen.rule, chosen.label, chosen.reason
        self.skipped = chosen.skipped

    def fail_open(self) -> None:
        """An error in the router: the request passes as it came, see `pass_on`."""
        self.failed_open = True
        self.label = "fail-open"

    def pass_on(self, provider: Provider, reason: str, now: float) -> None:
        """The request goes there as it came: no rule decided."""
        self.provider, self.reason = provider, reason
        self.attempts.append(Attempt.passed_on(provider, self.model, now))

    def mask(self, path: str, shown_path: str, hidden: dict[str, tuple[list[str], list[str]]]) -> None:
        """The flow's request shows `shown_path` for `path`, and masks for the values of some headers."""
        self.path, self.shown_path, self.hidden = path, shown_path, hidden

    @property
    def is_messages_request(self) -> bool:
        """Whether it is routed: a request to one of the two messages paths."""
        return self.kind in ("messages", "count_tokens")

    @property
    def wants_stream(self) -> bool:
        return self.facts is not None and self.facts.stream

    # its attempts

    def begin(self, dispatch: "Dispatch", *, close_after_response: bool) -> None:
        """A rule decided, and `dispatch` makes the attempts."""
        self.dispatch, self.close_after_response = dispatch, close_after_response

    def start_attempt(self, attempt: Attempt) -> None:
        """This attempt is sent now. The body of the one before is not needed any more."""
        if self.attempts:
            self.attempts[-1].outgoing = None
        self.provider, self.outcome = attempt.provider, None
        self.attempts.append(attempt)

    def label_attempt(self, label: str) -> None:
        """Note how the attempt goes: a status, `connect`, `timeout`, `stream_error` or `cancelled`."""
        if (attempt := self._under_way) is not None:
            attempt.label = label

    def on_response_head(self, status: int, headers: Mapping[str, str], now: float) -> None:
        """The head of an answer has come, of this attempt and not yet judged."""
        if (attempt := self._under_way) is not None:
            attempt.status, attempt.head_at = status, now
            attempt.request_id = upstream_request_id(headers)

    def on_answer_bytes(self, answer: AnswerFacts, now: float) -> bool:
        """Bytes of the answer are about to go to the client. Block provenance is stored before, so that its
        next request finds it, also where this answer is cut. Says whether the answer has just begun."""
        if self.first_byte is None:
            self.first_byte = now
        if answer.issued and self._provenance is not None and self.provider is not None:
            self._provenance.learn(answer.issued, self.provider.name)
            answer.issued.clear()
        has_just_begun = answer.began and not self._answer_began
        self._answer_began = self._answer_began or has_just_begun
        return has_just_begun

    def fail_attempt(self, outcome: Outcome, usage: Usage, now: float) -> None:
        """The attempt under way has failed, and another answer follows."""
        self.outcome, self.answer = outcome, None
        self.label_attempt(outcome.label)
        self._end_attempt(outcome, usage, now)

    def finish_attempt(self, outcome: Outcome | None, now: float) -> None:
        """The attempt that was delivered is over; None where the client left."""
        self._end_attempt(
            outcome or CANCELLED, self.answer.usage if self.answer is not None else Usage(), now
        )

    def _end_attempt(self, outcome: Outcome, usage: Usage, now: float) -> None:
        if (attempt := self._under_way) is not None:
            attempt.outcome, attempt.usage, attempt.ended = outcome, usage, now

    @property
    def _under_way(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts and self.attempts[-1].ended is None else None

    @property
    def attempt_labels(self) -> tuple[str, ...]:
        """`zai:429`, one each."""
        return tuple(
            f"{attempt.provider.shown}:{attempt.label}" for attempt in self.attempts if attempt.label
        )

    def others(self, now: float) -> str:
        """Why the targets of the chain beside the one under way did not answer, for people: `zai: 429,
        rate_limit_error; kimi: circuit, open for another 42 s`. Each failure is told once. Empty where there
        are none."""
        reasons = [
            (attempt.provider.shown, f"{attempt.label}, {attempt.detail}")
            for attempt in self.attempts
            if attempt.ended
        ]
        reasons += self.dispatch.not_asked(now) if self.dispatch is not None else []
        reasons += [(skip.provider, skip.why) for skip in self.skipped if skip.reason in PERMANENT]
        return "; ".join(dict.fromkeys(f"{name}: {why.rstrip(', ')}" for name, why in reasons))

    def failure_of_all(self, message: str, now: float) -> str:
        """For people: `message`, which says what the last target did, and why the others did not answer."""
        assert self.provider is not None
        others = self.others(now)
        return f"{self.provider.shown} {message}" + (f"; {others}" if others else "")

    # how it ends

    def give_early_head(self, status: int | None) -> None:
        """The client gets the head of a stream before there is an answer. `status` is that of a head that
        the attempt under way has had."""
        self.head_given = True
        if status is not None:
            self.label_attempt(str(status))

    def answer_locally(self) -> None:
        """The client gets an answer of the router's own in place of what the provider sent."""
        self.answer = None

    def conclude(self, outcome: Outcome) -> None:
        """How the attempt ended whose answer the client gets, unless that was told before."""
        if self.outcome is None:
            self.outcome = outcome

    def break_off(self, outcome: Outcome) -> None:
        """The client gets no whole answer."""
        self.outcome, self.ending = outcome, "error"

    def fail(self) -> None:
        """It ended with an error below the hooks."""
        if self.ending == "done":
            self.ending = "error"

    def cancel(self) -> None:
        """The client left, or mitmproxy ends: no provider's failure."""
        self.ending = "cancelled"
        self.label_attempt("cancelled")

    def release(self) -> None:
        """The request is over: mitmweb may keep its flow for long, and with it this."""
        self.facts = self.dispatch = None
        self.failed_notes = []
        for attempt in self.attempts:
            attempt.outgoing = attempt.health_token = None
        self.hidden, self.path, self.hidden_body = {}, self.shown_path, None
        self.asked_path = ""
        self.caller = Caller(())

    # of the target that is asked

    @property
    def outgoing(self) -> Outgoing | None:
        return self.attempts[-1].outgoing if self.attempts else None

    @property
    def model(self) -> str | None:
        """The model as sent upstream."""
        if self.outgoing is not None:
            return self.outgoing.model
        return self.facts.asked if self.facts is not None else None

    @property
    def timeout(self) -> Timeout:
        return self.provider.timeout if self.provider is not None else Timeout()

    @property
    def first_byte_limit(self) -> float:
        """Seconds; an answer that is not streamed comes only when all of it is written."""
        return self.timeout.first_byte_limit(streamed=self.wants_stream)

    def estimate(self) -> int:
        """Input tokens to show where the provider reports none; takes its time where asked first."""
        return self.facts.tokens_at(self.model) if self.facts is not None else 0

    @property
    def is_provenance_written(self) -> bool:
        """Whether other routers with this state folder can know whose thinking was delivered."""
        return self._provenance is None or self._provenance.is_written

    @property
    def provenance_key(self) -> bytes | None:
        """Key of the digests of thinking blocks."""
        return self._provenance.key if self._provenance is not None else None

    # credentials

    @property
    def secrets(self) -> tuple[str, ...]:
        """The credentials that the provider asked gets: the target's, else those that the caller sent."""
        if self.outgoing is not None:
            return self.outgoing.secrets
        return secrets_of(self.caller.headers, self.path)

    def redact(self, data: bytes) -> bytes:
        """What the provider that is asked said, less the credentials that it was asked with."""
        return without_secrets(data, self.secrets)

    def redact_text(self, text: str) -> str:
        """The same of a text."""
        return self.redact(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def leak(self, path: str, headers: list[tuple[str, str]]) -> str | None:
        """The header or path that must not be sent to this provider; see `credentials.leak`."""
        if self.outgoing is None:
            return None
        return leak(self.outgoing.provider, path, headers, self.outgoing.login)

    def shown_key(self, provider: Provider) -> str | None:
        """The caller's own credential, masked, where that is what this provider gets."""
        if provider.auth != "client":
            return None
        key = next((value for name, value in self.caller.headers if name.lower() in LOGIN), None)
        return None if key is None else masked_value(key)

    # what the client gets

    @property
    def request_id(self) -> str:
        """What the client knows this request by: the id that the provider whose answer it gets has for it,
        as that can look it up; else `req_` and the flow's, which stands in mitmweb's address."""
        given = self.attempts[-1].request_id if self.attempts and not self.head_given else ""
        return given or f"req_{self.id}"

    def headers(self) -> dict[str, str]:
        """Headers of every answer on the messages paths (the contract, section 3), as far as they are known.
        If no target was asked, provider and model are those of the last one that was skipped."""
        if not self.is_messages_request:
            return {}
        provider, model = self.provider.shown if self.provider else "", self.model
        if self.provider is None and self.skipped:
            provider, model = self.skipped[-1].provider, self.skipped[-1].model
        values = {
            "x-signalbox-provider": provider,
            "x-signalbox-model": model or "",
            "x-signalbox-rule": self.label,
            "x-signalbox-attempts": " ".join(self.attempt_labels),
            "request-id": self.request_id,
        }
        return {name: quote(value[:LONGEST], safe=PLAIN) for name, value in values.items() if value}
