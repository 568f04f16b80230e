"""How providers differ in what they call chat completions: one row each, and no code.

A new provider is a new row here and its golden files.
"""

from typing import Literal

import msgspec

type DialectName = Literal[
    "openai", "azure", "openrouter", "gemini", "kimi", "glm", "minimax", "deepseek", "mistral", "ollama",
    "vllm", "lmstudio", "composer", "generic",
]  # fmt: skip


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of provider takes and sends. The defaults are what every server should understand."""

    name: DialectName
    hosts: tuple[str, ...] = ()
    """Ends of host names (`api.openai.com`, `.openai.azure.com`), or a host with its usual port."""


DIALECTS: dict[str, Dialect] = {
    row.name: row
    for row in (
        Dialect(name="generic"),
        Dialect(name="openai", hosts=("api.openai.com",)),
    )
}


def dialect_of(name: str | None, host: str, port: int) -> Dialect:
    """The row that a provider's `dialect` names, else the one its URL's host tells, else `generic`."""
    if name is not None:
        return DIALECTS[name]
    where = (host.lower(), f"{host.lower()}:{port}")
    return next(
        (row for row in DIALECTS.values() if any(w.endswith(end) for w in where for end in row.hosts)),
        DIALECTS["generic"],
    )
