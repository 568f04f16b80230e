"""The state of one request, from its head to its record."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.api import Usage
from signalbox.anthropic.redaction import without_quotes_of, without_secrets
from signalbox.config.rules import Provider, Rule, Rules, Timeout
from signalbox.routing.attempts import Attempt
from signalbox.routing.credentials import LOGIN, Caller, leak, masked_value, own_secrets, secrets_of
from signalbox.routing.facts import Facts
from signalbox.routing.outcome import CANCELLED, Outcome
from signalbox.routing.outgoing import Outgoing
from signalbox.routing.plan import FAIL_OPEN, PERMANENT, Plan, Skip, no_rule_label
from signalbox.routing.repair import Provenance

if TYPE_CHECKING:
    from signalbox.proxy.dispatch import Dispatch


type RequestKind = Literal["messages", "count_tokens", "models", "pipe", "own", "refused"]
"""How a request is handled: routed (the first two), answered with the merged model list, passed through
unchanged, answered by the router itself, or refused."""

type Ending = Literal["done", "error", "cancelled"]

LONGEST = 500
"""Characters of the longest name in a header; a client's model may be of any length."""

_IDS = (
    "request-id", "x-request-id", "apim-request-id", "x-generation-id", "x-amzn-requestid",
    "x-oai-request-id", "x-github-request-id",
)  # fmt: skip
"""Headers with a provider's id of a request: Anthropic's, OpenAI's and most others', Azure's, OpenRouter's,
Amazon's, the Codex backend's, GitHub's (anthropic-messages.md, 9; openai-chat.md, 5 and 6; providers.md;
clouds.md, 7)."""
_ID = re.compile(r"[\w.:/=+-]{1,200}", re.ASCII)

PLAIN = " !#$&'()*+,/:;=?@[]^`{|}~"
"""Characters that are not escaped in a header's value, besides letters and digits."""


def upstream_request_id(headers: Mapping[str, str]) -> str:
    """The provider's id of the request, from the headers of its answer; empty if there is none."""
    lower = {name.lower(): value for name, value in headers.items()}
    return next((lower[name] for name in _IDS if _ID.fullmatch(lower.get(name, ""))), "")


class HiddenBody(NamedTuple):
    """A body in which something is masked: what a person sees, what is sent, and the latter's encoding."""

    shown: bytes
    sent: bytes
    encoding: str


class Exchange:
    """One request and its answer. `rules` are those in force when it began; they do not change.

    Times are seconds of a monotonic clock, except `ts`. `id` is the flow's.
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
        """The provider that is asked, or for which the router answers itself. None until that is decided."""
        self.label = no_rule_label(rules)
        """The rule's label, for the log and `x-signalbox-rule`."""
        self.reason = ""
        """Why the request goes to its provider, as in the log line `dispatch:`."""
        self.rule: Rule | None = None
        """The rule that matched."""
        self.skipped: tuple[Skip, ...] = ()
        """Targets that the plan skipped."""
        self.failed_open = False
        """Whether it is passed on unchanged because of an error in the router."""
        self.dispatch: Dispatch | None = None
        """Makes the attempts, if a rule matched."""
        self.attempts: list[Attempt] = []
        """In order; the last one may be under way."""
        self.renewed: Provider | None = None
        """The provider that is asked, with the key that its command has printed meanwhile."""
        self.hidden: dict[str, tuple[list[str], list[str]]] = {}
        """By header: its masked values, which the flow shows, and its real values, which are sent."""
        self.path = self.shown_path = ""
        """Path and query of the request, and the same with secrets masked."""
        self.asked_path = ""
        """Path and query of the client's request."""
        self.is_shown = False
        """Whether a person or a file gets to see its flow."""
        self.login_tokens: tuple[str, ...] = ()
        """Tokens of all logins that the rules name, as they were when the request came."""
        self.hidden_body: HiddenBody | None = None
        """The body of the flow's request, where it shows another: put back when the request is sent."""
        self.shown_body: bytes | None = None
        """The body of the flow's request once it was masked, the very object: any other may hold secrets."""
        self.close_after_response = False
        """Whether the client wants its connection closed after the answer."""
        self.answer: AnswerFacts | None = None
        """Facts of the answer that the client gets, if it is a provider's."""
        self.outcome: Outcome | None = None
        """The outcome of the last attempt, if something else than its answer decided it."""
        self.first_byte: float | None = None
        """When the first byte of the answer went to the client."""
        self.head_given = False
        """Whether the client got an early response head, before any answer."""
        self.failed_notes: list[dict[str, Any]] = []
        """The metadata of the flows of failed attempts, to be completed with the number of attempts."""
        self.ending: Ending = "done"
        self.recorded = False
        self.reads_conversations = False
        """Whether the reader of one of the router's pages may see conversations."""
        self._answer_began = False

    # how it is handled

    def refuse(self) -> None:
        """It is answered with an error before it is routed."""
        self.kind = "refused"

    def pipe(self) -> None:
        """Request and answer are passed through unchanged."""
        self.kind = "pipe"

    def plan(self, chosen: Plan) -> None:
        """Takes over the plan, whether a rule matched or not."""
        self.rule, self.label, self.reason = chosen.rule, chosen.label, chosen.reason
        self.skipped = chosen.skipped

    def fail_open(self) -> None:
        """An error in the router: the request is passed on unchanged, see `pass_on`."""
        self.failed_open = True
        self.label = FAIL_OPEN

    def pass_on(self, provider: Provider, reason: str, now: float) -> None:
        """The request goes to `provider` unchanged, because no rule matches."""
        self.provider, self.reason = provider, reason
        self.attempts.append(Attempt.passed_on(provider, self.model, now))

    def mask(self, path: str, shown_path: str, hidden: dict[str, tuple[list[str], list[str]]]) -> None:
        """The flow's request shows `shown_path` instead of `path`, and masked values of some headers."""
        self.path, self.shown_path, self.hidden = path, shown_path, hidden

    @property
    def is_messages_request(self) -> bool:
        """Whether it is a request to one of the two messages paths, which are routed."""
        return self.kind in ("messages", "count_tokens")

    @property
    def wants_stream(self) -> bool:
        return self.facts is not None and self.facts.stream

    # its attempts

    def begin(self, dispatch: "Dispatch", *, close_after_response: bool) -> None:
        """A rule matched, and `dispatch` makes the attempts."""
        self.dispatch, self.close_after_response = dispatch, close_after_response

    def start_attempt(self, attempt: Attempt) -> None:
        """The attempt is sent now. The body of the attempt before is released."""
        if self.attempts:
            self.attempts[-1].outgoing = None
        self.provider, self.outcome = attempt.provider, None
        self.attempts.append(attempt)

    def label_attempt(self, label: str) -> None:
        """Sets the label of the attempt: a status, `connect`, `timeout`, `stream_error` or `cancelled`."""
        if (attempt := self._under_way) is not None:
            attempt.label = label

    def on_response_head(self, status: int, headers: Mapping[str, str], now: float) -> None:
        """The head of the attempt's answer has come; its outcome is still open."""
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
        """The attempt whose answer was delivered has ended. `outcome` is None if the client left."""
        if self.answer is not None and self.attempts:
            self.attempts[-1].cache_miss_reason = self.answer.cache_miss_reason
        self._end_attempt(outcome or CANCELLED, self.answer.usage if self.answer is not None else None, now)

    def _end_attempt(self, outcome: Outcome, usage: Usage | None, now: float) -> None:
        """`usage` None: what is known already."""
        if (attempt := self._under_way) is not None:
            attempt.outcome, attempt.ended = outcome, now
            if usage is not None:
                attempt.usage = usage

    @property
    def _under_way(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts and self.attempts[-1].ended is None else None

    @property
    def attempt_labels(self) -> tuple[str, ...]:
        """One `zai:429` per attempt."""
        return tuple(
            f"{attempt.provider.shown}:{attempt.label}" for attempt in self.attempts if attempt.label
        )

    def others(self, now: float) -> str:
        """Why the other targets of the chain did not answer, for people: `zai: 429, rate_limit_error; kimi:
        circuit, open for another 42 s`. Equal failures are listed once. Empty if there are none."""
        reasons = [
            (attempt.provider.shown, f"{attempt.label}, {attempt.detail}")
            for attempt in self.attempts
            if attempt.ended
        ]
        reasons += self.dispatch.not_asked(now) if self.dispatch is not None else []
        reasons += [(skip.provider, skip.why) for skip in self.skipped if skip.reason in PERMANENT]
        return "; ".join(dict.fromkeys(f"{name}: {why.rstrip(', ')}" for name, why in reasons))

    def failure_of_all(self, message: str, now: float) -> str:
        """For people: `message`, which is about the last target, and why the others did not answer."""
        assert self.provider is not None
        others = self.others(now)
        return f"{self.provider.shown} {message}" + (f"; {others}" if others else "")

    # how it ends

    def give_early_head(self, status: int | None) -> None:
        """The client gets the head of a stream before there is an answer. `status` is that of the attempt's
        answer, if its head has come."""
        self.head_given = True
        if status is not None:
            self.label_attempt(str(status))

    def answer_locally(self) -> None:
        """The client gets an answer that the router makes, instead of the provider's, whose usage counts."""
        if self.answer is not None and (attempt := self._under_way) is not None:
            attempt.usage = self.answer.usage
        self.answer = None

    def conclude(self, outcome: Outcome) -> None:
        """Sets the outcome of the attempt whose answer the client gets, unless it is set already."""
        if self.outcome is None:
            self.outcome = outcome

    def break_off(self, outcome: Outcome) -> None:
        """The client does not get the whole answer."""
        self.outcome, self.ending = outcome, "error"

    def fail(self) -> None:
        """mitmproxy ended the flow with an error."""
        if self.ending == "done":
            self.ending = "error"

    def cancel(self) -> None:
        """The client left, or mitmproxy shuts down: no provider has failed."""
        self.ending = "cancelled"
        self.label_attempt("cancelled")

    def release(self) -> None:
        """The request is over. Releases what is large or secret, since mitmweb may keep the flow for long."""
        self.facts = self.dispatch = None
        self.failed_notes = []
        for attempt in self.attempts:
            attempt.outgoing = attempt.health_token = None
        self.hidden, self.path = {}, self.shown_path
        self.hidden_body = self.shown_body = None
        self.login_tokens = ()
        self.asked_path = ""
        self.caller = Caller(())

    # the target that is asked

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
        """Seconds until the first byte; longer if the answer is not streamed, which comes as a whole."""
        return self.timeout.first_byte_limit(streamed=self.wants_stream)

    def estimate(self) -> int:
        """Input tokens to show if the provider reports none. The first call is slow."""
        return self.facts.tokens_at(self.model) if self.facts is not None else 0

    @property
    def is_provenance_written(self) -> bool:
        """Whether the issuers of delivered thinking are in the state folder, for other routers to read."""
        return self._provenance is None or self._provenance.is_written

    @property
    def provenance_key(self) -> bytes | None:
        """The key for digests of thinking blocks."""
        return self._provenance.key if self._provenance is not None else None

    # credentials

    @property
    def secrets(self) -> tuple[str, ...]:
        """The credentials that the provider gets: the target's, else those that the caller sent."""
        if self.outgoing is not None:
            return self.outgoing.secrets
        return secrets_of(self.caller.headers, self.path)

    @property
    def known_secrets(self) -> tuple[str, ...]:
        """All credentials that the request has to do with: the router's own, those that the caller sent, and
        those that its provider gets."""
        callers = secrets_of(self.caller.headers, self.asked_path)
        sent = self.outgoing.secrets if self.outgoing is not None else ()
        return tuple(dict.fromkeys((*own_secrets(self.rules), *self.login_tokens, *callers, *sent)))

    def redact(self, data: bytes) -> bytes:
        """Text of a provider that is logged, recorded or told by the router, without credentials."""
        return without_secrets(data, self.known_secrets)

    def redact_text(self, text: str) -> str:
        """The same of a text."""
        return self.redact(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def without_prompt(self, text: str) -> str:
        """What a provider says of an error, less what it repeats of the user's last text."""
        return without_quotes_of(self.facts.prompt, text) if text and self.facts is not None else text

    def leak(self, path: str, headers: list[tuple[str, str]]) -> str | None:
        """The header or path that must not be sent to this provider; see `credentials.leak`."""
        if self.outgoing is None:
            return None
        return leak(self.outgoing.provider, path, headers, self.outgoing.login)

    def shown_key(self, provider: Provider) -> str | None:
        """The caller's own credential, masked, if this provider gets it."""
        if provider.auth != "client":
            return None
        key = next((value for name, value in self.caller.headers if name.lower() in LOGIN), None)
        return None if key is None else masked_value(key)

    # what the client gets

    @property
    def request_id(self) -> str:
        """The id of this request for the client: the id of the provider whose answer it gets, with which the
        provider's support can find it; else `req_` and the flow's id, which is in mitmweb's URL."""
        given = self.attempts[-1].request_id if self.attempts and not self.head_given else ""
        return given or f"req_{self.id}"

    def headers(self) -> dict[str, str]:
        """The headers of every answer on the messages paths (the contract, section 3) that are known. If no
        target was asked, provider and model are those of the last skipped target."""
        if not self.is_messages_request:
            return {}
        provider, model = self.provider.shown if self.provider else "", self.model
        if self.provider is None and self.skipped:
            provider, model = self.skipped[-1].provider, self.skipped[-1].model
        return _headers(
            provider=provider,
            model=model or "",
            rule=self.label,
            attempts=" ".join(self.attempt_labels),
            request_id=self.request_id,
        )

    def headers_of_passed(
        self, provider: Provider, status: int, answer: Mapping[str, str], label: str
    ) -> dict[str, str]:
        """The same of an answer on these paths that is passed on unread, because there are no rules."""
        return _headers(
            provider=provider.shown,
            model="",
            rule=label,
            attempts=f"{provider.shown}:{status}",
            request_id=upstream_request_id(answer) or self.request_id,
        )


def _headers(*, provider: str, model: str, rule: str, attempts: str, request_id: str) -> dict[str, str]:
    values = {
        "x-signalbox-provider": provider,
        "x-signalbox-model": model,
        "x-signalbox-rule": rule,
        "x-signalbox-attempts": attempts,
        "request-id": request_id,
    }
    return {name: quote(value[:LONGEST], safe=PLAIN) for name, value in values.items() if value}
