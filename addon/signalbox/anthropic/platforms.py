"""What clouds that serve Claude, and GitHub Copilot, refuse of the Messages API, by clouds.md, 1, 3 and 6.

The rows hold what is certain. The rest is learned from refusals.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec

from .betas import split
from .json_edit import Body

_DATED = re.compile(r"[-_](?:\d{8}|\d{4}-\d\d-\d\d)$", re.ASCII)


class Platform(NamedTuple):
    betas: tuple[str, ...] = ()
    """Values of `anthropic-beta` that it refuses, without their dates."""
    names: Mapping[str, str] = {}
    """Values that have another name there."""
    fields: frozenset[str] = frozenset()
    """Fields that it refuses whatever the betas, as `field_paths` names them."""
    server_tools: tuple[str, ...] | None = None
    """The tools that it runs by itself, without their dates; None: all, as far as is known."""


_TOOL_SEARCH = {"advanced-tool-use-2025-11-20": "tool-search-tool-2025-10-19"}
_REFUSED = (
    "advisor-tool",
    "code-execution",
    "fast-mode",
    "files-api",
    "mcp-client",
    "message-threads",
    "prompt-caching-scope",
    "skills",
    "web-fetch",
)
_STREAMED_INPUT = frozenset({"tools.eager_input_streaming"})

PLATFORMS: Mapping[str | None, Platform] = {
    "vertex": Platform(_REFUSED, _TOOL_SEARCH, server_tools=("web_search",)),
    "bedrock": Platform(_REFUSED, _TOOL_SEARCH, _STREAMED_INPUT, server_tools=()),
    "foundry": Platform(("advisor-tool", "prompt-caching-scope")),
    "copilot": Platform(fields=_STREAMED_INPUT, server_tools=()),
}
"""By cloud, as `config.clouds` names them. Anthropic's own platforms at Google and Amazon take all."""

_SERVER_TOOLS = frozenset({"web_search", "web_fetch", "code_execution"})
_MARK = re.compile(rb'"(?:%b)_' % "|".join(_SERVER_TOOLS).encode())


def renamed(values: Iterable[str], cloud: str | None) -> list[str]:
    """The values of `anthropic-beta` by the names that they have at a cloud."""
    names = PLATFORMS[cloud].names if cloud in PLATFORMS else {}
    return split(names.get(value, value) for value in values)


def refused_at(cloud: str | None, sent: Iterable[str], rejected: Collection[str]) -> frozenset[str]:
    """What is refused at a cloud of the values `sent`, and of fields: what is known of it, and `rejected`,
    which it has named by the names that values have there."""
    if cloud not in PLATFORMS:
        return frozenset(rejected)
    row = PLATFORMS[cloud]
    known = {value for value in split(sent) if _DATED.sub("", value) in row.betas}
    known |= {value for value, name in row.names.items() if name in rejected}
    return row.fields.union(rejected, known)


def without_server_tools(cloud: str | None, body: Body) -> str:
    """Why a cloud cannot serve a request, for people: of the tools that it offers, which all run at the
    provider (as in Claude Code's searches), the cloud has none. Empty if it can."""
    taken = PLATFORMS[cloud].server_tools if cloud in PLATFORMS else None
    tools = body.view("tools")
    if taken is None or tools is None or not _MARK.search(tools):
        return ""
    kinds = [tool.type for tool in body.get("tools", list[_Tool]) or ()]
    names = {_DATED.sub("", kind) for kind in kinds}
    if not names or not names <= _SERVER_TOOLS or names.intersection(taken):
        return ""
    return f"the request offers only tools that run at the provider, which has none of them ({kinds[0]})"


class _Tool(msgspec.Struct):
    type: str = ""
