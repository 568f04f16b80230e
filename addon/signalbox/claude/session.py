"""One session of Claude Code with its router: `run_session`."""

import http.client
import json
import os
import shlex
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from signalbox import places, ports
from signalbox.claude import certificates, child
from signalbox.claude.environment import (
    BASE_URL,
    CUSTOM_HEADERS,
    HTTPS_PROXY,
    Via,
    child_environment,
    default_via,
    features,
    leading_back,
    names_client,
    other_clouds,
    router_environment,
    trusted_files,
)
from signalbox.claude.router import (
    FoundRouter,
    SessionRouter,
    Wish,
    confdir_of,
    difference,
    found_at,
    listener_for,
    spec_for,
)
from signalbox.claude.settings import (
    ClaudeSettings,
    config_folder,
    default_model,
    home_folder,
    is_foreign,
    is_given,
    read_settings,
)
from signalbox.config.fields import Listen
from signalbox.config.lint import is_this_machine
from signalbox.config.rules import ANTHROPIC_HOST, Rules
from signalbox.lifecycle.start import StartError
from signalbox.state.atomic_file import replace

NOT_FOUND = 127
"""Exit code of shells for a program that is not there."""
INSTALL = "Claude Code is not on the PATH. This installs it: npm install -g @anthropic-ai/claude-code"
REFRESH = 10
"""Seconds after which Claude Code asks for the status line again while nothing happens."""
HANDSHAKE = 3.0
"""Seconds for a TLS handshake with a router of this machine."""
DAY = 86400.0
"""Seconds."""

type Say = Callable[[str], None]
"""Prints one line for people."""


class Session(NamedTuple):
    """What `signalbox claude` was called with."""

    arguments: Sequence[str]
    """Claude Code's."""
    rules: Rules
    state: Path
    listen: Listen
    """Where the router is looked for."""
    via: Via | None = None
    is_plain: bool = False
    """Whether Claude Code gets neither picker nor status line."""


class Endpoint(NamedTuple):
    """Where Claude Code finds the router."""

    url: str
    ca: Path | None
    """The certificate that it signs with; None where it does not intercept."""
    origin: str
    """For people: whether it was started, or ran already."""


def run_session(session: Session, environ: Mapping[str, str], say: Say) -> int:
    """Runs Claude Code and gives its exit code, or that of what kept it from running. Raises StartError and
    OSError."""
    program = shutil.which("claude", path=environ.get("PATH"))
    if program is None:
        say(INSTALL)
        return NOT_FOUND
    home, project = home_folder(), Path.cwd()
    settings = read_settings(environ, project, home)
    user_settings = config_folder(environ, home) / "settings.json"
    model = default_model(user_settings)
    notes = _Notes(say)
    with ExitStack() as held:
        opened = _Opening(session, environ, settings, home, notes, held)
        offered = opened.offered_models()
        endpoint = opened.endpoint()
        ca = opened.trusted_by_child(endpoint)
        environment = child_environment(
            opened.via,
            endpoint.url,
            ca,
            project,
            environ,
            settings,
            overrides_settings=not opened.has_own_settings,
        )
        given = opened.settings(environment.overrides, offered)
        say(f"{opened.via}, rules {session.rules.file.absolute()}, {endpoint.origin} {endpoint.url}")
        if not other_clouds({**environ, **settings.env}):
            say(features(opened.via, {**environ, **settings.env}))
        say(f"dashboard {endpoint.url}/ui")
        if not names_client(session.rules.clients, {**environ, **settings.env}):
            say(f"the rules have clients: name one with {CUSTOM_HEADERS}='x-signalbox-client: SECRET'")
        for line in environment.remarks:
            say(line)
        command = [program, *settings_argument(given, session.state, held), *session.arguments]
        notes.hold(sys.stderr.isatty())
        code = child.run(command, environment.over(environ))
        notes.hold(False)
    if (now := default_model(user_settings)) and now != model and is_foreign(now):
        say(
            f"{now} is now the default model of every `claude`, which has no such model without the router:"
            f' pick Default in /model, or take "model" out of {user_settings}.'
            " In /model, s takes a model for one session."
        )
    return code


class _Notes:
    """Lines for people. Those that come while Claude Code draws on the terminal wait until it has ended."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._is_holding = False
        self._waiting: list[str] = []

    def __call__(self, line: str) -> None:
        if self._is_holding:
            self._waiting.append(line)
        else:
            self._say(line)

    def hold(self, on: bool) -> None:
        self._is_holding = on
        if not on:
            waiting, self._waiting = self._waiting, []
            for line in waiting:
                self._say(line)


class _Opening:
    """What happens between the call and the start of Claude Code."""

    def __init__(
        self,
        session: Session,
        environ: Mapping[str, str],
        settings: ClaudeSettings,
        home: Path,
        notes: _Notes,
        held: ExitStack,
    ) -> None:
        self.via = session.via or default_via(environ, settings)
        self._session = session
        self._environ = environ
        self._claude_settings = settings
        self._home = home
        self._notes = notes
        self._held = held
        self._folder = session.state / "claude"
        with _using(session.state):
            session.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
        self._trusted, faults = certificates.readable(trusted_files(environ, settings))
        for line in faults:
            notes(line)

    # the router

    def endpoint(self) -> Endpoint:
        """That of a router that runs, if it is one of ours with the same rules; else of one that is started,
        and ended by `held`."""
        session = self._session
        url = ports.url_of(session.listen.host, session.listen.port)
        is_within = url in (self._environ.get(HTTPS_PROXY), self._environ.get(BASE_URL))
        wish = Wish(self.via, session.rules.file.absolute(), session.state, session.listen, is_within)
        found = found_at(session.listen)
        if found is not None and (endpoint := self._running(wish, found)):
            return endpoint
        host = session.listen.host if is_this_machine(session.listen.host) else "127.0.0.1"
        own = Listen(host, session.listen.port)
        is_free = found is None and ports.is_free(own.port, own.host)
        if found is None and not is_free:
            self._notes(f"{ports.taken(own.port)}: this session's router gets another port")
        try:
            return self._started(wish, own if is_free else free_listen(own.host))
        except StartError:
            if not is_free or ports.is_free(own.port, own.host):
                raise
            return self._started(wish, free_listen(own.host))  # somebody was quicker

    def _running(self, wish: Wish, found: FoundRouter) -> Endpoint | None:
        listener = listener_for(wish, found)
        if listener is None:
            at = ports.url_of(wish.listen.host, wish.listen.port)
            self._notes(f"the router at {at} {difference(wish, found)}: this session gets its own")
            return None
        url = ports.url_of(listener.host, listener.port)
        if self.via == "base-url":
            return Endpoint(url, None, "the router that runs at")
        ca = confdir_of(found, self._home) / certificates.CA
        if not vouches(ca, ports.reached(listener.host), listener.port):
            self._notes(f"the router at {url} does not sign with {ca}: this session gets its own")
            return None
        return Endpoint(url, ca, "the router that runs at")

    def _started(self, wish: Wish, listen: Listen) -> Endpoint:
        folder = certificates.authority_folder(self._home, wish.state)
        arguments = ["--set", f"confdir={folder}"]
        if self._trusted:
            known = certificates.bundle([certificates.known_to_mitmproxy(), *self._trusted], self._folder)
            arguments += ["--set", f"ssl_verify_upstream_trusted_ca={known}"]
        today = datetime.now().astimezone().date()
        spec = spec_for(wish, listen, places.ROUTER, arguments, today)
        url = ports.url_of(listen.host, listen.port)
        environ = router_environment(self._environ, self._claude_settings, url)
        if back := leading_back({**self._environ, **self._claude_settings.env}, url):
            self._notes(f"{', '.join(back)}: left out, since the proxy at {url} is this router itself")
        self._held.enter_context(SessionRouter(spec, environ, self._notes))
        ca = folder / certificates.CA if self.via == "intercept" else None
        return Endpoint(url, ca, "a router of its own at")

    def trusted_by_child(self, endpoint: Endpoint) -> Path | None:
        """The router's certificate, and whom the user trusts already."""
        if endpoint.ca is None or not self._trusted:
            return endpoint.ca
        return certificates.bundle([endpoint.ca, *self._trusted], self._folder)

    # Claude Code's settings

    def offered_models(self) -> Future[dict[str, Any]] | None:
        """Settings for the picker, which are fetched while the router starts; None where none are wanted."""
        is_wanted = self._takes_settings and self._session.rules.lists_models
        if not is_wanted or self._claude_settings.has("modelPicker"):
            return None
        pool = self._held.enter_context(ThreadPoolExecutor(1, "signalbox-models"))
        return pool.submit(_picker_settings, self._session.rules, self._session.state)

    def settings(
        self, overrides: Mapping[str, str], offered: Future[dict[str, Any]] | None
    ) -> dict[str, Any]:
        """What `--settings` is given; empty if nothing is."""
        if self.has_own_settings:
            return {}
        given: dict[str, Any] = offered.result() if offered is not None else {}
        if self._takes_settings and not self._claude_settings.has("statusLine"):
            command = f"{own_command(self._environ)} statusline"
            given["statusLine"] = {"type": "command", "command": command, "refreshInterval": REFRESH}
        if overrides:
            given["env"] = dict(overrides)
        return given

    @property
    def has_own_settings(self) -> bool:
        """Whether the user gave `--settings`, of which only one counts."""
        return is_given(self._session.arguments, "--settings")

    @property
    def _takes_settings(self) -> bool:
        return not self._session.is_plain and not self.has_own_settings


def _picker_settings(rules: Rules, state: Path) -> dict[str, Any]:
    from signalbox.background.picker import current_settings  # its imports take as long as a start may

    return current_settings(rules, state)


def own_command(environ: Mapping[str, str]) -> str:
    """`signalbox`, as a shell in this environment finds the one that runs."""
    own = Path(sys.executable).with_name("signalbox.exe" if os.name == "nt" else "signalbox")
    found = shutil.which("signalbox", path=environ.get("PATH"))
    if found and own.exists() and Path(found).samefile(own):
        return "signalbox"
    words = [str(own)] if own.exists() else [sys.executable, "-m", "signalbox.cli"]
    return " ".join(f'"{word}"' for word in words) if os.name == "nt" else shlex.join(words)


def free_listen(host: str) -> Listen:
    """A port that was free a moment ago."""
    with closing(
        socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    ) as one:
        return Listen(host, one.getsockname()[1])


def vouches(ca: Path, host: str, port: int) -> bool:
    """Whether the forward proxy there shows certificates that this one has signed."""
    try:
        context = ssl.create_default_context(cafile=ca)
        with closing(
            http.client.HTTPSConnection(host, port, timeout=HANDSHAKE, context=context)
        ) as connection:
            connection.set_tunnel(ANTHROPIC_HOST, 443)
            connection.connect()
    except (OSError, http.client.HTTPException):
        return False
    return True


def settings_argument(given: Mapping[str, Any], state: Path, held: ExitStack) -> list[str]:
    """`--settings` with a file that only this user can read and that `held` removes: others see arguments,
    and `env` may hold secrets. Raises StartError."""
    if not given:
        return []
    folder = state / "claude"
    file = folder / f"settings-{os.getpid()}.json"
    with _using(state):
        _remove_left(folder)
        replace(file, json.dumps(given, ensure_ascii=False).encode())
    held.callback(file.unlink, missing_ok=True)
    return ["--settings", str(file)]


def _remove_left(folder: Path) -> None:
    """Removes the settings of sessions that were killed before they could, a day ago or longer: younger ones
    may be those of a session on another machine, whose processes are not seen here."""
    for file in folder.glob("settings-*.json"):
        pid = file.stem.removeprefix("settings-")
        if pid.isdecimal() and len(pid) < 10 and not psutil.pid_exists(int(pid)):
            with suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > DAY:
                    file.unlink()


@contextmanager
def _using(state: Path) -> Iterator[None]:
    """Turns OSError into StartError."""
    try:
        yield
    except OSError as error:
        raise StartError(f"cannot use the state folder {state}: {error.strerror or error}") from None
