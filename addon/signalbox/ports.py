"""TCP ports of this machine: whether one is free, and which process has it."""

import errno
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

LIMIT = 5.0
"""Seconds for `lsof`, `netstat` or `tasklist`."""
_LISTENS = "0A"
"""TCP_LISTEN in /proc/net/tcp (proc(5))."""


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


def owner(port: int) -> tuple[str, int] | None:
    """Name and id of the process that listens on the port; None if that cannot be found out."""
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        if Path("/proc/net/tcp").exists():
            return _by_proc(port)
        return _by_netstat(port) if os.name == "nt" else _by_lsof(port)
    return None


def taken(port: int) -> str:
    """`port 8082 is taken by python3 (process 4711)`, or `... by another program` if that is unknown."""
    found = owner(port)
    return f"port {port} is taken by " + (f"{found[0]} (process {found[1]})" if found else "another program")


def _by_proc(port: int) -> tuple[str, int] | None:
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    if not sockets:
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with suppress(OSError):  # of another user, or gone
            if any(str(one.readlink()) in sockets for one in (process / "fd").iterdir()):
                return (process / "comm").read_text().strip(), int(process.name)
    return None


def _inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _by_lsof(port: int) -> tuple[str, int] | None:
    """`lsof -F pc` prints a line `pPID` and a line `cNAME` for each process (lsof(8))."""
    output = _output("lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc")
    found = re.search(r"^p(\d+)\nc(.+)$", output, re.MULTILINE)
    return (found[2], int(found[1])) if found else None


def _by_netstat(port: int) -> tuple[str, int] | None:
    output = _output("netstat", "-ano", "-p", "TCP")
    found = re.search(rf"^\s*TCP\s+\S+:{port}\s+\S+:0\s+\S+\s+(\d+)\s*$", output, re.MULTILINE)
    if not found:
        return None
    named = re.match(
        r'"([^"]+)"', _output("tasklist", "/FI", f"PID eq {found[1]}", "/FO", "CSV", "/NH").strip()
    )
    return (named[1] if named else "a program"), int(found[1])


def _output(program: str, *arguments: str) -> str:
    path = shutil.which(program)
    if path is None:
        return ""
    done = subprocess.run(  # noqa: S603  our own arguments, without a shell
        [path, *arguments], capture_output=True, text=True, timeout=LIMIT, check=False, errors="replace"
    )
    return done.stdout
