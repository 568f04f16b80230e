"""`signalbox statusline`: what the line says, and that it comes in time whatever happens."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from signalbox.cli.statusline import (
    Figures,
    figures_of_claude_code,
    figures_of_router,
    router_places,
    session_line,
)
from tests.support.router_process import free_ports

SUMMARY = {
    "session": "s1",
    "requests": 12,
    "provider": "zai",
    "model": "glm-4.7",
    "rule": "coding",
    "account": None,
    "cost": 0.4213,
    "list_cost": 1.7312,
    "saved": 1.3099,
    "cache_hit": 93,
    "quota": {"5h": 42, "7d": 80, "overage": 0},
}
CLAUDE = {
    "session_id": "s1",
    "model": {"id": "claude-opus-4-5", "display_name": "Opus 4.5"},
    "cost": {"total_cost_usd": 0.5},
    "context_window": {
        "current_usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 70,
            "output_tokens": 5,
        }
    },
    "rate_limits": {
        "five_hour": {"used_percentage": 12.4, "resets_at": 1},
        "seven_day": {"used_percentage": 0},
    },
}
LINE = "zai/glm-4.7 · 5h 42% 7d 80% · $0.42 (saved $1.31) · cache 93%"
CLAUDES_LINE = "Opus 4.5 · 5h 12% 7d 0% · $0.50 · cache 70%"


def test_the_line_shows_target_quota_cost_and_cache():
    assert session_line(figures_of_router(SUMMARY)) == LINE


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"saved": None}, "zai/glm-4.7 · 5h 42% 7d 80% · $0.42 · cache 93%"),
        ({"saved": -2.0}, "zai/glm-4.7 · 5h 42% 7d 80% · $0.42 · cache 93%"),
        ({"cost": None}, "zai/glm-4.7 · 5h 42% 7d 80% · cache 93%"),
        ({"quota": {}}, "zai/glm-4.7 · $0.42 (saved $1.31) · cache 93%"),
        ({"quota": {"7d_opus": 3}}, "zai/glm-4.7 · 7d_opus 3% · $0.42 (saved $1.31) · cache 93%"),
        ({"cache_hit": None}, "zai/glm-4.7 · 5h 42% 7d 80% · $0.42 (saved $1.31)"),
        ({"model": ""}, "zai · 5h 42% 7d 80% · $0.42 (saved $1.31) · cache 93%"),
        ({"model": "a\x1b[2J\nb"}, "zai/a?[2J?b · 5h 42% 7d 80% · $0.42 (saved $1.31) · cache 93%"),
    ],
)
def test_what_is_not_known_is_left_out_and_no_name_breaks_the_line(changed, line):
    assert session_line(figures_of_router(SUMMARY | changed)) == line


def test_without_a_router_the_line_shows_what_claude_code_knows():
    assert session_line(figures_of_claude_code(CLAUDE)) == CLAUDES_LINE


@pytest.mark.parametrize(
    "told", [None, 7, [], "x", {}, {"model": 7, "rate_limits": [], "cost": {"total_cost_usd": "x"}}]
)
def test_nothing_is_made_of_rubbish(told):
    assert figures_of_claude_code(told) == Figures()
    assert session_line(figures_of_claude_code(told)) == ""


@pytest.mark.parametrize(
    ("environment", "places"),
    [
        ({}, []),
        ({"ANTHROPIC_BASE_URL": "http://localhost:8090/v1"}, [("localhost", 8090)]),
        ({"ANTHROPIC_BASE_URL": "http://[::1]:8090"}, [("::1", 8090)]),
        ({"ANTHROPIC_BASE_URL": "http://127.0.0.1"}, [("127.0.0.1", 80)]),
        ({"HTTPS_PROXY": "http://127.0.0.1:9000"}, [("127.0.0.1", 9000)]),
        ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:8082"}, []),
        ({"ANTHROPIC_BASE_URL": "https://api.anthropic.com"}, []),
        ({"ANTHROPIC_BASE_URL": "http://router.lan:8082"}, []),
        ({"ANTHROPIC_BASE_URL": "http://127.evil.example:8082"}, []),
        ({"ANTHROPIC_BASE_URL": "http://user@127.0.0.1:8082"}, []),
        ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:port"}, []),
    ],
)
def test_only_routers_of_this_machine_are_asked(environment, places):
    assert router_places(environment) == [*places, ("127.0.0.1", 8082)]


# as a process


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose connections are served so, each on a thread."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


class Ran:
    def __init__(self, stdin: bytes | None, port: int, *, opened: bool = False) -> None:
        """`opened`: stdin is never closed."""
        environment = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
        environment["ANTHROPIC_BASE_URL"] = f"http://127.0.0.1:{port}"
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "signalbox.cli", "statusline"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            with suppress(BrokenPipeError):
                process.stdin.write(stdin or b"")
                process.stdin.flush()
                if not opened:
                    process.stdin.close()
            self.line = process.stdout.read().decode()
            self.code = process.wait(10)
            self.took = time.monotonic() - begun
            self.error = process.stderr.read().decode()


def is_in_time(run: Callable[[], Ran]) -> bool:
    """Whether one of three runs takes 300 ms at most, and longer only as this machine is busy."""
    return any(run().took < 0.3 + start_time() for _ in range(3))


def start_time() -> float:
    """Seconds that a process takes to start here and now."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import json, socket, threading"], check=True)
    return time.monotonic() - begun


def answered(status: str, body: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return serve


def hang(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        time.sleep(0.02)  # the pace of the server, which never ends
        connection.sendall(b" ")


def flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" " * 65536)


def test_the_router_is_asked_for_the_session():
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        body = json.dumps(SUMMARY).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)

    with server(serve) as port:
        ran = Ran(json.dumps(CLAUDE | {"session_id": "s 1/é"}).encode(), port)
    assert (ran.line, ran.code, ran.error) == (f"{LINE}\n", 0, "")
    assert asked[0].startswith(b"GET /signalbox/sessions/s%201%2F%C3%A9 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{port}\r\n".encode() in asked[0]


def test_quota_that_the_router_does_not_know_is_claude_codes():
    with server(answered("200 OK", json.dumps(SUMMARY | {"quota": {}}).encode())) as port:
        assert Ran(json.dumps(CLAUDE).encode(), port).line == f"{LINE.replace('42% 7d 80%', '12% 7d 0%')}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "serve",
    [
        hang,
        drip,
        flood,
        answered("404 Not Found", b'{"error": "unknown"}'),
        answered("500 Oh", b""),
        answered("200 OK", b"<html>"),
        answered("200 OK", b"[]"),
        answered("200 OK", b'{"provider": 7, "model": [], "quota": null}'),
    ],
    ids=lambda serve: getattr(serve, "__name__", ""),
)
def test_the_line_comes_in_time_without_the_routers_help(serve):
    with server(serve) as port:
        ran = Ran(json.dumps(CLAUDE).encode(), port)
        assert (ran.line, ran.code, ran.error) == (f"{CLAUDES_LINE}\n", 0, "")
        assert is_in_time(lambda: Ran(json.dumps(CLAUDE).encode(), port))


def test_no_router_is_no_error():
    ran = Ran(json.dumps(CLAUDE).encode(), free_ports(1)[0])
    assert (ran.line, ran.code, ran.error) == (f"{CLAUDES_LINE}\n", 0, "")


@pytest.mark.parametrize(
    "stdin", [b"", b"\xff\xfe", b"[" * 100_000, b"null", b'{"session_id": 7}', b"x" * 9_000_000]
)
def test_rubbish_on_stdin_is_no_error(stdin):
    ran = Ran(stdin, free_ports(1)[0])
    assert (ran.line, ran.code, ran.error) == ("\n", 0, "")


@pytest.mark.slow
def test_a_stdin_that_is_never_closed_is_not_waited_for():
    ran = Ran(json.dumps(CLAUDE).encode(), free_ports(1)[0], opened=True)
    assert (ran.code, ran.error) == (0, "")
    assert is_in_time(lambda: Ran(json.dumps(CLAUDE).encode(), free_ports(1)[0], opened=True))


def test_nothing_slow_is_imported():
    script = "import signalbox.cli.statusline, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    slow = {"click", "asyncio", "http", "urllib", "email", "ssl", "msgspec", "rich", "yaml", "mitmproxy"}
    assert not slow & set(loaded.stdout.split())
