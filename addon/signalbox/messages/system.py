"""The system prompt of a request."""

from .body import Body, BodyError, Edit, cut, elements

BILLING = "x-anthropic-billing-header"
"""How Claude Code's first system block begins. Its text changes from request to request, which would
also keep other providers from caching what follows."""


def without_billing_block(body: Body) -> list[Edit]:
    """Cuts that block; where it was the only one the whole field goes, since some refuse an empty list."""
    place = body.place("system")
    if place is None or body.text.find(BILLING.encode(), place.value, place.end) < 0:
        return []
    try:
        blocks = elements(body.text, place.value, place.end)
        first = Body.parse(body.text[blocks[0].value : blocks[0].end])
    except BodyError:
        return []
    if not (first.get("text", str) or "").startswith(BILLING):
        return []
    whole = body.drop("system")
    return [whole] if len(blocks) == 1 and whole else cut(blocks, {0})
