"""What a refusal teaches of what a provider does not take."""

import logging

from signalbox.messages import betas
from signalbox.messages.body import Body, BodyError
from signalbox.messages.issued import Block
from signalbox.messages.rejected import rejected_by
from signalbox.messages.thinking import switched_off, without_thinking
from signalbox.routing.course import Attempt
from signalbox.upkeep.learned import Learned

log = logging.getLogger("signalbox")


def thinking_sent(attempt: Attempt, came: Body, key: bytes) -> frozenset[bytes] | None:
    """Digests of the thinking blocks that the attempt sent; None where it can do without nothing."""
    try:
        sent = Body.parse(attempt.outgoing.body)
    except BodyError:  # compressed, as it came
        sent = came
    digests: set[bytes] = set()

    def note(block: Block) -> bool:
        digests.add(block.digest(key) or b"")
        return False

    count = without_thinking(sent, note).count
    return frozenset(digests) - {b""} if count or switched_off(sent) else None


def learn(attempt: Attempt, status: int, said: bytes, learned: Learned) -> frozenset[str]:
    """Remember the fields and betas of the attempt that a refusal names; gives them."""
    provider, model, outgoing = attempt.provider, attempt.choice.model or "", attempt.outgoing
    if provider.beta != "learn":
        return frozenset()
    sent = betas.split(value for name, value in outgoing.headers if name.lower() == "anthropic-beta")
    try:
        named = rejected_by(status, said, Body.parse(outgoing.body), sent)
    except BodyError:  # what was sent is compressed
        return frozenset()
    new = named - learned.rejected(provider.name, model)
    if new:
        learned.learn(provider.name, model, new)
        log.warning("%s does not take %s: left out from now on", provider.name, ", ".join(sorted(new)))
    return named
