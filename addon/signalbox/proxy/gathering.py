"""What goes to one peer in a row goes there at once: each send is a call of the system, and often a packet.

mitmproxy sends the head of a message and each piece of its body by themselves.
"""

from collections.abc import Iterable, Iterator

from mitmproxy.proxy.commands import Command, SendData

LARGE = 64 * 1024
"""Bytes beyond which copying them together costs more than it saves."""


def gathered(commands: Iterable[Command]) -> Iterator[Command]:
    """The commands in order, those that send to the same peer put together. None waits for another event."""
    waiting: SendData | None = None
    for command in commands:
        if waiting is not None and isinstance(command, SendData) and _go_together(waiting, command):
            waiting = SendData(waiting.connection, waiting.data + command.data)
            continue
        if waiting is not None:
            yield waiting
            waiting = None
        if isinstance(command, SendData):
            waiting = command
        else:
            yield command
    if waiting is not None:
        yield waiting


def _go_together(one: SendData, other: SendData) -> bool:
    return one.connection is other.connection and len(one.data) + len(other.data) <= LARGE
