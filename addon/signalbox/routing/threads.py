"""Threads: requests that hold only the new turn of a conversation, whose earlier turns the provider keeps.

`thread: {type: continue, previous_message_id}` (reference/anthropic-messages.md, section 2): a provider that
did not answer the turn before does not have the conversation, and would answer the new turn alone with a 200.
"""

from typing import NamedTuple

import msgspec

from signalbox.anthropic.json_edit import Body, BodyError
from signalbox.config.rules import Failover, Provider
from signalbox.routing.outgoing import Outgoing
from signalbox.routing.plan import UNTRANSLATABLE, Plan

ELSEWHERE = (
    "The provider that this request goes to now does not hold the turns before in its thread; send the whole"
    " conversation (capability_rejected: beta_header:message-threads-2026-08-12)."
)
"""On what is in brackets clients send the whole conversation again (the contract, section 4)."""

_ONCE = Failover(on=frozenset(), retries=0, wait=0.0)


class Owner(NamedTuple):
    """The provider and account that answered a turn."""

    provider: str
    account: bytes
    """A digest of the credential it was asked with."""


def for_owner(chosen: Plan, owner: Owner | None) -> Plan | None:
    """The plan with the owner of the thread as its only target, asked once; None where the rules send the
    request elsewhere. A plan without any target is left as it is.

    Of a thread that is not known Anthropic itself is asked: it refuses those that are not its own.
    """
    if chosen.rule is None or (not chosen.candidates and not _is_untranslatable(chosen)):
        return chosen
    first = chosen.candidates[:1]
    known = (
        candidate for candidate in chosen.candidates if owner and candidate.provider.name == owner.provider
    )
    asked = next(known, None) if owner else next((c for c in first if c.provider.is_anthropic), None)
    if asked is None or asked.provider.api != "anthropic":
        return None
    rule = msgspec.structs.replace(chosen.rule, failover=_ONCE)
    return msgspec.structs.replace(
        chosen, rule=rule, candidates=(asked,), chain=(asked,), skipped=(), reject=None
    )


def _is_untranslatable(chosen: Plan) -> bool:
    return any(skip.reason == UNTRANSLATABLE for skip in chosen.skipped)


def counts_all(provider: Provider) -> bool:
    """Whether this provider would count the turns that only it holds."""
    return provider.count_tokens != "estimate"


def names_thread(outgoing: Outgoing, wire: bytes) -> bool:
    """Whether the thread is still named in what is sent, and not dropped with its beta."""
    if outgoing.body is wire:
        return True
    try:
        return "thread" in Body.parse(outgoing.body)
    except BodyError:
        return False
