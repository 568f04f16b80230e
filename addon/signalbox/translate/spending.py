"""What an answer cost, as Anthropic counts it (translation.md, 5; openai-chat.md, 4)."""

from signalbox.translate.shapes import Object, as_object

_MOST = 10**12


def usage_of(told: Object) -> dict[str, int]:
    """The four counts of a `usage` object; empty where it tells none.

    `prompt_tokens` holds the cached ones, but for some who use Anthropic's names beside it.
    """
    prompt, completion = _count(told, "prompt_tokens"), _count(told, "completion_tokens")
    details = as_object(told.get("prompt_tokens_details"))
    cached = (
        _count(details, "cached_tokens")
        or _count(told, "cached_tokens")
        or _count(told, "prompt_cache_hit_tokens")
        or _count(told, "cache_read_input_tokens")
    )
    created = _count(details, "cache_write_tokens") or _count(told, "cache_creation_input_tokens")
    if not (prompt or completion or cached or created):
        return {}
    reasoning = _count(as_object(told.get("completion_tokens_details")), "reasoning_tokens")
    if reasoning and _count(told, "total_tokens") == prompt + completion + reasoning:
        completion += reasoning
    is_without = cached + created > prompt and (
        "cache_read_input_tokens" in told or "cache_creation_input_tokens" in told
    )
    return {
        "input_tokens": prompt if is_without else max(prompt - cached - created, 0),
        "cache_creation_input_tokens": created,
        "cache_read_input_tokens": cached,
        "output_tokens": completion,
    }


def estimated(characters: int) -> dict[str, int]:
    """Where none is told: of what was written only, as the start of the stream tells the rest."""
    return {"output_tokens": -(-characters // 4)}


def _count(told: Object, name: str) -> int:
    """Nonsense counts as zero."""
    value = told.get(name, 0)
    return int(value) if type(value) in (int, float) and 0 < value < _MOST else 0
