"""A finding of the doctor, and what all checks look at."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from signalbox.claude.settings import ClaudeSettings
from signalbox.config.fields import Listen
from signalbox.config.rules import Rules
from signalbox.lifecycle.running import Health
from signalbox.ports import authority

type Check = Literal[
    "port", "ca", "rules", "keys", "providers", "claude", "settings", "gates", "clock", "disk", "permissions"
]
type State = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    check: Check
    state: State
    message: str
    remedy: str = ""
    """What to do about it; empty where there is nothing to do."""


class Situation(NamedTuple):
    """What all checks look at. Nothing in it was asked of a provider."""

    rules: Rules
    """Empty where the file has errors."""
    rules_file: Path
    state: Path
    environ: Mapping[str, str]
    home: Path
    project: Path
    """The current folder, for which Claude Code has settings too."""
    settings: ClaudeSettings
    listeners: tuple[Listen, ...]
    """Where a router of these rules listens."""
    running: Mapping[Listen, Health]
    """The routers that answer there."""
    platform: str

    @property
    def given(self) -> dict[str, str]:
        """The variables that Claude Code has here, by its settings or else by the environment."""
        return {**self.environ, **self.settings.env}

    def where(self, variable: str) -> str:
        """`in /home/ann/.claude/settings.json` or `in the environment`: where a variable is set."""
        source = self.settings.source_of(variable)
        return f"in {source}" if source is not None else "in the environment"

    def taken_out(self, variable: str) -> str:
        """What takes the variable out."""
        source = self.settings.source_of(variable)
        if source is None:
            return f"unset {variable}"
        if any(file.is_managed and file.path == source for file in self.settings.files):
            return f"have your administrator take {variable} out of {source}"
        return f'take {variable} out of "env" in {source}'


class Address(NamedTuple):
    """Where a URL leads. For people: user names, passwords, paths and queries may hold secrets."""

    host: str
    port: int

    def __str__(self) -> str:
        return authority(self.host, self.port)


def address_of(url: str) -> Address | None:
    """None where it is no URL. Without a scheme it is taken for http, as proxies are written."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    return Address(parts.hostname, port) if parts.hostname else None


def is_here(address: Address, listeners: Iterable[Listen]) -> bool:
    """Whether this is one of the listeners."""
    return any(address.port == one.port and is_loopback(address.host) for one in listeners)


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
