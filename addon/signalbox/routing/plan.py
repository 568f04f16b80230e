"""Makes the plan for a request: the rule that matches, its targets in order, and those that are skipped."""

import re
from collections.abc import Callable, Sequence

import msgspec

from signalbox.config.rules import CLAUDE_APIS, Api, CountTokens, Provider, Reject, Rule, Rules, Target
from signalbox.routing.facts import (
    ConversationId,
    Facts,
    matched_name,
    rendezvous,
    sent_name,
    without_long_context,
)
from signalbox.routing.match import NOTHING_KNOWN, QuotaUsage, first_match

_DATE = re.compile(r"-(\d{8})$", re.ASCII)


class Candidate(msgspec.Struct, frozen=True):
    """One target of the chain. `model` is the name as sent; None leaves the model in the body."""

    provider: Provider
    target: Target
    model: str | None

    @property
    def api(self) -> Api:
        """The API in which this model is asked."""
        return self.provider.api_for(self.model)

    @property
    def serves_claude(self) -> bool:
        """Whether this is Claude itself, in its own protocol."""
        return self.provider.serves_claude and self.api in CLAUDE_APIS

    @property
    def count_tokens(self) -> CountTokens:
        """Who counts tokens for this model."""
        return self.provider.count_tokens_for(self.api)


type RefusalCheck = Callable[[Candidate, Facts], tuple[str, str] | None]
"""Returns why a target cannot be used now, or None: a reason of the contract's section 8 (or one of
`PERMANENT`), and the same for people, as in `no-key` and `ZAI_API_KEY is not set`."""
type LastResortCheck = Callable[[Candidate], bool]
"""Whether a skipped target is asked before the client gets an error: nothing but an open circuit or a short
cooldown blocks it."""

FAIL_OPEN = "fail-open"
"""Label and reason of requests that are passed on because the router itself failed, or has no rules."""
UNTRANSLATABLE = "untranslatable"

PERMANENT = frozenset({"no-key", "no-login", "not-yet", UNTRANSLATABLE})
"""Reasons that do not pass by themselves. A target with one of them is not asked even if all others are
skipped."""


class Skip(msgspec.Struct, frozen=True):
    """A target that is skipped."""

    provider: str
    model: str | None
    reason: str
    detail: str

    @property
    def why(self) -> str:
        """For people: `ZAI_API_KEY is not set`, `circuit, open for another 42 s`."""
        return self.detail if self.reason in PERMANENT else f"{self.reason}, {self.detail}"


class Plan(msgspec.Struct, frozen=True):
    """How one request is routed. No candidates and no `reject`: no target is available."""

    rule: Rule | None
    label: str
    """The rule's label, or `no_rule_label`: the request goes to the reverse upstream unchanged."""
    reason: str
    """As in the log line `dispatch:` (contract, section 8)."""
    candidates: tuple[Candidate, ...] = ()
    """The targets to ask, in order: the available ones, or what is asked where there are none."""
    chain: tuple[Candidate, ...] = ()
    """The available targets and those skipped for a reason that passes by itself, in order. The skipped ones
    may be asked when all available ones have failed."""
    skipped: tuple[Skip, ...] = ()
    reject: Reject | None = None
    is_first: bool = False
    """Whether the rule's first target is used."""


def no_rule_label(rules: Rules) -> str:
    """The label of requests that no rule matches."""
    return FAIL_OPEN if rules.fails_open else "none"


def plan(
    rules: Rules,
    facts: Facts,
    *,
    quota: QuotaUsage = NOTHING_KNOWN,
    refusals: Sequence[RefusalCheck] = (),
    is_last_resort: LastResortCheck = lambda candidate: False,
) -> Plan:
    """The plan for one request. `refusals` are checked in this order, after `REFUSALS`: whether the target's
    protocol can express the request, and whether the target is available now.

    If all targets are skipped and the list does not end in `reject`, the last one is asked nevertheless; if
    that cannot be asked at all, the last resorts are.
    """
    rule = first_match(rules, facts, quota) if facts.asked else None
    if rule is None or facts.asked is None:
        reason = "no-model" if rules.rules and not facts.asked else "no-rule"
        return Plan(rule=None, label=no_rule_label(rules), reason=FAIL_OPEN if rules.fails_open else reason)
    chain = _chain(rules, rule, facts, facts.asked)
    available, skipped = _partition(chain, facts, (*REFUSALS, *refusals))
    lasting = {id(candidate) for candidate, skip in skipped if skip.reason in PERMANENT}
    askable = tuple(candidate for candidate in chain if id(candidate) not in lasting)
    if askable and not available and not rule.reject:
        is_last_askable = askable[-1] is chain[-1]
        available = askable[-1:] if is_last_askable else tuple(filter(is_last_resort, askable))
        asked = set(map(id, available))
        skipped = tuple(pair for pair in skipped if id(pair[0]) not in asked)
    is_first = available[:1] == chain[:1]
    return Plan(
        rule=rule,
        label=rule.label,
        reason=f"rule:{rule.label}" if is_first else skipped[0][1].reason,
        candidates=available,
        chain=askable,
        skipped=tuple(skip for _, skip in skipped),
        reject=rule.reject,
        is_first=is_first,
    )


def _chain(rules: Rules, rule: Rule, facts: Facts, asked: str) -> tuple[Candidate, ...]:
    """All targets of the rule, in the order of this conversation, with the model as it would be sent."""
    targets = (target for equals in rule.choices for target in _ordered(equals, facts.conversation))
    pairs = ((rules.providers[target.provider], target) for target in targets)
    return tuple(
        Candidate(provider, target, model_sent(provider, target, asked)) for provider, target in pairs
    )


def _ordered(equals: tuple[Target, ...], conversation: ConversationId | None) -> Sequence[Target]:
    """Equal targets in the order that this conversation keeps."""
    if conversation is None:
        return equals
    return sorted(equals, key=lambda target: rendezvous(conversation, target.provider, target.model or ""))


def model_sent(provider: Provider, target: Target, asked: str) -> str:
    """The model's name as this target gets it. Only who serves Claude gets `[1m]`, if it is in the body;
    Vertex AI writes the date of a version after `@`."""
    matched = matched_name(asked)
    requested = sent_name(asked) if provider.serves_claude else matched
    if target.model is None:
        model = next((to for glob, to in provider.rename if glob.matches(matched)), requested)
    else:
        model = target.model.replace("{model}", requested)
    plain = without_long_context(model)[0]
    match provider.api_for(plain):
        case "vertex":
            return _DATE.sub(r"@\1", plain)
        case "anthropic" if provider.serves_claude:
            return model
    return plain


def _partition(
    chain: Sequence[Candidate], facts: Facts, refusals: Sequence[RefusalCheck]
) -> tuple[tuple[Candidate, ...], tuple[tuple[Candidate, Skip], ...]]:
    """The available candidates, and the others with their first refusal."""
    available, skipped = [], []
    for candidate in chain:
        refused = next((refused for refusal in refusals if (refused := refusal(candidate, facts))), None)
        if refused:
            skipped.append((candidate, Skip(candidate.provider.name, candidate.model, *refused)))
        else:
            available.append(candidate)
    return tuple(available), tuple(skipped)


def _not_usable(candidate: Candidate, facts: Facts) -> tuple[str, str] | None:
    provider = candidate.provider
    if not provider.unavailable:
        return None
    return "no-key" if provider.auth == "key" and not provider.key else "not-yet", provider.unavailable


def _no_login(candidate: Candidate, facts: Facts) -> tuple[str, str] | None:
    if candidate.provider.auth != "client" or facts.has_login:
        return None
    return "no-login", "the caller sent no login of its own"


REFUSALS: tuple[RefusalCheck, ...] = (_not_usable, _no_login)
"""Checks that depend on rules and facts alone, in order."""
