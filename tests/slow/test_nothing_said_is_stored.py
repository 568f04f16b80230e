"""No file of the state folder holds a word of a conversation."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import chat
from tests.support.answers import error_json, message_sse, thinking_block, tool_block
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller

pytestmark = pytest.mark.slow

WORD = "nobodysbusiness"
"""Stands in everything that is said, on both sides."""


def rules(home: Upstream, other: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{other.url}", key: zai-key-for-tests-0001}}
  chat: {{url: "{other.url}/v1", api: openai, dialect: generic, key: chat-key-for-tests-01}}
rules:
  - {{match: "over*", to: [zai/glm-4.7, anthropic]}}
  - {{match: "chat*", to: chat/qwen3}}
  - {{match: "*", to: anthropic}}
log: {{level: debug}}
"""


def body(model: str) -> bytes:
    call = {**tool_block("Read", path=WORD), "id": "toolu_1"}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": f"the file says {WORD}"}
    request = {
        "model": model,
        "stream": True,
        "system": [{"type": "text", "text": f"System {WORD}", "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "Read", "description": WORD, "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": f"Please {WORD}"},
            {"role": "assistant", "content": [thinking_block(f"Thinking {WORD}"), call]},
            {"role": "user", "content": [result, {"type": "text", "text": f"Go on {WORD}"}]},
        ],
    }
    return json.dumps(request).encode()


def answered(router: Any, model: str) -> int:
    with Caller(router, "session-of-the-test") as caller:
        sent = body(model)
        caller.socket.sendall(caller.head(len(sent)) + sent)
        return caller.answer().status


def written(state: Path) -> dict[str, bytes]:
    return {str(file.relative_to(state)): file.read_bytes() for file in state.rglob("*") if file.is_file()}


def test_no_word_of_a_request_or_an_answer_is_in_a_file(start_router, upstream: Upstream, second: Upstream):
    in_background = {"SIGNALBOX_BACKGROUND": "1"}  # where the console is a file too
    router = start_router(upstream.url, rules=rules(upstream, second), environment=in_background)
    said = message_sse(texts=[f"Words {WORD}"], before=[thinking_block(f"More {WORD}")])
    upstream.answer(said)
    assert answered(router, "claude-opus-4-6") == 200
    second.answer(error_json(529, "overloaded_error", "Overloaded"))
    assert answered(router, "over-1") == 200
    second.answer(lambda _: chat.stream([chat.chunk({"content": WORD}), chat.chunk({}, "stop"), chat.DONE]))
    assert answered(router, "chat-1") == 200
    with closing(sqlite3.connect(router.state / "ledger.sqlite")) as ledger:
        ledger.execute("BEGIN IMMEDIATE")  # what cannot be written now stays in the spool
        assert answered(router, "claude-opus-4-6") == 200
        router.stop()
        files = written(router.state)
        assert any(name.startswith("spool-") for name in files)
    assert {"ledger.sqlite", "requests.jsonl"} <= files.keys()
    files["signalbox.log"] = router.log().encode()
    assert b"[opus|anthropic]" in files["signalbox.log"]
    assert not [name for name, data in files.items() if WORD.encode() in data]
