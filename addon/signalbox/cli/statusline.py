"""`signalbox statusline`: one line about the running session, for Claude Code's status line.

Claude Code gives its own view of the session as JSON on stdin (https://code.claude.com/docs/en/statusline)
and waits for the line. So it must come soon whatever happens: everything is done on a thread, and what is
known when the time is over is printed. For the same reason only what starts fast is imported here.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

TIME = 0.15
"""Seconds from the start of the command until the line is printed at the latest."""
DEFAULT = "http://127.0.0.1:8082"
MOST = 4 * 1024 * 1024
"""Bytes that are read from stdin, or as an answer."""
LONGEST = 120
"""Characters of a name."""

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_WINDOWS = {"five_hour": "5h", "seven_day": "7d"}
"""Claude Code's names, and the router's."""
_ALWAYS = ("5h", "7d")
"""Windows that are shown although nothing of them is used."""


class Figures(NamedTuple):
    """Each is None, or empty, where it is not known."""

    target: str = ""
    quota: Mapping[str, float] = {}
    """Percent by window."""
    cost: float | None = None
    """USD."""
    saved: float | None = None
    cache_hit: float | None = None
    """Percent."""


def status_line(known: Figures) -> str:
    """`zai/glm-4.7 · 5h 42% 7d 80% · $0.42 (saved $1.31) · cache 93%`; what is not known is left out."""
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


def told_by_router(summary: Mapping[str, Any]) -> Figures:
    """What `/signalbox/sessions/ID` tells. Raises KeyError, TypeError, ValueError or AttributeError for
    anything else."""
    provider, model = summary["provider"], summary["model"]
    quota = {str(name): float(percent) for name, percent in summary["quota"].items()}
    cost, saved, hit = (summary[name] for name in ("cost", "saved", "cache_hit"))
    return Figures(
        "/".join(filter(None, (provider, model))), quota, _number(cost), _number(saved), _number(hit)
    )


def told_by_claude_code(told: Any) -> Figures:
    """What Claude Code itself knows of the session, where no router tells more."""
    limits, usage = _at(told, "rate_limits"), _at(told, "context_window", "current_usage")
    quota = {
        name: percent
        for field, name in _WINDOWS.items()
        if (percent := _number(_at(limits, field, "used_percentage"))) is not None
    }
    kinds = ("cache_read_input_tokens", "input_tokens", "cache_creation_input_tokens")
    read, *fresh = (_number(_at(usage, kind)) or 0.0 for kind in kinds)
    model = _at(told, "model", "display_name")
    return Figures(
        target=model if isinstance(model, str) else "",
        quota=quota,
        cost=_number(_at(told, "cost", "total_cost_usd")),
        cache_hit=100 * read / (read + sum(fresh)) if read + sum(fresh) > 0 else None,
    )


def router_places(environment: Mapping[str, str]) -> list[tuple[str, int]]:
    """Where a router of this machine may be, as (host, port): the address that Claude Code uses, its proxy,
    and the one that routers have by default. No other machine is ever asked: it would not tell."""
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
    """The summary of a session. Raises OSError and ValueError where the router gives none in time."""
    named = session.encode(errors="replace")
    path = "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in named)
    host, port = place
    shown = f"[{host}]" if ":" in host else host
    lines = (f"GET /signalbox/sessions/{path} HTTP/1.1", f"Host: {shown}:{port}", "Connection: close", "", "")
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
    """Seconds. Raises TimeoutError where there are none."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Finder(threading.Thread):
    """Finds the figures; `known` is what it has found by now."""

    def __init__(self, until: float) -> None:
        super().__init__(daemon=True)
        self.known = Figures()
        self._until = until

    def run(self) -> None:
        with suppress(Exception):  # of any kind: a status line has nobody to tell
            told = json.loads(b"".join(iter(lambda: os.read(0, 65536), b""))[:MOST])
            self.known = told_by_claude_code(told)
            session = _at(told, "session_id")
            for place in router_places(os.environ) if isinstance(session, str) and session else ():
                with suppress(Exception):
                    found = told_by_router(ask_router(place, session, self._until))
                    self.known = found._replace(quota=found.quota or self.known.quota)
                    return


def print_status_line() -> NoReturn:
    """Print the line and end the process, with exit code 0."""
    finder = _Finder(time.monotonic() + TIME)
    with suppress(Exception):
        finder.start()
        finder.join(TIME)
    with suppress(Exception):
        os.write(1, f"{status_line(finder.known)}\n".encode(errors="replace"))
    os._exit(0)  # a thread that still waits for its input would be waited for


def _at(value: Any, *path: str) -> Any:
    """What is found there in a JSON value; None where nothing is."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value == value and abs(value) < 1e15 else None


def _printable(text: str) -> str:
    """Names come from outside: nothing in them moves the cursor or ends the line."""
    return "".join(c if c.isprintable() else "?" for c in text[:LONGEST])
