"""Providers that check a conversation: one as strictly as Anthropic does, others as third parties do.

Each is an answer function for `tests.upstream.Upstream`. They keep nothing between requests: whether a
thinking block is their own is told by the block itself, with a keyed hash, so that a block of anybody
else's, or an edited one, is refused as it would be in reality.
"""

import base64
import hmac
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from hashlib import blake2b
from typing import Any

from tests.support.answers import Answer, Block, error_json, event, json_answer, sse
from tests.support.fake_provider import Received, usual
from tests.support.request_validator import (
    Asked,
    Refused,
    check_blocks,
    check_extra,
    check_fields,
    check_roles,
    check_server_tools,
    check_tools,
    content,
    rounds,
    running,
)

THINKING = ("thinking", "redacted_thinking")
ROUNDS = 2
"""Tool calls before an answer ends in text."""

_NOT_ADAPTIVE = "adaptive thinking is not supported on this model"
_NOT_THIS = (
    '"thinking.type.{}" is not supported for this model. Use "thinking.type.adaptive" and'
    ' "output_config.effort" to control thinking behavior.'
)
_NOT_AT_THE_END = (
    "When thinking is disabled, an `assistant` message in the final position cannot contain `thinking`. To"
    " use thinking blocks, enable `thinking` in your request."
)
_NOT_FIRST = (
    "Expected `thinking` or `redacted_thinking`, but found `{}`. When `thinking` is enabled, a final"
    " `assistant` message must start with a thinking block (preceeding the lastmost set of `tool_use` and"
    " `tool_result` blocks). We recommend you include thinking blocks from previous turns. To avoid this"
    " requirement, disable `thinking`."
)
_MODIFIED = (
    "`thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. These"
    " blocks must remain as they were in the original response."
)
_BOUND = (
    " The block is bound to a different conversation. Remove the block, or set"
    ' `thinking.block_binding.prefix_mismatch_behavior` to "drop_block".'
)

_USAGE = {"input_tokens": 100, "output_tokens": 20}


class Provider(ABC):
    """Answers with thinking and tool calls, then with text; refuses what no provider takes."""

    def __init__(self, name: str, *, redacts: bool = False) -> None:
        self.name = name
        self.redacts = redacts
        """Whether redacted thinking follows the thinking."""
        self.key = blake2b(name.encode()).digest()

    def __call__(self, received: Received) -> Answer:
        if received.path.partition("?")[0].rpartition("/")[2] != "messages":
            return usual(received)
        betas = (received.header("anthropic-beta") or "").split(",")
        asked = Asked(received.json, frozenset(beta.strip() for beta in betas))
        try:
            self.check(asked)
        except Refused as refused:
            return error_json(400, "invalid_request_error", str(refused))
        return self.answer(asked)

    def check(self, asked: Asked) -> None:
        """Raises Refused."""
        check_roles(asked)
        check_blocks(asked)
        check_tools(asked)

    @abstractmethod
    def thoughts(self, asked: Asked, text: str) -> list[Block]:
        """The thinking blocks of an answer, as this provider issues them."""

    def answer(self, asked: Asked) -> Answer:
        number = sum(message["role"] == "assistant" for message in asked.messages)
        blocks = [] if not asked.thinks else self.thoughts(asked, f"{self.name} thinks, {number}.")
        if rounds(asked.messages) < ROUNDS and asked.body.get("tools"):
            kind = "thought" if blocks else "plain"
            blocks += [self._call(f"{kind}_{number}_{n}") for n in range(1 + number % 2)]
        else:
            blocks.append({"type": "text", "text": f"{self.name} says, {number}."})
        message = {
            "id": f"msg_fake_{self.name}_{number}",
            "type": "message",
            "role": "assistant",
            "model": asked.body["model"],
            "content": blocks,
            "stop_reason": "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn",
            "stop_sequence": None,
            "usage": _USAGE,
        }
        return sse(*streamed(message)) if asked.body.get("stream") else json_answer(message)

    def _call(self, name: str) -> Block:
        id = f"toolu_{self.name}_{name}"
        return {"type": "tool_use", "id": id, "name": "Read", "input": {"path": f"/fake/{name}"}}

    def seal(self, *parts: object) -> str:
        """A keyed hash that nobody else can make."""
        return hmac.new(self.key, json.dumps(parts).encode(), "sha256").hexdigest()[:32]


class LaxProvider(Provider):
    """Signs what it thinks and takes any signature, as Z.ai and Kimi do.

    `rejects` are top-level fields that it does not know.
    """

    def __init__(self, name: str, *, rejects: Collection[str] = (), redacts: bool = False) -> None:
        super().__init__(name, redacts=redacts)
        self.rejects = rejects

    def check(self, asked: Asked) -> None:
        check_extra(asked.body, "", set(asked.body) - set(self.rejects), {}, asked.betas)
        super().check(asked)

    def thoughts(self, asked: Asked, text: str) -> list[Block]:
        return [{"type": "thinking", "thinking": text, "signature": self.seal(text)}]


class CarelessProvider(LaxProvider):
    """Takes and says what Anthropic refuses: numbers its calls from 0 in each answer, as Kimi's templates do,
    leaves blank texts, and runs tools of its own under ids of chat completions, as GLM does."""

    def check(self, asked: Asked) -> None:
        check_roles(asked)

    def thoughts(self, asked: Asked, text: str) -> list[Block]:
        own = {"type": "server_tool_use", "id": "call_fake0", "name": "analyze_image", "input": {}}
        found = {
            "type": "tool_result",
            "tool_use_id": own["id"],
            "content": [{"type": "text", "text": "a cat"}],
        }
        blank = {"type": "text", "text": "\n"}
        return [*super().thoughts(asked, text), own, found, blank]

    def _call(self, name: str) -> Block:
        return super()._call(name) | {"id": f"functions.Read:{name.rpartition('_')[2]}"}


class DefaultThinker(LaxProvider):
    """Thinks unless `thinking` is disabled, and wants the text of thinking back with each answer, as DeepSeek
    and Kimi do. `words` are those of its refusal. `again`: what it says where it is sent placeholders."""

    def __init__(self, name: str, words: str, *, again: str = "") -> None:
        super().__init__(name)
        self.words = words
        self.again = again

    def check(self, asked: Asked) -> None:
        super().check(asked)
        for message in asked.messages if asked.thinking != "disabled" else ():
            told = [block["thinking"] for block in content(message) if block["type"] == "thinking"]
            if message["role"] == "assistant" and not any(told):
                raise Refused(self.words)
            if self.again and " " in told:
                raise Refused(self.again)


class UnsignedProvider(Provider):
    """Thinks without signatures, takes no others, and wants its own back: as DeepSeek does."""

    def check(self, asked: Asked) -> None:
        super().check(asked)
        for n, m, role, block in asked.blocks():
            if block["type"] in THINKING and not self.is_own(block):
                raise Refused(f"messages[{n}].content[{m}]: this thinking is not of this provider")
            mine = role == "assistant" and str(block.get("id", "")).startswith(f"toolu_{self.name}_thought_")
            first = content(asked.messages[n])[0]
            if mine and asked.thinks and first["type"] != "thinking":
                raise Refused(f"messages[{n}]: the thinking must be passed back")

    def is_own(self, block: Block) -> bool:
        text, _, seal = block.get("thinking", "").rpartition(" ")
        return "signature" not in block and seal == self.seal(text)

    def thoughts(self, asked: Asked, text: str) -> list[Block]:
        return [{"type": "thinking", "thinking": f"{text} {self.seal(text)}"}]


class StrictAnthropic(Provider):
    """Accepts only what the real API would.

    `modes` are the types of thinking that its model takes. `bound`: a block holds only after the very
    `system`, `tools` and messages before which it was issued, as with newer models.
    """

    def __init__(
        self,
        name: str = "anthropic",
        *,
        modes: Collection[str] = ("adaptive", "enabled", "disabled"),
        bound: bool = False,
        redacts: bool = False,
    ) -> None:
        super().__init__(name, redacts=redacts)
        self.modes = modes
        self.bound = bound

    def check(self, asked: Asked) -> None:
        check_fields(asked)
        super().check(asked)
        check_server_tools(asked)
        self._check_mode(asked)
        for n, m, _, block in asked.blocks():
            if block["type"] in THINKING:
                self._check_issued(asked, n, m, block)
        self._check_latest(asked)

    def _check_mode(self, asked: Asked) -> None:
        if asked.thinking and asked.thinking not in self.modes:
            raise Refused(_NOT_ADAPTIVE if asked.thinking == "adaptive" else _NOT_THIS.format(asked.thinking))
        last = len(asked.messages) - 1
        for n, m, role, block in asked.blocks():
            if n == last and role == "assistant" and not asked.thinks and block["type"] in THINKING:
                raise Refused(f"messages.{n}.content.{m}: {_NOT_AT_THE_END}")
        if asked.thinking == "enabled" and rounds(asked.messages):
            n = max(running(asked.messages))
            kind = content(asked.messages[n])[0]["type"]
            if kind not in THINKING:
                raise Refused(f"messages.{n}.content.0.type: {_NOT_FIRST.format(kind)}")

    def _check_issued(self, asked: Asked, n: int, m: int, block: Block) -> None:
        if block["type"] == "thinking" and "signature" not in block:
            raise Refused(f"messages.{n}.content.{m}.thinking.signature: Field required")
        token = self._token(block)
        invalid = f"messages.{n}.content.{m}: Invalid `signature` in `thinking` block"
        if token is None:
            raise Refused(invalid)
        if self.bound and token["before"] != self._before(asked, n, m):
            raise Refused(f"{invalid}.{_BOUND}")

    def _check_latest(self, asked: Asked) -> None:
        """Within the running tool loop the thinking of each answer comes back whole, or none of it."""
        for n in running(asked.messages):
            blocks = [block for block in content(asked.messages[n]) if block["type"] in THINKING]
            tokens = [self._token(block) or {} for block in blocks]
            whole = [token["place"] for token in tokens] == list(range(tokens[0]["of"] if tokens else 0))
            texts = [token["text"] for token in tokens] == [self._text(block) for block in blocks]
            if not (whole and texts):
                raise Refused(f"messages.{n}.content.0: {_MODIFIED}")

    def thoughts(self, asked: Asked, text: str) -> list[Block]:
        """The signature tells the block's place, its text and what it came after."""
        kinds = THINKING if self.redacts else THINKING[:1]
        if (asked.body.get("thinking") or {}).get("display") == "omitted":
            text = ""
        blocks: list[Block] = []
        for place, kind in enumerate(kinds):
            block: Block = {"type": kind, **({"thinking": text} if kind == "thinking" else {})}
            told = {
                "place": place,
                "of": len(kinds),
                "text": self._text(block),
                "before": self._before(asked, len(asked.messages), place, blocks),
            }
            packed = base64.b64encode(json.dumps([told, self.seal(told)]).encode()).decode()
            blocks.append({**block, "signature" if kind == "thinking" else "data": packed})
        return blocks

    def _token(self, block: Block) -> dict[str, Any] | None:
        """What the signature tells; None where it is not one of these."""
        try:
            told, seal = json.loads(base64.b64decode(block.get("signature") or block.get("data") or ""))
        except ValueError:
            return None
        return told if seal == self.seal(told) else None

    def _text(self, block: Block) -> str:
        return self.seal(block.get("thinking", ""))

    def _before(self, asked: Asked, n: int, m: int, more: Collection[Block] = ()) -> str:
        """A hash of all that stands before block `m` of message `n`; messages of one role are one."""
        system = [
            block for block in content({"content": asked.body.get("system", [])}) if not is_billing(block)
        ]
        blocks = [(role, block) for i, j, role, block in asked.blocks() if (i, j) < (n, m)]
        blocks += [("assistant", block) for block in more]
        return self.seal(uncached([system, asked.body.get("tools", []), blocks]))


def is_billing(block: Block) -> bool:
    return str(block.get("text", "")).startswith("x-anthropic-billing-header")


def uncached(value: Any) -> Any:
    """The same without `cache_control`, which moves from request to request."""
    if isinstance(value, dict):
        return {key: uncached(inner) for key, inner in value.items() if key != "cache_control"}
    return [uncached(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def streamed(message: dict[str, Any]) -> Iterator[bytes]:
    """A whole message as the events of a stream."""
    start = {**message, "content": [], "stop_reason": None, "usage": {**message["usage"], "output_tokens": 1}}
    yield event("message_start", message=start)
    for index, block in enumerate(message["content"]):
        opening, deltas = _parts(block)
        yield event("content_block_start", index=index, content_block=opening)
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    stop = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield event("message_delta", delta=stop, usage=message["usage"])
    yield event("message_stop")


def _parts(block: Block) -> tuple[Block, list[Block]]:
    """What a block starts with and its deltas; redacted thinking comes whole."""
    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": block["text"]}]
    if block["type"] == "tool_use":
        arguments = json.dumps(block["input"])
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": arguments}]
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}] if block["thinking"] else []
        if "signature" in block:
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {**block, "thinking": "", **({"signature": ""} if "signature" in block else {})}, deltas
    return block, []
