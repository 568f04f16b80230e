"""Starts a router in a process of its own, and waits until it answers."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, NamedTuple

from msgspec.structs import replace

from signalbox.config.fields import Listen
from signalbox.lifecycle.running import Ended, Health, ProcessIdentity, end, running
from signalbox.lifecycle.spec import RouterSpec, detached, encode

READY = 60.0
"""Seconds that a start may take; it usually takes one or two."""
RESTART = 5
"""Seconds before a router that crashed is started again by a service."""
POLL = 0.05
_CLOCK = re.compile(r"^\[\d\d:\d\d:\d\d\.\d{3}\] ")
_MITMPROXYS = re.compile(
    r"Loading script .*|.* listening at .*\.|Errors? logged during startup, exiting\.\.\."
)
"""Lines that mitmproxy adds to those of the router and say no more."""


class StartError(Exception):
    """The router did not start. `lines` say why, for people: errors of the rules, a port that is taken."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class StartedRouter(NamedTuple):
    process: subprocess.Popen[bytes]
    """Its `poll()` tells whether the router still runs. Where the spec is `bound`, the router ends when
    `process.stdin` is closed, or this process ends."""
    identity: ProcessIdentity
    health: Health
    """As it was when the router began to answer."""
    lines: tuple[str, ...]
    """What it said until then."""

    def end(self) -> Ended | None:
        """Ends it and returns when it has ended; None if it had ended before. Bounded in time."""
        ended = end(self.identity)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        if self.process.stdin is not None:
            self.process.stdin.close()
        return ended


def start(spec: RouterSpec, within: float = READY, environ: Mapping[str, str] | None = None) -> StartedRouter:
    """Starts a router that lives on without this process and its terminal, unless the spec is `bound`.

    Returns when it answers on its first listener. Raises StartError. `spec.log` must be set: there is no
    terminal for its console. `environ` is its environment; by default that of this process.
    """
    assert spec.log
    with tempfile.TemporaryFile() as said:
        process = _popen(spec, said, environ)
        try:
            health = _when_ready(process, spec, within)
            identity = ProcessIdentity.of(process.pid)
            if health is not None and identity is not None:
                return StartedRouter(process, identity, health, _lines(said))
            code = process.poll()
            lines = list(_lines(said))
            if code is None:
                lines.append(f"the router did not answer within {within:.0f} s")
            raise StartError(*lines or [f"the router ended with exit code {code}"])
        except BaseException:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
            raise


def keep_running(spec: RouterSpec, pause: Callable[[float], None] = time.sleep) -> None:
    """Starts the router, and again whenever it ends with another exit code than 0: for a service whose system
    does not. The router ends with this process."""
    spec = replace(spec, bound=True)
    while True:
        process = _popen(spec, None, None)
        code = process.wait()
        if process.stdin is not None:
            process.stdin.close()
        if code == 0:
            return
        pause(RESTART)


def wait_for(listen: Listen, within: float) -> Health | None:
    """What the router that someone else starts says there; None if none answers in time."""
    ends = time.monotonic() + within
    while (health := running(listen.host, listen.port)) is None and time.monotonic() < ends:
        time.sleep(POLL)
    return health


def _popen(
    spec: RouterSpec, said: IO[bytes] | None, environ: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    how = detached(sys.platform)
    return subprocess.Popen(  # noqa: S603  our own module, without a shell
        [sys.executable, "-m", "signalbox.lifecycle.process", encode(spec).decode()],
        stdin=subprocess.PIPE if spec.bound else subprocess.DEVNULL,
        stdout=said or subprocess.DEVNULL,
        stderr=said or subprocess.DEVNULL,
        env=environ,
        start_new_session=how.start_new_session,
        creationflags=how.creationflags,
    )


def _when_ready(process: subprocess.Popen[bytes], spec: RouterSpec, within: float) -> Health | None:
    """What `/health` says once this very process answers; None if it ended, or did not answer in time."""
    listen = spec.listeners[0]
    ends = time.monotonic() + within
    while process.poll() is None:
        health = running(listen.host, listen.port)
        if health is not None and health.pid == process.pid:
            return health
        if time.monotonic() > ends:
            break
        time.sleep(POLL)
    return None


def _lines(said: IO[bytes]) -> tuple[str, ...]:
    said.seek(0)
    lines = (_CLOCK.sub("", line) for line in said.read().decode("utf-8", "replace").splitlines())
    return tuple(line for line in lines if line.strip() and not _MITMPROXYS.fullmatch(line))
