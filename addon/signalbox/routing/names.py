"""Model names as clients write them: listing prefixes, the long-context suffix, and the tier in a name."""

from signalbox.messages.models import LISTED, LONG_CONTEXT_SUFFIX

PREFIXES = (LISTED, "anthropic/")
"""What the merged model list, or a habit of other routers, puts before a name."""

TIERS = ("opus", "sonnet", "haiku", "fable")
"""In the order in which they are looked for."""


def sent_name(asked: str) -> str:
    """The name without listing prefixes: what is sent where neither target nor provider names one."""
    name = asked
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name or asked


def matched_name(model: str) -> str:
    """The name that globs see: without listing prefixes and without `[1m]`."""
    return without_long_context(sent_name(model))[0]


def without_long_context(model: str) -> tuple[str, bool]:
    """The name without its `[1m]` (in any casing), and whether it had one."""
    name = model[: -len(LONG_CONTEXT_SUFFIX)]
    return (name, True) if name and model[len(name) :].lower() == LONG_CONTEXT_SUFFIX else (model, False)


def tier(model: str) -> str | None:
    """The tier that a model's name speaks of: `claude-3-5-haiku-latest` is `haiku`."""
    lowered = model.lower()
    return next((name for name in TIERS if name in lowered), None)
