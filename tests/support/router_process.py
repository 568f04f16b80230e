"""The router before scripted upstreams: the real mitmdump as a child process.

`tests.support.router` has the same in this process.
"""

import atexit
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

from tests.support.fake_provider import START_CHECK

ROOT = Path(__file__).parents[2]
MITMDUMP = Path(sys.executable).parent / "mitmdump"
START = 40.0
POLL = 0.01


def with_scripts(*names: str) -> list[str]:
    """Options by which mitmdump also loads these scripts of the tests: `with_scripts("leak_counter.py")`."""
    return [part for name in names for part in ("-s", str(ROOT / "tests" / "support" / "scripts" / name))]


class RouterFiles:
    """What a router is started with, and what can be seen of it while it runs.

    It has one listener for each upstream, in reverse mode; without upstreams it is a forward proxy. What it
    writes is below `folder`, but for the CA, which all share.
    """

    def __init__(
        self,
        folder: Path,
        *upstreams: str,
        rules: str | None = "",
        options: Iterable[str] = (),
        script: Path = ROOT / "addon" / "router.py",
        state: Path | None = None,
    ) -> None:
        """`rules` None leaves the file absent; `options` are further arguments of mitmdump."""
        self.script = script
        self.folder = folder
        self.rules_file = folder / "rules.yaml"
        self.state = state or folder / "state"
        self.confdir = authority_folder()
        self.ports = free_ports(max(1, len(upstreams)))
        self.urls = [f"http://127.0.0.1:{port}" for port in self.ports]
        self.url = self.urls[0]
        self._arguments = self._options(upstreams, options)
        self._seen = (0, 0)
        if rules is not None:
            self.rules_file.write_text(rules, encoding="utf-8")

    def _options(self, upstreams: Iterable[str], options: Iterable[str]) -> list[str]:
        settings = {
            "confdir": self.confdir,
            "router_rules": self.rules_file,
            "router_state": self.state,
        }
        pairs = zip(upstreams, self.ports, strict=False)
        modes = [f"reverse:{upstream}@127.0.0.1:{port}" for upstream, port in pairs]
        return [
            *("-s", str(self.script)),
            *(part for mode in modes or [f"regular@127.0.0.1:{self.ports[0]}"] for part in ("--mode", mode)),
            *(part for name, value in settings.items() for part in ("--set", f"{name}={value}")),
            *options,
        ]

    def log(self) -> str:
        """All it has printed so far."""
        raise NotImplementedError

    def health(self) -> Any:
        """What GET /health says. Raises OSError where nothing answers."""
        with OPENER.open(f"{self.url}/health", timeout=5) as answer:
            return json.load(answer)

    def forget(self) -> None:
        """From now on `log` and `records` tell only what comes; for tests that share one router."""
        wait_until(self._is_quiet, 2, lambda: "the request log to be written")
        log, records = self._seen
        self._seen = (log + len(self.log()), records + len(self._records()))

    def _is_quiet(self) -> bool:
        """Whether no record came for a moment: they are written beside the requests."""
        before = len(self._records())
        time.sleep(2 * POLL)
        return len(self._records()) == before

    def wait_log(self, pattern: str, timeout: float = 5) -> re.Match[str]:
        """The first match of `pattern` in what it prints."""
        wait_until(
            lambda: re.search(pattern, self.log()),
            timeout,
            lambda: f"/{pattern}/ in the log, which is:\n{self.log()}",
        )
        match = re.search(pattern, self.log())
        assert match is not None
        return match

    def rules(self, text: str, replace: bool = True) -> None:
        """Edit rules.yaml as editors do: a new file in place of the old, or, less `replace`, written over."""
        written = self.rules_file.with_suffix(".new") if replace else self.rules_file
        written.write_text(text, encoding="utf-8")
        written.replace(self.rules_file)

    def records(self, n: int = 0, timeout: float = 5, session: str | None = None) -> list[dict[str, Any]]:
        """The lines of requests.jsonl (of this session), once there are at least `n`."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self._records() if session in (None, line["session"])]

        wait_until(lambda: len(found()) >= n, timeout, lambda: f"{n} records; log:\n{self.log()}")
        return found()

    def _records(self) -> list[dict[str, Any]]:
        file = self.state / "requests.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")][self._seen[1] :]


class Router(RouterFiles):
    """The real mitmdump as a child process. It starts at `with` and is ready inside it."""

    def __init__(
        self,
        folder: Path,
        *upstreams: str,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(folder, *upstreams, **settings)
        self._log_file = folder / "mitmdump.log"
        self._environment = clean_environment(folder, environment or {})
        self._command = [str(MITMDUMP), *self._arguments]
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start_fails(cls, folder: Path, *upstreams: str, **settings: Any) -> tuple[int, str]:
        """Exit code and output of a start that ends by itself; takes what the constructor takes."""
        router = cls(folder, *upstreams, **settings)
        router._start()
        try:
            return router.process.wait(START), router.log()
        finally:
            router.stop()

    def __enter__(self) -> Self:
        self._start()
        try:
            wait_until(self._ready, START, lambda: f"the router to start; it said:\n{self.log()}")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _start(self) -> None:
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=self._environment, cwd=self.folder
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _ready(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the router ended with {self.process.returncode}; it said:\n{self.log()}")
        asked = urllib.request.Request(f"{self.url}/health", headers={START_CHECK: "yes"})
        try:
            with OPENER.open(asked, timeout=5) as answer:
                return bool(json.load(answer))
        except (OSError, ValueError):
            return False

    def stop(self) -> int:
        """End it, gently first; gives its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(5)

    def log(self) -> str:
        """All it has printed so far."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")[self._seen[0] :]


# No proxy of the environment stands between a test and the router.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@cache
def authority_folder() -> Path:
    """Where all routers of this run keep the CA that mitmproxy makes, which takes a while."""
    folder = Path(tempfile.mkdtemp(prefix="signalbox-ca-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def free_ports(n: int) -> list[int]:
    """Ports of loopback that were free a moment ago, all different.

    Of those that no system gives to connections by itself: such a port may be taken again before it is used.
    """
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < n:
            port = random.randrange(10_000, 32_000)
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return found


def clean_environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """What a process needs to run, and nothing of who runs the tests: no keys, no settings, another home."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TEMP", "TZ") if name in os.environ}
    return {**kept, "HOME": str(home), "USERPROFILE": str(home), "PYTHONUNBUFFERED": "1", **extra}


def wait_until(condition: Callable[[], object], timeout: float, what: Callable[[], str]) -> None:
    """Wait until `condition` holds; raises TimeoutError that names `what` was waited for."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout} s for {what()}")
        time.sleep(POLL)
