"""A Messages body as chat completions (translation.md, 1 to 4)."""

from collections import Counter
from collections.abc import Mapping
from types import UnionType

import msgspec

from signalbox.messages.privacy import BILLING
from signalbox.routing.translator import UntranslatableError
from signalbox.translate.assistant import Assistant
from signalbox.translate.dialects import Dialect, matches
from signalbox.translate.dropped import dropped
from signalbox.translate.effort import Thought, thought
from signalbox.translate.history import History, system_of
from signalbox.translate.incoming import Block, Content, Incoming, Tool, pieces, read, read_offered
from signalbox.translate.parts import Part, Parts
from signalbox.translate.schemas import cleaned, is_strict
from signalbox.translate.shapes import Object, as_list, as_object, as_text
from signalbox.translate.texts import defined_by
from signalbox.translate.tools import Choice, Names, choose, functions, offered, refusal

_SCHEMA = "Answer with one JSON value that follows this JSON Schema, and with nothing around it:\n{}"


class ChatRequest(msgspec.Struct, frozen=True):
    """What one provider is sent, and what its answer has to be read with."""

    body: bytes
    """Compact JSON in UTF-8."""
    names: Mapping[str, str]
    """Names of tools as sent, and as the client calls them, where they differ."""
    stream: bool
    shows_thinking: bool
    """Whether the client asked for thinking."""
    notes: tuple[str, ...]
    """For the debug log: names and counts, never values."""
    stops: tuple[str, ...] = ()
    """The stop sequences in it."""
    continues: bool = False
    """Whether the last message is the assistant's, for the model to continue."""


def untranslatable(raw: bytes) -> str:
    """Why no provider of chat completions can serve a request, for people; empty where one can. Reads the
    tools and a few small fields only."""
    try:
        return refusal(read_offered(raw))
    except UntranslatableError as error:
        return str(error)


def to_chat(raw: bytes, *, model: str, dialect: Dialect, provider: str, session: str | None) -> ChatRequest:
    """`raw` is a Messages body without the thinking of others. `session` names its conversation, for the
    provider's prompt cache. Raises UntranslatableError, and nothing else whatever the body holds."""
    try:
        asked = read(raw)
        if why := refusal(asked):
            raise UntranslatableError(why)
        return _Writing(raw, asked, model, dialect, provider).request(session)
    except RecursionError:
        raise UntranslatableError("the request is nested too deeply") from None


class _Writing:
    def __init__(self, raw: bytes, asked: Incoming, model: str, dialect: Dialect, provider: str) -> None:
        self._raw = raw
        self._asked = asked
        self._model = model
        self._dialect = dialect
        self._provider = provider
        self._notes: Counter[str] = Counter()
        self._names = Names(dialect)
        self._parts = Parts(dialect, model, self._notes)

    def request(self, session: str | None) -> ChatRequest:
        asked, dialect = self._asked, self._dialect
        tools = self._tools()
        thinking = thought(asked.thinking, asked.output_config, dialect, self._model, tools=bool(tools))
        sent_names = {name: self._names.sent(name) for name in tools}
        thinks = bool(dialect.switch) and not thinking.is_off
        choice = choose(asked.tool_choice, sent_names, dialect, thinks=thinks, called=self._has_calls())
        schema = self._schema()
        messages = self._messages(thinking, choice, schema)
        body: Object = {"model": self._model, "messages": messages}
        if choice.offers:
            body["tools"] = offered(tools.values(), self._names, dialect.rules)
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
            notes=self._told(dropped(self._raw, asked, body)),
        )

    def _tools(self) -> dict[str, Tool]:
        added = (defined_by(piece) for message in self._asked.turns for piece in pieces(message.content))
        return functions([*as_list(self._asked.tools), *added])

    def _has_calls(self) -> bool:
        return any(
            isinstance(piece, Block) and piece.type == "tool_use"
            for message in self._asked.turns
            for piece in pieces(message.content)
        )

    def _messages(self, thinking: Thought, choice: Choice, schema: Object | None) -> list[Object]:
        assistant = Assistant(
            self._dialect, self._model, self._provider, self._parts, self._names, off=thinking.is_off
        )
        history = History(self._dialect, self._model, self._parts, assistant, self._notes)
        system = self._parts.read(_without_billing(self._asked.system))
        if schema is not None and not self._dialect.json_schema:
            system.append(Part(_SCHEMA.format(msgspec.json.encode(schema).decode())))
        return [*system_of(system), *history.of(self._asked.turns, choice.say)]

    def _schema(self) -> Object | None:
        """That the answer is to follow, in either spelling."""
        asked = self._asked
        for told in map(as_object, (as_object(asked.output_config).get("format"), asked.output_format)):
            if told.get("type") == "json_schema":
                return told["schema"] if isinstance(told.get("schema"), dict) else None
        return None

    def _limits(self) -> Object:
        asked, dialect, model = self._asked, self._dialect, self._model
        limits: Object = {}
        if dialect.limits_output and _is_number(asked.max_tokens, int):
            most = next(
                (most for glob, most in dialect.most_tokens if matches(model, (glob,))), asked.max_tokens
            )
            completion = matches(model, dialect.completion_tokens)
            field = "max_completion_tokens" if completion else "max_tokens"
            limits[field] = max(min(asked.max_tokens, most), 1)
            if asked.max_tokens > most:
                self._notes["max_tokens lowered to"] = most
        stops = [stop for stop in as_list(asked.stop_sequences) if as_text(stop)][: dialect.stops]
        if stops and not matches(model, dialect.no_stops):
            limits["stop"] = stops
        return limits

    def _sampling(self) -> Object:
        asked, fixed = self._asked, matches(self._model, self._dialect.fixed_sampling)
        told = {} if fixed else {"temperature": asked.temperature, "top_p": asked.top_p}
        if self._dialect.top_k:
            told["top_k"] = asked.top_k
        return {name: value for name, value in told.items() if _is_number(value, int | float)}

    def _streaming(self, *, offers: bool) -> Object:
        dialect = self._dialect
        fields: Object = {"stream": True}
        if dialect.usage_option:
            fields["stream_options"] = {"include_usage": True}
        if offers and matches(self._model, dialect.tool_stream):
            fields["tool_stream"] = True
        return fields

    def _told(self, gone: str) -> tuple[str, ...]:
        self._notes["tool names shortened"] = len(self._names.changed)
        counted = (f"{what}: {count}" for what, count in self._notes.items() if count)
        return (*([f"dropped: {gone}"] if gone else ()), *counted)


def _is_number(value: object, kind: type | UnionType) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _without_billing(system: Content) -> Content:
    first, *others = pieces(system) or [None]
    is_billing = isinstance(first, Block) and str(first.text).startswith(BILLING)
    return others if is_billing else system


def _response_format(schema: Object) -> Object:
    told = {"name": "answer", "schema": schema, "strict": is_strict(schema)}
    return {"type": "json_schema", "json_schema": told}
