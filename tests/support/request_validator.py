"""What a request must be for any provider, and which fields the API knows; the texts are Anthropic's.

They are those of reference/anthropic-messages.md, sections 3 and 7, where it has them.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from tests.support.answers import Block

type Message = dict[str, Any]

_TOP = frozenset(
    {
        "model",
        "max_tokens",
        "messages",
        "system",
        "stream",
        "stop_sequences",
        "tools",
        "tool_choice",
        "thinking",
    }
    | {"output_config", "metadata", "service_tier", "cache_control", "diagnostics", "inference_geo"}
)
_BETA_TOP = {
    "context_management": "context-management-2025-06-27",
    "safeguards": "dangerous-tool-use-2026-09-03",
    "mcp_servers": "mcp-client-2025-11-20",
    "speed": "fast-mode-2026-02-01",
}
_TOOL = frozenset(
    {"name", "input_schema", "description", "type", "strict", "cache_control", "eager_input_streaming"}
)
_BETA_TOOL = {
    "defer_loading": "advanced-tool-use-2025-11-20",
    "input_examples": "advanced-tool-use-2025-11-20",
    "allowed_callers": "advanced-tool-use-2025-11-20",
}
_MESSAGE = frozenset({"role", "content"})
_BETA_MESSAGE = {
    "clear_at": "per-turn-control-2026-07-01",
    "output_config": "per-turn-control-2026-07-01",
}
_BLOCK = {
    "thinking": {"type", "thinking", "signature"},
    "redacted_thinking": {"type", "data"},
    "text": {"type", "text", "cache_control", "citations"},
    "tool_use": {"type", "id", "name", "input", "cache_control", "caller"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", "cache_control"},
}


class Refused(Exception):
    """The request is refused with 400 and this message."""


@dataclass(frozen=True)
class Asked:
    """A request as a provider sees it."""

    body: dict[str, Any]
    betas: frozenset[str]

    @property
    def messages(self) -> list[Message]:
        return self.body["messages"]

    @property
    def thinking(self) -> str:
        """`adaptive`, `enabled`, `disabled`, or empty."""
        return self.body.get("thinking", {}).get("type", "")

    @property
    def thinks(self) -> bool:
        return self.thinking in ("adaptive", "enabled")

    def blocks(self) -> Iterator[tuple[int, int, str, Block]]:
        """Message, position, role and block; a text alone is a block too."""
        for n, message in enumerate(self.messages):
            for m, block in enumerate(content(message)):
                yield n, m, message["role"], block


def content(message: Message) -> list[Block]:
    """The blocks of a message."""
    told = message["content"]
    return [{"type": "text", "text": told}] if isinstance(told, str) else told


def running(messages: list[Message]) -> list[int]:
    """The assistant messages of the tool loop that is going on; none where the last message is no result."""
    found = []
    for n in range(len(messages) - 1, -1, -1):
        if messages[n]["role"] == "assistant":
            found.append(n)
        elif messages[n]["role"] == "user" and not any(
            b["type"] == "tool_result" for b in content(messages[n])
        ):
            break
    return found if messages[-1]["role"] != "assistant" else []


def rounds(messages: list[Message]) -> int:
    """How many rounds of tool calls the running loop has had."""
    return len(running(messages))


def check_fields(asked: Asked) -> None:
    """Fields that the API does not know, or not without their beta."""
    check_extra(asked.body, "", _TOP, _BETA_TOP, asked.betas)
    for n, tool in enumerate(asked.body.get("tools", [])):
        check_extra(tool, f"tools.{n}.custom.", _TOOL, _BETA_TOOL, asked.betas)
    for n, message in enumerate(asked.messages):
        check_extra(message, f"messages.{n}.", _MESSAGE, _BETA_MESSAGE, asked.betas)
    for n, m, _, block in asked.blocks():
        kind = block["type"]
        check_extra(block, f"messages.{n}.content.{m}.{kind}.", _BLOCK.get(kind, set(block)), {}, asked.betas)


def check_extra(
    told: dict[str, Any], where: str, known: Collection[str], opened: dict[str, str], betas: Collection[str]
) -> None:
    for field in told:
        if field not in known and opened.get(field) not in betas:
            raise Refused(f"{where}{field}: Extra inputs are not permitted")


def check_roles(asked: Asked) -> None:
    """A `system` message follows a user's and comes before an answer or at the end."""
    roles = [message["role"] for message in asked.messages]
    if roles[:1] != ["user"]:
        raise Refused('messages: first message must use the "user" role')
    for n, role in enumerate(roles):
        if role not in ("user", "assistant", "system"):
            raise Refused(f'messages: Unexpected role "{role}".')
        if role == "system" and (roles[n - 1] != "user" or roles[n + 1 : n + 2] not in ([], ["assistant"])):
            raise Refused(f"messages.{n}: a system message cannot stand here")


def check_blocks(asked: Asked) -> None:
    for n, message in enumerate(asked.messages):
        if not message["content"]:
            raise Refused(f"messages.{n}: all messages must have non-empty content")
    cached = 0
    for _, _, _, block in asked.blocks():
        for text in (inner["text"] for inner in (block, *shown(block)) if inner["type"] == "text"):
            if not text.strip():
                said = "contain non-whitespace text" if text else "be non-empty"
                raise Refused(f"messages: text content blocks must {said}")
        cached += "cache_control" in block
    for block in [*content({"content": asked.body.get("system", [])}), *asked.body.get("tools", [])]:
        cached += "cache_control" in block
    if cached > 4:
        raise Refused(f"A maximum of 4 blocks with cache_control may be provided. Found {cached}.")


def shown(block: Block) -> list[Block]:
    """The blocks of a tool's result."""
    return content(block) if block["type"] == "tool_result" and isinstance(block.get("content"), list) else []


def check_server_tools(asked: Asked) -> None:
    """Answers hold no results but those of Anthropic's own tools."""
    for n, m, role, block in asked.blocks():
        where = f"messages.{n}.content.{m}"
        if block["type"] == "server_tool_use" and not re.fullmatch(r"srvtoolu_[a-zA-Z0-9_]+", block["id"]):
            said = "String should match pattern '^srvtoolu_[a-zA-Z0-9_]+$'"
            raise Refused(f"{where}.server_tool_use.id: {said}")
        if block["type"] == "tool_result" and role != "user":
            raise Refused(f"{where}: `tool_result` blocks can only be in `user` messages")


def check_tools(asked: Asked) -> None:
    """Every call is answered first in the next turn, and nothing else is. Ids are legal and unique."""
    calls = [block["id"] for _, _, _, block in asked.blocks() if block["type"] == "tool_use"]
    if any(not re.fullmatch(r"[a-zA-Z0-9_-]+", call) for call in calls):
        raise Refused("messages: tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
    if len(set(calls)) < len(calls):
        raise Refused("messages: `tool_use` ids must be unique")
    open_calls: list[str] = []
    for n, (role, blocks) in enumerate(merged(asked.messages)):
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if missing := [call for call in open_calls if call not in results]:
            raise Refused(
                f"messages.{n - 1}: `tool_use` ids were found without `tool_result` blocks immediately after:"
                f" {', '.join(missing)}"
            )
        if set(results) - set(open_calls):
            raise Refused(f"messages.{n}: unexpected `tool_use_id` found in `tool_result` blocks")
        if any(block["type"] != "tool_result" for block in blocks[: len(results)]):
            raise Refused(f"messages.{n}: `tool_result` blocks must come first")
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use" and role == "assistant"]


def merged(messages: list[Message]) -> list[tuple[str, list[Block]]]:
    """Turns: consecutive messages of one role are one, and `system` ones belong to none."""
    turns: list[tuple[str, list[Block]]] = []
    for message in messages:
        if turns and turns[-1][0] == message["role"]:
            turns[-1][1].extend(content(message))
        elif message["role"] != "system":
            turns.append((message["role"], list(content(message))))
    return turns


def check_events(events: list[Message], *, is_cut: bool = False) -> None:
    """The order of a stream (reference/anthropic-messages.md, section 6): `message_start`; blocks, indices
    from 0 on, one open at a time, each with deltas of its own kind; one `message_delta`; `message_stop`, or
    `error` at any time. One that is cut may end anywhere."""
    opened, index, stopped, ended = "", -1, False, False
    signed = False
    for n, event in enumerate(events):
        kind = event["type"]
        assert not ended, "nothing follows the end"
        assert (kind == "message_start") is (n == 0) or kind == "error"
        assert not stopped or kind == "message_stop"
        match kind:
            case "message_start":
                assert event["message"]["content"] == []
                assert event["message"]["stop_reason"] is None
            case "content_block_start":
                assert not opened, "one block is open at a time"
                opened, index, signed = event["content_block"]["type"], index + 1, False
                assert event["index"] == index
            case "content_block_delta":
                assert event["index"] == index
                assert event["delta"]["type"] in _DELTAS.get(opened, ())
                assert not signed, "a signature comes last"
                signed = event["delta"]["type"] == "signature_delta"
            case "content_block_stop":
                assert opened
                assert event["index"] == index
                assert signed or opened != "thinking", "thinking is signed"
                opened = ""
            case "message_delta":
                assert not opened
                assert event["delta"]["stop_reason"]
                assert event["usage"]["output_tokens"] >= 0
                stopped = True
            case "message_stop":
                assert stopped
                ended = True
            case "error":
                assert event["error"]["message"]
                ended = True
            case _:
                raise AssertionError(f"{kind} is no event")
    assert ended or is_cut or not events


_DELTAS = {
    "text": {"text_delta", "citations_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
    "server_tool_use": {"input_json_delta"},
}
