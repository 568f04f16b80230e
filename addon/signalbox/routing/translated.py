"""Parts of a request to a target of another protocol than the Messages API, the same for all of these.

Of the caller's headers only `user-agent` is sent: the others are Anthropic's, or identify the caller. Some
providers refuse requests whose `user-agent` is not that of a coding agent (reference/providers.md).
"""

from collections.abc import Sequence
from hashlib import blake2b

from signalbox import __version__
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.thinking import without_thinking
from signalbox.routing.credentials import is_secret, with_key
from signalbox.routing.outgoing import (
    KEY_SWAPPED,
    Incoming,
    ProviderConstraints,
    dropped_thinking,
    lowered_max_tokens,
    thinking_filter,
    with_configured_headers,
)
from signalbox.routing.plan import Candidate


def messages_body(
    candidate: Candidate, body: Body, constraints: ProviderConstraints
) -> tuple[Body, list[str]]:
    """The Messages body to translate: without thinking of other providers, with `max_tokens` bounded; and
    notes on both."""
    dropped = without_thinking(body, thinking_filter(candidate, constraints), keeps_mode=True)
    notes = [dropped_thinking(dropped.count)] if dropped.count else []
    bounded = lowered_max_tokens(candidate, body)
    raw = body.edited(set=bounded.set, edits=dropped.edits)
    return body if raw is body.raw else Body.parse(raw), [*notes, *bounded.notes]


def session_alias(session: str | None, key: bytes) -> str | None:
    """A name for the conversation, for the provider's prompt cache. The session's id itself is not sent."""
    if session is None:
        return None
    return blake2b(session.encode(errors="surrogatepass"), key=key, digest_size=16).hexdigest()


def translated_headers(
    candidate: Candidate,
    incoming: Incoming,
    body: bytes,
    key: str | None,
    *,
    stream: bool,
    more: Sequence[tuple[str, str]] = (),
) -> tuple[list[tuple[str, str]], list[str]]:
    """The headers of the request, and notes. `stream`: the body asks for one. `more` are the protocol's
    own, with names in lower case, which the rules may override."""
    callers = (value for name, value in incoming.headers if name.lower() == "user-agent")
    caller = next((value for value in callers if not is_secret("user-agent", value)), "")
    agent = dict(more).get("user-agent") or caller or f"signalbox/{__version__}"
    headers = [
        ("host", candidate.provider.url.authority),
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("accept", "text/event-stream" if stream else "application/json"),
        ("accept-encoding", "identity"),
        ("user-agent", agent),
        *(header for header in more if header[0] != "user-agent"),
    ]
    headers, notes = with_configured_headers(
        with_key(headers, candidate.provider, key, candidate.api), candidate
    )
    return headers, notes if key is None else [KEY_SWAPPED, *notes]
