"""A process from which nothing but this machine can be reached.

It gets a network namespace of its own, whose only interface is loopback, and a file of hosts in which NAMES
are this machine. Linux can do that for root, and for others where it lets them make user namespaces.
"""

import ctypes
import errno
import os
import socket
import struct
import tempfile
from pathlib import Path

NAMES = ("localhost", "api.anthropic.com", "platform.claude.com", "downloads.claude.ai", "github.com")
VARIABLE = "SIGNALBOX_LOOPBACK_ONLY"
"""In the environment: `yes`, or why this process and its children are not alone."""

_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000


def why_not() -> str:
    """Why this process can reach more than this machine; empty if it cannot."""
    said = os.environ.get(VARIABLE, "it was not started by `just test-claude`")
    return "" if said == "yes" else said


def isolate() -> None:
    """From now on this process and its children are alone, or VARIABLE says why not."""
    try:
        _unshare()
        os.environ[VARIABLE] = "yes"
    except OSError as error:
        os.environ[VARIABLE] = f"no network namespace can be made: {error.strerror}"


def _unshare() -> None:
    if not hasattr(os, "unshare"):
        raise OSError(errno.ENOSYS, "this system has none")
    import fcntl  # not on Windows

    uid, gid = os.getuid(), os.getgid()
    os.unshare(os.CLONE_NEWNET | os.CLONE_NEWNS | (0 if uid == 0 else os.CLONE_NEWUSER))
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP | _IFF_RUNNING))
    _mount(b"none", b"/", _MS_REC | _MS_PRIVATE)
    with tempfile.NamedTemporaryFile("w", prefix="hosts-") as hosts:  # lives on while mounted
        hosts.write(f"127.0.0.1 {' '.join(NAMES)}\n")
        hosts.flush()
        Path(hosts.name).chmod(0o644)
        _mount(hosts.name.encode(), b"/etc/hosts", _MS_BIND)


def _mount(source: bytes, target: bytes, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source, target, None, flags, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
