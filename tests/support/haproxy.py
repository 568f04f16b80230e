"""A real HAProxy with the configuration that comes with the project, before routers on other ports."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.router_process import OPENER, ROOT, free_ports, wait_until

CONFIGURATION = ROOT / "examples" / "many-machines" / "haproxy.cfg"


def program() -> str | None:
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


class HAProxy:
    def __init__(self, folder: Path, routers: Sequence[str]) -> None:
        """`routers` are HOST:PORT, one for each server of the configuration."""
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        addresses = iter(routers)
        text = re.sub(
            r"^( *server \S+) \S+$",
            lambda found: f"{found[1]} {next(addresses)}",
            CONFIGURATION.read_text(encoding="utf-8"),
            flags=re.MULTILINE,
        )
        assert next(addresses, None) is None, "the configuration has as many servers"
        self._file = folder / "haproxy.cfg"
        self._file.write_text(text.replace("bind :8082", f"bind 127.0.0.1:{self.port}"), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        path = program()
        assert path is not None
        self._process = subprocess.Popen(
            [path, "-db", "-f", str(self._file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._answers, 20, lambda: "HAProxy to find a router")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)

    def _answers(self) -> bool:
        try:
            with OPENER.open(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
