"""Threads: requests with only the new turn of a conversation, whose earlier turns the provider stores.

`thread: {type: continue, previous_message_id}` (reference/anthropic-messages.md, section 2). A provider that
did not answer the previous turn does not have the conversation, and would answer the new turn alone with 200.
"""

from typing import NamedTuple

import msgspec

from signalbox.anthropic.json_edit import Body, BodyError
from signalbox.config.rules import Failover
from signalbox.routing.outgoing import Outgoing
from signalbox.routing.plan import UNTRANSLATABLE, Candidate, Plan

ELSEWHERE = (
    "The provider that this request goes to now does not hold the turns before in its thread; send the whole"
    " conversation (capability_rejected: beta_header:message-threads-2026-08-12)."
)
"""The text in brackets makes clients send the whole conversation again (the contract, section 4)."""

_ONCE = Failover(on=frozenset(), retries=0, wait=0.0)


class Owner(NamedTuple):
    """The provider and account that answered a turn."""

    provider: str
    account: bytes
    """A digest of the credential of the request."""


def for_owner(chosen: Plan, owner: Owner | None) -> Plan | None:
    """The plan with the owner of the thread as its only target, asked once; None if the rules send the
    request elsewhere. A plan without any target is returned unchanged.

    A request with an unknown thread goes to Anthropic itself, which refuses threads that are not its own.
    """
    if chosen.rule is None or (not chosen.candidates and not _is_untranslatable(chosen)):
        return chosen
    first = chosen.candidates[:1]
    known = (
        candidate for candidate in chosen.candidates if owner and candidate.provider.name == owner.provider
    )
    asked = next(known, None) if owner else next((c for c in first if c.provider.is_anthropic), None)
    if asked is None or asked.api != "anthropic":
        return None
    rule = msgspec.structs.replace(chosen.rule, failover=_ONCE)
    return msgspec.structs.replace(
        chosen, rule=rule, candidates=(asked,), chain=(asked,), skipped=(), reject=None
    )


def _is_untranslatable(chosen: Plan) -> bool:
    return any(skip.reason == UNTRANSLATABLE for skip in chosen.skipped)


def counts_all(candidate: Candidate) -> bool:
    """Whether this target counts the turns that its provider stores when it counts tokens."""
    return candidate.count_tokens != "estimate"


def names_thread(outgoing: Outgoing, wire: bytes) -> bool:
    """Whether the request that is sent still names the thread. It may be dropped together with its beta."""
    if outgoing.body is wire:
        return True
    try:
        return "thread" in Body.parse(outgoing.body)
    except BodyError:
        return False
