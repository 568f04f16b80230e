"""Fakes that stand for the providers of the rules, each on a port of its own, in the player's event loop.

Every fake speaks the protocol of its provider. What it replies is the scenario's; its place in the chain is
known when it is asked.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Self

from signalbox.config.rules import Api, Provider
from signalbox.scenarios.format import PLACES, Piece, Problem, Reply, Step, Word, with_times
from signalbox.scenarios.wire import ChatAnswer, FakeAnswer, MessagesAnswer, ResponsesAnswer

HEAD = 64 * 1024
"""Bytes of the largest head that a fake reads."""
COUNTED = 1000
"""Tokens that fakes count."""


class Cast:
    """Who replies what in one scenario. A new one for each: replies are used up."""

    def __init__(self, replies: Mapping[str, tuple[Reply, ...]]) -> None:
        self._replies = {name: list(those) for name, those in replies.items()}
        self._asked: list[str] = []

    def is_refused(self, provider: str) -> bool:
        """Whether there is no connection to the provider now. It is asked by that, if it is."""
        replies = self._replies_of(provider)
        if replies[:1] != ["refused"]:
            return False
        self._next(replies)
        return True

    def reply(self, provider: str) -> Reply:
        """The provider's reply to its next request."""
        return self._next(self._replies_of(provider))

    def _replies_of(self, provider: str) -> list[Reply]:
        """By its name, else by its place in the order in which providers are asked."""
        if provider in self._replies:
            return self._replies[provider]
        if provider not in self._asked:
            self._asked.append(provider)
        place = PLACES[min(self._asked.index(provider), len(PLACES) - 1)]
        if place == "second" and place not in self._replies:
            place = "others"
        return self._replies.setdefault(place, ["answer"])

    @staticmethod
    def _next(replies: list[Reply]) -> Reply:
        return replies.pop(0) if len(replies) > 1 else replies[0]


class Fakes:
    """All fakes, from `async with` to its end. `cast` is that of the scenario under way."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self.cast = Cast({})
        self.ports: dict[str, int] = {}
        self._providers = providers
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        for name, provider in self._providers.items():
            serve = partial(self._serve, provider)
            server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=HEAD)
            self._servers.append(server)
            self.ports[name] = server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(
        self, provider: Provider, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._answer_one(provider, reader, writer):
                    pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _answer_one(
        self, provider: Provider, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answers one request. Returns whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        path = line.split(" ")[1].partition("?")[0]
        model = str(body.get("model") or path.rpartition("/models/")[2].partition(":")[0])
        if path.endswith(("count_tokens", "count-tokens:rawPredict", "input_tokens")):
            counted = json.dumps({"input_tokens": COUNTED}).encode()
            await _send(writer, 200, {"content-type": "application/json"}, counted)
            return True
        is_streamed = bool(body.get("stream")) or "streamRawPredict" in path
        reply = self.cast.reply(provider.name)
        return await _play(reply, answer_of(provider.api_for(model), model), writer, is_streamed=is_streamed)


def answer_of(api: Api, model: str) -> FakeAnswer:
    """Vertex has Anthropic's answers, with the model in the path of the request."""
    if api == "openai":
        return ChatAnswer(model)
    return ResponsesAnswer(model) if api == "responses" else MessagesAnswer(model)


async def _play(reply: Reply, answer: FakeAnswer, writer: asyncio.StreamWriter, *, is_streamed: bool) -> bool:
    if reply == "silence":
        await asyncio.Event().wait()
    step = reply if isinstance(reply, Step) else Step()
    await asyncio.sleep(step.after)
    given = {name.lower(): with_times(value) for name, value in step.headers.items()}
    headers = {"content-type": "application/json", "request-id": "req_fake"} | given
    if step.error is not None:
        await _send(writer, step.status or 500, headers, answer.refusal(*_said(step.error)))
        return True
    if step.body is not None:
        await _send(writer, step.status or 200, headers, with_times(step.body).encode())
        return True
    if step.stream is None and (reply == "whole" or not is_streamed):
        await _send(writer, step.status or 200, headers, answer.whole(f"{SAID[0]}{SAID[1]}"))
        return True
    pieces = USUAL if step.stream is None else step.stream
    events = headers | {"content-type": "text/event-stream"} | given
    return await _stream(writer, step.status or 200, events, pieces, answer)


SAID = ("It works", " as it should.")
"""What fakes say."""
USUAL: tuple[Word | Piece, ...] = ("begin", Piece(text=SAID[0]), Piece(text=SAID[1]), "end")


async def _stream(
    writer: asyncio.StreamWriter,
    status: int,
    headers: Mapping[str, str],
    pieces: tuple[Word | Piece, ...],
    answer: FakeAnswer,
) -> bool:
    writer.write(_head(status, {**headers, "transfer-encoding": "chunked"}))
    for piece in pieces:
        if piece == "silence":
            await writer.drain()
            await asyncio.Event().wait()
        if piece == "cut":
            await writer.drain()
            return False
        if isinstance(piece, Piece) and piece.pause is not None:
            await writer.drain()
            await asyncio.sleep(piece.pause)
        elif content := b"".join(_content(piece, answer)):
            writer.write(b"%x\r\n%b\r\n" % (len(content), content))
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def _content(piece: Word | Piece, answer: FakeAnswer) -> Iterator[bytes]:
    if isinstance(piece, str):
        yield {"begin": answer.begin, "ping": answer.ping, "end": answer.end}[piece]()
    elif piece.text is not None:
        yield answer.text(piece.text)
    elif piece.thinking is not None:
        yield answer.thinking(piece.thinking)
    elif piece.error is not None:
        yield answer.error(*_said(piece.error))
    elif piece.raw is not None:
        yield with_times(piece.raw).encode()


def _said(problem: Problem) -> tuple[str, str, str]:
    return problem.type, with_times(problem.message), problem.code or ""


async def _send(writer: asyncio.StreamWriter, status: int, headers: Mapping[str, str], body: bytes) -> None:
    writer.write(_head(status, {**headers, "content-length": str(len(body))}) + body)
    await writer.drain()


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Fake", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()
