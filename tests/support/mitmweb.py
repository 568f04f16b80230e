"""The router in a real mitmweb, asked as its page asks it."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import quote

from tornado.websocket import websocket_connect

from tests.support.router_process import MITMDUMP, OPENER, Router, free_ports, wait_until

TOKEN = "for-tests"
PATHS = ("/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions", "/v1/responses")


class Web(Router):
    def __init__(self, folder: Path, *upstreams: str, password: str | None = TOKEN, **settings: Any) -> None:
        """`password` None: mitmweb makes a token, and says it."""
        super().__init__(folder, *upstreams, **settings)
        self.web = free_ports(1)[0]
        page = ["--web-port", str(self.web), "--no-web-open-browser"]
        page += ["--set", f"web_password={password}"] if password is not None else []
        self._command = [str(MITMDUMP.with_name("mitmweb")), *self._arguments, *page]

    def get(self, path: str) -> bytes:
        return self._ask("GET", path)

    def post(self, path: str, value: Any = None) -> bytes:
        return self._ask("POST", path, b"" if value is None else json.dumps(value).encode())

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        headers = {
            "Authorization": f"Bearer {TOKEN}",
            "Cookie": "_mitmproxy_xsrf=616263",
            "X-XSRFToken": "616263",
            "Content-Type": "application/json",
        }
        url = f"http://127.0.0.1:{self.web}{path}"
        request = urllib.request.Request(url, body, headers, method=method)
        with OPENER.open(request, timeout=10) as answer:
            return bytes(answer.read())

    def shown(self) -> bytes:
        """All flows as the page gets them."""
        return self.get("/flows")

    def flows(self) -> list[dict[str, Any]]:
        """Of requests to models, whatever their protocol, in the order of the list."""
        flows: list[dict[str, Any]] = json.loads(self.shown())
        return [flow for flow in flows if flow["request"]["path"].partition("?")[0] in PATHS]

    def finished(self, n: int, timeout: float = 5) -> list[dict[str, Any]]:
        """The flows whose answers have ended and are told, once there are `n`."""

        def ended() -> list[dict[str, Any]]:
            return [flow for flow in self.flows() if flow["comment"]]

        wait_until(lambda: len(ended()) >= n, timeout, lambda: f"{n} flows in {self.flows()}")
        return ended()

    def content(self, flow: str, part: str) -> bytes:
        """The body of a request or response."""
        return self.get(f"/flows/{flow}/{part}/content.data")

    def view(self, flow: str, part: str, name: str = "auto") -> dict[str, Any]:
        """The content view of it, as the page gets it."""
        view: dict[str, Any] = json.loads(self.get(f"/flows/{flow}/{part}/content/{quote(name)}.json"))
        return view

    def command(self, name: str, *arguments: str) -> Any:
        """The value of a command, as typed into the command bar. Raises ValueError with its error."""
        told = json.loads(self.post(f"/commands/{name}", {"arguments": arguments}))
        if "error" in told:
            raise ValueError(told["error"])
        return told["value"]

    @contextmanager
    def events(self) -> Iterator[list[str]]:
        """What the page is told by its WebSocket meanwhile."""
        seen: list[str] = []
        is_open, ends = Event(), Event()
        thread = Thread(target=lambda: asyncio.run(self._listen(seen, is_open, ends)))
        thread.start()
        try:
            assert is_open.wait(10), "mitmweb's WebSocket did not open"
            yield seen
        finally:
            ends.set()
            thread.join(10)

    async def _listen(self, seen: list[str], is_open: Event, ends: Event) -> None:
        socket = await websocket_connect(f"ws://127.0.0.1:{self.web}/updates?token={TOKEN}")
        is_open.set()
        reading = asyncio.ensure_future(socket.read_message())
        while not ends.is_set():
            await asyncio.wait((reading,), timeout=0.05)
            if reading.done():
                if (said := reading.result()) is None:
                    return
                seen.append(said if isinstance(said, str) else said.decode(errors="replace"))
                reading = asyncio.ensure_future(socket.read_message())
        socket.close()
        reading.cancel()
