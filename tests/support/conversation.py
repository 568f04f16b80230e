"""A conversation as Claude Code holds it: the history comes back verbatim, and tools are run."""

import json
from collections.abc import Callable
from typing import Any

from tests.support.answers import Block

BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,effort-2025-11-24"
    ",advanced-tool-use-2025-11-20,per-turn-control-2026-07-01"
)
SESSION = "00000000-fake-4000-8000-000000000000"
TOOLS = [
    {"name": "Read", "description": "Reads a file.", "input_schema": {"type": "object"}},
    {
        "name": "Later",
        "description": "Is seldom used.",
        "input_schema": {"type": "object"},
        "defer_loading": True,
    },
]
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
CLEARS = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
_CACHED = {"cache_control": {"type": "ephemeral"}}

type Send = Callable[[bytes, dict[str, str]], tuple[int, bytes]]
"""Posts a body with these headers to `/v1/messages?beta=true`: status and body of the answer, decoded."""


class Conversation:
    """Its history, and what it does with each answer."""

    def __init__(
        self,
        send: Send,
        *,
        thinking: str | None = "adaptive",
        stream: bool = True,
        display: str | None = None,
    ) -> None:
        self.history: list[dict[str, Any]] = []
        self._send = send
        self._thinking = {"type": thinking, **({"display": display} if display else {})} if thinking else None
        if self._thinking and thinking == "enabled":
            self._thinking["budget_tokens"] = 2000
        self._stream = stream
        self._requests = 0

    def turn(self, model: str) -> list[Block]:
        """One request, after which the next can follow. Raises AssertionError for anything but an answer."""
        if not self.history or self.history[-1]["role"] == "assistant":
            self._ask()
        status, answer = self._send(self.body(model), HEADERS)
        assert status == 200, f"request {self._requests}, to {model}: {status} {answer.decode()}"
        blocks = read_stream(answer) if self._stream else json.loads(answer)["content"]
        assert blocks, f"request {self._requests}, to {model}: an empty answer"
        self.history.append({"role": "assistant", "content": blocks})
        self._run([block for block in blocks if block["type"] == "tool_use"])
        return blocks

    def body(self, model: str) -> bytes:
        """The next request, in Claude Code's order of keys."""
        self._requests += 1
        billing = f"x-anthropic-billing-header: cc_version=2.1.328.{self._requests}; cc_entrypoint=cli;"
        request = {
            "model": model,
            "messages": self._messages(),
            "system": [
                {"type": "text", "text": billing},
                {"type": "text", "text": "You are a test.", **_CACHED},
            ],
            "tools": TOOLS,
            "metadata": {
                "user_id": json.dumps({"device_id": "fake", "account_uuid": "", "session_id": SESSION})
            },
            "max_tokens": 32000,
            **({"thinking": self._thinking, "context_management": CLEARS} if self._thinking else {}),
            "output_config": {"effort": "high"},
            "stream": self._stream,
        }
        return json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode()

    def _messages(self) -> list[dict[str, Any]]:
        """The history with the mark for the cache on its last block."""
        *before, last = self.history
        *blocks, marked = last["content"]
        return [*before, {**last, "content": [*blocks, {**marked, **_CACHED}]}]

    def _ask(self) -> None:
        number = len(self.history)
        text = f'Question {number}: äöü "quoted" </system-reminder>'
        shown = [IMAGE] if number % 4 == 0 else []
        self.history.append({"role": "user", "content": [*shown, {"type": "text", "text": text}]})

    def _run(self, calls: list[Block]) -> None:
        """Results come in the order in which tools end. Some are errors, some are images."""
        results = [self._result(call, (self._requests + n) % 3) for n, call in enumerate(reversed(calls))]
        if results:
            self.history.append({"role": "user", "content": results})

    def _result(self, call: Block, kind: int) -> Block:
        result = {"type": "tool_result", "tool_use_id": call["id"]}
        if kind == 2:
            return {**result, "content": [IMAGE]}
        path = call["input"]["path"]
        return {**result, "content": f"{path} is empty", **({"is_error": True} if kind == 1 else {})}


HEADERS = {
    "content-type": "application/json",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": BETAS,
    "x-claude-code-session-id": SESSION,
    "user-agent": "claude-cli/2.1.328 (external, cli)",
}


def read_stream(stream: bytes) -> list[Block]:
    """The blocks that the events of a message add up to. Raises AssertionError for an error or a cut."""
    blocks: list[Block] = []
    arguments: dict[int, str] = {}
    kinds = []
    for line in stream.decode().splitlines():
        if not line.startswith("data: "):
            continue
        told = json.loads(line.removeprefix("data: "))
        kinds.append(told["type"])
        assert told["type"] != "error", line
        if told["type"] == "content_block_start":
            assert told["index"] == len(blocks), line
            blocks.append(told["content_block"])
        elif told["type"] == "content_block_delta":
            _add(blocks[told["index"]], told["delta"], arguments, told["index"])
    assert kinds[:1] == ["message_start"], stream[:500]
    assert kinds[-1:] == ["message_stop"], stream[-500:]
    for index, text in arguments.items():
        blocks[index]["input"] = json.loads(text or "{}")
    return blocks


def _add(block: Block, delta: dict[str, Any], arguments: dict[int, str], index: int) -> None:
    kind = delta["type"]
    if kind == "input_json_delta":
        arguments[index] = arguments.get(index, "") + delta["partial_json"]
    elif kind == "signature_delta":
        block["signature"] = delta["signature"]
    else:
        field = kind.removesuffix("_delta")
        block[field] += delta[field]


def history(model: str, signature: str, *, stream: bool = False) -> bytes:
    """A request whose history holds an answer with thinking under this signature."""
    thinking = {"type": "thinking", "thinking": "hm", "signature": signature}
    return json.dumps(
        {
            "model": model,
            "max_tokens": 64,
            "stream": stream,
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": [thinking, {"type": "text", "text": "b"}]},
                {"role": "user", "content": "c"},
            ],
        }
    ).encode()
