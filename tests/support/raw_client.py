"""A client of the router that sees every byte and when it came."""

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

import pytest

from tests.support.router_process import Router

LOGIN = "Bearer sk-ant-oat01-fake-login-of-nobody"
both = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
"""For tests of answers that are streamed, and of those that are not."""


class Whole(NamedTuple):
    """An answer that came to its end."""

    status: int
    headers: dict[str, str]
    body: bytes


class Caller:
    """One keep-alive connection."""

    def __init__(self, router: Router, session: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", router.ports[0]), timeout=10)
        self.session = session
        self.seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.leave()

    def leave(self) -> float:
        """Gives the time of it."""
        self.socket.close()
        return time.monotonic()

    def ask(self, model: str, stream: bool = True, pad: int = 0, **headers: str) -> None:
        question = {"role": "user", "content": "x" * max(pad, 1)}
        body = json.dumps({"model": model, "stream": stream, "messages": [question]}).encode()
        self.socket.sendall(self.head(len(body), **headers) + body)

    def head(self, length: int, **headers: str) -> bytes:
        fields = {
            "Host": "127.0.0.1",
            "Authorization": LOGIN,
            "X-Claude-Code-Session-Id": self.session,
            "Content-Length": str(length),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = [f"{name}: {value}" for name, value in fields.items() if value]
        return "\r\n".join(["POST /v1/messages HTTP/1.1", *lines, "", ""]).encode()

    def is_quiet(self, seconds: float) -> bool:
        """Whether nothing at all comes within this time."""
        return not select.select([self.socket], [], [], seconds)[0]

    def until(self, text: bytes) -> float:
        """The time when `text` was there."""
        looked = 0
        while self.seen.find(text, looked) < 0:
            looked = max(0, len(self.seen) - len(text))
            assert self._more(), f"closed before {text!r} came: {self.seen[-2000:]!r}"
        return time.monotonic()

    def until_closed(self) -> bytes:
        while self._more():
            pass
        return self.seen

    def answer(self) -> Whole:
        """The next whole answer."""
        self.until(b"\r\n\r\n")
        head, self.seen = self.seen.split(b"\r\n\r\n", 1)
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        chunked = headers.get("transfer-encoding") == "chunked"
        body = b"".join(self._chunks()) if chunked else self._take(int(headers["content-length"]))
        return Whole(int(line.split()[1]), headers, body)

    def _chunks(self) -> Iterator[bytes]:
        while True:
            self.until(b"\r\n")
            size, self.seen = self.seen.split(b"\r\n", 1)
            chunk = self._take(int(size, 16) + 2)[:-2]
            if not chunk:
                return
            yield chunk

    def _take(self, length: int) -> bytes:
        while len(self.seen) < length:
            assert self._more(), f"cut short: {self.seen!r}"
        taken, self.seen = self.seen[:length], self.seen[length:]
        return taken

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self.seen += data
        return bool(data)


@contextmanager
def black_hole() -> Iterator[int]:
    """The port of a server to which connecting takes for ever: its queue of connections is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        yield server.getsockname()[1]
        for one in waiting:
            one.close()
