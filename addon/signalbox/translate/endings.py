"""Why an answer ended, as Anthropic says it (translation.md, 5)."""

import re
from collections.abc import Mapping

_MEANINGS: Mapping[str, str] = {
    word: meaning
    for meaning, words in {
        "end_turn": "stop end_turn end eos eos_token complete completed done stop_sequence tool_calls"
        " tool_call tool_use function_call",
        "max_tokens": "length max_tokens max_output_tokens",
        "model_context_window_exceeded": "model_context_window_exceeded model_length",
        "refusal": "content_filter sensitive refusal safety recitation blocklist prohibited_content spii"
        " language",
        "api_error": "error network_error aborted abort cancelled canceled malformed_function_call"
        " malformed_response unexpected_tool_call too_many_tool_calls missing_thought_signature",
        "overloaded_error": "insufficient_system_resource load_shed",
        "timeout_error": "timeout",
    }.items()
    for word in words.split()
} | {"": "end_turn"}
"""What each `finish_reason` means: a stop reason, or the type of an error. Gemini writes its own in capitals;
`model_length` is Mistral's, `load_shed` Fireworks'."""

_RULES: Mapping[str, re.Pattern[str]] = {
    meaning: re.compile("|".join(parts.split()))
    for meaning, parts in {
        "overloaded_error": "overload load.?shed capacity resource unavailable rate.?limit throttl",
        "timeout_error": "time.?d?.?out deadline expired",
        "refusal": "filter safety sensitiv policy prohibit block refus guardrail moderat toxic unsafe",
        "api_error": "error abort cancel fail malform unexpected invalid interrupt disconnect crash killed"
        " exception missing unload too_many preempt evict shut.?down restart memory quota balance",
        "model_context_window_exceeded": "context",
        "max_tokens": "length max limit trunc incomplete",
    }.items()
}
"""What words that are not in the table mean, by what they hold; the first that does."""

_FAULTS = ("api_error", "overloaded_error", "timeout_error")


def is_known(finish: str) -> bool:
    return finish in _MEANINGS


def meaning(finish: str) -> str:
    """A stop reason, or the type of an error, of a `finish_reason` in lower case; `end_turn` of words that
    say nothing."""
    known = _MEANINGS.get(finish)
    return known or next((told for told, rule in _RULES.items() if rule.search(finish)), "end_turn")


def fault_of(finish: str) -> str:
    """The type of error that a `finish_reason` tells of; empty where it tells of a stop."""
    told = meaning(finish)
    return told if told in _FAULTS else ""


def is_cut(finish: str) -> bool:
    """Whether the answer reached a limit, so that what it wrote last may not be whole."""
    return meaning(finish) in ("max_tokens", "model_context_window_exceeded")


def stop_reason(finish: str, *, called: bool, refused: bool, stopped: bool = False) -> str:
    """`called`: whether the answer has a tool call. Gemini and others say `stop` then, and what counts is
    the call; but for an answer that was too long, whose last call is cut. `stopped`: whether a stop sequence
    was met."""
    told = "refusal" if refused else meaning(finish)
    if told != "end_turn":
        return told
    return "tool_use" if called else "stop_sequence" if stopped else told


def stop_sequence(finish: str, told: str, asked: tuple[str, ...]) -> str:
    """Which of the `asked` ones ended the answer; empty where none did or that is not known. Providers tell
    other things in the same field: the token of the end, Anthropic's own words."""
    if told in asked:
        return told
    return asked[0] if finish == "stop_sequence" and len(asked) == 1 else ""
