"""The answer to a request for nothing but a warm cache (`max_tokens: 0`), which others have no word for."""

from signalbox.translate.translated import EVENTS, JSON
from signalbox.translate.whole import Message
from signalbox.translate.writer import Writer, encode


def warmed_up(model: str, input_tokens: int, *, seed: str, stream: bool) -> tuple[bytes, str]:
    """A message without content, and its content type (translation.md, 1)."""
    writer = Writer(f"msg_{seed}", model, lambda _: "")
    writer.begin()
    writer.stop("max_tokens", {"input_tokens": input_tokens, "output_tokens": 0})
    events = writer.taken()
    if stream:
        return encode(events), EVENTS
    message = Message()
    message.add(events)
    return message.encoded(), JSON
