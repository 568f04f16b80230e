"""`signalbox statusline`: one line about the running session, for Claude Code's status line.

Claude Code sends its own view of the session as JSON on stdin (https://code.claude.com/docs/en/statusline)
and waits for the line. So the line must always come soon: a thread does the work, and what it has found when
the time is over is printed. For the same reason this module imports only what starts fast.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

from signalbox.ports import authority

TIME = 0.15
"""Seconds after the start of the command at which the line is printed at the latest."""
DEFAULT = "http://127.0.0.1:8082"
MOST = 4 * 1024 * 1024
"""Bytes that are read from stdin, or of an answer."""
LONGEST = 120
"""Characters of a name that are shown."""

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_WINDOWS = {"five_hour": "5h", "seven_day": "7d"}
"""The router's names of windows by Claude Code's."""
_ALWAYS = ("5h", "7d")
"""Windows that are shown even if they are unused."""


class Figures(NamedTuple):
    """The figures of the line. An unknown one is None or empty."""

    target: str = ""
    quota: Mapping[str, float] = {}
    """Percent by window."""
    cost: float | None = None
    """USD."""
    saved: float | None = None
    cache_hit: float | None = None
    """Percent."""


def session_line(known: Figures) -> str:
    """`zai/glm-4.7 · 5h 42% 7d 80% · $0.42 (saved $1.31) · cache 93%`; unknown figures are left out."""
    windows = " ".join(
        f"{_printable(name)} {percent:.0f}%"
        for name, percent in known.quota.items()
        if percent > 0 or name in _ALWAYS
    )
    cost = "" if known.cost is None else f"${known.cost:.2f}"
    if cost and known.saved is not None and known.saved >= 0.005:
        cost += f" (saved ${known.saved:.2f})"
    cache = "" if known.cache_hit is None else f"cache {known.cache_hit:.0f}%"
    return " · ".join(part for part in (_printable(known.target), windows, cost, cache) if part)


def figures_of_router(summary: Mapping[str, Any]) -> Figures:
    """The figures in the answer of `/signalbox/sessions/ID`. Raises KeyError, TypeError, ValueError or
    AttributeError for anything else."""
    provider, model = summary["provider"], summary["model"]
    quota = {str(name): float(percent) for name, percent in summary["quota"].items()}
    cost, saved, hit = (summary[name] for name in ("cost", "saved", "cache_hit"))
    return Figures(
        "/".join(filter(None, (provider, model))), quota, _number(cost), _number(saved), _number(hit)
    )


def figures_of_claude_code(session: Any) -> Figures:
    """The figures that Claude Code itself knows, used if no router answers."""
    limits, usage = _at(session, "rate_limits"), _at(session, "context_window", "current_usage")
    quota = {
        name: percent
        for field, name in _WINDOWS.items()
        if (percent := _number(_at(limits, field, "used_percentage"))) is not None
    }
    kinds = ("cache_read_input_tokens", "input_tokens", "cache_creation_input_tokens")
    read, *fresh = (_number(_at(usage, kind)) or 0.0 for kind in kinds)
    model = _at(session, "model", "display_name")
    return Figures(
        target=model if isinstance(model, str) else "",
        quota=quota,
        cost=_number(_at(session, "cost", "total_cost_usd")),
        cache_hit=100 * read / (read + sum(fresh)) if read + sum(fresh) > 0 else None,
    )


def router_places(environment: Mapping[str, str]) -> list[tuple[str, int]]:
    """Where a router of this machine may listen, as (host, port): the URL that Claude Code uses, its proxy,
    and the default. Other machines are not asked: they would not answer."""
    names = ("ANTHROPIC_BASE_URL", "HTTPS_PROXY", "https_proxy")
    given = (environment.get(name, "") for name in names)
    places = (place for url in (*given, DEFAULT) if (place := _place(url)) is not None)
    return list(dict.fromkeys(places))


def _place(url: str) -> tuple[str, int] | None:
    scheme, _, rest = url.strip().partition("://")
    host, colon, port = rest.partition("/")[0].rpartition(":")
    if not colon or host.endswith(":"):  # no port, or the middle of an IPv6 address
        host, port = rest.partition("/")[0], "80"
    host = host.strip("[]").lower()
    is_here = host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit())
    if scheme.lower() != "http" or not is_here or not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
    return host, int(port)


def ask_router(place: tuple[str, int], session: str, until: float) -> Any:
    """The summary of a session. Raises OSError and ValueError if the router does not give one in time."""
    named = session.encode(errors="replace")
    path = "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in named)
    host, port = place
    shown = authority(host, port)
    lines = (f"GET /signalbox/sessions/{path} HTTP/1.1", f"Host: {shown}", "Connection: close", "", "")
    with socket.create_connection(place, timeout=_left(until)) as connection:
        connection.sendall("\r\n".join(lines).encode())
        answer = b"".join(_received(connection, until))
    head, _, body = answer.partition(b"\r\n\r\n")
    if head[:13] not in (b"HTTP/1.1 200 ", b"HTTP/1.0 200 "):
        raise ValueError("no summary")
    return json.loads(body)


def _received(connection: socket.socket, until: float) -> Iterator[bytes]:
    size = 0
    while size < MOST:
        connection.settimeout(_left(until))
        data = connection.recv(65536)
        if not data:
            return
        size += len(data)
        yield data


def _left(until: float) -> float:
    """Seconds left. Raises TimeoutError if there are none."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Finder(threading.Thread):
    """Finds the figures; `known` are those found so far."""

    def __init__(self, until: float) -> None:
        super().__init__(daemon=True)
        self.known = Figures()
        self._until = until

    def run(self) -> None:
        with suppress(Exception):  # any error: a status line has no place for it
            given = json.loads(b"".join(iter(lambda: os.read(0, 65536), b""))[:MOST])
            self.known = figures_of_claude_code(given)
            session = _at(given, "session_id")
            for place in router_places(os.environ) if isinstance(session, str) and session else ():
                with suppress(Exception):
                    found = figures_of_router(ask_router(place, session, self._until))
                    self.known = found._replace(quota=found.quota or self.known.quota)
                    return


def print_status_line() -> NoReturn:
    """Prints the line and ends the process with exit code 0."""
    finder = _Finder(time.monotonic() + TIME)
    with suppress(Exception):
        finder.start()
        finder.join(TIME)
    with suppress(Exception):
        os.write(1, f"{session_line(finder.known)}\n".encode(errors="replace"))
    os._exit(0)  # a normal exit would wait for a thread that still reads stdin


def _at(value: Any, *path: str) -> Any:
    """The value at a path in a JSON value; None if there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value == value and abs(value) < 1e15 else None


def _printable(text: str) -> str:
    """Escapes a name, which could otherwise move the cursor or end the line."""
    return "".join(c if c.isprintable() else "?" for c in text[:LONGEST])
