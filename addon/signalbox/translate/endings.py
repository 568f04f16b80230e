"""Why an answer ended, as Anthropic says it (translation.md, 5)."""

_STOPS = {
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "content_filter": "refusal",
    "sensitive": "refusal",
    "refusal": "refusal",
    "safety": "refusal",
    "recitation": "refusal",
    "blocklist": "refusal",
    "prohibited_content": "refusal",
    "spii": "refusal",
    "model_context_window_exceeded": "model_context_window_exceeded",
}
"""All others are ends of a turn. Gemini writes its own in capitals."""

_FAULTS = {
    "network_error": "api_error",
    "error": "api_error",
    "aborted": "api_error",
    "malformed_function_call": "api_error",
    "insufficient_system_resource": "overloaded_error",
}


def fault_of(finish: str) -> str:
    """The type of error that a `finish_reason` tells of; empty where it tells of a stop."""
    return _FAULTS.get(finish, "")


def is_cut(finish: str) -> bool:
    """Whether the answer reached a limit, so that what it wrote last may not be whole."""
    return _STOPS.get(finish) in ("max_tokens", "model_context_window_exceeded")


def stop_reason(finish: str, *, called: bool, refused: bool) -> str:
    """`called`: whether the answer has a tool call. Gemini and others say `stop` then, and what counts is
    the call; but for an answer that was too long, whose last call is cut."""
    told = "refusal" if refused else _STOPS.get(finish, "end_turn")
    return "tool_use" if called and told == "end_turn" else told
