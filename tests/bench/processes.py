"""The processes that are measured: started on free ports, ended by their pids."""

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROJECT = Path(__file__).parents[2]
READY = 60.0
"""Seconds that a process has to start."""
QUIET = 0.3
"""Seconds in which a process does next to nothing: longer than the ledger waits for more to write."""
SETTLING = 3.0
"""Seconds for which that is waited for."""
RULES = """
providers:
  pass: {{url: "{url}", auth: client}}
  swap: {{url: "{url}", key: fake-key-of-the-benchmark}}
  chat: {{url: "{url}/v1", api: openai, dialect: generic, key: fake-key-of-the-benchmark}}
  responses: {{url: "{url}/v1", api: responses, dialect: generic, key: fake-key-of-the-benchmark}}
  dead: {{url: "{dead}", key: fake-key-of-the-benchmark}}
rules:
  - {{match: {{model: bench-pass}}, to: pass}}
  - {{match: {{model: bench-swap}}, to: swap/glm-4.7}}
  - {{match: {{model: bench-chat}}, to: chat/glm-4.7}}
  - {{match: {{model: bench-responses}}, to: responses/glm-4.7}}
  - {{match: {{model: bench-failover}}, to: [dead/glm-4.7, swap/glm-4.7], failover: {{on: [connect]}}}}
"""


class Process:
    """`started` is how long it took until it answered, in seconds."""

    def __init__(self, popen: subprocess.Popen[bytes], port: int, started: float) -> None:
        self.port = port
        self.started = started
        self._proc = Path("/proc", str(popen.pid))

    def cpu(self) -> float:
        """Seconds of processor time used by all its threads; those that have ended count to a tick."""
        with suppress(OSError):
            spent = [int(task.read_text().split()[0]) for task in self._proc.glob("task/*/schedstat")]
            return sum(spent) / 1e9
        return 0.0

    def settled_cpu(self) -> float:
        """The same, once it does next to nothing: what an answer costs after its last byte counts."""
        before, end = self.cpu(), time.monotonic() + SETTLING
        while time.monotonic() < end:
            time.sleep(QUIET)
            now = self.cpu()
            if now - before < QUIET / 50:
                return now
            before = now
        return before

    def rss(self) -> float:
        """MiB of memory in use."""
        with suppress(OSError):
            for line in (self._proc / "status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
        return 0.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def process(command: list[str], port: int, log: Path, path: str = "") -> Iterator[Process]:
    """Ready once it answers GET `path`, or takes connections where that is empty."""
    began = time.monotonic()
    with (
        log.open("wb") as out,
        subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=out, stderr=out) as popen,
    ):
        try:
            while not _answers(port, path):
                if popen.poll() is not None or time.monotonic() > began + READY:
                    raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.01)
            yield Process(popen, port, time.monotonic() - began)
        finally:
            popen.terminate()
            try:
                popen.wait(20)
            except subprocess.TimeoutExpired:
                popen.kill()


def _answers(port: int, path: str) -> bool:
    with suppress(OSError, http.client.HTTPException):
        if not path:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return True
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().read() is not None
        finally:
            connection.close()
    return False


def provider(folder: Path) -> Iterator[Process]:
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.provider", str(port)]
    return process(command, port, folder / "provider.log")


def mitmdump(folder: Path, name: str, upstream: int, *options: str, env: str = "") -> Iterator[Process]:
    port, confdir = free_port(), folder / f"{name}-conf"
    confdir.mkdir()
    command = [
        str(Path(sys.executable).with_name("mitmdump")),
        "--mode",
        f"reverse:http://127.0.0.1:{upstream}@127.0.0.1:{port}",
        "--set",
        f"confdir={confdir}",
        *options,
    ]
    return process(command, port, folder / f"{name}.log", "/health")


def bare(folder: Path, upstream: int) -> Iterator[Process]:
    """mitmdump as anybody would put it before a provider, but that it streams."""
    return mitmdump(folder, "bare", upstream, "--set", "stream_large_bodies=1")


def router(folder: Path, upstream: int, *, name: str = "router") -> Iterator[Process]:
    """As `signalbox run` starts it. All models that are asked for are in its rules."""
    rules, port, confdir = folder / f"{name}.yaml", free_port(), folder / f"{name}-conf"
    url = f"http://127.0.0.1:{upstream}"
    rules.write_text(RULES.format(url=url, dead=f"http://127.0.0.1:{free_port()}"))
    confdir.mkdir()
    options = {"--rules": rules, "--state": folder / f"{name}-state", "--listen": f"127.0.0.1:{port}"}
    command = [
        str(Path(sys.executable).with_name("signalbox")),
        "run",
        *(str(part) for option in options.items() for part in option),
        "--",
        "--set",
        f"confdir={confdir}",
    ]
    return process(command, port, folder / f"{name}.log", "/health")
