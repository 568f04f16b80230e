"""`metadata.user_id`, in which Claude Code names session, device and account (anthropic-messages.md, 2).

Anthropic alone gets it as it is. Others get a name that tells nothing: a hash of it under a key of the state
folder. It stays the same for as long as the client's own does, restarts included, so that a provider which
keeps caches or limits by user can go on to do so.
"""

from hashlib import blake2b

from .body import Body, BodyError, Edit, members


def with_opaque_user(body: Body, key: bytes) -> list[Edit]:
    """Replaces the user id, of whatever type; `metadata` that cannot be read goes altogether."""
    place = body.place("metadata")
    if place is None:
        return []
    try:
        user = members(body.text, place.value, place.end).get("user_id")
    except BodyError:
        whole = body.drop("metadata")
        return [whole] if whole else []
    told = b"null" if user is None else body.raw[user.value : user.end]
    if user is None or told == b"null":
        return []
    name = blake2b(told, digest_size=16, key=key, person=b"user").hexdigest()
    return [Edit(user.value, user.end, b'"user_%s"' % name.encode())]
