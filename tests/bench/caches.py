"""Whether a provider can keep its cache: what of each request's beginning is the same in the next one.

A provider reads from its cache what a request has in common with the one before, from the first tool on. A
router that changes one byte of the history makes its users pay for all that follows. Here a session in the
shape of Claude Code's (tools, thinking, a cache mark that moves with every turn) goes through a router to a
scripted provider, turn by turn; what the provider got is compared with what the client sent.

`python -m tests.bench.caches` tells it of this router; `--router URL --listen PORT --model NAME [--chat]` of
another one that is running, whose provider is on that port.
"""

import argparse
import base64
import http.client
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.bench import processes
from tests.support import chat
from tests.support.answers import Answer, message_sse, thinking_block, tool_block
from tests.support.conversation import Conversation
from tests.support.fake_provider import Received, Upstream

TURNS = 40
LOGIN = "Bearer sk-ant-oat01-fake-login-of-the-benchmark"


@dataclass
class Session:
    """`sent` by the client and `got` by the provider, one body a turn."""

    sent: list[bytes] = field(default_factory=list)
    got: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Kept:
    """`changed`: bytes that reached the provider changed, beside those that must differ; None for another
    protocol. `prefix`: of what each request had in common with the next one when the client sent them, the
    share that they still had in common at the provider."""

    turns: int
    changed: int | None
    prefix: float


def units(body: bytes) -> Iterator[bytes]:
    """A request in the order in which caches read it: tools, then instructions, then what was said. Marks for
    the cache are no content."""
    told = json.loads(body)
    system = told.get("system") or []
    messages = told["messages"]
    parts = [
        *told.get("tools", ()),
        *(system if isinstance(system, list) else [system]),
        *({"role": message["role"], "content": part} for message in messages for part in _parts(message)),
    ]
    for part in parts:
        yield json.dumps(_unmarked(part), ensure_ascii=False).encode()


def _parts(message: dict[str, Any]) -> list[Any]:
    """The blocks of a message of the Messages API; a message of another protocol is one."""
    content = message.get("content")
    is_one = "tool_calls" in message or message["role"] == "tool" or not isinstance(content, list)
    return [message] if is_one else content


def _unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unmarked(one) for name, one in value.items() if name != "cache_control"}
    return [_unmarked(one) for one in value] if isinstance(value, list) else value


def common(before: bytes, after: bytes) -> float:
    """The share of the first request's bytes that are the beginning of the second one too."""
    first, second = list(units(before)), list(units(after))
    same = next((n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first))
    return sum(map(len, first[:same])) / sum(map(len, first))


def changed(sent: bytes, got: bytes) -> int:
    """Bytes of the client's members, beside the model's name and those that tell a third party who the client
    is, that are not the same for the provider."""
    told, heard = json.loads(sent), json.loads(got)
    for body in (told, heard):
        for name in ("model", "metadata"):
            body.pop(name, None)
        body["system"] = [block for block in body["system"] if "billing-header" not in block["text"]]
    differing = 0
    for name in told.keys() | heard.keys():
        a, b = (json.dumps(body.get(name), ensure_ascii=False).encode() for body in (told, heard))
        if a != b:
            differing += sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))
    return differing


def compare(session: Session, *, translated: bool) -> Kept:
    shares = []
    for number in range(len(session.sent) - 1):
        asked = common(session.sent[number], session.sent[number + 1])
        told = common(session.got[number], session.got[number + 1])
        shares.append(min(1.0, told / asked))
    bytes_changed = None if translated else sum(map(changed, session.sent, session.got))
    return Kept(len(session.sent), bytes_changed, sum(shares) / len(shares))


def answer(name: str, number: int, *, translated: bool) -> Callable[[Received], Answer]:
    """Of turn `number` with the model `name`: thoughts and words, and mostly one or two calls of tools."""
    paths = [f"/src/file_{number}_{call}.py" for call in range(number % 3)]
    if not translated:
        ids = [f"toolu_{number}_{index}" for index in range(len(paths))]
        calls = [{**tool_block("Read", path=path), "id": id} for id, path in zip(ids, paths, strict=True)]
        signature = base64.b64encode(f"{name} {number}".encode()).decode()
        thoughts = thinking_block(f"Thoughts of {name} in turn {number}: \u2713", signature)
        words = [f"Words of turn {number}."]
        return lambda got: message_sse(got.json["model"], words, before=[thoughts], tools=calls)
    made = [
        chat.call("Read", json.dumps({"path": path}), id=f"call_{number}_{index}", index=index)
        for index, path in enumerate(paths)
    ]
    chunks = [
        chat.chunk({"role": "assistant", "reasoning_content": f"Thoughts of turn {number}: \u2713"}),
        chat.chunk({"content": f"Words of turn {number}."}),
        *(chat.chunk({"tool_calls": [call]}) for call in made),
        chat.chunk({}, "tool_calls" if made else "stop", usage={"prompt_tokens": 9, "completion_tokens": 3}),
        chat.DONE,
    ]
    return lambda got: chat.stream(chunks)


def run(url: str, upstream: Upstream, model: str, *, turns: int, translated: bool) -> Session:
    """Hold the conversation. Raises AssertionError where Claude Code could not go on from an answer."""
    session, parts = Session(), urlsplit(url)

    def send(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        upstream.answer(answer(model, len(session.sent), translated=translated))
        session.sent.append(body)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        try:
            connection.request(
                "POST",
                "/v1/messages?beta=true",
                body,
                {**headers, "authorization": LOGIN, "x-api-key": "none"},
            )
            given = connection.getresponse()
            return given.status, given.read()
        finally:
            connection.close()

    talk = Conversation(send)
    before = len(upstream.requests)
    for _ in range(turns):
        talk.turn(model)
    session.got = [received.body for received in upstream.requests[before:]]
    assert len(session.got) == len(session.sent), "the provider was asked more than once for a turn"
    return session


def line(name: str, kept: Kept) -> str:
    told = "another protocol" if kept.changed is None else f"{kept.changed:,}"
    return f"| {name} | {kept.turns} | {told} | {kept.prefix:.2%} |"


def table() -> Iterator[str]:
    """A line for each way through this router."""
    with (
        Upstream() as upstream,
        tempfile.TemporaryDirectory() as folder,
        processes.router(Path(folder), upstream.port) as router,
    ):
        url = f"http://127.0.0.1:{router.port}"
        for name in ("pass", "swap", "chat"):
            translated = name == "chat"
            session = run(url, upstream, f"bench-{name}", turns=TURNS, translated=translated)
            yield line(name, compare(session, translated=translated))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.caches", description=__doc__)
    parser.add_argument("--router", help="the address of another router that is running")
    parser.add_argument("--listen", type=int, help="the port on which that one's provider is to be")
    parser.add_argument("--model", default="claude-sonnet-4-5", help="the model to ask it for")
    parser.add_argument("--chat", action="store_true", help="its provider speaks chat completions")
    given = parser.parse_args()
    print("| way | turns | bytes changed that need not be | prefix kept |\n|---|---|---|---|")
    if given.router is None:
        print("\n".join(table()))
        return
    with Upstream(port=given.listen) as upstream:
        session = run(given.router, upstream, given.model, turns=TURNS, translated=given.chat)
    print(line(given.router, compare(session, translated=given.chat)))


if __name__ == "__main__":
    sys.exit(main())
