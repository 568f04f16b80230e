"""Writes the file with which Claude Code fills its model picker until it has asked the gateway itself.

`<CLAUDE_CONFIG_DIR>/cache/gateway-models.json`, mode 0600: `{"baseUrl", "fetchedAt" in milliseconds,
"models": [{"id", "display_name"}]}`. Claude Code reads it if `baseUrl` is the `ANTHROPIC_BASE_URL` in use
(claude-code-observed.md, 1; claude-code-gateway.md, 5).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from signalbox.anthropic.models import ModelEntry
from signalbox.background.model_list import Gathered
from signalbox.config import files
from signalbox.config.rules import Rules
from signalbox.state.atomic_file import replace

FILE = Path("cache/gateway-models.json")
BASE_URL = "ANTHROPIC_BASE_URL"


_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (hosts of listeners, not bound here)


class _Environment(msgspec.Struct):
    base_url: str = msgspec.field(default="", name=BASE_URL)


class _Settings(msgspec.Struct):
    env: _Environment = msgspec.field(default_factory=_Environment)


class _Picker(msgspec.Struct):
    models: list[ModelEntry] = []


class PickerResult(NamedTuple):
    """The result for one account's file. `fault` says why it was not written, or is empty."""

    file: Path
    base_url: str = ""
    models: int = 0
    fault: str = ""

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.file}: {self.fault or f'{self.models} models for {self.base_url}'}"


def write(rules: Rules, gathered: Gathered, listener: str | None, *, now: float) -> list[PickerResult]:
    """Writes the file of every account. `now` is in Unix seconds, `listener` is the router's own URL."""
    return [_write(folder, rules, gathered, listener, now) for folder in folders(rules)]


def folders(rules: Rules) -> list[Path]:
    """Config folders of Claude Code: its own, then those of the accounts that the rules name."""
    accounts = (folder for provider in rules.providers.values() for folder in provider.quota.accounts)
    return list(dict.fromkeys((own_folder(rules), *accounts)))


def own_folder(rules: Rules) -> Path:
    """The folder that Claude Code uses by default here."""
    return Path(rules.environment.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude")


def account_base_url(folder: Path, rules: Rules, listener: str | None) -> str | None:
    """The `ANTHROPIC_BASE_URL` of this account; Claude Code's settings win over the environment
    (claude-code-gateway.md, 6)."""
    try:
        settings = msgspec.json.decode(files.read_file(folder / "settings.json"), type=_Settings)
    except (OSError, ValueError, RecursionError):
        settings = _Settings()
    return settings.env.base_url or rules.environment.get(BASE_URL) or listener


def url_of(host: str, port: int) -> str:
    """The URL of a listener for Claude Code on this machine."""
    host = _EVERYWHERE.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _write(folder: Path, rules: Rules, gathered: Gathered, listener: str | None, now: float) -> PickerResult:
    file = folder / FILE
    url = account_base_url(folder, rules, listener)
    if url is None:
        return PickerResult(
            file, fault=f"not written, {BASE_URL} is not set and no listener stands for Anthropic"
        )
    if not gathered.entries:
        return PickerResult(file, url, fault="not written, there are no models")
    if gathered.missing and _is_good(file):
        return PickerResult(
            file, url, fault=f"stays as it was, no list came from {', '.join(gathered.missing)}"
        )
    try:
        replace(file, _encoded(url, gathered.entries, now))
    except OSError as fault:
        return PickerResult(file, url, fault=f"cannot be written: {fault.strerror or fault}")
    return PickerResult(file, url, len(gathered.entries))


def _encoded(url: str, entries: Sequence[ModelEntry], now: float) -> bytes:
    models = [{"id": entry["id"], "display_name": entry["display_name"]} for entry in entries]
    return msgspec.json.encode({"baseUrl": url, "fetchedAt": round(now * 1000), "models": models})


def _is_good(file: Path) -> bool:
    try:
        return bool(msgspec.json.decode(files.read_file(file), type=_Picker).models)
    except (OSError, ValueError, RecursionError):
        return False
