"""Translates the body of a Messages request into one of the Responses API (openai-responses.md, 1 to 4)."""

from collections import Counter
from collections.abc import Mapping

import msgspec

from signalbox.anthropic.json_edit import Body
from signalbox.openai.content import ContentPart, ContentReader
from signalbox.openai.dialects import matches_any
from signalbox.openai.incoming import (
    MessagesRequest,
    Object,
    Tool,
    as_object,
    as_text,
    decode_offered,
    decode_request,
    has_text,
)
from signalbox.openai.request import (
    OFF,
    SCHEMA_PROMPT,
    SHOWN,
    all_notes,
    answer_schema,
    asked_effort,
    dropped_fields,
    functions_of,
    is_number,
    nearest_effort,
    without_billing,
)
from signalbox.openai.schemas import cleaned, is_strict
from signalbox.openai.tools import (
    Names,
    domains,
    parameters_sent,
    search_location,
    untranslatable_tools,
    web_searches,
)
from signalbox.responses.dialects import Dialect
from signalbox.responses.items import ItemWriter, ResponsesContent
from signalbox.responses.reasoning import ReasoningOwner
from signalbox.routing.translator import UntranslatableError

_LEAST_TOKENS = 16
"""The smallest `max_output_tokens` that OpenAI takes."""
_ENCRYPTED = "reasoning.encrypted_content"
_SOURCES = "web_search_call.action.sources"
_COUNTED = frozenset(
    {"model", "input", "instructions", "tools", "tool_choice", "reasoning", "text", "parallel_tool_calls"}
)
"""What a request that only counts tokens may hold."""


class ResponsesRequest(msgspec.Struct, frozen=True):
    """The body for one provider, and what the reader of its answer needs."""

    body: bytes
    """Compact JSON in UTF-8."""
    names: Mapping[str, str]
    """Client's tool names by the names sent, where they differ."""
    stream: bool
    """Whether the client asked for a stream; the body may ask for one in any case."""
    streams: bool
    """Whether the body asks for a stream."""
    shows_thinking: bool
    """Whether the client asked for thinking."""
    owner: ReasoningOwner
    """Whose reasoning the answer holds."""
    has_reasoning: bool
    """Whether it holds encrypted reasoning, or asks for a summary of the new one."""
    only_searches: bool
    """Whether the provider's web search is the only tool, as in the requests of Claude Code's WebSearch."""
    notes: tuple[str, ...]
    """For the debug log: names and counts, never values."""


def untranslatable(body: Body, dialect: Dialect) -> str:
    """The reason for people why this dialect cannot serve a request, else empty. Decodes the tools and a few
    small fields only."""
    try:
        return untranslatable_tools(decode_offered(body), searches=dialect.web_search)
    except UntranslatableError as error:
        return str(error)


def to_responses(
    body: Body,
    *,
    model: str,
    dialect: Dialect,
    owner: ReasoningOwner,
    session: str | None,
    counts: bool = False,
) -> ResponsesRequest:
    """Translates `body`, a Messages body without the thinking of other providers. `session` is a name for the
    conversation, for the provider's prompt cache. `counts`: the request only counts tokens. Raises only
    UntranslatableError."""
    try:
        asked = decode_request(body.whole)
        if why := untranslatable_tools(asked, searches=dialect.web_search):
            raise UntranslatableError(why)
        return _Writing(body, asked, model, dialect, owner).request(session, counts=counts)
    except RecursionError:
        raise UntranslatableError("the request is nested too deeply") from None


class _Writing:
    def __init__(
        self, came: Body, asked: MessagesRequest, model: str, dialect: Dialect, owner: ReasoningOwner
    ) -> None:
        self._came = came
        self._asked = asked
        self._model = model
        self._dialect = dialect
        self._owner = owner
        self._notes: Counter[str] = Counter()
        self._names = Names(dialect.tool_name)
        self._content: ContentReader = ResponsesContent(dialect, model, self._notes)

    def request(self, session: str | None, *, counts: bool) -> ResponsesRequest:
        asked, dialect = self._asked, self._dialect
        functions = functions_of(asked)
        tools = [self._function(tool) for tool in functions.values()]
        searches = self._web_search()
        choice, say = self._tool_choice(set(functions), searches)
        schema = answer_schema(asked)
        body: Object = {"model": self._model}
        if instructions := self._instructions(schema):
            body["instructions"] = instructions
        elif dialect.needs_instructions:
            body["instructions"] = ""
        writer = ItemWriter(dialect, self._model, self._owner, self._content, self._names, self._notes)
        body["input"] = writer.of(asked.turns, say)
        if tools or searches:
            body["tools"] = [*tools, *searches]
        body |= choice | self._limits() | self._sampling()
        if reasoning := self._reasoning(searches=bool(searches)):
            body["reasoning"] = reasoning
        if schema is not None and dialect.json_schema:
            body["text"] = {"format": _format(cleaned(schema, dialect.rules))}
        body |= self._delivery(session, searches=bool(searches))
        if counts:
            body = {name: value for name, value in body.items() if name in _COUNTED}
        return ResponsesRequest(
            body=msgspec.json.encode(body),
            names=self._names.changed,
            stream=asked.stream is True,
            streams=body.get("stream", False),
            shows_thinking=as_object(asked.thinking).get("type") in SHOWN,
            owner=self._owner,
            has_reasoning="summary" in reasoning
            or any(item["type"] == "reasoning" for item in body["input"]),
            only_searches=bool(searches) and not tools,
            notes=all_notes(
                self._notes,
                self._names,
                dropped_fields(self._came, asked, body, searches=bool(searches)) if not counts else "",
            ),
        )

    def _instructions(self, schema: Object | None) -> str:
        parts = self._content.read(without_billing(self._asked.system))
        if schema is not None and not self._dialect.json_schema:
            parts.append(ContentPart(SCHEMA_PROMPT.format(msgspec.json.encode(schema).decode())))
        return "\n\n".join(part.text for part in parts if has_text(part.text))

    def _function(self, tool: Tool) -> Object:
        """Without `strict` OpenAI would make every property of the schema required."""
        parameters = parameters_sent(tool, self._dialect.rules)
        is_exact = tool.strict is True and is_strict(msgspec.json.decode(parameters))
        return {
            "type": "function",
            "name": self._names.sent(tool.name),
            **({"description": tool.description} if isinstance(tool.description, str) else {}),
            "parameters": parameters,
            "strict": is_exact,
        }

    def _web_search(self) -> list[Object]:
        """The provider's own search, if the client offers Anthropic's; empty otherwise."""
        dialect = self._dialect
        offered = web_searches(self._asked)
        if not offered or not dialect.web_search:
            return []
        tool = offered[0]
        sent: Object = {"type": "web_search"}
        filters = {"allowed_domains": domains(tool.allowed_domains)}
        if dialect.excluded_domains:
            filters["excluded_domains"] = domains(tool.blocked_domains)
        elif domains(tool.blocked_domains):
            self._notes["domains that would be searched"] = len(domains(tool.blocked_domains))
        if filters := {name: listed[: dialect.most_domains] for name, listed in filters.items() if listed}:
            sent["filters"] = filters
        if dialect.user_location and (place := search_location(tool.user_location)):
            sent["user_location"] = place
        return [sent]

    def _tool_choice(self, functions: set[str], searches: list[Object]) -> tuple[Object, str]:
        """Fields for `tool_choice`, and text for the model if the provider has no field for the choice."""
        choice = as_object(self._asked.tool_choice)
        kind, name = choice.get("type"), as_text(choice.get("name"))
        if not (functions or searches):
            return {}, ""
        fields: Object = {}
        if self._dialect.parallel and choice.get("disable_parallel_tool_use") is True:
            fields["parallel_tool_calls"] = False
        if kind == "none":
            return fields | {"tool_choice": "none"}, ""
        if kind == "tool" and name in functions:
            if self._dialect.forced:
                return fields | {"tool_choice": {"type": "function", "name": self._names.sent(name)}}, ""
            return fields, f"Call the tool {self._names.sent(name)} now."
        if kind == "tool" and searches and functions:  # there is no choice that names a search
            return fields, "Search the web now."
        if kind == "any" or (kind == "tool" and searches):
            if self._dialect.forced:
                return fields | {"tool_choice": "required"}, ""
            return fields, "Call one of the tools now."
        return fields, ""

    def _limits(self) -> Object:
        asked, dialect, model = self._asked, self._dialect, self._model
        if not dialect.limits_output or not is_number(asked.max_tokens, int):
            return {}
        found = (most for glob, most in dialect.most_tokens if matches_any(model, (glob,)))
        most = next(found, asked.max_tokens)
        if asked.max_tokens > most:
            self._notes["max_tokens lowered to"] = most
        return {"max_output_tokens": max(min(asked.max_tokens, most), _LEAST_TOKENS)}

    def _sampling(self) -> Object:
        """Models that reason take neither."""
        if not self._dialect.sampling or self._dialect.words(self._model):
            return {}
        fields = {"temperature": self._asked.temperature, "top_p": self._asked.top_p}
        return {name: value for name, value in fields.items() if is_number(value, int | float)}

    def _reasoning(self, *, searches: bool) -> Object:
        """The field `reasoning` (openai-responses.md, 3): nothing unless the client asks for thinking."""
        thinking = as_object(self._asked.thinking)
        words = self._dialect.words(self._model)
        if searches:  # `The following tools cannot be used with reasoning.effort 'minimal': web_search.`
            words = tuple(word for word in words if word != "minimal")
        if not words or not thinking:
            return {}
        effort = as_text(as_object(self._asked.output_config).get("effort"))
        word = asked_effort(thinking, effort, by_default="")
        fields: Object = {}
        if spelled := nearest_effort(word, words) if word else "":
            fields["effort"] = spelled
        is_seen = thinking.get("type") in SHOWN and thinking.get("display") != "omitted"
        if self._dialect.summary and word != OFF and is_seen:
            fields["summary"] = "auto"
        return fields

    def _delivery(self, session: str | None, *, searches: bool) -> Object:
        """How the answer is given, and what of it is kept: nothing at the provider."""
        dialect = self._dialect
        included = [_ENCRYPTED] if matches_any(self._model, dialect.encrypted) else []
        if searches and dialect.sources:
            included.append(_SOURCES)
        fields: Object = {"store": False}
        if included:
            fields["include"] = included
        if session and dialect.cache_key:
            fields["prompt_cache_key"] = session
        if self._asked.stream is True or dialect.always_streams:
            fields["stream"] = True
            if dialect.obfuscates:
                fields["stream_options"] = {"include_obfuscation": False}
        return fields


def _format(schema: Object) -> Object:
    return {"type": "json_schema", "name": "answer", "schema": schema, "strict": is_strict(schema)}
