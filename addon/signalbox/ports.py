"""TCP ports of this machine: whether one is free, which process has it, and how a listener is reached."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import NamedTuple

ALL_ADDRESSES = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  read, not bound
"""By the host of a listener on all addresses, the one under which this machine reaches it."""


class Owner(NamedTuple):
    """A process that listens on a port."""

    name: str
    pid: int

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def is_free(port: int, host: str = "") -> bool:
    """Whether the port is free on `host`, by default on all addresses. True also if only the permission to
    listen there is missing. The port is bound for the test and released.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as one:
        if os.name == "posix":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def is_own(port: int) -> bool:
    """Whether this process listens on the port, by its open files: those of Windows cannot be listed."""
    with suppress(FileNotFoundError), os.scandir("/dev/fd") as files:
        return any(_listens(int(file.name), port) for file in files)
    return False


def _listens(file: int, port: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(file).st_mode):
            return False
        with socket.socket(fileno=os.dup(file)) as one:
            is_tcp = one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM
            found = is_tcp and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return bool(found) and one.getsockname()[1] == port
    except OSError:  # closed meanwhile
        return False


def free_port() -> int:
    """A port of this machine's loopback address that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def owner(port: int) -> Owner | None:
    """The process that listens on the port; None if that cannot be found out, or nothing does."""
    import psutil  # slow to import, and mostly not needed

    for pid in _listening(port):
        with suppress(psutil.Error):
            return Owner(psutil.Process(pid).name(), pid)
    return None


def reached(host: str) -> str:
    """The address under which this machine reaches a listener on `host`, which may be all addresses."""
    return ALL_ADDRESSES.get(host, host)


def url_of(host: str, port: int) -> str:
    """The URL of a listener, for programs of this machine."""
    return f"http://{authority(reached(host), port)}"


def authority(host: str, port: int) -> str:
    """`127.0.0.1:8082` or `[::1]:8082`, as URLs have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def taken(port: int) -> str:
    """`port 8082 is taken by python3 (process 4711)`, or `... by another program` if that is unknown."""
    return f"port {port} is taken by {owner(port) or 'another program'}"


def _listening(port: int) -> Iterator[int]:
    """Ids of processes that listen on the port, as far as this user may know them."""
    import psutil

    try:
        for one in psutil.net_connections("tcp"):
            if one.pid is not None and _is_listener(one.status, one.laddr, port):
                yield one.pid
    except psutil.AccessDenied:  # macOS tells a user of his own processes only, one by one
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                own = process.net_connections("tcp")
                if any(_is_listener(one.status, one.laddr, port) for one in own):
                    yield process.pid


def _is_listener(status: str, address: tuple[()] | tuple[str, int], port: int) -> bool:
    return status == "LISTEN" and address[1:] == (port,)
