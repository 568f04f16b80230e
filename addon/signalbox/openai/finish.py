"""Why an answer ended: the meaning of each `finish_reason` of chat completions (translation.md, 5).

The reasons of incomplete Responses are read by the same tables.
"""

import re
from collections.abc import Mapping

_MEANINGS: Mapping[str, str] = {
    word: finish_meaning
    for finish_meaning, words in {
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
    finish_meaning: re.compile("|".join(parts.split()))
    for finish_meaning, parts in {
        "overloaded_error": "overload load.?shed capacity resource unavailable rate.?limit throttl",
        "timeout_error": "time.?d?.?out deadline expired",
        "refusal": "filter safety sensitiv policy prohibit block refus guardrail moderat toxic unsafe",
        "api_error": "error abort cancel fail malform unexpected invalid interrupt disconnect crash killed"
        " exception missing unload too_many preempt evict shut.?down restart memory quota balance",
        "model_context_window_exceeded": "context",
        "max_tokens": "length max limit trunc incomplete",
    }.items()
}
"""The meaning of a word that is not in the table: that of the first pattern found in it."""

_FAULTS = ("api_error", "overloaded_error", "timeout_error")


def is_known(finish: str) -> bool:
    return finish in _MEANINGS


def finish_meaning(finish: str) -> str:
    """The stop reason or error type that a `finish_reason` (in lower case) stands for; `end_turn` if it is
    unknown."""
    known = _MEANINGS.get(finish)
    return known or next((meaning for meaning, rule in _RULES.items() if rule.search(finish)), "end_turn")


def fault_of(finish: str) -> str:
    """The error type that a `finish_reason` stands for; empty if it stands for a stop reason."""
    meaning = finish_meaning(finish)
    return meaning if meaning in _FAULTS else ""


def is_cut(finish: str) -> bool:
    """Whether the answer reached a limit, so that its last call or text may be incomplete."""
    return finish_meaning(finish) in ("max_tokens", "model_context_window_exceeded")


def stop_reason(finish: str, *, called: bool, refused: bool, stopped: bool = False) -> str:
    """The stop reason of an answer. `called`: it has a tool call, which decides, since Gemini and others then
    report `stop`; unless the answer reached a limit, where the last call is cut. `stopped`: a stop sequence
    ended it."""
    reason = "refusal" if refused else finish_meaning(finish)
    if reason != "end_turn":
        return reason
    return "tool_use" if called else "stop_sequence" if stopped else reason


def stop_sequence(finish: str, reported: str, asked: tuple[str, ...]) -> str:
    """The stop sequence of `asked` that ended the answer; empty if none did or it is unknown. `reported` may
    also be the token that ends a text, or a word of Anthropic's."""
    if reported in asked:
        return reported
    return asked[0] if finish == "stop_sequence" and len(asked) == 1 else ""
