"""Who is to answer: the rule that matches, its targets in order, and who is passed over and why."""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec

from signalbox.config.rules import Provider, Reject, Rule, Rules, Target
from signalbox.routing.facts import Conversation, Facts, matched_name, sent_name, without_long_context
from signalbox.routing.match import NOTHING_KNOWN, Quota, first_match
from signalbox.translate.request import untranslatable


class Choice(msgspec.Struct, frozen=True):
    """One target of the chain. `model` is the name as sent; None leaves the body's own."""

    provider: Provider
    target: Target
    model: str | None


type Refusal = Callable[[Choice, Facts], tuple[str, str] | None]
"""Says why a target cannot be used now, or None: a reason of the contract's section 8 (or one of `LASTING`)
and the same for people, as `no-key` and `ZAI_API_KEY is not set`."""

UNTRANSLATABLE = "untranslatable"

LASTING = frozenset({"no-key", "no-login", "not-yet", UNTRANSLATABLE})
"""Reasons for which a target is not even tried where all others are passed over too."""


class Skip(msgspec.Struct, frozen=True):
    """A target that was passed over."""

    provider: str
    model: str | None
    reason: str
    detail: str

    @property
    def why(self) -> str:
        """For people: `ZAI_API_KEY is not set`, `circuit, open for another 42 s`."""
        return self.detail if self.reason in LASTING else f"{self.reason}, {self.detail}"


class Plan(msgspec.Struct, frozen=True):
    """What to do with one request. No choices and no `reject` means that nobody is available."""

    rule: Rule | None
    label: str
    """The rule's, else `none`: then the request goes to the reverse upstream as it came."""
    reason: str
    """As in the line `dispatch:` (contract, section 8)."""
    choices: tuple[Choice, ...] = ()
    """Available ones, in order."""
    chain: tuple[Choice, ...] = ()
    """These and the ones passed over for a reason that passes by itself, in order: who may still be asked
    when the available ones have failed."""
    skipped: tuple[Skip, ...] = ()
    reject: Reject | None = None
    is_first: bool = False
    """Whether the rule's first target is used."""


def plan(
    rules: Rules, facts: Facts, *, quota: Quota = NOTHING_KNOWN, refusals: Sequence[Refusal] = ()
) -> Plan:
    """The plan for one request. `refusals` are those of the moment, asked after the ones known here."""
    rule = first_match(rules, facts, quota) if facts.asked else None
    if rule is None or facts.asked is None:
        return Plan(
            rule=None, label="none", reason="no-model" if rules.rules and not facts.asked else "no-rule"
        )
    chain = _chain(rules, rule, facts, facts.asked)
    available, skipped = _sorted_out(chain, facts, (*REFUSALS, *refusals))
    lasting = {id(choice) for choice, skip in skipped if skip.reason in LASTING}
    if chain and not available and not rule.reject and id(chain[-1]) not in lasting:
        available, skipped = chain[-1:], skipped[:-1]
    is_first = available[:1] == chain[:1]
    return Plan(
        rule=rule,
        label=rule.label,
        reason=f"rule:{rule.label}" if is_first else skipped[0][1].reason,
        choices=available,
        chain=tuple(choice for choice in chain if id(choice) not in lasting),
        skipped=tuple(skip for _, skip in skipped),
        reject=rule.reject,
        is_first=is_first,
    )


def _chain(rules: Rules, rule: Rule, facts: Facts, asked: str) -> tuple[Choice, ...]:
    """Every target of the rule in the order of this conversation, with the model as it would be sent."""
    targets = (target for equals in rule.choices for target in _ordered(equals, facts.conversation))
    pairs = ((rules.providers[target.provider], target) for target in targets)
    return tuple(Choice(provider, target, model_sent(provider, target, asked)) for provider, target in pairs)


def _ordered(equals: tuple[Target, ...], conversation: Conversation | None) -> Sequence[Target]:
    """Equal targets by rendezvous hashing: a conversation keeps its order, many conversations spread.

    One more equal moves only the conversations that it wins.
    """
    if conversation is None:
        return equals

    def weight(target: Target) -> bytes:
        text = "\n".join((*conversation, target.provider, target.model or ""))
        return blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()

    return sorted(equals, key=weight)


def model_sent(provider: Provider, target: Target, asked: str) -> str:
    """The model's name as this target gets it. `[1m]` goes nowhere but to Anthropic itself."""
    matched = matched_name(asked)
    requested = sent_name(asked) if provider.is_anthropic else matched
    if target.model is None:
        model = next((to for glob, to in provider.rename if glob.matches(matched)), requested)
    else:
        model = target.model.replace("{model}", requested)
    return model if provider.is_anthropic else without_long_context(model)[0]


def _sorted_out(
    chain: Sequence[Choice], facts: Facts, refusals: Sequence[Refusal]
) -> tuple[tuple[Choice, ...], tuple[tuple[Choice, Skip], ...]]:
    """The available ones, and the others each with the first refusal it met."""
    available, skipped = [], []
    for choice in chain:
        refused = next((refused for refusal in refusals if (refused := refusal(choice, facts))), None)
        if refused:
            skipped.append((choice, Skip(choice.provider.name, choice.model, *refused)))
        else:
            available.append(choice)
    return tuple(available), tuple(skipped)


def _not_usable(choice: Choice, facts: Facts) -> tuple[str, str] | None:
    provider = choice.provider
    if not provider.unavailable:
        return None
    return "no-key" if provider.auth == "key" and not provider.key else "not-yet", provider.unavailable


def _no_login(choice: Choice, facts: Facts) -> tuple[str, str] | None:
    if choice.provider.auth != "client" or facts.has_login:
        return None
    return "no-login", "the caller sent no login of its own"


def _untranslatable(choice: Choice, facts: Facts) -> tuple[str, str] | None:
    if choice.provider.api != "openai" or facts.body is None:
        return None
    why = untranslatable(facts.body.text)
    return (UNTRANSLATABLE, why) if why else None


REFUSALS: tuple[Refusal, ...] = (_not_usable, _no_login, _untranslatable)
"""Those that rules and facts decide alone, in the order in which they are asked."""
