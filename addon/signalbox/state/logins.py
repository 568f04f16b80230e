"""The logins that Claude Code keeps in its config folders. They are read, never refreshed or written.

`.credentials.json` holds `{"claudeAiOauth": {"accessToken", "expiresAt" in milliseconds, ...}}`
(claude-code-gateway.md, 6). Where it is absent on macOS, the Keychain holds the same text.
"""

import os
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Protocol

import msgspec

from signalbox.config import fields, files
from signalbox.config.rules import Provider, Rules
from signalbox.routing.quota import DEFAULT

FILE = ".credentials.json"
LARGEST = 1024 * 1024
"""Bytes of it that are read: requests wait for that."""

type Stamp = tuple[int, int, int] | None


class Keychain(Protocol):
    def read(self, folder: Path) -> str | None:
        """What Claude Code keeps there for a config folder; None where that is nothing, or not known yet.

        Returns at once.
        """


class Login(msgspec.Struct, frozen=True):
    """`token` is None where the folder holds no login; `reason` then says why."""

    token: str | None = None
    reason: str = ""
    expires: float = float("inf")
    """Unix seconds."""

    def __repr__(self) -> str:
        return "Login(***)" if self.token else f"Login(reason={self.reason!r})"


class _OAuth(msgspec.Struct):
    access: str = msgspec.field(default="", name="accessToken")
    expires: float | None = msgspec.field(default=None, name="expiresAt")


class _Credentials(msgspec.Struct):
    login: _OAuth | None = msgspec.field(default=None, name="claudeAiOauth")


class Logins:
    """Looks at a file each time it is asked, and reads it again when it has changed."""

    def __init__(self, keychain: Keychain | None = None) -> None:
        self._keychain = keychain
        self._read: dict[Path, tuple[Stamp, Login]] = {}

    def of(self, folder: Path, now: float) -> Login:
        """The login to use at `now`, unix seconds."""
        login = self.kept(folder)
        if login.token is not None and login.expires <= now:
            return Login(None, f"the login in {folder} has expired: use Claude Code there to renew it")
        return login

    def refusal(self, provider: Provider, now: float) -> tuple[str, str] | None:
        """Why a provider with a login of its own is not asked, as in `plan.Refusal`."""
        if provider.auth != "claude-login":
            return None
        login = self.of(provider.login, now)
        return None if login.token is not None else ("no-login", login.reason)

    def kept(self, folder: Path) -> Login:
        """The login that is there, expired or not; where the disk does not answer, the one that was."""
        try:
            return files.within(folder / FILE, lambda: self._look(folder), files.SOON)
        except TimeoutError as fault:
            _, before = self._read.get(folder, (None, None))
            return before or Login(None, f"the login in {folder} cannot be read: {fault.strerror}")

    def _look(self, folder: Path) -> Login:
        stamp = _stamp(folder / FILE)
        if stamp is None:
            kept = self._keychain.read(folder) if self._keychain is not None else None
            return parsed(kept, folder) if kept else Login(None, f"there is no login in {folder}")
        before = self._read.get(folder)
        if before is None or before[0] != stamp:
            before = self._read[folder] = (stamp, _in_file(folder))
        return before[1]


def parsed(text: str | bytes, folder: Path) -> Login:
    try:
        login = msgspec.json.decode(text, type=_Credentials).login
    except (msgspec.DecodeError, RecursionError):
        return Login(None, f"the login in {folder} cannot be read: it is not the JSON that is expected")
    token = fields.secret(login.access).value if login is not None else None
    if login is None or token is None:
        return Login(None, f"there is no login in {folder}")
    return Login(token) if login.expires is None else Login(token, expires=login.expires / 1000)


def _in_file(folder: Path) -> Login:
    file = folder / FILE
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:
            return Login(None, f"the login in {folder} cannot be read: it is no file, or too large")
        return parsed(file.read_bytes(), folder)
    except OSError as fault:
        return Login(None, f"the login in {folder} cannot be read: {fault.strerror}")


def _stamp(file: Path) -> Stamp:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


SERVICE = "Claude Code-credentials"
EVERY = 5.0
"""Seconds for which what was read holds."""
LIMIT = 10.0
"""Seconds until a program that may ask the user something is given up."""


class MacKeychain:
    """Reads in a thread and remembers: a request never waits for it."""

    def __init__(
        self,
        find: Callable[[str], str | None],
        *,
        home: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`find` gives the password of a service's item, or None, and may take its time."""
        self._find = find
        self._home = home or Path.home()
        self._clock = clock
        self._kept: dict[Path, str | None] = {}
        self._looked: dict[Path, float] = {}
        self._reading: dict[Path, threading.Thread] = {}

    def read(self, folder: Path) -> str | None:
        looked, thread = self._looked.get(folder), self._reading.get(folder)
        is_due = looked is None or self._clock() - looked >= EVERY
        if is_due and (thread is None or not thread.is_alive()):
            self._looked[folder] = self._clock()
            self._reading[folder] = threading.Thread(target=self._look, args=(folder,), daemon=True)
            self._reading[folder].start()
        return self._kept.get(folder)

    def settle(self, timeout: float) -> None:
        """Wait for what is being read."""
        for thread in self._reading.values():
            thread.join(timeout)

    def _look(self, folder: Path) -> None:
        found = (self._find(name) for name in services(folder, self._home))
        self._kept[folder] = next((text for text in found if text), None)


def services(folder: Path, home: Path) -> tuple[str, ...]:
    """What the item of a config folder may be called, the most exact name first."""
    text = unicodedata.normalize("NFC", str(folder))
    own = f"{SERVICE}-{sha256(text.encode()).hexdigest()[:8]}"
    return (SERVICE, own) if folder == home / ".claude" else (own,)


def security(service: str) -> str | None:
    """The item's password, by macOS's own program."""
    command = ["/usr/bin/security", "find-generic-password", "-s", service, "-w"]
    try:
        done = subprocess.run(  # noqa: S603  a fixed program, without a shell
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()


def keychain() -> Keychain | None:
    """This machine's, where it has one."""
    return MacKeychain(security) if sys.platform == "darwin" else None


def logins_of(rules: Rules) -> Logins:
    """The logins that rules name, for commands: they wait until the Keychain has told."""
    asked = MacKeychain(security) if sys.platform == "darwin" else None
    if asked is not None:
        for provider in rules.providers.values():
            if provider.auth == "claude-login":
                asked.read(provider.login)
        asked.settle(LIMIT)
    return Logins(asked)


REMEMBERED = 8
"""Logins of one folder that are known: a session may still send one that was renewed a moment ago."""


class Accounts:
    """Keeps digests under a key of its own, in memory, and no credential."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins
        self._key = os.urandom(32)
        self._seen: dict[Path, list[bytes]] = {}

    def of(self, folders: Iterable[Path], secret: str | None) -> str:
        """The folder whose login this is, else whose it lately was, else the default account, which all
        others share."""
        digest = self._digest(secret or "")
        known = [(folder, self._known(folder)) for folder in folders]
        owners = [folder for folder, digests in known if digests[-1:] == [digest]]
        owners += [folder for folder, digests in known if digest in digests]
        return str(owners[0]) if owners else DEFAULT

    def _known(self, folder: Path) -> list[bytes]:
        """The logins that were seen there, the latest one last."""
        known = self._seen.get(folder, [])
        if (token := self._logins.kept(folder).token) is not None:
            latest = self._digest(token)
            known = [*(digest for digest in known if digest != latest), latest][-REMEMBERED:]
            self._seen[folder] = known
        return known

    def _digest(self, secret: str) -> bytes:
        return blake2b(secret.encode(errors="surrogatepass"), key=self._key, digest_size=16).digest()
