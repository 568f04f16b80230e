"""What the rules make of a request: the rule, its targets in order, those skipped, and what is changed.

Nothing is sent. The command line asks this of a model or of saved flows, mitmproxy's `signalbox.explain` of a
flow that it shows.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from signalbox.anthropic.api import COUNT_TOKENS, TOKEN_FIELDS, Usage
from signalbox.anthropic.issued import Issuer
from signalbox.anthropic.json_edit import Body
from signalbox.config.rules import Failover, Rules
from signalbox.protocols import api_of, translation_refusal, who_could
from signalbox.record.console import count, skip_line
from signalbox.record.prices import PriceTable
from signalbox.routing.credentials import Caller, Headers, masked_secret
from signalbox.routing.facts import Facts
from signalbox.routing.match import QuotaUsage, why
from signalbox.routing.outgoing import Incoming, Outgoing, ProviderConstraints
from signalbox.routing.plan import UNTRANSLATABLE, Candidate, Plan, plan
from signalbox.routing.translator import UntranslatableError

type Line = tuple[str, str]
"""A line of text, and rich's style for it."""

THINKING = {
    "own": "other providers' is dropped from the history",
    "keep": "all of the history's is kept",
    "strip": "all is dropped from the history",
}
UPSTREAM = "upstream"
"""Who gets what no rule decides about."""
REFUSED = "refused"
"""Who gets what the router answers with an error."""


class RecordedRequest(NamedTuple):
    """A request to one of the two messages paths, as its client sent it."""

    path: str
    """With its query."""
    headers: Headers
    body: bytes
    """Decoded."""
    port: int | None
    """The listener's; None where that is not known."""
    client: str | None
    received: datetime


class Known(Protocol):
    """State beyond the rules on which a plan depends."""

    def used(self, rules: Rules, caller: Caller) -> QuotaUsage: ...
    def refusal(self, candidate: Candidate, facts: Facts) -> tuple[str, str] | None:
        """Why a candidate is unavailable, as in `plan.RefusalCheck`."""
        ...

    def is_last_resort(self, candidate: Candidate) -> bool:
        """As in `plan.LastResortCheck`."""
        ...


@dataclass(frozen=True)
class Explanation:
    """One request under some rules."""

    rules: Rules
    facts: Facts
    incoming: Incoming
    quota: QuotaUsage
    plan: Plan
    issuer: Issuer | None
    """Who issued a thinking block; None where each counts as its target's own."""

    @property
    def target(self) -> Candidate | None:
        """Who is asked first."""
        return self.plan.candidates[0] if self.plan.candidates else None

    def outgoing(self, candidate: Candidate) -> Outgoing:
        """What this target would be sent. Raises UntranslatableError."""
        provider = candidate.provider
        return api_of(candidate).prepare(
            candidate,
            self.facts,
            self.incoming,
            key=provider.key,
            constraints=ProviderConstraints(
                self.issuer or (lambda _: provider.name), kin=self.rules.kin_of(provider)
            ),
            is_only_candidate=self.is_lone,
            seed="",
        )

    @property
    def is_lone(self) -> bool:
        """Whether nothing could take over from the first target."""
        return len(self.plan.candidates) + bool(self.plan.reject) == 1

    def changes(self) -> tuple[str, ...]:
        """What is changed for the first target."""
        try:
            return self.outgoing(self.target).changes if self.target is not None else ()
        except UntranslatableError as error:
            return (f"cannot be sent: {error}",)

    def as_dict(self) -> dict[str, Any]:
        """As JSON (the contract, section 9)."""
        target = self.target
        to = {"provider": target.provider.name, "model": target.model or self.facts.asked} if target else None
        if self.plan.rule is None:
            to = {"provider": UPSTREAM, "model": self.facts.asked}
        return {
            "asked": self.facts.asked,
            "rule": self.plan.label,
            "target": to,
            "skipped": [
                {"provider": skip.provider, "model": skip.model, "reason": skip.reason, "detail": skip.detail}
                for skip in self.plan.skipped
            ],
            "changes": list(self.changes()),
        }

    def lines(self, *, passed_over: bool = True) -> Iterator[Line]:
        """Rules that do not match where these are wanted, the one that does, its targets in order, and the
        skipped ones."""
        planned, name = self.plan, self.rules.file.name
        for rule in self.rules.rules if passed_over else ():
            if rule is planned.rule:
                break
            refusal = why(rule.match, self.facts, self.quota)
            yield f"{name}:{rule.line} {rule.label} does not match: {refusal}", "dim"
        if planned.rule is None:
            yield f"{self.facts.asked} matches no rule and goes to the reverse upstream as it came", "bold"
            return
        yield f"{name}:{planned.rule.line} {planned.label} matches {self.facts.asked}", "bold"
        for number, candidate in enumerate(planned.candidates, 1):
            yield from self._target(number, candidate)
        if planned.candidates and not self.is_lone:
            yield f"the next one is asked after: {_moves_on(planned.rule.failover)}", "dim"
            yield "a running router also skips what is in cooldown or has an open circuit", "dim"
        for skip in planned.skipped:
            yield skip_line(skip.provider, skip.model, skip.reason, skip.detail), "yellow"
        if self.facts.body is not None and any(skip.reason == UNTRANSLATABLE for skip in planned.skipped):
            yield who_could(self.rules, self.facts.body), "yellow"
        if planned.reject:
            then = "then " if planned.candidates else ""
            yield f"{then}refused here: {planned.reject.status} {planned.reject.message}", "red"
        elif not planned.candidates:
            yield "no target is available: refused here with 503", "red"

    def _target(self, number: int, candidate: Candidate) -> Iterator[Line]:
        provider = candidate.provider
        try:
            outgoing = self.outgoing(candidate)
        except UntranslatableError as error:
            yield f"{number}. {provider.name}: cannot be sent there: {error}", "yellow"
            return
        to = f"{provider.url.scheme}://{provider.url.authority}{outgoing.shown_path}"
        yield f"{number}. {provider.name}: POST {to}", "green"
        if self.facts.path == COUNT_TOKENS and candidate.count_tokens != "forward":
            yield f"   not sent, count_tokens: {candidate.count_tokens}", ""
        if spelling := api_of(candidate).spelling(provider):
            yield f"   {spelling}", ""
        yield f"   model: {outgoing.model}", ""
        yield f"   key: {_credential(candidate)}", ""
        yield f"   thinking: {THINKING[provider.thinking]}", ""
        for change in outgoing.changes or ("nothing",):
            yield f"   changed: {change}", ""


def _moves_on(failover: Failover) -> str:
    again = [f"{failover.retries} retries"] if failover.retries else []
    waits = [f"a retry-after of at most {failover.wait:g} s waited out"] if failover.wait else []
    first = f"; before that {' and '.join((*again, *waits))}" if again or waits else ""
    return (" ".join(sorted(failover.on)) or "nothing") + first


def _credential(candidate: Candidate) -> str:
    provider = candidate.provider
    match provider.auth:
        case "client":
            return "caller's own"
        case "claude-login" | "codex-login":
            return f"login in {provider.login}"
        case "none":
            return "none"
    return f"{masked_secret(provider.key or '')} ({provider.key_header_for(candidate.api)})"


def explained(
    rules: Rules, facts: Facts, incoming: Incoming, known: Known, issuer: Issuer | None = None
) -> Explanation:
    used = known.used(rules, Caller(incoming.headers, facts.client))
    planned = plan(
        rules,
        facts,
        quota=used,
        refusals=(translation_refusal, known.refusal),
        is_last_resort=known.is_last_resort,
    )
    return Explanation(rules, facts, incoming, used, planned, issuer)


def explained_request(
    rules: Rules, request: RecordedRequest, known: Known, issuer: Issuer | None, *, port: int
) -> Explanation:
    """`port` is the listener's where the request does not tell. Raises BodyError."""
    body = Body.parse(request.body)
    caller = Caller.of(request.headers, {}, request.client)
    facts = Facts(
        path=request.path.partition("?")[0],
        port=request.port or port,
        headers={name.lower(): value for name, value in request.headers},
        body=body,
        client=request.client,
        received=request.received,
        has_login=caller.has_login or not rules.clients,
    )
    return explained(rules, facts, Incoming(request.path, caller.headers, body.raw, body), known, issuer)


def paragraph(request: RecordedRequest, explanation: Explanation, recorded: str = "") -> Iterator[Line]:
    """`recorded` says what became of the request, where a router noted it."""
    when = request.received.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    facts = explanation.facts
    session = f" session {facts.session}" if facts.session else ""
    what = f"{facts.asked or 'no model'} {facts.path} {len(request.body):,} bytes{session}"
    yield f"{when} {what}", "bold cyan"
    if recorded:
        yield f"recorded: {recorded}", "dim"
    yield from explanation.lines(passed_over=False)


# many requests under two sets of rules


@dataclass(frozen=True)
class Share:
    """What one provider has of the requests."""

    requests: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float | None = None
    """US dollars of those whose price is known; None where that is none."""
    unpriced: int = 0
    """Requests that used tokens whose price is not known."""

    @classmethod
    def of(cls, usage: Usage, cost: float | None) -> "Share":
        """One request."""
        is_unpriced = cost is None and any(getattr(usage, name) for name in TOKEN_FIELDS)
        return cls(1, usage, cost, int(is_unpriced))

    def __add__(self, other: "Share") -> "Share":
        counts = {name: getattr(self.usage, name) + getattr(other.usage, name) for name in TOKEN_FIELDS}
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Share(
            self.requests + other.requests,
            Usage(**counts),
            round(sum(costs), 6) if costs else None,
            self.unpriced + other.unpriced,
        )

    @property
    def tokens(self) -> str:
        """`1.3k→890`: input, cached ones included, and output."""
        return f"{count(self.usage.total_input)}→{count(self.usage.output_tokens)}"

    def as_dict(self) -> dict[str, Any]:
        tokens = {name: getattr(self.usage, name) for name in TOKEN_FIELDS}
        return {"requests": self.requests, **tokens, "cost": self.cost, "unpriced": self.unpriced}


class Counted(NamedTuple):
    """A request under some rules, with the tokens that its recorded answer used."""

    said: Explanation
    usage: Usage


def shares(requests: Iterable[Counted], prices: PriceTable) -> dict[str, Share]:
    """By provider, in the order of their names, as if each first target had answered with the same tokens."""
    found: defaultdict[str, Share] = defaultdict(Share)
    for said, usage in requests:
        target, at = said.target, said.facts.received or datetime.now(UTC)
        if target is None and said.plan.rule is not None:
            found[REFUSED] += Share.of(Usage(), None)
        elif target is None:
            found[UPSTREAM] += Share.of(usage, prices.list_cost(said.facts.asked or "", usage, at))
        else:
            model = target.model or said.facts.asked or ""
            found[target.provider.name] += Share.of(usage, prices.cost(target.provider, model, usage, at))
    return dict(sorted(found.items()))
