"""The process of a router: `python -m signalbox.lifecycle.process SPEC` with a `RouterSpec` as JSON.

mitmproxy runs in it; the lock of the state folder, the log and the ways in which it is told to end are set
up before.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from importlib.metadata import entry_points
from pathlib import Path

from dotenv import dotenv_values

import signalbox
from signalbox.config.fields import Listen
from signalbox.lifecycle import running, windows
from signalbox.lifecycle.event_loop import use_uvloop
from signalbox.lifecycle.log import LogFile
from signalbox.lifecycle.spec import RouterSpec, decode, environment, mitmproxy_arguments
from signalbox.ports import authority, is_free, owner, taken

TICK = 60.0
"""Seconds between two looks at the date of the log."""
ENDS_IT = "--replace takes its place"


class RefusedError(Exception):
    """The router cannot be started. `lines` say why, for people."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def serve(spec: RouterSpec) -> int:
    """Runs the router in this process until it is told to end; gives the exit code. Raises RefusedError."""
    with ExitStack() as held:
        try:
            if lines := tuple(port_refusals(spec)):
                raise RefusedError(*lines)
            if spec.registered:
                _claim(spec, held)
            if spec.log:
                spec.state.mkdir(mode=0o700, parents=True, exist_ok=True)
                sys.stdout = sys.stderr = log = LogFile(spec.state / spec.log, sys.stdout)
                threading.Thread(target=_watch, args=(log,), name="signalbox-log", daemon=True).start()
        except OSError as error:
            raise RefusedError(f"cannot use the state folder {spec.state}: {error.strerror}") from None
        os.environ |= environment(spec, variables(spec.env_file), os.environ)
        windows.end_when_asked(os.getpid())
        if spec.bound:
            threading.Thread(target=_end_with_input, name="signalbox-bound", daemon=True).start()
        return _run_mitmproxy(spec)


def _claim(spec: RouterSpec, held: ExitStack) -> None:
    """Routers may share a state folder, but `status` and `stop` are about one of them: the first. Another may
    run in a terminal only, which ends it."""
    try:
        held.enter_context(running.claim(spec.state, spec, signalbox.__version__))
    except running.HeldError as error:
        if spec.log:
            raise RefusedError(f"{error}: {ENDS_IT}, another --state leaves it alone") from None


def port_refusals(spec: RouterSpec, ending: Collection[int] = ()) -> Iterator[str]:
    """A line for each port that is taken, with the remedy. `ending` are ids of processes that end before the
    router starts: their ports count as free, and so do those of an unknown process then."""
    for listen in spec.listeners:
        if _is_free(listen, ending):
            continue
        health = running.running(listen.host, listen.port)
        if health is not None:
            of = f"a router of {health.rules.file}, process {health.pid}"
            yield f"port {listen.port} is taken by {of}: {ENDS_IT}, {_other_port(listen)}"
        else:
            yield f"{taken(listen.port)}: end that, or {_other_port(listen)}"
    if (web := spec.web_listener) is not None and not _is_free(web, ending):
        number = _free_after(web)
        remedy = f"take another: --web-port {number}, or just web_port={number} web"
        yield f"{taken(web.port)}: end that, or {remedy}"


def _is_free(listen: Listen, ending: Collection[int]) -> bool:
    if is_free(listen.port, listen.host):
        return True
    holder = owner(listen.port) if ending else None
    return bool(ending) and (holder is None or holder.pid in ending)


def _other_port(listen: Listen) -> str:
    number = _free_after(listen)
    return f"take another: --listen {authority(listen.host, number)}, or just port={number} run"


def _free_after(listen: Listen) -> int:
    ports = range(listen.port + 1, 65536)
    return next((port for port in ports if is_free(port, listen.host)), listen.port)


def variables(env_file: Path | None) -> dict[str, str]:
    """The variables that a file sets. Raises RefusedError."""
    if env_file is None:
        return {}
    if not env_file.is_file():
        raise RefusedError(f"{env_file} does not exist")
    try:
        found = dotenv_values(env_file, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"{env_file} cannot be read: {error}") from None
    return {name: value for name, value in found.items() if value}


def _run_mitmproxy(spec: RouterSpec) -> int:
    """Runs what mitmproxy's own command of this name runs."""
    command = next(iter(entry_points(group="console_scripts", name=spec.program)))
    arguments = mitmproxy_arguments(spec)
    sys.argv = [spec.program, *arguments]
    use_uvloop()
    try:
        command.load()(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _watch(log: LogFile) -> None:
    while True:
        time.sleep(TICK)
        log.rotate_if_due()


def _end_with_input() -> None:
    """Standard input ends when the process that holds its other end does, however that happened."""
    while os.read(0, 1024):
        pass
    signal.raise_signal(signal.SIGTERM if os.name == "posix" else signal.SIGINT)


def main() -> int:
    try:
        return serve(decode(sys.argv[1], RouterSpec))
    except RefusedError as error:
        for line in error.lines:
            print(line, file=sys.stderr)  # noqa: T201  for who started it
        return 1


if __name__ == "__main__":
    sys.exit(main())
