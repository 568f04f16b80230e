"""The real router as a child process."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from signalbox import places
from signalbox.ports import free_port

START = 15.0
"""Seconds that the start may take; it usually takes one or two."""


class RouterProcess:
    """mitmdump with the router on a free loopback port. A context manager: runs inside the `with` block.

    All its files are in `folder`: rules.yaml, the state, mitmproxy's own certificates.
    """

    def __init__(self, folder: Path, upstream: str, environment: Mapping[str, str]) -> None:
        self.rules = folder / "rules.yaml"
        self.state = folder / "state"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "mitmdump.log"
        self._environment = {**_plain_environment(), **environment}
        self._command = [
            _mitmdump(),
            *("-s", str(places.ROUTER)),
            *("--mode", f"reverse:{upstream}@127.0.0.1:{self.port}"),
            *("--set", f"confdir={folder / 'mitmproxy'}"),
            *("--set", f"router_rules={self.rules}"),
            *("--set", f"router_state={self.state}"),
        ]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  mitmdump, with our own arguments
                self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_for_health()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _wait_for_health(self) -> None:
        """Raises TimeoutError or ChildProcessError."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        end = time.monotonic() + START
        while self._process.poll() is None:
            try:
                opener.open(f"{self.url}/health", timeout=START).close()
            except OSError:
                if time.monotonic() > end:
                    raise TimeoutError(f"the router did not answer within {START:.0f} s") from None
                time.sleep(0.05)
            else:
                return
        raise ChildProcessError(f"the router ended with exit code {self._process.returncode}")


def _mitmdump() -> str:
    """The mitmdump beside this Python, else the one on PATH."""
    beside = shutil.which("mitmdump", path=Path(sys.executable).parent)
    return beside or shutil.which("mitmdump") or "mitmdump"


def _plain_environment() -> dict[str, str]:
    """The environment without what would change the demo: keys, log level, proxies, settings of Claude
    Code."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith(("_API_KEY", "_PROXY"))
        and not name.startswith("ANTHROPIC_")
        and name != "LOG_LEVEL"
    }
