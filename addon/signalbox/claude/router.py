"""The router of a session: one that runs already, or one that lives and dies with Claude Code."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple, Self

import msgspec
import psutil

from signalbox import __version__
from signalbox.claude.environment import Via
from signalbox.config.fields import Listen
from signalbox.lifecycle.running import Health, Listener, running
from signalbox.lifecycle.spec import RouterSpec, decode, mitmproxy_arguments, regular, reverse, values
from signalbox.lifecycle.start import StartedRouter, StartError, start

MOST_RESTARTS, WITHIN = 3, 60.0
"""A router that ends more often than this within so many seconds is not started again."""
_MODES: dict[Via, str] = {"intercept": "regular", "base-url": "reverse"}
"""By how requests come to it, the kind of listener in mitmproxy's words."""


class Wish(NamedTuple):
    """What a session needs of a router."""

    via: Via
    rules: Path
    """Absolute."""
    state: Path
    listen: Listen
    """Where a router is looked for, and started if none answers there."""
    is_within: bool = False
    """Whether this session is a part of another one, whose router is there."""


class FoundRouter(NamedTuple):
    """A router that answers."""

    health: Health
    arguments: Sequence[str] = ()
    """mitmproxy's, as far as its process tells them."""
    bound: bool = False
    """Whether it lives and dies with another session."""


def found_at(listen: Listen) -> FoundRouter | None:
    """The router that answers there."""
    health = running(listen.host, listen.port)
    if health is None:
        return None
    with suppress(psutil.Error):
        command = psutil.Process(health.pid).cmdline()
        with suppress(msgspec.DecodeError, IndexError):
            spec = decode(command[-1], RouterSpec)
            return FoundRouter(health, mitmproxy_arguments(spec), spec.bound)
        return FoundRouter(health, command)
    return FoundRouter(health)


def confdir_of(found: FoundRouter, home: Path) -> Path:
    """mitmproxy's folder of a router, which has its certificates."""
    given = next(values(list(found.arguments), "--set", "confdir="), None)
    return Path(given).expanduser() if given else home / ".mitmproxy"


def listener_for(wish: Wish, found: FoundRouter) -> Listener | None:
    """The listener of a router that can be used: one of its rules, version and state folder, which does not
    end with another session."""
    if difference(wish, found):
        return None
    return min(_of_mode(wish, found), key=lambda one: one.port != wish.listen.port)


def _of_mode(wish: Wish, found: FoundRouter) -> list[Listener]:
    return [one for one in found.health.listeners if one.mode.split("@")[0].split(":")[0] == _MODES[wish.via]]


def difference(wish: Wish, found: FoundRouter) -> str:
    """Why the router that was found cannot be used; empty if it can."""
    if Path(found.health.rules.file).resolve() != wish.rules.resolve():
        return f"has other rules, {found.health.rules.file}"
    if found.health.version != __version__:
        return f"is version {found.health.version}, this is {__version__}"
    state = next(values(list(found.arguments), "--set", "router_state="), "")
    if state and Path(state).resolve() != wish.state.resolve():
        return f"has another state folder, {state}"
    if found.bound and not wish.is_within:
        return "belongs to another session and ends with it"
    if not _of_mode(wish, found):
        return "is no forward proxy" if wish.via == "intercept" else "is a forward proxy only"
    return ""


def spec_for(wish: Wish, listen: Listen, script: Path, arguments: Sequence[str], today: date) -> RouterSpec:
    """A router for one session. The name of its log has a day: it is deleted with the old logs."""
    return RouterSpec(
        modes=((regular if wish.via == "intercept" else reverse)(listen),),
        rules=wish.rules,
        state=wish.state,
        script=script,
        arguments=tuple(arguments),
        log=f"signalbox-claude-{listen.port}-{today}.log",
        registered=False,
        bound=True,
    )


class SessionRouter:
    """A router in a process of its own, from `with` to its end.

    If it ends before, it is started again on the same port. Claude Code repeats a request whose connection
    broke, so what was under way is late and not lost.
    """

    def __init__(self, spec: RouterSpec, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        """`say` is told, from another thread, of each end before the time."""
        self._spec = spec
        self._environ = environ
        self._say = say
        self._lock = threading.Lock()
        self._is_ending = False
        self._router: StartedRouter | None = None
        self._ends: deque[float] = deque(maxlen=MOST_RESTARTS + 1)

    def __enter__(self) -> Self:
        """Raises StartError."""
        self._router = start(self._spec, environ=self._environ)
        threading.Thread(target=self._watch, name="signalbox-router", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._is_ending = True
            router = self._router
        if router is not None:
            router.end()

    def _watch(self) -> None:
        while (router := self._router) is not None:
            code = router.process.wait()
            with self._lock:
                if self._is_ending:
                    return
                self._router = self._restarted(code)

    def _restarted(self, code: int) -> StartedRouter | None:
        ended = f"the router ended ({_how(code)}; its log: {self._spec.state / self._spec.log})"
        self._ends.append(time.monotonic())
        if len(self._ends) > MOST_RESTARTS and self._ends[-1] - self._ends[0] < WITHIN:
            self._say(
                f"{ended}, again and again: it is not started any more. A plain `claude` works without it."
            )
            return None
        try:
            again = start(self._spec, environ=self._environ)
        except StartError as error:
            self._say(
                f"{ended} and does not start again: {error.lines[-1]}. A plain `claude` works without it."
            )
            return None
        self._say(f"{ended} and was started again")
        return again


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
