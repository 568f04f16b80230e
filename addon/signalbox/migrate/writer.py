"""Writes a migration as the text of rules.yaml and of `.env`."""

import re
import textwrap
from typing import Any

import yaml

from signalbox.migrate.form import Migration

WIDTH = 110
_FIRST = ("listen", "clients", "week", "ledger", "limits", "log", "picker", "failover")
"""The order of the top-level keys that stand before providers and rules."""
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=~-]*")


def rules_text(migration: Migration, schema: str | None = None) -> str:
    """The text of rules.yaml. `schema` is the address of the JSON Schema, for editors."""
    settings = {key: _flow(migration.settings[key]) for key in _FIRST if key in migration.settings}
    providers = {
        name: {key: _folded(value) for key, value in one.items()} for name, one in migration.providers.items()
    }
    rules = [{key: _folded(value) for key, value in _ordered(rule).items()} for rule in migration.rules]
    parts = [settings, {"providers": providers}, {"rules": rules}]
    blocks = (
        yaml.dump(part, Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True)
        for part in parts
        if part
    )
    return "\n".join([_head(migration, schema), *blocks])


def dotenv_text(variables: dict[str, str]) -> str:
    """The text of an `.env` file."""
    lines = [
        "# The secrets that rules.yaml names. A variable of the real environment wins over its line here.",
        "",
    ]
    return "\n".join([*lines, *(f"{name}={quoted(value)}" for name, value in variables.items()), ""])


def one_line(text: str) -> str:
    """The text with everything else than printable characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _head(migration: Migration, schema: str | None) -> str:
    lines = [f"# yaml-language-server: $schema={schema}", "#"] if schema else []
    lines += [f"# Written by `signalbox init` from {migration.origin}."]
    if migration.notes:
        lines += ["#", "# Without a counterpart, or different here:"]
        for note in migration.notes:
            lines += textwrap.wrap(
                one_line(note), WIDTH, initial_indent="# - ", subsequent_indent="#   ", break_on_hyphens=False
            )
    return "\n".join([*lines, ""])


def _ordered(rule: dict[str, Any]) -> dict[str, Any]:
    order = ("name", "match", "to", "failover")
    rule = {key: rule[key] for key in order if key in rule}
    for key in ("match", "to"):
        if isinstance(rule[key], list) and len(rule[key]) == 1 and isinstance(rule[key][0], str):
            rule[key] = rule[key][0]
    return rule


def quoted(value: str) -> str:
    """A value as an `.env` file has it."""
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


class _FlowMapping(dict[str, Any]):
    pass


class _FlowSequence(list[Any]):
    pass


def _folded(value: Any) -> Any:
    """On one line where it fits, else an item a line."""
    if len(str(value)) < WIDTH - 20:
        return _flow(value)
    if isinstance(value, dict):
        return {key: _flow(one) for key, one in value.items()}
    return [_flow(one) for one in value] if isinstance(value, list) else value


def _flow(value: Any) -> Any:
    """Marks mappings and lists to be written on one line."""
    if isinstance(value, dict):
        return _FlowMapping({key: _flow(one) for key, one in value.items()})
    return _FlowSequence(map(_flow, value)) if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, and prefers double quotes, as the examples do."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def choose_scalar_style(self) -> str:
        style: str = super().choose_scalar_style()
        plain = getattr(self.event, "value", "")
        return '"' if style == "'" and not {'"', "\\"} & set(plain) else style


_Dumper.add_representer(
    _FlowMapping,
    lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=True),
)
_Dumper.add_representer(
    _FlowSequence,
    lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True),
)
