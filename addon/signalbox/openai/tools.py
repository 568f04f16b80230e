"""Translates tools, their names and schemas, and `tool_choice`."""

import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from signalbox.openai.dialects import Dialect
from signalbox.openai.incoming import Offered, Tool, as_list, as_object, as_text
from signalbox.openai.schemas import SchemaRules, parameters

_ODD = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST = 55
"""Characters of a name that are kept; `_` and eight characters of a hash follow: 64 in all."""


class Names:
    """Tool names in the form that a provider takes; the same name gives the same result in every request."""

    def __init__(self, legal: str) -> None:
        """`legal` is a pattern for the names that the provider takes."""
        self._legal = re.compile(legal)
        self.changed: dict[str, str] = {}
        """Client's names by the names sent, where they differ."""

    def sent(self, name: str) -> str:
        if self._legal.fullmatch(name):
            return name
        plain = _ODD.sub("_", name)
        plain = plain if self._legal.fullmatch(plain[:1]) else f"_{plain}"
        short = f"{plain[:_LONGEST]}_{sha256(name.encode()).hexdigest()[:8]}"
        self.changed[short] = name
        return short


class ToolChoice(NamedTuple):
    """The translation of `tool_choice`."""

    fields: dict[str, Any]
    say: str = ""
    """Text for the model, if the provider has no field for the choice."""
    offers: bool = True
    """Whether tools are offered."""


def functions(tools: Iterable[object]) -> dict[str, Tool]:
    """The tools that the client runs, by name and in order; the first tool of a name wins."""
    found: dict[str, Tool] = {}
    for tool in tools:
        if isinstance(tool, Tool) and tool.is_function:
            found.setdefault(tool.name, tool)
    return found


def offered(tools: Iterable[Tool], names: Names, rules: SchemaRules) -> list[dict[str, Any]]:
    """The field `tools`."""
    return [
        {
            "type": "function",
            "function": {
                "name": names.sent(tool.name),
                **({"description": tool.description} if isinstance(tool.description, str) else {}),
                "parameters": parameters_sent(tool, rules),
            },
        }
        for tool in tools
    ]


def parameters_sent(tool: Tool, rules: SchemaRules) -> msgspec.Raw:
    """The schema of a tool as sent."""
    return _parameters(bytes(tool.input_schema), rules)


@lru_cache(512)
def _parameters(schema: bytes, rules: SchemaRules) -> msgspec.Raw:
    """The schema as sent: its own compact bytes if nothing has to change. Cached, since a client sends its
    tools with every request."""
    parsed = msgspec.json.decode(schema)
    sent = parameters(parsed, rules)
    return msgspec.Raw(
        msgspec.json.format(schema, indent=-1) if sent == parsed else msgspec.json.encode(sent)
    )


def untranslatable_tools(asked: Offered, *, searches: bool = False) -> str:
    """The reason why no provider of another protocol can serve the request, else empty. `searches`: the
    provider has a web search of its own."""
    tools = [tool for tool in as_list(asked.tools) if isinstance(tool, Tool)]
    servers = [tool for tool in tools if not (tool.is_function or (searches and tool.is_web_search))]
    shown = [tool.shown for tool in servers]
    if servers and len(servers) == len(tools):
        return f"the request offers only tools that Anthropic itself defines ({', '.join(shown[:5])})"
    choice = as_object(asked.tool_choice)
    if choice.get("name") in shown:
        return f"the request's tool_choice names {choice['name']}, a tool that Anthropic itself defines"
    if as_object(asked.thread).get("type") == "continue":
        return "the request continues a thread that Anthropic itself keeps"
    if isinstance(asked.compaction, dict):
        return "the request asks for a compaction, which only Anthropic itself makes"
    return ""


def web_searches(asked: Offered) -> list[Tool]:
    """Anthropic's web search among the tools."""
    return [tool for tool in as_list(asked.tools) if isinstance(tool, Tool) and tool.is_web_search]


def domains(listed: object) -> list[str]:
    """The domains in a field of a web search."""
    return [one for one in as_list(listed) if as_text(one)]


def search_location(given: object) -> dict[str, Any]:
    """The user's place for a web search, whose fields all providers name alike; empty without any."""
    place = as_object(given)
    named = {
        name: place[name] for name in ("city", "region", "country", "timezone") if as_text(place.get(name))
    }
    return {"type": "approximate", **named} if named else {}


def hosted_search(asked: Offered, kind: str) -> list[dict[str, Any]]:
    """The entry in `tools` for a provider's own web search of this type, if the client offers Anthropic's
    (OpenRouter: https://openrouter.ai/docs/guides/features/server-tools/web-search). It is left out where no
    tool may be used: `tool_choice` needs a function beside it, and the provider runs it by itself."""
    offered = web_searches(asked)
    if not (offered and kind) or as_object(asked.tool_choice).get("type") == "none":
        return []
    told = {
        "allowed_domains": domains(offered[0].allowed_domains),
        "excluded_domains": domains(offered[0].blocked_domains),
        "user_location": search_location(offered[0].user_location),
    }
    given = {name: value for name, value in told.items() if value}
    return [{"type": kind, **({"parameters": given} if given else {})}]


def choose(
    asked: object, tools: dict[str, str], dialect: Dialect, *, thinks: bool, called: bool
) -> ToolChoice:
    """Translates `tool_choice`. `tools` maps the client's names to those sent. `thinks`: thinking is switched
    on. `called`: the history has calls, which some servers refuse without tools."""
    choice = as_object(asked)
    kind, name = choice.get("type"), choice.get("name")
    if not tools:
        return ToolChoice({}, offers=False)
    if kind == "none":
        if dialect.no_tool:
            return ToolChoice({"tool_choice": "none"})
        return (
            ToolChoice({}, "Answer without calling a tool.", True) if called else ToolChoice({}, offers=False)
        )
    fields: dict[str, Any] = {}
    if dialect.parallel and choice.get("disable_parallel_tool_use") is True:
        fields["parallel_tool_calls"] = False
    if kind == "tool" and isinstance(name, str) and name in tools:
        return _forced(fields, tools[name], len(tools), dialect, thinks)
    return _forced(fields, "", len(tools), dialect, thinks) if kind == "any" else ToolChoice(fields)


def _forced(fields: dict[str, Any], name: str, count: int, dialect: Dialect, thinks: bool) -> ToolChoice:
    say = f"Call the tool {name} now." if name else "Call one of the tools now."
    if not dialect.forced or (thinks and not dialect.forced_in_thought):
        return ToolChoice(fields, say)
    if name and dialect.named:
        return ToolChoice({"tool_choice": {"type": "function", "function": {"name": name}}, **fields})
    return ToolChoice({"tool_choice": dialect.forced, **fields}, say if name and count > 1 else "")
