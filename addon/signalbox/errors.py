"""Logs errors in one line, without their text, which could quote a body or a key."""

import errno
import logging
import os
import re
import traceback
from pathlib import Path

log = logging.getLogger("signalbox")

_LONGEST = 200
_ERRNO = re.compile(r"\[Errno (-?\d+)\] (?:Connect call failed)?")
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
"""Out of file descriptors (process, system), buffers, memory, ports."""


def short_reason(message: str) -> str:
    """mitmproxy's message about a connection, without Python's wrapping: `Connection refused`."""
    if number := _ERRNO.search(message):
        text = os.strerror(int(number[1])) if int(number[1]) > 0 else message[number.end() :]
        return text[:_LONGEST]
    return message[:_LONGEST]


def is_exhausted(message: str) -> bool:
    """Whether a connection failed because this machine or process cannot open another one to any host.

    If there is no descriptor left to ask a name server, the lookup fails with a code of its own.
    """
    number = int(found[1]) if (found := _ERRNO.search(message)) else 0
    return number in _EXHAUSTED or (number < 0 and not _has_descriptors())


def _has_descriptors() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in _EXHAUSTED
    return True


def log_error(where: str, error: BaseException) -> None:
    """Log `error in the request hook: KeyError at plan.py:41`, and its frames at `debug`."""
    log.error("error in %s: %s", where, location(error))
    for frame in traceback.extract_tb(error.__traceback__):
        log.debug("  %s:%s in %s", frame.filename, frame.lineno, frame.name)


def location(error: BaseException) -> str:
    """`KeyError at plan.py:41`."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    return f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
