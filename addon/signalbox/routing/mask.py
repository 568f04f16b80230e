"""Secrets as they may be shown."""

SHOWN = 5
SHORTEST_SHOWN = 16
SCHEMES = ("bearer", "basic")


def mask(secret: str) -> str:
    """The first and last five characters, `sk-an...wigAA`; nothing of a secret under 16 characters."""
    if len(secret) < SHORTEST_SHOWN:
        return "***"
    return f"{secret[:SHOWN]}...{secret[-SHOWN:]}"


def masked_value(value: str) -> str:
    """A header's value with its secret masked; the word before it stays: `Bearer sk-an...wigAA`."""
    scheme, _, secret = value.partition(" ")
    if scheme.lower() in SCHEMES:
        return f"{scheme} {mask(secret.strip())}"
    return mask(value)
