"""Removes what only Anthropic gets: Claude Code's billing block, and the user's ids."""

from hashlib import blake2b

from .json_edit import Body, BodyError, Edit, delete_items, elements, members

BILLING = "x-anthropic-billing-header"
"""The beginning of Claude Code's first system block. The block changes with every request, which would also
prevent other providers from caching what follows it."""


def without_billing_block(body: Body) -> list[Edit]:
    """Deletes the billing block, or all of `system` if it has no other block, since some providers refuse
    `[]`."""
    place = body.span("system")
    if place is None or body.readable.find(BILLING.encode(), place.value, place.end) < 0:
        return []
    try:
        blocks = elements(body.readable, place.value, place.end)
        first = Body.parse(body.readable[blocks[0].value : blocks[0].end])
    except BodyError:
        return []
    if not (first.get("text", str) or "").startswith(BILLING):
        return []
    whole = body.drop("system")
    return [whole] if len(blocks) == 1 and whole else delete_items(blocks, {0})


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
