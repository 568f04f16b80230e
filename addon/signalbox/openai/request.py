"""Translates the body of a Messages request into one of chat completions (translation.md, 1 to 4)."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any

import msgspec
from msgspec.structs import replace

from signalbox.anthropic import privacy
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.unsupported_fields import EFFORTS
from signalbox.openai.content import ChatContent, ContentPart
from signalbox.openai.dialects import Dialect, matches_any
from signalbox.openai.history import AssistantWriter, History, system_of
from signalbox.openai.incoming import (
    Content,
    ContentBlock,
    MessagesRequest,
    Object,
    Offered,
    Piece,
    Tool,
    as_list,
    as_object,
    as_text,
    decode_offered,
    decode_request,
    defined_by,
    has_text,
    pieces,
    text_in,
)
from signalbox.openai.schemas import cleaned, is_strict
from signalbox.openai.tools import (
    Names,
    ToolChoice,
    choose,
    functions,
    hosted_search,
    offered,
    untranslatable_tools,
)
from signalbox.routing.translator import UntranslatableError

_ORDER = EFFORTS
OFF = EFFORTS[0]
SHOWN = ("enabled", "adaptive")
_LITTLE, _SOME = 4_000, 16_000
"""Thinking budgets in tokens: below the first the effort is low, below the second medium."""
_BY_DEFAULT = "high"
"""Anthropic's default: https://docs.claude.com/en/docs/build-with-claude/effort"""


class Thinking(msgspec.Struct, frozen=True):
    """How much the model is to think (translation.md, 4)."""

    fields: Object
    """Fields for the chat body."""
    is_off: bool
    """Whether thinking is switched off."""
    is_shown: bool
    """Whether the client asked for thinking."""


def thinking_of(
    thinking: object, output_config: object, dialect: Dialect, model: str, *, tools: bool
) -> Thinking:
    """Reads `thinking` and `output_config` of a Messages body. `tools`: whether any are offered."""
    asked = as_object(thinking)
    word = asked_effort(asked, as_text(as_object(output_config).get("effort")))
    if tools and matches_any(model, dialect.tools_without_effort):
        word = OFF
    is_off = word == OFF and not matches_any(model, dialect.unstoppable)
    return Thinking(_effort_fields(word, dialect, model), is_off, asked.get("type") in SHOWN)


def asked_effort(thinking: Object, effort: str, *, by_default: str = _BY_DEFAULT) -> str:
    """One of `_ORDER`; empty if the client leaves the effort to the model. `by_default`: for thinking without
    any."""
    kind = thinking.get("type")
    if kind in ("disabled", "between_tools"):
        return OFF
    if effort in _ORDER:
        return effort
    budget = thinking.get("budget_tokens")
    if kind == "enabled" and isinstance(budget, int | float):
        return "low" if budget < _LITTLE else "medium" if budget < _SOME else "high"
    return by_default if kind in SHOWN else ""


def _effort_fields(word: str, dialect: Dialect, model: str) -> Object:
    if not word:
        return {}
    words = next((row.words for row in dialect.efforts if matches_any(model, row.models)), ())
    spelled = nearest_effort(word, words)
    if dialect.switch and matches_any(model, dialect.switched):
        if word == OFF:
            return {} if matches_any(model, dialect.unstoppable) else {"thinking": {"type": "disabled"}}
        return {"thinking": {"type": dialect.switch, **({"effort": spelled} if spelled else {})}}
    if not spelled:
        return {}
    return {dialect.effort_field: {"effort": spelled} if dialect.effort_field == "reasoning" else spelled}


def nearest_effort(word: str, words: tuple[str, ...]) -> str:
    """The same effort if the model has it, else the next lower one, else the lowest. Never `none`, unless the
    client switches thinking off."""
    if word == OFF:
        return words[0] if words else ""
    known = [one for one in words if one != OFF]
    lower = [one for one in known if _ORDER.index(one) <= _ORDER.index(word)]
    return lower[-1] if lower else known[0] if known else ""


SCHEMA_PROMPT = "Answer with one JSON value that follows this JSON Schema, and with nothing around it:\n{}"


class ChatRequest(msgspec.Struct, frozen=True):
    """The body for one provider, and what the reader of its answer needs."""

    body: bytes
    """Compact JSON in UTF-8."""
    names: Mapping[str, str]
    """Client's tool names by the names sent, where they differ."""
    stream: bool
    shows_thinking: bool
    """Whether the client asked for thinking."""
    notes: tuple[str, ...]
    """For the debug log: names and counts, never values."""
    stops: tuple[str, ...] = ()
    """The stop sequences that are sent."""
    continues: bool = False
    """Whether the last message is the assistant's, so that the model continues it."""
    searched: str = ""
    """The query, if the provider is asked to search the web."""


def untranslatable(body: Body, dialect: Dialect) -> str:
    """The reason for people why this dialect of chat completions cannot serve a request, else empty. Decodes
    the tools and a few small fields only."""
    try:
        return _untranslatable(decode_offered(body), dialect)
    except UntranslatableError as error:
        return str(error)


def to_chat(body: Body, *, model: str, dialect: Dialect, provider: str, session: str | None) -> ChatRequest:
    """Translates `body`, a Messages body without the thinking of other providers. `session` is the id of the
    conversation, for the provider's prompt cache. Raises only UntranslatableError."""
    try:
        asked = decode_request(body.whole)
        if why := _untranslatable(asked, dialect):
            raise UntranslatableError(why)
        return _Writing(body, asked, model, dialect, provider).request(session)
    except RecursionError:
        raise UntranslatableError("the request is nested too deeply") from None


def _untranslatable(asked: Offered, dialect: Dialect) -> str:
    return untranslatable_tools(asked, searches=bool(dialect.web_search))


class _Writing:
    def __init__(
        self, came: Body, asked: MessagesRequest, model: str, dialect: Dialect, provider: str
    ) -> None:
        self._came = came
        self._asked = asked
        self._model = model
        self._dialect = dialect
        self._provider = provider
        self._notes: Counter[str] = Counter()
        self._names = Names(dialect.tool_name)
        self._parts = ChatContent(dialect, model, self._notes)

    def request(self, session: str | None) -> ChatRequest:
        asked, dialect = self._asked, self._dialect
        tools = functions_of(asked)
        thinking = thinking_of(asked.thinking, asked.output_config, dialect, self._model, tools=bool(tools))
        sent_names = {name: self._names.sent(name) for name in tools}
        thinks = bool(dialect.switch) and not thinking.is_off
        choice = choose(asked.tool_choice, sent_names, dialect, thinks=thinks, called=self._has_calls())
        schema = answer_schema(asked)
        messages = self._messages(thinking, choice, schema)
        body: Object = {"model": self._model, "messages": messages}
        searches = hosted_search(asked, dialect.web_search)
        if choice.offers or searches:
            given = offered(tools.values(), self._names, dialect.rules) if choice.offers else []
            body["tools"] = [*given, *searches]
        body |= choice.fields | self._limits() | self._sampling() | thinking.fields
        if schema is not None and dialect.json_schema:
            body["response_format"] = _response_format(cleaned(schema, dialect.rules))
        if session and dialect.cache_key:
            body["prompt_cache_key"] = session
        body |= dialect.always
        if continues := messages[-1]["role"] == "assistant":
            messages[-1] |= {dialect.prefill.mark: True} if dialect.prefill.mark else {}
            body |= dialect.prefill.fields
        if stream := asked.stream is True:
            body |= self._streaming(offers=choice.offers)
        return ChatRequest(
            body=msgspec.json.encode(body),
            names=self._names.changed,
            stream=stream,
            shows_thinking=thinking.is_shown,
            stops=tuple(body.get("stop", ())),
            continues=continues,
            searched=query_of(asked) if searches else "",
            notes=all_notes(
                self._notes, self._names, dropped_fields(self._came, asked, body, searches=bool(searches))
            ),
        )

    def _has_calls(self) -> bool:
        return any(
            isinstance(piece, ContentBlock) and piece.type == "tool_use"
            for message in self._asked.turns
            for piece in pieces(message.content)
        )

    def _messages(self, thinking: Thinking, choice: ToolChoice, schema: Object | None) -> list[Object]:
        assistant = AssistantWriter(
            self._dialect, self._model, self._provider, self._parts, self._names, off=thinking.is_off
        )
        history = History(self._dialect, self._model, self._parts, assistant, self._notes)
        system = self._parts.read(without_billing(self._asked.system))
        if schema is not None and not self._dialect.json_schema:
            system.append(ContentPart(SCHEMA_PROMPT.format(msgspec.json.encode(schema).decode())))
        return [*system_of(system), *history.of(self._asked.turns, choice.say)]

    def _limits(self) -> Object:
        asked, dialect, model = self._asked, self._dialect, self._model
        limits: Object = {}
        if dialect.limits_output and is_number(asked.max_tokens, int):
            most = next(
                (most for glob, most in dialect.most_tokens if matches_any(model, (glob,))), asked.max_tokens
            )
            completion = matches_any(model, dialect.completion_tokens)
            field = "max_completion_tokens" if completion else "max_tokens"
            limits[field] = max(min(asked.max_tokens, most), 1)
            if asked.max_tokens > most:
                self._notes["max_tokens lowered to"] = most
        stops = [stop for stop in as_list(asked.stop_sequences) if as_text(stop)][: dialect.stops]
        if stops and not matches_any(model, dialect.no_stops):
            limits["stop"] = stops
        return limits

    def _sampling(self) -> Object:
        asked, fixed = self._asked, matches_any(self._model, self._dialect.fixed_sampling)
        fields = {} if fixed else {"temperature": asked.temperature, "top_p": asked.top_p}
        if self._dialect.top_k:
            fields["top_k"] = asked.top_k
        return {name: value for name, value in fields.items() if is_number(value, int | float)}

    def _streaming(self, *, offers: bool) -> Object:
        dialect = self._dialect
        fields: Object = {"stream": True}
        if dialect.usage_option:
            fields["stream_options"] = {"include_usage": True}
        if offers and matches_any(self._model, dialect.tool_stream):
            fields["tool_stream"] = True
        return fields


def all_notes(counted: Mapping[str, int], names: Names, gone: str) -> tuple[str, ...]:
    """The notes of a translated request. `gone` are the fields that were dropped."""
    named = {**counted, "tool names shortened": len(names.changed)}
    lines = (f"{what}: {count}" for what, count in named.items() if count)
    return (*([f"dropped: {gone}"] if gone else ()), *lines)


def functions_of(asked: MessagesRequest) -> dict[str, Tool]:
    """The tools that the client runs, by name, with those that messages add."""
    added = [
        defined_by(piece)
        for message in asked.turns
        for piece in pieces(message.content)
        if isinstance(piece, ContentBlock) and piece.type == "tool_addition"
    ]
    return functions([*as_list(asked.tools), *added])


def answer_schema(asked: MessagesRequest) -> Object | None:
    """The JSON schema of the answer, from `output_config` or `output_format`."""
    for wanted in map(as_object, (as_object(asked.output_config).get("format"), asked.output_format)):
        if wanted.get("type") == "json_schema":
            return wanted["schema"] if isinstance(wanted.get("schema"), dict) else None
    return None


_ASKS_TO_SEARCH = re.compile(r"Perform a web search for the query:\s*")
_LONGEST_QUERY = 500


def query_of(asked: MessagesRequest) -> str:
    """What a request wants to be searched: the last text of the user, as Claude Code's WebSearch writes it
    (claude-code-tried.md, 5)."""
    texts = [text_in(piece) for turn in asked.turns if turn.role == "user" for piece in pieces(turn.content)]
    last = next((text for text in reversed(texts) if has_text(text)), "")
    return _ASKS_TO_SEARCH.sub("", last, count=1).strip()[:_LONGEST_QUERY]


def is_number(value: object, kind: type | UnionType) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def without_billing(system: Content) -> Content:
    """The system prompt without Claude Code's billing line (see `anthropic.privacy`)."""
    if isinstance(system, str):
        return privacy.without_billing(system)
    return [left for piece in pieces(system) if (left := _without_billing(piece)) is not None]


def _without_billing(piece: Piece) -> Piece | None:
    if not isinstance(piece, ContentBlock) or not isinstance(piece.text, str):
        return piece
    text = privacy.without_billing(piece.text)
    if text == piece.text:
        return piece
    return replace(piece, text=text) if text else None


def _response_format(schema: Object) -> Object:
    named = {"name": "answer", "schema": schema, "strict": is_strict(schema)}
    return {"type": "json_schema", "json_schema": named}


_IRRELEVANT = frozenset({"cache_control", "diagnostics", "metadata"})
"""Fields that do not change an answer. Claude Code sends them with every request."""
_TRANSLATED = frozenset({*MessagesRequest.__struct_fields__, "model"} - {"thread", "compaction"})
_RENAMED = {
    "max_tokens": ("max_tokens", "max_completion_tokens", "max_output_tokens"),
    "temperature": ("temperature",),
    "top_k": ("top_k",),
    "top_p": ("top_p",),
}
"""The names in the translated body of fields that some providers do not take."""
_EMPTY = (b"null", b"[]", b"{}", b'""')
_PLAIN = re.compile(r"[\w.-]{1,40}")
_MOST_NAMED = 8


def dropped_fields(
    came: Body, asked: MessagesRequest, sent: Mapping[str, Any], *, searches: bool = False
) -> str:
    """Fields and tools of the Messages body `came` that the translated body `sent` does not have, for the
    log, separated by commas. `stop_sequences` are listed if some were dropped. `searches`: the provider's web
    search replaces Anthropic's.

    Not listed: empty values, fields that do not change an answer (`metadata`, `diagnostics`,
    `cache_control`), `thinking` and effort, which are adapted to each model, and fields inside messages.
    """
    names = [
        name if _PLAIN.fullmatch(name) else "(odd name)"
        for name in _dropped_names(came, asked, sent, searches)
    ]
    more = [f"{len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    return ", ".join([*names[:_MOST_NAMED], *more])


def _dropped_names(
    came: Body, asked: MessagesRequest, sent: Mapping[str, Any], searches: bool
) -> Iterator[str]:
    for name in came.names():
        if not _is_translated(name, asked, sent) and came.value(name) not in _EMPTY:
            yield name
    once = as_object(asked.tool_choice).get("disable_parallel_tool_use") is True
    if once and "tools" in sent and "parallel_tool_calls" not in sent:
        yield "disable_parallel_tool_use"
    for tool in as_list(asked.tools):
        if isinstance(tool, Tool) and not (tool.is_function or (searches and tool.is_web_search)):
            yield f"tools.{tool.shown}"


def _is_translated(name: str, asked: MessagesRequest, sent: Mapping[str, Any]) -> bool:
    if name == "stop_sequences":
        stops = asked.stop_sequences
        return isinstance(stops, list) and len(stops) == len(sent.get("stop", []))
    spelled = _RENAMED.get(name)
    return not sent.keys().isdisjoint(spelled) if spelled else name in _TRANSLATED or name in _IRRELEVANT
