"""Finding routers by listener and by state folder, and ending processes for certain."""

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from signalbox.lifecycle.running import (
    LOCK_FILE,
    Ended,
    HeldError,
    NotOursError,
    ProcessIdentity,
    claim,
    end,
    identity_at,
    registered,
    running,
)
from signalbox.lifecycle.spec import RouterSpec
from tests.support.router_process import free_ports

SPEC = RouterSpec(
    modes=("regular@127.0.0.1:8082",), rules=Path("rules.yaml"), state=Path("state"), script=Path("router.py")
)
HEALTH = {
    "status": "healthy",
    "version": "0.1.0",
    "pid": os.getpid(),
    "listeners": [
        {"host": "127.0.0.1", "port": 8082, "mode": "reverse:https://api.anthropic.com@127.0.0.1:8082"},
        {"host": "127.0.0.1", "port": 8090, "mode": "regular@127.0.0.1:8090"},
    ],
    "rules": {"file": "/home/me/rules.yaml", "loaded_at": "2026-11-29T07:00:00Z", "error": None},
    "something": "new",
}


@pytest.fixture
def serving():
    """A server on loopback that answers every GET with what is set."""

    class Handler(BaseHTTPRequestHandler):
        body = b""

        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", str(len(self.body)))
            self.end_headers()
            self.wfile.write(self.body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def serve(body: object) -> int:
        Handler.body = json.dumps(body).encode()
        return server.server_address[1]

    yield serve
    server.shutdown()
    thread.join(5)
    server.server_close()


def test_a_router_reports_process_version_rules_and_the_modes_of_its_listeners(serving):
    found = running("127.0.0.1", serving(HEALTH))
    assert found is not None
    assert (found.pid, found.version, found.rules.file) == (os.getpid(), "0.1.0", "/home/me/rules.yaml")
    assert [found.mode_at(port) for port in (8082, 8090, 1)] == ["reverse", "regular", ""]


def test_a_router_on_all_addresses_is_asked_on_loopback(serving):
    assert running("0.0.0.0", serving(HEALTH)) is not None


@pytest.mark.parametrize("body", ["", [], {"status": "ok"}, {**HEALTH, "pid": "none"}])
def test_what_answers_otherwise_is_no_router(serving, body):
    assert running("127.0.0.1", serving(body)) is None


def test_nothing_answers_where_nothing_listens():
    (port,) = free_ports(1)
    assert running("127.0.0.1", port) is None
    assert identity_at("127.0.0.1", port) is None


def test_who_does_not_answer_is_waited_for_a_bounded_time():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert running("127.0.0.1", server.getsockname()[1], timeout=0.05) is None


def test_the_process_of_a_router_is_the_one_that_holds_its_port(serving):
    assert identity_at("127.0.0.1", serving(HEALTH)) == ProcessIdentity.of(os.getpid())


@pytest.mark.parametrize("body", ["not a router", {**HEALTH, "pid": os.getppid()}])
def test_a_port_of_something_else_is_named_with_its_process(serving, body):
    with pytest.raises(
        NotOursError, match=rf"is taken by .* \(process {os.getpid()}\), which is no router of"
    ):
        identity_at("127.0.0.1", serving(body))


def test_a_state_folder_has_one_router_that_is_found_while_it_holds_it(tmp_path):
    assert registered(tmp_path) is None
    with claim(tmp_path, SPEC, "0.1.0"):
        found = registered(tmp_path)
        assert found is not None
        assert found.process == ProcessIdentity.of(os.getpid())
        assert found.spec == SPEC
        assert (tmp_path / LOCK_FILE).stat().st_mode & 0o777 == 0o600
    assert registered(tmp_path) is None


def test_a_second_router_of_the_same_state_folder_is_told_who_holds_it(tmp_path):
    with (
        claim(tmp_path, SPEC, "0.1.0"),
        pytest.raises(HeldError, match=f"runs already: process {os.getpid()}"),
        claim(tmp_path, SPEC, "0.1.0", patience=0.05),
    ):
        pass


HOLDS = """
import sys, time
from pathlib import Path
from tests.unit.test_lifecycle_running import SPEC, claim
with claim(Path(sys.argv[1]), SPEC, "0.1.0"):
    print("up", flush=True)
    time.sleep(60)
"""
SLEEPS = "import time; print('up', flush=True); time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"


@pytest.fixture
def start_child():
    """Starts Python with this code, which says that it is up; ended after the test."""
    started = []

    def start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-c", code, *arguments]
        started.append(process := subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"up"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=10)


def identity(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    found = ProcessIdentity.of(process.pid)
    assert found is not None
    return found


@pytest.mark.slow
def test_the_record_of_a_router_that_was_killed_counts_for_nothing(tmp_path, start_child):
    process = start_child(HOLDS, str(tmp_path))
    found = registered(tmp_path)
    assert found is not None
    assert found.process == identity(process)
    process.kill()
    process.wait(10)
    assert registered(tmp_path) is None


def test_a_process_is_ended_once(start_child):
    process = start_child(SLEEPS)
    this = identity(process)
    assert end(this) == Ended(process.pid, gently=True)
    assert end(this) is None


def test_a_process_that_does_not_end_is_killed(start_child):
    process = start_child(DEAF)
    assert end(identity(process), within=0.1) == Ended(process.pid, gently=False)


def test_another_process_with_the_same_id_is_left_alone(start_child):
    process = start_child(SLEEPS)
    assert end(ProcessIdentity(process.pid, identity(process).created - 100)) is None
    assert process.poll() is None
