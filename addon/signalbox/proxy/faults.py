"""How faults are told: in one line, never as a traceback."""

import errno
import os
import re
import traceback
from pathlib import Path

_LONGEST = 200
_ERRNO = re.compile(r"\[Errno (-?\d+)\] (?:Connect call failed)?")
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
"""Descriptors of the process, those of the system, buffers, memory, ports."""


def in_words(message: str) -> str:
    """What mitmproxy says of a connection, less Python's ways: `Connection refused`."""
    if number := _ERRNO.search(message):
        text = os.strerror(int(number[1])) if int(number[1]) > 0 else message[number.end() :]
        return text[:_LONGEST]
    return message[:_LONGEST]


def is_exhausted(message: str) -> bool:
    """Whether a connection failed because this machine or process can open no more, whoever was asked.

    Where no descriptor is left to ask a name server with, the lookup fails with a code of its own.
    """
    number = int(found[1]) if (found := _ERRNO.search(message)) else 0
    return number in _EXHAUSTED or (number < 0 and not _has_descriptors())


def _has_descriptors() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as fault:
        return fault.errno not in _EXHAUSTED
    return True


def place(fault: BaseException) -> str:
    """`KeyError in plan.py:41`. The fault's own text is left out: it could quote a body or a key."""
    frames = traceback.extract_tb(fault.__traceback__)
    if not frames:
        return type(fault).__name__
    return f"{type(fault).__name__} in {Path(frames[-1].filename).name}:{frames[-1].lineno}"
