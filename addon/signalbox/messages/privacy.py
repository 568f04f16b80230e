"""What other providers than Anthropic do not get: Claude Code's billing block, and the user's ids."""

from hashlib import blake2b

from .json_edit import Body, BodyError, Edit, delete_items, elements, members

BILLING = "x-anthropic-billing-header"
"""How Claude Code's first system block begins. Its text changes from request to request, which would
also keep other providers from caching what follows."""


def without_billing_block(body: Body) -> list[Edit]:
    """Cuts that block; where it was the only one the whole field goes, since some refuse an empty list."""
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
    """Replaces the user id, of whatever type; `metadata` that cannot be read goes altogether."""
    place = body.span("metadata")
    if place is None:
        return []
    try:
        user = members(body.readable, place.value, place.end).get("user_id")
    except BodyError:
        whole = body.drop("metadata")
        return [whole] if whole else []
    told = b"null" if user is None else body.raw[user.value : user.end]
    if user is None or told == b"null":
        return []
    name = blake2b(told, digest_size=16, key=key, person=b"user").hexdigest()
    return [Edit(user.value, user.end, b'"user_%s"' % name.encode())]
