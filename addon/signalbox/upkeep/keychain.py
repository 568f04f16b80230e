"""Claude Code's logins on macOS, where they are in the Keychain instead of a file.

The item is called `Claude Code-credentials`, for a config folder of the user's choice with the beginning of
the folder's SHA-256 (https://github.com/robinebers/openusage/pull/424).
"""

import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from signalbox.config.rules import Rules
from signalbox.upkeep.logins import Keychain, Logins

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
