"""What one target is sent: URL, headers and body of that target only, and nothing of another's."""

from signalbox.routing.facts import Facts
from signalbox.routing.outgoing import Incoming, Outgoing, ProviderConstraints
from signalbox.routing.plan import Candidate
from signalbox.routing.prepare_chat import prepare_chat
from signalbox.routing.prepare_messages import prepare_messages


def prepare(
    candidate: Candidate,
    facts: Facts,
    incoming: Incoming,
    *,
    key: str | None,
    constraints: ProviderConstraints,
    is_only_candidate: bool,
    seed: str,
) -> Outgoing:
    """The request for one target, in the protocol that it speaks.

    `key` is the one of the provider's keys to use, or the token of its login. `is_only_candidate` says
    that no other attempt could follow: then a compressed answer may pass as it is (the contract, section 5).
    `seed` is random text that makes the ids of a translated answer unique.

    Raises UntranslatableError.
    """
    if candidate.provider.api == "openai":
        return prepare_chat(candidate, facts, incoming, key=key, constraints=constraints, seed=seed)
    return prepare_messages(
        candidate, facts, incoming, key=key, constraints=constraints, is_only_candidate=is_only_candidate
    )
