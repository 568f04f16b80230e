"""What goes over the connections of a playbook: requests and answers as bytes, and both versions of HTTP as
an upstream reads them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import h2.config
import h2.connection
import h2.events
from mitmproxy.connection import Server

LOGIN = "sk-ant-fake-caller"


@dataclass
class Asked:
    """A request that an upstream was sent."""

    server: Server
    stream: int
    """Its number on an HTTP/2 connection; 0 on one of HTTP/1."""
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def host(self) -> str:
        assert self.server.address is not None
        return self.server.address[0].removesuffix(".invalid")

    @property
    def connection(self) -> int:
        return id(self.server)

    def header(self, name: str) -> str | None:
        return self.headers.get(name.lower())


@dataclass
class Got:
    """What a client was sent for one request, as far as it has come."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    state: Literal["waiting", "open", "ended", "cut"] = "waiting"

    @property
    def error(self) -> dict[str, str]:
        """Of a body, or of the last event."""
        said = json.loads(self.body.rpartition(b"event: error\ndata: ")[2])
        assert said["type"] == "error"
        found: dict[str, str] = said["error"]
        return found


class Http1:
    """An upstream's side of an HTTP/1 connection."""

    def __init__(self) -> None:
        self._buffer = b""

    def received(self, server: Server, data: bytes) -> Iterator[Asked]:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            (method, path, _), headers = _parse_head(head)
            if headers.get("transfer-encoding") == "chunked":
                body, is_whole = _dechunked(rest)
                length = len(rest)
            else:
                length = int(headers.get("content-length", 0))
                body, is_whole = rest[:length], len(rest) >= length
            if not is_whole:
                return
            self._buffer = rest[length:]
            yield Asked(server, 0, method, path, headers, body)


class Http2:
    """An upstream's side of an HTTP/2 connection."""

    def __init__(self) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.initiate_connection()
        self.resets: list[int] = []
        self._heads: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytes] = {}

    def received(self, server: Server, data: bytes) -> Iterator[Asked]:
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.RequestReceived():
                    head = {text_of(k): text_of(v) for k, v in event.headers or []}
                    self._heads[event.stream_id], self._bodies[event.stream_id] = head, b""
                case h2.events.DataReceived():
                    self._bodies[event.stream_id] += event.data or b""
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamReset():
                    self.resets.append(event.stream_id)
                case h2.events.StreamEnded():
                    number, head = event.stream_id, self._heads[event.stream_id]
                    body = self._bodies[number]
                    yield Asked(server, number, head[":method"], head[":path"], head, body)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def request(body: bytes, path: str = "/v1/messages", **headers: str) -> bytes:
    fields = {
        "host": "127.0.0.1:8082",
        "x-api-key": LOGIN,
        "content-type": "application/json",
        "content-length": str(len(body)),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def raw_request(line: str, body: bytes = b"", *lines: str, **headers: str) -> bytes:
    """With a `Host` and a length, unless headers say otherwise; one that is empty is left out. `lines` are
    header lines as they are sent."""
    length = {"Content-Length": str(len(body))} if body or line.startswith("POST") else {}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    fields = {"Host": "127.0.0.1:8082", **length, **named}
    named_lines = [f"{name}: {value}" for name, value in fields.items() if value]
    return "\r\n".join([f"{line} HTTP/1.1", *named_lines, *lines, "", ""]).encode() + body


def parse(data: bytes, *, is_closed: bool) -> Got:
    """An answer of HTTP/1, after the early hints before it."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return Got(state="cut" if is_closed else "waiting")
    (_, status, *_), headers = _parse_head(head)
    if headers.get("transfer-encoding") == "chunked":
        body, ended = _dechunked(rest)
    elif "content-length" in headers:
        body, ended = rest, len(rest) == int(headers["content-length"])
    else:
        body, ended = rest, is_closed
    return Got(int(status), headers, body, "ended" if ended else "cut" if is_closed else "open")


def _parse_head(head: bytes) -> tuple[list[str], dict[str, str]]:
    line, *fields = head.decode("latin-1").split("\r\n")
    pairs = (field.partition(":") for field in fields)
    return line.split(" ", 2), {name.lower(): value.strip() for name, _, value in pairs}


def _dechunked(data: bytes) -> tuple[bytes, bool]:
    body = b""
    while b"\r\n" in data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert data == b"\r\n", f"more than one answer: {data!r}"
            return body, True
        body += data[:length]
        data = data[length + 2 :]
    return body, False


def text_of(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    """A whole answer with a length."""
    fields = {"content-type": "application/json", "content-length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + body


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(name: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps({"type": name} | fields).encode())


START = event(
    "message_start",
    message={
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1},
    },
)  # fmt: skip


BLOCK = event("content_block_start", index=0, content_block={"type": "text", "text": ""})


DELTA = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"})


STOP = (
    event("content_block_stop", index=0)
    + event(
        "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 2}
    )
    + event("message_stop")
)


def error(type: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": type, "message": message}}).encode()
