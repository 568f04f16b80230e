"""Headers of a request to GitHub Copilot that depend on what is in it (clouds.md, 6)."""

from signalbox.anthropic.turns import turns_of
from signalbox.routing.facts import Facts

_BY_ITSELF = ("subagent", "workflow", "compaction", "auxiliary")
"""Classes of requests that a client sends by itself."""


def copilot_headers(facts: Facts) -> list[tuple[str, str]]:
    """Who caused the request (which plans are billed by), what it is for, and whether it shows an image."""
    headers = [
        ("openai-intent", "conversation-edits"),
        ("x-initiator", "user" if is_prompted(facts) else "agent"),
    ]
    return [*headers, ("copilot-vision-request", "true")] if facts.images else headers


def is_prompted(facts: Facts) -> bool:
    """Whether a person caused the request: it ends in a prompt, and not in results of tools, beside which
    Claude Code puts reminders, or in an answer."""
    if facts.body is None or facts.agent == "subagent" or facts.request_class in _BY_ITSELF:
        return False
    last = next((turn for turn in reversed(turns_of(facts.body)) if turn.role != "system"), None)
    if last is None or last.role != "user":
        return False
    return all(block.type != "tool_result" for block in last.blocks())
