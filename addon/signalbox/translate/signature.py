"""The `signature` of thinking blocks that are made here: who made them, and how the text goes back.

Providers of chat completions sign nothing. The prefix lets anyone tell these blocks from Anthropic's, and
the payload says under which key the provider wants its reasoning back (translation.md, 4).
"""

from hashlib import sha256
from typing import Any

from signalbox.messages.issued import MADE_HERE
from signalbox.translate.ids import decode, encode


def sign(provider: str, text: str, payload: dict[str, Any]) -> str:
    """`signalbox.<provider>.<16 hex of a hash of the text>.<base64url of the payload as JSON>`.

    In the payload `key` is the field of the answer that held the reasoning, `reasoning_details` that of
    OpenRouter, verbatim.
    """
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
    return ".".join((MADE_HERE, provider, digest, encode(payload)))


def payload_of(signature: str, provider: str) -> dict[str, Any]:
    """Empty where the text did not come from this provider."""
    prefix, *parts = signature.split(".")
    ours = prefix == MADE_HERE and len(parts) == 3 and parts[0] == provider
    return (decode(parts[2]) or {}) if ours else {}
