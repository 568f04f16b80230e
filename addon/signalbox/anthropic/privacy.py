"""Removes what only Anthropic gets: Claude Code's billing block, and the user's ids."""

import re
from contextlib import suppress
from hashlib import blake2b

from .json_edit import Body, BodyError, Edit, delete_items, elements, members

BILLING = "x-anthropic-billing-header"
"""The beginning of Claude Code's first system block. The block changes with every request, which would also
prevent other providers from caching what follows it."""
_LINE = re.compile(rb'"%b(?:[^"\\]|\\[^n])*+(?:\\n)*+' % BILLING.encode())
"""The line with it at the beginning of a text as JSON, with the line ends after it."""


def without_billing_block(body: Body) -> list[Edit]:
    """Deletes the billing block wherever it stands in `system`, or all of `system` if it has no other block,
    since some providers refuse `[]`. Of a text that goes on after the line, only the line is deleted."""
    raw, place = body.readable, body.span("system")
    if place is None or raw.find(BILLING.encode(), place.value, place.end) < 0:
        return []
    if raw.startswith(b'"', place.value):
        blocks, texts = [place], [place.value]
    else:
        try:
            blocks = elements(raw, place.value, place.end)
        except BodyError:
            return []
        texts = [_text_at(raw, block.value, block.end) for block in blocks]
    lines = {index: line for index, text in enumerate(texts) if (line := _LINE.match(raw, text))}
    gone = {index for index, line in lines.items() if raw.startswith(b'"', line.end())}
    if len(gone) == len(blocks):
        whole = body.drop("system")
        return [whole] if whole else []
    rest = [Edit(line.start() + 1, line.end(), b"") for index, line in lines.items() if index not in gone]
    return [*delete_items(blocks, gone), *rest]


def _text_at(raw: bytes, start: int, end: int) -> int:
    """Where the text of a block begins; the end of the block if it has none."""
    if raw.find(BILLING.encode(), start, end) >= 0:
        with suppress(BodyError):
            text = members(raw, start, end).get("text")
            return end if text is None else text.value
    return end


def without_billing(text: str) -> str:
    """A text without the billing line that it begins with; empty if it is no more than that."""
    return text.partition("\n")[2].lstrip("\n") if text.startswith(BILLING) else text


def without_billing_in_json(text: bytes) -> bytes:
    """The same of a text as JSON."""
    line = _LINE.match(text)
    return text if line is None else b'"' + text[line.end() :]


def with_opaque_user(body: Body, key: bytes) -> list[Edit]:
    """Replaces `metadata.user_id`, in which Claude Code sends session, device and account
    (anthropic-messages.md, 2), by a keyed hash; the key is in the state folder. Unreadable `metadata` is
    dropped.

    The same id has the same hash, also after a restart, so that a provider can cache or limit by user.
    """
    place = body.span("metadata")
    if place is None:
        return []
    try:
        user = members(body.readable, place.value, place.end).get("user_id")
    except BodyError:
        whole = body.drop("metadata")
        return [whole] if whole else []
    id = b"null" if user is None else body.raw[user.value : user.end]
    if user is None or id == b"null":
        return []
    name = blake2b(id, digest_size=16, key=key, person=b"user").hexdigest()
    return [Edit(user.value, user.end, b'"user_%s"' % name.encode())]
