"""The messages of a conversation in the order that chat completions ask for.

After an assistant message with calls come the results of all of them, and nothing before the last one; what
else the user and the operator said until the next assistant message follows (translation.md, 2). A message
depends on those before it only, so that the same history always begins with the same bytes: providers keep
their caches by them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, TypeGuard

from signalbox.translate.assistant import Assistant, Call
from signalbox.translate.dialects import Dialect, matches
from signalbox.translate.incoming import Block, Message, Piece, pieces
from signalbox.translate.parts import Part, Parts, content_of
from signalbox.translate.texts import is_said, joined

_NO_RESULT = "[no result: cancelled]"
_NO_OUTPUT = "(no output)"
_NOTHING = "(no content)"
_ELSEWHERE = "(see attached media)"
_BRIDGE = {"role": "assistant", "content": "OK."}

type Sent = dict[str, Any]


class History:
    """Writes it for one provider and model."""

    def __init__(
        self, dialect: Dialect, model: str, parts: Parts, assistant: Assistant, notes: Counter[str]
    ) -> None:
        self._dialect = dialect
        self._bridges = matches(model, dialect.bridged)
        self._parts = parts
        self._assistant = assistant
        self._notes = notes

    def of(self, messages: Iterable[Message], closing: str) -> list[Sent]:
        """`closing` is said to the model after all else, where the last word is not its own."""
        sent: list[Sent] = []
        between: list[Message] = []
        calls: list[Call] = []
        for is_assistants, turn in groupby(messages, lambda message: message.role == "assistant"):
            if not is_assistants:
                between += turn
                continue
            said = self._assistant.of(turn)
            if said is None:
                continue
            if sent or between:
                sent += self._between(between, calls, opens=not sent)
            sent.append(said.message)
            between, calls = [], said.calls
        if between or calls or not sent:
            sent += self._between(between, calls, closing, opens=not sent)
        return sent

    def _between(
        self, messages: Iterable[Message], calls: list[Call], closing: str = "", *, opens: bool
    ) -> list[Sent]:
        """What stands between two assistant messages, or before the first one; never nothing, and never a
        system message alone where it opens the conversation."""
        results, said = self._sorted(messages, calls)
        media: list[Part] = []
        sent = [self._result(call, results.get(call.sent), media) for call in calls]
        said.insert(0, ("user", media))
        said.append(("user", [Part(closing)] if closing else []))
        for role, turn in groupby((entry for entry in said if entry[1]), lambda entry: entry[0]):
            parts = [part for _, some in turn for part in some]
            if self._bridges and sent and sent[-1]["role"] == "tool":
                sent.append(_BRIDGE)
            sent.append({"role": role, "content": content_of(parts)})
        if not sent or (opens and all(message["role"] == "system" for message in sent)):
            sent.append({"role": "user", "content": _NOTHING})
        return sent

    def _sorted(
        self, messages: Iterable[Message], calls: list[Call]
    ) -> tuple[dict[str, Block], list[tuple[str, list[Part]]]]:
        """The results by the id of their call as sent, and all else in order with its role."""
        waiting: defaultdict[str, list[Call]] = defaultdict(list)
        for call in reversed(calls):
            waiting[call.asked].append(call)
        results: dict[str, Block] = {}
        said: list[tuple[str, list[Part]]] = []
        for message in messages:
            parts: list[Part] = []
            for piece in pieces(message.content):
                if _is_result(piece) and waiting.get(piece.tool_use_id):
                    results[waiting[piece.tool_use_id].pop().sent] = piece
                else:
                    parts += self._said(piece)
            said.append(self._operator(parts) if message.role == "system" else ("user", parts))
        return results, said

    def _operator(self, parts: list[Part]) -> tuple[str, list[Part]]:
        """A system message with its role, or else as user text in the tags that Claude Code uses for it."""
        said = [part for part in parts if not part.media]
        if self._dialect.system_anywhere or not said:
            return "system", said
        text = joined(part.text for part in said)
        return "user", [Part(f"<system-reminder>\n{text}\n</system-reminder>", cache=said[-1].cache)]

    def _said(self, piece: Piece) -> Iterator[Part]:
        """A result without its call becomes text: as a result it would be refused."""
        if not _is_result(piece):
            yield from self._parts.of(piece)
            return
        self._notes["results without a call"] += 1
        yield Part("[result of an earlier tool call]")
        yield from self._parts.read(piece.content)

    def _result(self, call: Call, block: Block | None, media: list[Part]) -> Sent:
        """A `tool` message, which holds text only; its media are added to those of the turn."""
        if block is None:
            self._notes["missing results"] += 1
            return {"role": "tool", "tool_call_id": call.sent, "content": _NO_RESULT}
        parts = self._parts.read(block.content)
        shown = [part for part in parts if part.media]
        if shown:
            media += [Part(f"[media returned by {call.name}]"), *shown]
        text = joined(part.text for part in parts) or (_ELSEWHERE if shown else _NO_OUTPUT)
        said = Part(f"Error: {text}" if block.is_error is True else text, cache=self._parts.cache(block))
        return {"role": "tool", "tool_call_id": call.sent, "content": content_of([said])}


def _is_result(piece: Piece) -> TypeGuard[Block]:
    return isinstance(piece, Block) and piece.type == "tool_result" and isinstance(piece.tool_use_id, str)


def system_of(parts: list[Part]) -> list[Sent]:
    """The one system message; none where nothing is said."""
    said = [part for part in parts if is_said(part.text)]
    return [{"role": "system", "content": content_of(said, "\n\n")}] if said else []
