"""The logger `signalbox` and the console it prints to."""

import logging
import os
import sys
import time
from contextlib import suppress
from typing import TextIO

from signalbox.config.rules import Level
from signalbox.record.console import escaped, request_line
from signalbox.record.entry import Entry

logger = logging.getLogger("signalbox")

LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "silent": logging.CRITICAL + 1,
}
RED, GREEN, YELLOW = 31, 32, 33
OUTCOMES = {"success": GREEN, "error": RED, "cancelled": YELLOW}


def setup(level: Level) -> None:
    """Prints what is logged at `level` and above; called again, it only changes the level."""
    if _console() is None:
        logger.addHandler(Console())
    set_level(level)


def set_level(level: Level) -> None:
    """Changes what is printed, by the console if there is one, and what is logged at all.

    Errors are logged at every level, also where nothing is printed: mitmproxy ends a start by them.
    """
    if console := _console():
        console.setLevel(LEVELS[level])
    logger.setLevel(min(LEVELS[level], logging.ERROR))


def _console() -> "Console | None":
    return next((handler for handler in logger.handlers if isinstance(handler, Console)), None)


def log_request(entry: Entry, prompts: bool) -> None:
    """The one line of a request, at INFO."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(request_line(entry, prompts), extra={"outcome": entry.status})


class Console(logging.Handler):
    """Prints `[HH:MM:SS.mmm] text` to stdout, or to the stream given; coloured where that is a terminal.

    Time and colours are mitmproxy's, whose lines stand between ours.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        stream = self._stream or sys.stdout
        try:
            line = _line(record, coloured(stream))
        except Exception:  # a faulty message must not harm the request it speaks of
            self.handleError(record)
            return
        with suppress(OSError, ValueError):  # whoever read our output has left, or closed it
            stream.write(_printable(line, stream.encoding) + "\n")
            stream.flush()


class NotOurs(logging.Filter):
    """For other handlers: passes over what the console prints already."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name != logger.name and not record.name.startswith(f"{logger.name}.")


def coloured(stream: TextIO) -> bool:
    """Whether to colour. On Windows mitmproxy has switched the terminal to escape sequences by then."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    with suppress(ValueError):
        return stream.isatty()
    return False


def _line(record: logging.LogRecord, colour: bool) -> str:
    text = escaped(record.getMessage())
    if colour:
        text = _coloured(text, record)
    clock = time.strftime("[%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}]"
    if colour:
        clock = f"\x1b[36m\x1b[2m{clock}\x1b[0m"
    return f"{clock} {text}{_traceback(record)}"


def _coloured(text: str, record: logging.LogRecord) -> str:
    if record.levelno >= logging.WARNING:
        return _painted(text, RED if record.levelno >= logging.ERROR else YELLOW)
    if outcome := OUTCOMES.get(getattr(record, "outcome", "")):
        head, end, rest = text.partition("]")
        return _painted(head + end, outcome) + rest
    return text


def _painted(text: str, colour: int) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m"


def _traceback(record: logging.LogRecord) -> str:
    if not record.exc_info:
        return ""
    lines = logging.Formatter().formatException(record.exc_info).splitlines()
    return "".join(f"\n{escaped(line)}" for line in lines)


def _printable(line: str, encoding: str | None) -> str:
    """With `?` for what the stream cannot encode, such as arrows on an old code page."""
    encoding = encoding or "utf-8"
    return line.encode(encoding, "replace").decode(encoding)
