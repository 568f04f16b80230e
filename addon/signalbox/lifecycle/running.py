"""Finds routers that run, and ends them.

A router of any origin answers `/health` on its listeners and names its process there. The router of a state
folder also holds the lock of `router.lock` in it for as long as it lives, and has written there what it was
started with. A process is ended only if it is still the one that was found: its id alone may belong to
another program by now.
"""

import errno
import http.client
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from signalbox.lifecycle import windows
from signalbox.lifecycle.spec import RouterSpec, decode, encode
from signalbox.ports import owner, reached

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_FILE = "router.lock"
ASK = 2.0
"""Seconds for one `/health`."""
END = 15.0
"""Seconds that a router gets to end by itself."""
POLL = 0.05
LARGEST = 4 * 1024 * 1024
"""Bytes of `/health` that are read."""
_LOCKED_BYTE = 1 << 30
"""Windows keeps others from reading locked bytes: this one is far behind the content."""


class ProcessIdentity(msgspec.Struct, frozen=True):
    """A process for good: ids are used again, but not with the same start."""

    pid: int
    created: float
    """When it began, in Unix seconds as the system tells it."""

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """That of the process with this id now; None if there is none."""
        with suppress(psutil.Error):
            return cls(pid, psutil.Process(pid).create_time())
        return None


class Listener(msgspec.Struct, frozen=True):
    host: str
    port: int
    mode: str
    """As mitmproxy writes it: `reverse:https://api.anthropic.com@127.0.0.1:8082`, `regular@127.0.0.1:8`."""


class RulesState(msgspec.Struct, frozen=True):
    file: str
    loaded_at: str
    error: str | None = None
    source: str = "file"
    """`file`; `last-good`, the rules of an earlier start, where the file had errors at this one; `fail-open`
    where there were none: requests pass unrouted."""


class Health(msgspec.Struct, frozen=True):
    """What a router says on `/health`, as far as commands use it."""

    status: str
    version: str
    pid: int
    listeners: tuple[Listener, ...]
    rules: RulesState
    tiers: dict[str, Any] = {}
    providers: dict[str, Any] = {}

    def mode_at(self, port: int) -> str:
        """The mode of the listener on `port`: `reverse`, `regular`, or what else mitmproxy has."""
        modes = (listener.mode for listener in self.listeners if listener.port == port)
        return next(modes, "").partition("@")[0].partition(":")[0]


class Record(msgspec.Struct, frozen=True):
    """What the router of a state folder has written into its lock file."""

    process: ProcessIdentity
    version: str
    spec: RouterSpec


class HeldError(Exception):
    """Another router holds the state folder. The text is one line for people."""

    def __init__(self, record: Record | None, state: Path) -> None:
        holder = "another process"
        if record is not None:
            ports = ", ".join(f"{one.host}:{one.port}" for one in record.spec.listeners)
            holder = f"process {record.process.pid} on {ports}"
        super().__init__(f"a router of {state} runs already: {holder}")
        self.record = record


class NotOursError(Exception):
    """The process that holds a port is no router of ours. The text is one line for people."""


class Ended(NamedTuple):
    pid: int
    gently: bool
    """False where it did not end by itself in time and was killed."""


# by listener


def running(host: str, port: int, timeout: float = ASK) -> Health | None:
    """The router that answers at this address; None if nothing does, or something else."""
    with (
        suppress(OSError, http.client.HTTPException, msgspec.DecodeError),
        closing(http.client.HTTPConnection(reached(host), port, timeout=timeout)) as connection,
    ):
        connection.request("GET", "/health")
        answer = connection.getresponse()
        if answer.status == http.client.OK:
            return msgspec.json.decode(answer.read(LARGEST), type=Health)
    return None


def identity_at(host: str, port: int) -> ProcessIdentity | None:
    """The process of the router that answers at this address; None if nothing listens there.

    Raises NotOursError where the port is held by something else: it must answer as a router, and the process
    that it names must be the one that holds the port.
    """
    holder = owner(port)
    health = running(host, port)
    if health is not None and (holder is None or holder.pid == health.pid):
        return ProcessIdentity.of(health.pid)
    if holder is None:
        return None
    raise NotOursError(f"port {port} is taken by {holder}, which is no router of ours")


# by state folder


@contextmanager
def claim(state: Path, spec: RouterSpec, version: str, patience: float = ASK) -> Iterator[None]:
    """Holds the lock of the state folder with a record of this process. Raises HeldError and OSError."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(state / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(file, patience):
            raise HeldError(_record(file), state)
        this = ProcessIdentity.of(os.getpid())
        assert this is not None
        os.ftruncate(file, 0)
        os.write(file, encode(Record(this, version, spec)))
        yield
        os.ftruncate(file, 0)
    finally:
        os.close(file)


def registered(state: Path) -> Record | None:
    """The record of the router that holds the state folder; None if none does."""
    try:
        file = os.open(state / LOCK_FILE, os.O_RDWR)
    except OSError:
        return None
    try:
        return None if _lock(file, 0) else _record(file)
    finally:
        os.close(file)


def _record(file: int) -> Record | None:
    """None while it is being written."""
    os.lseek(file, 0, os.SEEK_SET)
    with suppress(msgspec.DecodeError, OSError):
        return decode(os.read(file, LARGEST), Record)
    return None


def _lock(file: int, patience: float) -> bool:
    """Whether the lock was taken within `patience` seconds. Closing the file releases it."""
    ends = time.monotonic() + patience
    while True:
        try:
            if sys.platform == "win32":
                os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
                msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
                os.lseek(file, 0, os.SEEK_SET)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            if fault.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                return True  # some network file systems have no locks
            if time.monotonic() >= ends:
                return False
            time.sleep(0.02)
        else:
            return True


# ending


def end(process: ProcessIdentity, within: float = END) -> Ended | None:
    """Ends the process and returns when it has ended, at the latest about `within` seconds later; None if it
    had ended before. Raises psutil.AccessDenied for a process of another user."""
    try:
        found = psutil.Process(process.pid)
        if found.create_time() != process.created:
            return None
        if not windows.ask_to_end(process.pid):
            found.terminate()
        gently = _has_ended(found, within)
        if not gently:
            found.kill()
            _has_ended(found, within)
    except psutil.NoSuchProcess:
        return None
    return Ended(process.pid, gently)


def _has_ended(process: psutil.Process, within: float) -> bool:
    """Whether it ends in this time. A zombie has ended, though who started it has not asked yet."""
    ends = time.monotonic() + within
    while True:
        try:
            process.wait(POLL)
        except psutil.TimeoutExpired:
            if time.monotonic() > ends:
                return False
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
