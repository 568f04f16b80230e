"""The values of `anthropic-beta`, which may come in several headers, in one with commas, and twice."""

from collections.abc import Collection, Iterable

OAUTH = "oauth-2025-04-20"
LONG_CONTEXT = "context-1m-2025-08-07"


def split(values: Iterable[str]) -> list[str]:
    """Each token of all header values once, in order."""
    return list(
        dict.fromkeys(token for value in values for part in value.split(",") if (token := part.strip()))
    )


def without(values: Iterable[str], names: Collection[str]) -> list[str]:
    return [token for token in split(values) if token not in names]
