"""The facts of one request that rules can match.

Each fact is computed when it is first needed and then cached, so that a body is parsed only if a rule needs
it. A field of the wrong type counts as missing, and nothing here raises.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from typing import Literal, NamedTuple
from urllib.parse import unquote

import msgspec

from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.models import LISTED, LONG_CONTEXT_SUFFIX
from signalbox.anthropic.privacy import without_billing
from signalbox.anthropic.tokenizers import DEFAULT, Tokenizer, tokenizer_of
from signalbox.anthropic.tokens import Measured, measure_grown
from signalbox.anthropic.turns import Turn, TurnBlock, turns_of
from signalbox.config.regexes import Regex
from signalbox.config.rules import tier_of

type ConversationId = tuple[str, str]
"""Session id and agent id (empty for the main agent). Each such pair has a history of its own."""

SESSION_HEADER = "x-claude-code-session-id"
AGENT_HEADER = "x-claude-code-agent-id"
REQUEST_CLASS_HEADER = "x-claude-code-request-class"
PROJECT_HEADER = "x-signalbox-project"
SNIPPET_LENGTH = 200
SESSION_LENGTH = 200
"""Characters kept of a session id, which is stored and recorded; real ones have 36."""

COUNTED = ("system", "tools", "messages")
"""The fields of a body that count as input; the one that grows is last."""

PREFIXES = (LISTED, "anthropic/")
"""Prefixes of model names from the merged model list, and from other routers."""

_REMINDER, _REMINDER_END = "<system-reminder>", "</system-reminder>"

type _Content = str | list[msgspec.Raw]
"""A text, or blocks, which are decoded one by one so that an invalid one does not hide the others."""


class Calibration(NamedTuple):
    """What the last answer in a conversation taught of estimates."""

    tokenizer: Tokenizer = DEFAULT
    """Of the model that answered."""
    ratio: float = 1.0
    """Tokens that it reported, for each that was estimated of its request."""
    measured: Measured | None = None
    """That request."""


DEFAULT_CALIBRATION = Calibration()


class _Said(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Typed(msgspec.Struct):
    type: str = ""
    name: str = ""


class _Thread(msgspec.Struct):
    type: str = ""
    previous_message_id: str = ""


class _Metadata(msgspec.Struct):
    user_id: str = ""


class _UserId(msgspec.Struct):
    session_id: str = ""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)  # headers hold credentials: no repr
class Facts:
    """One request as rules see it. `path` has no query; `headers` have names in lower case."""

    path: str
    port: int
    headers: Mapping[str, str]
    body: Body | None
    client: str | None = None
    received: datetime | None = None
    """When the request arrived; None if there is no real request."""
    has_login: bool = True
    """Whether the caller sent a credential of its own, besides a client's secret."""
    calibration: Calibration = DEFAULT_CALIBRATION
    _searched: dict[tuple[str, Regex], bool] = field(default_factory=dict, init=False)
    """Results of searches, by name of the text and expression."""

    @cached_property
    def asked(self) -> str | None:
        """The model as the client sent it."""
        return self._field("model", str) or None

    @cached_property
    def model(self) -> str | None:
        return matched_name(self.asked) if self.asked else None

    @cached_property
    def tier(self) -> str | None:
        return tier_of(self.model) if self.model else None

    @cached_property
    def session(self) -> str | None:
        """The session id in Claude Code's header, else in `metadata.user_id`.

        The latter is a JSON string with `session_id`, or (older clients) a text that ends in `_session_ID`.
        """
        session = self.headers.get(SESSION_HEADER) or self._session_of_metadata()
        return session[:SESSION_LENGTH] or None

    @cached_property
    def agent_id(self) -> str | None:
        return self.headers.get(AGENT_HEADER) or None

    @cached_property
    def agent(self) -> Literal["main", "subagent"]:
        hinted = self.headers.get(REQUEST_CLASS_HEADER) == "subagent"
        return "subagent" if hinted or self.agent_id else "main"

    @property
    def request_class(self) -> str | None:
        """A `config.rules.RequestClass`, or another word, as Claude Code sends it with
        `CLAUDE_CODE_GATEWAY_HINT_HEADERS=1`."""
        return self.headers.get(REQUEST_CLASS_HEADER) or None

    @cached_property
    def project(self) -> str | None:
        """The folder in which the client was started."""
        return unquote(self.headers.get(PROJECT_HEADER, ""), errors="replace") or None

    @property
    def conversation(self) -> ConversationId | None:
        """The key of state between requests; None if the request has no session."""
        return (self.session, self.agent_id or "") if self.session else None

    @cached_property
    def stream(self) -> bool:
        return self._field("stream", bool) is True

    @cached_property
    def thinking(self) -> bool:
        mode = self._field("thinking", _Typed)
        return mode is not None and mode.type in ("enabled", "adaptive")

    @cached_property
    def continues(self) -> str | None:
        """The id of the previous answer (empty if missing), if the request has only the new turn of a thread;
        None if it has all turns."""
        thread = self._field("thread", _Thread)
        return thread.previous_message_id if thread is not None and thread.type == "continue" else None

    @cached_property
    def images(self) -> bool:
        """Whether any message has an image, also in a tool result."""
        return any(_shows_image(block) for turn in self._turns() for block in turn.blocks())

    @cached_property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools offered; for a server tool without a name its type."""
        tools = _each(self._field("tools", list[msgspec.Raw]) or [], _Typed)
        return tuple(tool.name or tool.type for tool in tools)

    @cached_property
    def system_text(self) -> str:
        """The text of the system prompt, without Claude Code's billing block."""
        system = self._field("system", str) or self._field("system", list[msgspec.Raw]) or ""
        return "\n".join(rest for text in _texts(system) if (rest := without_billing(text)) or not text)

    @cached_property
    def prompt(self) -> str:
        """The last text of the user: of the last user message with text outside reminders and tool
        results."""
        for turn in reversed(self._turns()):
            if turn.role == "user":
                spoken = (_outside_reminders(text) for text in turn.texts())
                if text := "\n".join(spoken).strip():
                    return text
        return ""

    def system_holds(self, pattern: Regex) -> bool:
        return self._holds("system", self.system_text, pattern)

    def prompt_holds(self, pattern: Regex) -> bool:
        return self._holds("prompt", self.prompt, pattern)

    def _holds(self, name: str, text: str, pattern: Regex) -> bool:
        """Searches once for each expression."""
        if (name, pattern) not in self._searched:
            self._searched[name, pattern] = pattern.found_in(text)
        return self._searched[name, pattern]

    @property
    def snippet(self) -> str:
        return self.prompt[:SNIPPET_LENGTH]

    @property
    def tokens(self) -> int:
        """Input tokens, as the model that answered last in this conversation would count them."""
        return self._tokens(self.calibration.tokenizer)

    def tokens_at(self, model: str | None) -> int:
        """Input tokens as this model would count them: estimated, and corrected by the last answer."""
        return self._tokens(tokenizer_of(model))

    @cached_property
    def measured(self) -> Measured:
        """What in the body costs input tokens."""
        if self.body is None:
            return Measured()
        raw, places = memoryview(self.body.raw), filter(None, map(self.body.span, COUNTED))
        return measure_grown([raw[at.value : at.end] for at in places], self.calibration.measured)

    def _tokens(self, tokenizer: Tokenizer) -> int:
        return round(self.measured.tokens(tokenizer) * self.calibration.ratio)

    def is_measured(self) -> bool:
        """Whether anybody has asked for its tokens."""
        return "measured" in vars(self)

    def _field[T](self, name: str, type: type[T]) -> T | None:
        return self.body.get(name, type) if self.body is not None else None

    def _turns(self) -> list[Turn]:
        return turns_of(self.body) if self.body is not None else []

    def _session_of_metadata(self) -> str:
        metadata = self._field("metadata", _Metadata)
        user_id = metadata.user_id if metadata else ""
        if user_id.startswith("{"):
            decoded = _decoded(user_id, _UserId)
            return decoded.session_id if decoded else ""
        _, mark, session = user_id.rpartition("_session_")
        return session if mark else ""


def _decoded[T](raw: msgspec.Raw | str, type: type[T]) -> T | None:
    """The value; None if it has another type."""
    try:
        return msgspec.json.decode(raw, type=type)
    except (ValueError, RecursionError):
        return None


def _each[T](raws: list[msgspec.Raw], type: type[T]) -> Iterator[T]:
    return (value for raw in raws if (value := _decoded(raw, type)) is not None)


def _texts(content: _Content) -> Iterator[str]:
    if isinstance(content, str):
        return iter((content,))
    return (block.text for block in _each(content, _Said) if block.type == "text")


def _shows_image(block: TurnBlock) -> bool:
    if block.type == "tool_result":
        return any(part.type == "image" for part in block.parts())
    return bool(block.type == "image")


def _outside_reminders(text: str) -> str:
    """The text without `<system-reminder>...</system-reminder>`. A reminder that never ends hides the
    rest."""
    before, *reminders = text.split(_REMINDER)
    return before + "".join(reminder.partition(_REMINDER_END)[2] for reminder in reminders)


def rendezvous(conversation: ConversationId, *names: str) -> bytes:
    """The weight of one of several equal choices for a conversation; the lowest wins.

    Rendezvous hashing: a conversation keeps its order of choices, and many conversations are spread over
    them. A new choice moves only the conversations in which it wins.
    """
    text = "\n".join((*conversation, *names))
    return blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()


# names of models, as clients send them


def sent_name(asked: str) -> str:
    """The name without listing prefixes; it is sent if neither target nor provider names a model."""
    name = asked
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name or asked


def matched_name(model: str) -> str:
    """The name that globs match: without listing prefixes and without `[1m]`."""
    return without_long_context(sent_name(model))[0]


def without_long_context(model: str) -> tuple[str, bool]:
    """The name without its `[1m]` (in any casing), and whether it had one."""
    name = model[: -len(LONG_CONTEXT_SUFFIX)]
    return (name, True) if name and model[len(name) :].lower() == LONG_CONTEXT_SUFFIX else (model, False)
