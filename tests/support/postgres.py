"""A real PostgreSQL in a temporary folder: Debian's programs, on a free port of this machine."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from tests.support.router_process import free_ports

if sys.platform != "win32":
    import pwd

USER, PASSWORD = "signalbox", "password-of-tests-0001"
LIMIT = 60
"""Seconds for any of its programs."""


def programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, of the newest version; None where none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[4]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


class Postgres:
    """A cluster that is started and stopped as a test likes."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._databases = 0
        if os.geteuid() == 0:  # it refuses to run as root
            user = pwd.getpwnam("postgres" if _is_user("postgres") else "nobody")
            os.chown(self._folder, user.pw_uid, user.pw_gid)

    def __enter__(self) -> Self:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        options = ("--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C")
        self._run("initdb", f"--username={USER}", f"--pwfile={password}", *options)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self._folder,
            "fsync": "off",
            "max_connections": 60,
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._run(
            "pg_ctl", "start", "--wait", "--silent", f"--log={self._folder}/log", f"--options={options}"
        )

    def stop(self, mode: str = "fast") -> None:
        """`immediate` is as if the machine lost its power."""
        self._run("pg_ctl", "stop", "--wait", "--silent", f"--mode={mode}")

    def new_database(self) -> str:
        """The URL of an empty database, as the rules name one."""
        self._databases += 1
        name = f"ledger{self._databases}"
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def url(self, database: str, port: int | None = None) -> str:
        return f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def dsn(self, database: str) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        folder = programs()
        assert folder is not None
        command: Sequence[str] = (str(folder / program), f"--pgdata={self._folder}/data", *arguments)
        if os.geteuid() == 0:
            owner = self._folder.stat()
            as_owner = (f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups")
            command = ("setpriv", *as_owner, *command)
        done = subprocess.run(
            command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=LIMIT, check=False
        )
        log = self._folder / "log"
        assert done.returncode == 0, f"{done.stderr!r} {log.read_text() if log.exists() else ''}"


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
