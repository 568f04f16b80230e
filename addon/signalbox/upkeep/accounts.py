"""Whose a credential is: the accounts of a provider are told apart by the logins in their config folders."""

import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from signalbox.routing.quota import DEFAULT
from signalbox.upkeep.logins import Logins

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
