"""Fills the model picker of Claude Code: with the file that it reads until it has asked the gateway itself,
or with settings of one process.

`<CLAUDE_CONFIG_DIR>/cache/gateway-models.json`, mode 0600: `{"baseUrl", "fetchedAt" in milliseconds,
"models": [{"id", "display_name"}]}`. Claude Code reads it if `baseUrl` is the `ANTHROPIC_BASE_URL` in use
(claude-code-observed.md, 1; claude-code-gateway.md, 5).

`modelPicker` of its settings takes any id, needs no gateway and says what a model is like (2.1.243 and newer;
claude-code-tried.md, 1).
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from signalbox.anthropic.models import LONG_CONTEXT_SUFFIX, ModelEntry, is_claudes
from signalbox.background.model_list import Gathered, ModelLists
from signalbox.config import files
from signalbox.config.rules import Model, Provider, Rules
from signalbox.record.prices import PriceTable, shipped
from signalbox.state.atomic_file import replace
from signalbox.state.logins import logins_of

FILE = Path("cache/gateway-models.json")
BASE_URL = "ANTHROPIC_BASE_URL"
USUAL = "claude-sonnet-4-6"
"""What a model of another maker is taken for: a window of 200,000 tokens, adaptive thinking, effort."""


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


def settings(
    rules: Rules, offered: Mapping[str, Sequence[Model]], prices: PriceTable, now: datetime
) -> dict[str, Any]:
    """Settings of Claude Code with a row for each model that the providers offer; empty if they offer none.

    A model of several providers has one row: a row with the id of another is not shown.
    """
    rows: dict[str, dict[str, str]] = {}
    for name, models in offered.items():
        provider = rules.providers[name]
        for model in models:
            row = _row(provider, model, prices.per_million(provider, model.id, now))
            rows.setdefault(row["model"], row)
    return {"modelPicker": {"options": list(rows.values())}} if rows else {}


def current_settings(rules: Rules, state: Path) -> dict[str, Any]:
    """`settings` as of now. Asks the providers that have a list; `state` has the last one of Anthropic."""
    logins = logins_of(rules)
    lists = ModelLists(state, token_of=lambda provider: logins.of(provider, time.time()).token)
    return settings(rules, asyncio.run(lists.offered(rules)), shipped(), datetime.now(UTC))


def _row(provider: Provider, model: Model, price: tuple[float, float] | None) -> dict[str, str]:
    id = model.id
    is_long = provider.has_long_context(id) or id.lower().endswith(LONG_CONTEXT_SUFFIX)
    if is_long and not id.lower().endswith(LONG_CONTEXT_SUFFIX):
        id += LONG_CONTEXT_SUFFIX
    row = {"model": id, "label": model.label or f"{model.id} · {provider.name}"}
    if described := model.description or _priced(price):
        row["description"] = described
    if behaves_as := model.behaves_as or ("" if is_long or is_claudes(id) else USUAL):
        row["behavesAs"] = behaves_as
    return row


def _priced(price: tuple[float, float] | None) -> str:
    if price is None:
        return ""
    if not any(price):
        return "no price per token"
    read, written = (f"${dollars:.3f}".removesuffix("0") for dollars in price)
    return f"{read} in, {written} out, per million tokens"


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
        written = files.without_bom(files.read_file(folder / "settings.json"))
        settings = msgspec.json.decode(written, type=_Settings)
    except (OSError, ValueError, RecursionError):
        settings = _Settings()
    return settings.env.base_url or rules.environment.get(BASE_URL) or listener


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
