"""The values of `anthropic-beta`, which may come in several headers or in one with commas, and repeatedly.

Most values allow fields of the body. A field without its beta is refused
(https://docs.claude.com/en/docs/claude-code/llm-gateway); a beta without its field has no effect.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

OAUTH = "oauth-2025-04-20"
LONG_CONTEXT = "context-1m-2025-08-07"

PAIRS: Mapping[str, tuple[str, ...]] = {
    "advanced-tool-use-2025-11-20": (
        "tools.defer_loading",
        "tools.input_examples",
        "tools.allowed_callers",
        "messages.content.content.type=tool_reference",
    ),
    "advisor-tool-2026-03-01": ("tools.type=advisor_20260301",),
    "compact-2026-01-12": ("context_management.edits.type=compact_20260112",),
    "context-management-2025-06-27": ("context_management",),
    "dangerous-tool-use-2026-09-03": ("safeguards",),
    "effort-2025-11-24": ("output_config.effort",),
    "fast-mode-2026-02-01": ("speed",),
    "mcp-client-2025-04-04": ("mcp_servers",),
    "mcp-client-2025-11-20": ("mcp_servers", "tools.type=mcp_toolset"),
    "message-threads-2026-08-12": ("thread",),
    "mid-conversation-system-2026-04-07": ("messages.role=system",),
    "mid-conversation-tool-changes-2026-07-01": (
        "messages.content.type=tool_addition",
        "messages.content.type=tool_removal",
    ),
    "per-turn-control-2026-07-01": ("messages.clear_at", "messages.output_config"),
    "prompt-caching-scope-2026-01-05": ("cache_control.scope",),
    "server-side-fallback-2026-07-01": ("fallbacks",),
    "task-budgets-2026-03-13": ("output_config.task_budget",),
    "thinking-binding-controls-2026-08-01": ("thinking.block_binding",),
    "thinking-display-updates-2026-08-18": ("thinking.display=updates",),
    # Below: inferred from the names alone.
    "code-execution-2025-05-22": ("container",),
    "compact-2026-09-04": ("compaction",),
    "extended-cache-ttl-2025-04-11": ("cache_control.ttl",),
    "fallback-credit-2026-07-01": ("fallback_credit_token",),
    "fine-grained-tool-streaming-2025-05-14": ("tools.eager_input_streaming",),
    "mid-conversation-output-config-2026-07-01": ("messages.output_config",),
    "mid-conversation-system-clear-at-2026-08-21": ("messages.clear_at",),
    "server-side-fallback-2026-06-01": ("fallbacks",),
    "skills-2025-10-02": ("container",),
    "structured-outputs-2025-11-13": ("output_config.format", "output_format", "tools.strict"),
}
"""The fields that each value allows, as `field_paths` names them. Other values allow none."""

FIELDS = frozenset(field for fields in PAIRS.values() for field in fields)


def split(values: Iterable[str]) -> list[str]:
    """Each token of all header values once, in order."""
    return list(
        dict.fromkeys(token for value in values for part in value.split(",") if (token := part.strip()))
    )


def without_betas(values: Iterable[str], names: Collection[str]) -> list[str]:
    return [token for token in split(values) if token not in names]


def betas_left(sent: Iterable[str], rejected: Collection[str]) -> list[str]:
    """The values that are not rejected and allow no rejected field.

    `rejected` names values and fields; a field stands for all fields inside it.
    """
    return [
        beta
        for beta in split(sent)
        if beta not in rejected and not any(_lies_in(field, rejected) for field in PAIRS.get(beta, ()))
    ]


def dropped_with(sent: Iterable[str], kept: Collection[str]) -> frozenset[str]:
    """The fields of values that were sent and are not kept, without those that a kept value allows too.

    A field whose value was not sent is not dropped: it may not need a beta any more.
    """
    left_out = [beta for beta in split(sent) if beta not in kept]
    return frozenset(_allowed(left_out)) - frozenset(_allowed(kept))


def _allowed(betas: Iterable[str]) -> Iterator[str]:
    for beta in betas:
        yield from PAIRS.get(beta, ())


def _lies_in(field: str, rejected: Collection[str]) -> bool:
    parts = field.split(".")
    return any(".".join(parts[:end]) in rejected for end in range(1, len(parts) + 1))
