"""Answers of a few kilobytes that become hundreds of megabytes: bounded, and nobody else waits for them."""

import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard

from tests.support import chat
from tests.support.answers import Answer, message_events, text_block
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller
from tests.support.router_process import Router

ROUTER = Router

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux what a process holds"),
]

SIZE = 200
"""Megabytes."""
BLOCK = b"x" * 1_000_000
GROWTH = 120_000
"""KiB that the router may grow by."""
WAIT = 2.0
"""Seconds that others wait at the most on a busy machine; decoded at once a bomb takes several times that."""


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  up: {{url: "{up.url}", key: up-key-for-tests-00001, circuit: {{open_after: 100000}}}}
  chat: {{url: "{up.url}/v1", api: openai, key: up-key-for-tests-00001, circuit: {{open_after: 100000}}}}
rules:
  - {{match: "renamed", to: up/glm}}
  - {{match: "held", to: [up, anthropic]}}
  - {{match: "chat", to: chat/gpt}}
  - {{match: "*", to: anthropic}}
"""


def packed(coding: str, first: bytes, last: bytes) -> bytes:
    """What begins and ends so, with 200 MB between."""
    feed, end = _codings()[coding]
    return b"".join([feed(first), *(feed(BLOCK) for _ in range(SIZE)), feed(last), end()])


def _codings() -> dict[str, tuple[Callable[[bytes], bytes], Callable[[], bytes]]]:
    gzip, br, zstd = (
        zlib.compressobj(1, wbits=31),
        brotli.Compressor(quality=1),
        zstandard.ZstdCompressor().compressobj(),
    )
    return {
        "gzip": (gzip.compress, gzip.flush),
        "br": (br.process, br.finish),
        "zstd": (zstd.compress, zstd.flush),
    }


EVENTS = message_events(
    "glm", [text_block("")], ["Hello"], {"input_tokens": 1, "output_tokens": 1}, {"output_tokens": 1}
)
STREAM = ("text/event-stream", b"".join(EVENTS[:4]) + b": ", b"\n\n" + b"".join(EVENTS[4:]))
EARLY = ("text/event-stream", EVENTS[0] + b": ", b"\n\n" + b"".join(EVENTS[1:]))
WHOLE = ("application/json", b'{"type": "message", "content": [{"type": "text", "text": "', b'"}]}')
SAID = chat.text_stream()
CHAT_STREAM = ("text/event-stream", SAID[0] + SAID[1] + b": ", b"\n\n" + b"".join(SAID[2:]))
CHAT_WHOLE = ("application/json", b'{"choices": [{"message": {"content": "', b'"}}]}')
BOMBS = {
    "renamed-stream": STREAM,
    "renamed-whole": WHOLE,
    "held-stream": EARLY,
    "held-whole": WHOLE,
    "chat-stream": CHAT_STREAM,
    "chat-whole": CHAT_WHOLE,
}


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_takes_neither_memory_nor_the_time_of_others(router, up, coding, bomb):
    kind, first, last = BOMBS[bomb]
    up.answer(
        Answer(200, (("Content-Type", kind), ("Content-Encoding", coding)), (packed(coding, first, last),))
    )
    model, _, form = bomb.partition("-")
    status = Path(f"/proc/{router.process.pid}/status")
    before = _resident(status)
    over, waits, most = threading.Event(), [], [before]

    def others() -> None:
        with Caller(router) as other:
            while not over.is_set():
                began = time.monotonic()
                other.ask("claude-opus-4-5", False)
                assert other.answer().status == 200
                waits.append(time.monotonic() - began)
                most.append(_resident(status))

    thread = threading.Thread(target=others)
    thread.start()
    try:
        with Caller(router) as caller:
            caller.socket.settimeout(20)
            caller.ask(model, form == "stream")
            seen, tail = 0, b""
            while data := caller.socket.recv(1 << 20):
                seen, tail = seen + len(data), (tail + data)[-10:]
                if seen > 20_000_000 or tail.endswith((b"\r\n0\r\n\r\n", b"}")):
                    break
    finally:
        over.set()
        thread.join(20)
    assert max(most) - before < GROWTH
    assert max(waits) < WAIT


def _resident(status: Path) -> int:
    return int(status.read_text().partition("VmRSS:")[2].split()[0])


def test_what_is_decoded_reaches_the_client_to_its_end(router, up):
    kind, first, last = STREAM
    up.answer(
        Answer(200, (("Content-Type", kind), ("Content-Encoding", "zstd")), (packed("zstd", first, last),))
    )
    with Caller(router) as caller:
        caller.socket.settimeout(30)
        caller.ask("renamed")
        seen, tail = 0, b""
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            data = caller.socket.recv(1 << 20)
            assert data, tail
            seen, tail = seen + len(data), (tail + data)[-1000:]
    assert seen > SIZE * 1_000_000
    assert b"message_stop" in tail
