"""The lines of the console, and the handler that prints them. Texts from outside are escaped, so that no
control character reaches a terminal and no request forges a line of another."""

import logging
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TextIO

from signalbox.config.rules import Level
from signalbox.record.entry import Entry

SNIPPET = 60
LONGEST_NAME = 120


def request_line(entry: Entry, prompts: bool) -> str:
    """The line that every request gets: `[sonnet|zai] 1.3k→890 3421ms $0.0027 "Write hello world in Python"`.

    Of an error: `[sonnet|zai] 400 invalid_request_error: messages: at least one is needed 312ms`.
    Of a request whose body was not read: `[-|anthropic] 200 GET /v1/models 12ms`.
    """
    head = f"[{name(entry.tier or entry.model or '-')}|{name(entry.backend or '-')}]"
    attempts = len(entry.attempts.split())
    retried = f"↻ {attempts} attempts" if attempts > 1 else ""
    prompt = f'"{snippet(entry.snippet)}"' if prompts and entry.snippet and entry.status != "error" else ""
    took = f"{entry.latency_ms}ms"
    parts = (head, _outcome(entry), name(entry.passed), took, _cost(entry), retried, prompt)
    return " ".join(part for part in parts if part)


def _outcome(entry: Entry) -> str:
    if entry.status == "error":
        why = escaped(entry.why) or name(entry.error_type or "")
        parts = (str(entry.http_status or ""), why, f"from {entry.peer}" if entry.peer else "")
        return " ".join(part for part in parts if part) or "error"
    if entry.passed:
        return "cancelled" if entry.status == "cancelled" else str(entry.http_status or "")
    used = entry.input_tokens + entry.cache_creation_input_tokens + entry.cache_read_input_tokens
    tokens = f"{count(used)}→{count(entry.output_tokens)}"
    return f"cancelled {tokens}" if entry.status == "cancelled" else tokens


def _cost(entry: Entry) -> str:
    """Empty where the price is unknown, and where no tokens were used."""
    return f"${entry.cost:.4f}" if entry.cost is not None and entry.tokens else ""


def dispatch_line(provider: str, reason: str, model: str | None, rewrite: str | None = None) -> str:
    """Where a request goes and why; `rewrite` is the model sent, where another one was requested."""
    line = f"dispatch: {name(provider)} reason={name(reason)} model={name(model or '-')}"
    return f"{line} rewrite={name(rewrite)}" if rewrite is not None else line


def remap_line(asked: str, sent: str) -> str:
    """`model remap: claude-sonnet-4-5 → glm-4.7`."""
    return f"model remap: {name(asked)} → {name(sent)}"


def cache_miss_line(tokens: int, cause: str, cost: float | None) -> str:
    """`cache miss: 82k tokens written again, tools changed, $0.31`; the cost in USD, where it is known."""
    why = "the cache had expired" if cause == "expired" else "for an unknown reason"
    if cause not in ("expired", "unknown"):
        why = f"{'an edit of the router' if cause == 'router' else cause} changed"
    price = f", ${cost:.2f}" if cost is not None else ""
    return f"cache miss: {(tokens + 500) // 1000}k tokens written again, {why}{price}"


def skip_line(provider: str, model: str | None, reason: str, detail: str) -> str:
    """`skipped zai/glm-4.7: cooldown (in cooldown for another 5 s: overloaded_error)`."""
    return f"skipped {name(provider)}/{name(model or '-')}: {name(reason)} ({name(detail)})"


def failover_line(provider: str, label: str, detail: str, following: str) -> str:
    """`↻ zai 429 → anthropic: rate_limit_error: slow down`; `detail` is an outcome's, which is short."""
    return f"↻ {name(provider)} {name(label)} → {name(following)}" + (
        f": {escaped(detail)}" if detail else ""
    )


def failed_line(provider: str, label: str, detail: str) -> str:
    """`✗ zai stream_error: a chunk is not JSON`, where no failover followed."""
    return f"✗ {name(provider)} {name(label)}" + (f": {escaped(detail)}" if detail else "")


def refused_line(method: str, path: str, why: str) -> str:
    """`refused: POST /v1/messages: a page of another origin sent it`, without the query."""
    return f"refused: {name(method)} {name(path.partition('?')[0])}: {name(why)}"


def transition_line(before: str, after: str, quota: str) -> str:
    """`[proxy] mode transition: anthropic -> litellm (5h=91%, 7d=40%, overage=0%)`."""
    return f"[proxy] mode transition: {name(before)} -> {name(after)} ({name(quota)})"


def sent_line(provider: str, method: str, path: str, masked_key: str | None = None) -> str:
    """`→ zai POST /v1/messages`, without the query; `masked_key` as `mask` gives it."""
    return f"→ {name(provider)} {name(method)} {name(path.partition('?')[0])}{_ending(masked_key)}"


def received_line(provider: str, status: int, latency_ms: int, masked_key: str | None = None) -> str:
    """`← zai 200 812ms`."""
    return f"← {name(provider)} {status} {latency_ms}ms{_ending(masked_key)}"


def _ending(masked_key: str | None) -> str:
    return f" {name(masked_key)}" if masked_key else ""


def count(number: int) -> str:
    """999, 1.3k, 2.0M: one decimal from a thousand on, half up."""
    if number < 1_000:
        return str(number)
    tenths, unit = (number + 50) // 100, "k"
    if tenths >= 10_000:  # 999,950 is 1.0M, not 1000.0k
        tenths, unit = (number + 50_000) // 100_000, "M"
    return f"{tenths // 10}.{tenths % 10}{unit}"


def snippet(text: str) -> str:
    """The first 60 characters with white space folded."""
    beginning = text.lstrip()[: SNIPPET * 10]  # folding a whole prompt would cost milliseconds
    return escaped(" ".join(beginning.split())[:SNIPPET])


def name(text: str) -> str:
    """A model, provider, path or other name that came from outside."""
    return escaped(text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…")


def escaped(text: str) -> str:
    """Control characters (C0 and C1), bidi marks, line separators and lone surrogates as `\\x1b`, `\\u202e`.

    Backslashes stay, so that escaping twice changes nothing.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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


def log_health(events: Iterable[tuple[str, str, str, str]], *, counts: bool) -> None:
    """Logs changes of health, as `routing.health` gives them. `counts`: of requests that count tokens."""
    for kind, provider, before, after in events:
        name = f"{provider} (count_tokens)" if counts else provider
        if kind == "circuit":
            logger.warning("circuit of %s: %s → %s", name, before, after)
        elif kind == "cooldown":
            logger.warning("%s: %s in cooldown %s", name, before, after)
        else:
            logger.info("%s: %s recovered", name, before)


def log_request(entry: Entry, prompts: bool) -> None:
    """The one line of a request, at INFO."""
    if logger.isEnabledFor(logging.INFO):
        # Not by `info`, which walks the stack to find out who called it.
        line, outcome = request_line(entry, prompts), {"outcome": entry.status}
        logger.handle(
            logger.makeRecord(logger.name, logging.INFO, __file__, 0, line, (), None, extra=outcome)
        )


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
        with suppress(OSError, ValueError):  # the reader of our output has left, or closed it
            stream.write(_printable(line, stream.encoding) + "\n")
            stream.flush()


class NotOurs(logging.Filter):
    """For other handlers: drops what the console prints already."""

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
