"""The connections of one client: mitmproxy's handler, with bytes handed on where they come in.

mitmproxy reads each connection in a task: what comes in is copied to a buffer, wakes the task in the next
turn of the event loop, and after it every connection is asked whether it could write.
`DirectConnectionHandler` gets the bytes from the event loop itself, and hears from it when a connection
cannot take more. That saves a turn of the loop and two locks for each read. Nothing in it is of this project
but what it inherits from.
"""

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from typing import Any, cast

from mitmproxy.connection import Client, Connection, ConnectionState
from mitmproxy.master import Master
from mitmproxy.proxy import commands, events, layer, server_hooks
from mitmproxy.proxy.commands import SendData
from mitmproxy.proxy.layers.modes import HttpProxy, ReverseProxy
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler
from mitmproxy.proxy.server import ConnectionIO
from mitmproxy.utils import asyncio_utils

RESET = "Connection reset by peer"


MUCH = 32 * 1024
"""Bytes of one read that take their time."""
AT_ONCE = 2
"""Connections that go on in one turn of the event loop where more of them wait."""
READ_IN_A_TURN = 512 * 1024
"""Bytes that may come in one turn of the event loop before connections wait for the next: their way through
the layers takes some milliseconds."""


def adopt_handler(master: Master, client: Client, reading: "ReadTurns | None") -> None:
    """Make the handler of a client that has just connected ours; without `reading` as much like mitmproxy's
    as it can be."""
    handler = master.addons.get("proxyserver").connections.get(client.id)
    if type(handler) is ProxyConnectionHandler:
        handler.__class__ = RouterConnectionHandler if reading is None else DirectConnectionHandler
        if isinstance(handler, DirectConnectionHandler) and reading is not None:
            handler.prepare(reading)


class ReadTurns:
    """Has connections on which much comes in wait for each other, so that fifty of them do not fill a turn of
    the event loop with their reads, while what else comes in waits."""

    def __init__(self) -> None:
        self._read = 0
        """Bytes that came in this turn."""
        self._last = 0
        """The id of the connection on which much came last. It needs no turns while it is the only one."""
        self._line: deque[Feed] = deque()
        self._is_due = False
        """Whether the next turn is asked for."""

    def note(self, feed: "Feed", size: int) -> None:
        """So many bytes came. The connection is not read again in this turn, nor before others that wait,
        where it was too much."""
        if id(feed) == self._last and not self._line:
            return
        self._last = id(feed)
        self._read += size
        if (self._read > READ_IN_A_TURN or self._line) and not feed.is_in_line:
            feed.is_in_line = True
            self._line.append(feed)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        """Let as many read as may: each takes at most as much as the event loop reads at once."""
        self._read, self._is_due = 0, bool(self._line)
        for _ in range(min(AT_ONCE, len(self._line))):
            feed = self._line.popleft()
            feed.is_in_line = False
            feed.go_on()
        if self._is_due:
            asyncio.get_running_loop().call_soon(self._next_turn)


class RouterConnectionHandler(ProxyConnectionHandler):
    async def open_connection(self, command: commands.OpenConnection) -> None:
        """A peer that resets right after it has accepted leaves a socket without peer. mitmproxy 12.3 fails
        an assertion on that and reports no event: the stream would wait for ever."""
        connection = command.connection
        try:
            await super().open_connection(command)
        except AssertionError:
            if connection.peername is not None or connection not in self.transports:
                raise
            if (writer := self.transports.pop(connection).writer) is not None:
                writer.close()
            connection.state, connection.error = ConnectionState.CLOSED, RESET
            connection.timestamp_tcp_setup = None
            data = server_hooks.ServerConnectionHookData(client=self.client, server=connection)
            await self.handle_hook(server_hooks.ServerConnectErrorHook(data))
            await self.server_event(events.OpenConnectionCompleted(command, RESET))


class DirectConnectionHandler(RouterConnectionHandler):
    wakeup_timer: set[asyncio.TimerHandle]  # type: ignore[assignment]  # they are only cancelled
    reading: ReadTurns
    _top: layer.Layer | None
    """The first layer that does more than pass on all events and commands; None until that is known."""
    _events: deque[events.Event]
    """Events that came of what an event was just doing."""
    _is_busy: bool
    _feeds: dict[Connection, "Feed"]
    _full: set["Feed"]
    """Of connections that cannot take more for now."""
    _held: set[Connection]
    """Connections that a stream does not want to be read."""

    def prepare(self, reading: ReadTurns) -> None:
        """Stands for `__init__`."""
        self.reading = reading
        self._top = None
        self._events, self._is_busy = deque(), False
        self._feeds, self._full, self._held = {}, set(), set()

    # reading

    async def handle_connection(self, connection: Connection) -> None:
        """mitmproxy's, but for the way that the bytes come."""
        reader, writer = self.transports[connection].reader, self.transports[connection].writer
        if not isinstance(reader, asyncio.StreamReader) or not isinstance(writer, asyncio.StreamWriter):
            await super().handle_connection(connection)  # not TCP
            return
        feed = self._feeds[connection] = Feed(self, connection, writer.transport)
        cancelled: asyncio.CancelledError | None = None
        try:
            feed.take_over(reader)
            await feed.ended
        except asyncio.CancelledError as error:
            cancelled = error
        self._forget(feed)
        if cancelled is None:
            connection.state &= ~ConnectionState.CAN_READ
        else:
            connection.state = ConnectionState.CLOSED
        await self.server_event(events.ConnectionClosed(connection))
        if connection.state is ConnectionState.CAN_WRITE:  # half-closed: wait for what closes it
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                cancelled = error
        with suppress(OSError):
            writer.close()
        del self.transports[connection]
        if cancelled is not None:
            raise cancelled

    def _forget(self, feed: "Feed") -> None:
        del self._feeds[feed.connection]
        self._held.discard(feed.connection)
        self.can_write(feed)

    def cannot_write(self, feed: "Feed") -> None:
        """This connection has enough to write: nothing more is read of those from which bytes still come.
        The others are not paused, because then it would not be seen that their peer leaves."""
        self._full.add(feed)

    def can_write(self, feed: "Feed") -> None:
        if feed in self._full:
            self._full.discard(feed)
            for other in self._feeds.values():
                other.read(self.may_read(other))

    def may_read(self, feed: "Feed") -> bool:
        if feed.is_in_line:
            return False
        if not self._full and not self._held:
            return True
        return feed.connection not in self._held and not self._full - {feed}

    def hold(self, connection: Connection) -> None:
        """Read nothing more of this connection until `go_on`."""
        if (feed := self._feeds.get(connection)) is not None:
            self._held.add(connection)
            feed.read(False)

    def go_on(self, connection: Connection) -> None:
        self._held.discard(connection)
        if (feed := self._feeds.get(connection)) is not None:
            feed.read(self.may_read(feed))

    # events and commands

    async def server_event(self, event: events.Event) -> None:
        self.receive(event)

    def receive(self, event: events.Event) -> None:
        """Have the layers handle an event, and do what they say. An event that comes of that is next."""
        self._events.append(event)
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self._events:
                self._handle(self._events.popleft())
        finally:
            self._is_busy = False

    def _handle(self, event: events.Event) -> None:
        self.timeout_watchdog.last_activity = time.time()
        try:
            for command in (self._top or self._find_top()).handle_event(event):
                if type(command) is SendData:
                    if (io := self.transports.get(command.connection)) is not None:
                        writer: Any = io.writer
                        if not writer.is_closing():
                            writer.write(command.data)
                else:
                    self._do(command)
        except Exception:
            self.log("mitmproxy has crashed!", logging.ERROR, exc_info=True)

    def _find_top(self) -> layer.Layer:
        """Of layers that only pass on events and commands, and of those that were to decide on the next, the
        outermost knows its heir."""
        top = self.layer
        while True:
            if not isinstance(top, layer.NextLayer | HttpProxy | ReverseProxy):
                self._top = top
                return top
            following = top.layer if isinstance(top, layer.NextLayer) else None
            if "_handle_event" in vars(top) and following is None:
                following = getattr(vars(top)["_handle_event"], "__self__", None)
            is_decided = not isinstance(top, layer.NextLayer) or top._handle is not None
            if following is None or following is top or top._paused is not None or not is_decided:
                return self.layer
            top = following

    def _do(self, command: commands.Command) -> None:
        """As mitmproxy's `server_event`."""
        if isinstance(command, commands.OpenConnection):
            assert command.connection not in self.transports
            name = f"server connection handler {command.connection.address}"
            task = self._start(self.open_connection(command), name, keep_ref=False)
            self.transports[command.connection] = ConnectionIO(handler=task)
        elif isinstance(command, commands.RequestWakeup):
            self._wake_up_for(command)
        elif isinstance(command, commands.ConnectionCommand) and command.connection not in self.transports:
            pass  # it is closed already
        elif isinstance(command, commands.CloseTcpConnection):
            self.close_connection(command.connection, command.half_close)
        elif isinstance(command, commands.CloseConnection):
            self.close_connection(command.connection, False)
        elif isinstance(command, commands.StartHook):
            self._start(self.hook_task(command), f"handle_hook({command.name})", keep_ref=True)
        elif isinstance(command, commands.Log):
            self.log(command.message, command.level)
        else:
            raise RuntimeError(f"Unexpected command: {command}")

    def _wake_up_for(self, command: commands.RequestWakeup) -> None:
        """By a timer of the event loop; mitmproxy starts a task for each."""

        def wake() -> None:
            self.wakeup_timer.discard(timer)
            self.receive(events.Wakeup(command))

        timer = asyncio.get_running_loop().call_later(command.delay, wake)
        self.wakeup_timer.add(timer)

    def _start(self, work: Any, name: str, *, keep_ref: bool) -> "asyncio.Task[None]":
        return asyncio_utils.create_task(work, name=name, keep_ref=keep_ref, client=self.client.peername)


class Feed(asyncio.Protocol):
    """Hands the bytes of one connection to its handler. `ended` is done when no more come."""

    def __init__(
        self, handler: DirectConnectionHandler, connection: Connection, transport: asyncio.WriteTransport
    ) -> None:
        self.connection = connection
        self.is_in_line = False
        """Whether it waits for a turn of the event loop in which it may be read."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handler = handler
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are like it, without being one
        self._before = transport.get_protocol()

    def take_over(self, reader: asyncio.StreamReader) -> None:
        """From mitmproxy's reader, with what that has read already."""
        known: Any = reader  # nothing else reads from it after this
        self._transport.set_protocol(self)
        if self._transport.get_write_buffer_size() > self._transport.get_write_buffer_limits()[1]:
            self.pause_writing()
        if data := bytes(known._buffer):
            known._buffer.clear()
            self.data_received(data)
        if known.at_eof() or known.exception() is not None:
            self._end()
        self._handler.go_on(self.connection)

    def data_received(self, data: bytes) -> None:
        if self.connection.state is not ConnectionState.CLOSED and not self.ended.done():
            self._handler.receive(events.DataReceived(self.connection, data))
            if len(data) >= MUCH:
                self._handler.reading.note(self, len(data))
            if not self._handler.may_read(self):
                self.read(False)

    def eof_received(self) -> bool:
        self._end()
        return True  # it can still be written to

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._handler.can_write(self)
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        self._handler.cannot_write(self)

    def resume_writing(self) -> None:
        self._handler.can_write(self)

    def go_on(self) -> None:
        """Its turn has come."""
        if not self.ended.done():
            self.read(self._handler.may_read(self))

    def read(self, wanted: bool) -> None:
        """Read of this connection from now on, or not."""
        if self._transport.is_closing() or self._transport.is_reading() is wanted:
            return
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
