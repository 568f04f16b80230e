"""Assistant messages of the history: text, calls, and the thinking that their provider wants back."""

from collections.abc import Iterable
from typing import Any, TypeGuard

import msgspec

from signalbox.translate.dialects import Dialect, matches
from signalbox.translate.ids import Ids, unpack
from signalbox.translate.incoming import Block, Message, Piece, pieces
from signalbox.translate.parts import Part, Parts, content_of
from signalbox.translate.shapes import as_objects, as_text
from signalbox.translate.signature import payload_of
from signalbox.translate.texts import is_said
from signalbox.translate.tools import Names

_UNSIGNED = "skip_thought_signature_validator"
"""What Gemini takes for the signature of a call that it did not make (openai-chat.md, 6)."""


class Call(msgspec.Struct, frozen=True):
    """A call whose result is to follow."""

    asked: str
    """Its id as the client has it."""
    sent: str
    name: str


class Said(msgspec.Struct, frozen=True):
    message: dict[str, Any]
    calls: list[Call]


class Assistant:
    """Writes its messages for one provider and model."""

    def __init__(
        self, dialect: Dialect, model: str, provider: str, parts: Parts, names: Names, *, off: bool
    ) -> None:
        """`off`: whether the model is told not to think."""
        self._dialect = dialect
        self._provider = provider
        self._signs = matches(model, dialect.signed_calls)
        self._parts = parts
        self._names = names
        self._off = off
        self._ids = Ids(dialect.call_id, dialect.new_id)

    def of(self, messages: Iterable[Message]) -> Said | None:
        """One message of several in a row; None where nothing is left that could be sent."""
        blocks = [piece for message in messages for piece in pieces(message.content)]
        uses = [block for block in blocks if _is_call(block)]
        thoughts = [block for block in blocks if isinstance(block, Block) and block.type == "thinking"]
        said = [part for piece in blocks if not _is_call(piece) for part in self._said(piece)]
        if not uses and not said:
            return None
        payloads = [self._carried(block) for block in thoughts]
        late = next((as_text(payload["google"]) for payload in payloads if "google" in payload), "")
        calls, written, renamed = self._calls(uses, late)
        message: dict[str, Any] = {"role": "assistant"}
        if said:
            message["content"] = content_of(said)
        elif self._dialect.empty_content:
            message["content"] = None
        message |= _details(map(self._carried, blocks), renamed) or self._thinking(
            thoughts, payloads, called=bool(calls)
        )
        if calls:
            message["tool_calls"] = written
        return Said(message, calls)

    def _said(self, piece: Piece) -> Iterable[Part]:
        """Text only: an assistant message holds no media."""
        return (part if not part.media else Part("[media omitted]") for part in self._parts.of(piece))

    def _calls(
        self, blocks: list[Block], late: str
    ) -> tuple[list[Call], list[dict[str, Any]], dict[str, str]]:
        """The calls, how they are written, and which of the provider's own ids are sent as others. `late` is
        a signature that came when the id of its call was out already."""
        calls, written, renamed = [], [], {}
        for index, block in enumerate(blocks):
            asked = as_text(block.id)
            own, extra = unpack(asked)
            sent, name = (
                self._ids.sent(own, is_its=extra.get("by") == self._provider),
                self._names.sent(block.name),
            )
            renamed[own] = sent
            calls.append(Call(asked, sent, block.name))
            call: dict[str, Any] = {
                "id": sent,
                "type": "function",
                "function": {"name": name, "arguments": block.arguments},
            }
            signature = as_text(self._carried(block).get("google"))
            if index == 0:  # it alone must have one
                signature = signature or late or (_UNSIGNED if self._signs else "")
            if signature:
                call["extra_content"] = {"google": {"thought_signature": signature}}
            written.append(call)
        return calls, written, renamed

    def _thinking(
        self, blocks: list[Block], payloads: list[dict[str, Any]], *, called: bool
    ) -> dict[str, Any]:
        """The field that holds it (translation.md, 4)."""
        replay = self._dialect.replay
        if replay in ("never", "details"):
            return {}
        key = next((payload["key"] for payload in payloads if _names_field(payload)), "")
        text = "".join(as_text(block.thinking) for block in blocks)
        if is_said(text) and (key or replay != "told"):
            return {key or self._dialect.reasoning: text}
        wanted = replay == "every" or (replay == "calls" and called)
        return {self._dialect.reasoning: self._dialect.placeholder} if wanted and not self._off else {}

    def _carried(self, piece: Piece) -> dict[str, Any]:
        """What the answer of this same provider left in the signature of its thinking or the id of a call."""
        if isinstance(piece, Block) and piece.type == "thinking":
            return payload_of(as_text(piece.signature), self._provider)
        if not _is_call(piece):
            return {}
        extra = unpack(as_text(piece.id))[1]
        return extra if extra.get("by", self._provider) == self._provider else {}


def _details(carried: Iterable[dict[str, Any]], renamed: dict[str, str]) -> dict[str, Any]:
    """What was told in `reasoning_details`, which may name calls, goes back in the same field, whoever it is
    that sends them."""
    told = [one for extra in carried for one in as_objects(extra.get("reasoning_details"))]
    details = [
        one | {"id": renamed[one["id"]]} if isinstance(one.get("id"), str) and one["id"] in renamed else one
        for one in told
    ]
    return {"reasoning_details": details} if details else {}


def _is_call(piece: Piece) -> TypeGuard[Block]:
    return isinstance(piece, Block) and piece.type == "tool_use" and as_text(piece.name) != ""


def _names_field(payload: dict[str, Any]) -> bool:
    return payload.get("key") in ("reasoning_content", "reasoning")
