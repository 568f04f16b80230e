"""Pieces of the answers of a provider that hesitates, or fails after it has sent something."""

from tests.support.answers import USAGE, event, message_events, text_block


def parts(model: str, text: str) -> tuple[bytes, bytes]:
    """A streamed message: what comes before the answer has begun, and the rest."""
    events = message_events(model, [text_block("")], [text], USAGE, USAGE)
    return b"".join(events[:3]), b"".join(events[3:])


EARLY, REST = parts("glm", "from-zai")

BROKEN = event("error", error={"type": "api_error", "message": "broken"})
LATE = message_events("glm", [text_block("")], ["LATE"], USAGE, USAGE)
"""What nobody waits for any more."""
NOISE = [event("ping", of="an abandoned answer")] * 50
"""What comes after an error and is no answer either."""
