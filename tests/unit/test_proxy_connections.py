"""The handler that gets bytes from the event loop does what mitmproxy's own does."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.connection import ConnectionState
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler
from mitmproxy.proxy.mode_specs import ProxyMode

from signalbox.proxy.connections import (
    AT_ONCE,
    READ_IN_A_TURN,
    DirectConnectionHandler,
    ReadTurns,
    adopt_handler,
)

LIMIT = 5.0
"""Seconds."""
MUCH = 8 * 1024 * 1024
"""Bytes that no buffer of a socket takes."""
type Told = tuple[str, Any]


class Played(Layer):
    """Notes what comes from the client, and does what a test says."""

    def __init__(self, handler: ProxyConnectionHandler) -> None:
        super().__init__(handler.layer.context)
        self.told: list[Told] = []
        self._news = asyncio.Event()
        self.does: Callable[[events.Event], list[commands.Command]] = lambda event: []

    def _handle_event(self, event: events.Event) -> Any:
        data = getattr(event, "data", None)
        self.told.append((type(event).__name__, data))
        self._news.set()
        yield from self.does(event)

    @property
    def received(self) -> bytes:
        return b"".join(data for kind, data in self.told if kind == "DataReceived")

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not done():
                self._news.clear()
                await self._news.wait()


@pytest.fixture(params=["mitmproxy's own", "ours"])
def serve(request) -> Callable[..., Any]:
    """Runs a test's coroutine with a layer and the client's end of the connection that it handles."""

    def run(play: Callable[[Played, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        made: asyncio.Future[Played]

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            options = Options()
            options.add_option("proxy_debug", bool, False, "")
            addons = SimpleNamespace(get=lambda name: servers, handle_lifecycle=_nothing)
            master: Any = SimpleNamespace(addons=addons)
            mode = ProxyMode.parse("reverse:http://upstream.invalid")
            handler = ProxyConnectionHandler(master, reader, writer, options, mode)
            servers = SimpleNamespace(connections={handler.client.id: handler})
            if request.param == "ours":
                adopt_handler(master, handler.client, ReadTurns())
                assert type(handler) is DirectConnectionHandler
            handler.layer = Played(handler)
            made.set_result(handler.layer)
            await handler.handle_client()

        async def main() -> None:
            nonlocal made
            made = asyncio.get_running_loop().create_future()
            server = await asyncio.start_server(handle, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                async with asyncio.timeout(LIMIT):
                    await play(await made, reader, writer)
            finally:
                writer.close()
                server.close()

        asyncio.run(main())

    return run


async def _nothing(hook: object) -> None:
    pass


def test_bytes_come_in_their_order_and_the_end_after_them(serve):
    async def play(layer: Played, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"one ")
        await layer.until(lambda: layer.received == b"one ")
        writer.write(b"two")
        writer.write_eof()
        await layer.until(lambda: layer.told[-1][0] == "ConnectionClosed")
        assert layer.received == b"one two"
        assert layer.context.client.state is ConnectionState.CAN_WRITE

    serve(play)


def test_what_is_sent_after_the_client_has_ended_its_side_arrives(serve):
    async def play(layer: Played, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = layer.context.client
        layer.does = lambda event: (
            [commands.SendData(client, b"bye"), commands.CloseConnection(client)]
            if isinstance(event, events.ConnectionClosed) and client.state is not ConnectionState.CLOSED
            else []
        )
        writer.write_eof()
        assert await reader.read() == b"bye"

    serve(play)


def test_a_reset_is_an_end(serve):
    async def play(layer: Played, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        await layer.until(lambda: layer.told[-1][0] == "ConnectionClosed")

    serve(play)


def test_nothing_comes_of_a_connection_that_was_closed(serve):
    async def play(layer: Played, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = layer.context.client
        layer.does = lambda event: (
            [commands.CloseConnection(client)] if isinstance(event, events.DataReceived) else []
        )
        writer.write(b"last")
        assert await reader.read() == b""
        await layer.until(lambda: layer.told[-1][0] == "ConnectionClosed")
        assert layer.received == b"last"

    serve(play)


def test_a_client_that_does_not_read_is_not_read_for_long_either(serve):
    """Else what it is sent would pile up."""

    async def play(layer: Played, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = layer.context.client
        layer.does = lambda event: (
            [commands.SendData(client, bytes(MUCH))] if isinstance(event, events.DataReceived) else []
        )
        writer.write(b"x")
        await reader.readexactly(MUCH)
        assert layer.received == b"x"

    serve(play)


def test_an_error_of_a_layer_leaves_the_connection_open(serve):
    async def play(layer: Played, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        layer.does = lambda event: [] if layer.received != b"a" else 1 / 0  # type: ignore[return-value]
        writer.write(b"a")
        await layer.until(lambda: layer.received == b"a")
        client = layer.context.client
        layer.does = lambda event: [commands.SendData(client, b"still here")]
        writer.write(b"b")
        assert await reader.read(100) == b"still here"

    serve(play)


def test_a_layer_is_woken_up_when_it_asked_for_that(serve):
    async def play(layer: Played, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        layer.does = lambda event: (
            [commands.RequestWakeup(0.01), commands.RequestWakeup(60)]
            if isinstance(event, events.DataReceived)
            else []
        )
        writer.write(b"x")
        await layer.until(lambda: layer.told[-1][0] == "Wakeup")

    serve(play)


class _Fed:
    """A connection of `ReadTurns`: notes when it may be read again."""

    is_in_line = False

    def __init__(self) -> None:
        self.went_on = 0

    def go_on(self) -> None:
        self.went_on += 1


def test_connections_on_which_much_comes_are_read_a_few_in_a_turn_of_the_loop():
    async def play() -> list[int]:
        turns, feeds = ReadTurns(), [_Fed() for _ in range(7)]
        known: list[Any] = [*feeds]
        for feed in known:
            turns.note(feed, READ_IN_A_TURN // 2)
        assert [feed.is_in_line for feed in feeds] == [False, False, *[True] * 5]
        read_again = []
        for _ in range(4):
            await asyncio.sleep(0)
            read_again.append(sum(feed.went_on for feed in feeds))
        return read_again

    assert asyncio.run(play()) == [AT_ONCE, 2 * AT_ONCE, 5, 5]


def test_a_connection_that_is_alone_never_waits():
    async def play() -> None:
        turns, alone = ReadTurns(), _Fed()
        known: Any = alone
        for _ in range(10):
            turns.note(known, READ_IN_A_TURN // 2)
            await asyncio.sleep(0)
            assert not alone.is_in_line

    asyncio.run(play())
