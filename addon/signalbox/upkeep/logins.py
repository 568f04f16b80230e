"""The logins that Claude Code keeps in its config folders. They are read, never refreshed or written.

`.credentials.json` holds `{"claudeAiOauth": {"accessToken", "expiresAt" in milliseconds, ...}}`
(claude-code-gateway.md, 6). Where it is absent on macOS, the Keychain holds the same text.
"""

from pathlib import Path
from typing import Protocol

import msgspec

from signalbox.config import files, values
from signalbox.config.rules import Provider

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
    token = values.secret(login.access).value if login is not None else None
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
