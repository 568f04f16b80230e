"""Reads the logins that Claude Code and Codex keep in their config folders (`login_files` has their form).

On macOS, if there is no file of Claude Code's, the Keychain holds the same text.
"""

import asyncio
import os
import subprocess
import sys
import threading
import time
import unicodedata
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Protocol

from signalbox.config import files
from signalbox.config.rules import Provider, Rules
from signalbox.routing.quota import DEFAULT
from signalbox.state.login_files import CLAUDE, CODEX, Login, LoginFormat

LARGEST = 1024 * 1024
"""Bytes of the largest file that is read."""

type LoginStamp = tuple[int, int, int] | None


class Keychain(Protocol):
    def read(self, folder: Path) -> str | None:
        """The item of a config folder as last read; None if there is none or it has not been read yet.

        Returns at once.
        """


class Logins:
    """The logins of config folders, as last read.

    `read` and `read_soon` read the files that have changed.
    """

    def __init__(self, keychain: Keychain | None = None, form: LoginFormat = CLAUDE) -> None:
        self._keychain = keychain
        self._form = form
        self._parsed: dict[Path, tuple[LoginStamp, Login]] = {}
        """The last content of each folder's file."""
        self._logins: dict[Path, Login] = {}

    def read(self, folders: Iterable[Path]) -> None:
        """Reads the files that have changed; waits at most `files.SOON` seconds for each."""
        for folder in folders:
            try:
                login = files.within(folder / self._form.file, partial(self._look, folder), files.SOON)
            except TimeoutError as error:
                self._missed(folder, error)
            else:
                self._logins[folder] = login

    async def read_soon(self, folders: Iterable[Path]) -> None:
        """The same for a coroutine, for all files at once; does not block the event loop."""
        await asyncio.gather(*(self._read_soon(folder) for folder in folders))

    async def _read_soon(self, folder: Path) -> None:
        try:
            login = await files.within_async(
                folder / self._form.file, partial(self._look, folder), files.SOON
            )
        except TimeoutError as error:
            self._missed(folder, error)
        else:
            self._logins[folder] = login

    def _missed(self, folder: Path, error: TimeoutError) -> None:
        """The disk does not answer: the login read before stays in use."""
        if self._logins.get(folder, Login()).token is None:
            self._logins[folder] = Login(None, f"the login in {folder} cannot be read: {error.strerror}")

    def of(self, folder: Path, now: float) -> Login:
        """The login to use at `now`, unix seconds."""
        login = self.latest(folder)
        if login.token is not None and login.expires <= now:
            return Login(None, self._form.expired.format(folder))
        return login

    def latest(self, folder: Path) -> Login:
        """The login as last read, expired or not. Returns at once."""
        return self._logins.get(folder) or Login(None, f"the login in {folder} has not been read yet")

    def tokens(self, folders: Iterable[Path]) -> tuple[str, ...]:
        """Those of the logins of these folders, as last read. Returns at once."""
        return tuple(token for folder in folders if (token := self.latest(folder).token) is not None)

    def _look(self, folder: Path) -> Login:
        file = folder / self._form.file
        stamp = _stamp(file)
        if stamp is None:
            text = self._keychain.read(folder) if self._keychain is not None else None
            return self._form.parse(text, folder) if text else Login(None, self._form.missing.format(folder))
        last = self._parsed.get(folder)
        if last is None or last[0] != stamp:
            last = self._parsed[folder] = (stamp, self._in_file(file))
        return last[1]

    def _in_file(self, file: Path) -> Login:
        folder = file.parent
        try:
            if not file.is_file() or file.stat().st_size > LARGEST:
                return Login(None, f"the login in {folder} cannot be read: it is no file, or too large")
            return self._form.parse(file.read_bytes().removeprefix(BOM_UTF8), folder)
        except OSError as error:
            return Login(None, f"the login in {folder} cannot be read: {error.strerror}")


class ProviderLogins:
    """The logins of all providers with `auth: claude-login` or `codex-login`, and of accounts."""

    def __init__(self, claude: Keychain | None = None) -> None:
        """`claude` is where Claude Code keeps its logins besides its folders."""
        self.claude = Logins(claude)
        self._codex = Logins(form=CODEX)

    def read(self, rules: Rules) -> None:
        """Reads the files that have changed; see `Logins.read`."""
        self.claude.read(rules.login_folders)
        self._codex.read(rules.codex_folders)

    async def read_soon(self, rules: Rules) -> None:
        """The same for a coroutine; does not block the event loop."""
        await asyncio.gather(
            self.claude.read_soon(rules.login_folders), self._codex.read_soon(rules.codex_folders)
        )

    def of(self, provider: Provider, now: float) -> Login:
        """The login of a provider at `now`, unix seconds."""
        logins = self._codex if provider.auth == "codex-login" else self.claude
        return logins.of(provider.login, now)

    def refusal(self, provider: Provider, now: float) -> tuple[str, str] | None:
        """Why a provider with a login of its own is skipped, as in `plan.RefusalCheck`."""
        if not provider.uses_login:
            return None
        login = self.of(provider, now)
        return None if login.token is not None else ("no-login", login.reason)

    def tokens(self, rules: Rules) -> tuple[str, ...]:
        """Those of all logins, as last read. Returns at once."""
        return (*self.claude.tokens(rules.login_folders), *self._codex.tokens(rules.codex_folders))


def _stamp(file: Path) -> LoginStamp:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


SERVICE = "Claude Code-credentials"
EVERY = 5.0
"""Seconds until an item is read again."""
LIMIT = 10.0
"""Seconds for `security`, which may ask the user something."""


class MacKeychain:
    """Reads items in threads and gives what was read last, so that no request waits."""

    def __init__(
        self,
        find: Callable[[str], str | None],
        *,
        home: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`find` gives the password of a service's item, or None. It is called in a thread."""
        self._find = find
        self._home = home or Path.home()
        self._clock = clock
        self._texts: dict[Path, str | None] = {}
        self._read_at: dict[Path, float] = {}
        self._reading: dict[Path, threading.Thread] = {}

    def read(self, folder: Path) -> str | None:
        read_at, thread = self._read_at.get(folder), self._reading.get(folder)
        is_due = read_at is None or self._clock() - read_at >= EVERY
        if is_due and (thread is None or not thread.is_alive()):
            self._read_at[folder] = self._clock()
            self._reading[folder] = threading.Thread(target=self._look, args=(folder,), daemon=True)
            self._reading[folder].start()
        return self._texts.get(folder)

    def settle(self, timeout: float) -> None:
        """Waits for the items that are being read, at most `timeout` seconds for each."""
        for thread in self._reading.values():
            thread.join(timeout)

    def _look(self, folder: Path) -> None:
        found = (self._find(name) for name in services(folder, self._home))
        self._texts[folder] = next((text for text in found if text), None)


def services(folder: Path, home: Path) -> tuple[str, ...]:
    """The possible names of a config folder's item, in the order in which they are tried."""
    text = unicodedata.normalize("NFC", str(folder))
    own = f"{SERVICE}-{sha256(text.encode()).hexdigest()[:8]}"
    return (SERVICE, own) if folder == home / ".claude" else (own,)


def security(service: str) -> str | None:
    """The item's password, read by the program `security` of macOS."""
    command = ["/usr/bin/security", "find-generic-password", "-s", service, "-w"]
    try:
        done = subprocess.run(  # noqa: S603  a fixed program, without a shell
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()


def keychain() -> Keychain | None:
    """The Keychain of this machine; None on any other system than macOS."""
    return MacKeychain(security) if sys.platform == "darwin" else None


def logins_of(rules: Rules) -> ProviderLogins:
    """The logins that the rules name, already read. For commands, which may wait for the Keychain."""
    asked = MacKeychain(security) if sys.platform == "darwin" else None
    if asked is not None:
        for folder in rules.login_folders:
            asked.read(folder)
        asked.settle(LIMIT)
    logins = ProviderLogins(asked)
    logins.read(rules)
    return logins


REMEMBERED = 8
"""Logins of one folder that are remembered: a session may still send one that was renewed shortly before."""


class Accounts:
    """Finds the account of a credential. Stores digests under a random key, and no credential."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins
        self._key = os.urandom(32)
        self._seen: dict[Path, list[bytes]] = {}

    def of(self, folders: Iterable[Path], secret: str | None) -> str:
        """The folder whose current login is `secret`, else one whose earlier login it was, else the default
        account."""
        digest = self._digest(secret or "")
        seen = [(folder, self._digests(folder)) for folder in folders]
        owners = [folder for folder, digests in seen if digests[-1:] == [digest]]
        owners += [folder for folder, digests in seen if digest in digests]
        return str(owners[0]) if owners else DEFAULT

    def _digests(self, folder: Path) -> list[bytes]:
        """Digests of the logins that were seen in the folder, the latest one last."""
        digests = self._seen.get(folder, [])
        if (token := self._logins.latest(folder).token) is not None:
            latest = self._digest(token)
            digests = [*(digest for digest in digests if digest != latest), latest][-REMEMBERED:]
            self._seen[folder] = digests
        return digests

    def _digest(self, secret: str) -> bytes:
        return blake2b(secret.encode(errors="surrogatepass"), key=self._key, digest_size=16).digest()
