"""What a refusal teaches of what a provider does not take."""

import logging

from signalbox.messages import betas
from signalbox.messages.body import Body, BodyError
from signalbox.messages.rejected import rejected_by
from signalbox.routing.course import Attempt
from signalbox.upkeep.learned import Learned

log = logging.getLogger("signalbox")


def learn(attempt: Attempt, status: int, said: bytes, learned: Learned) -> bool:
    """Remember the fields and betas that a refusal names; whether there is anything new among them."""
    provider, model, outgoing = attempt.provider, attempt.choice.model or "", attempt.outgoing
    if provider.beta != "learn":
        return False
    sent = betas.split(value for name, value in outgoing.headers if name.lower() == "anthropic-beta")
    try:
        named = rejected_by(status, said, Body.parse(outgoing.body), sent)
    except BodyError:  # what was sent is compressed
        return False
    new = named - learned.rejected(provider.name, model)
    if new:
        learned.learn(provider.name, model, new)
        log.warning("%s does not take %s: left out from now on", provider.name, ", ".join(sorted(new)))
    return bool(new)
