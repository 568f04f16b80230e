"""cc-switch: its database, `config.json` of older versions, and the `settings.json` that it writes.

Facts: its user manual (5.1, 4.3) and `src-tauri/src/{provider.rs,database/schema.rs}` at 3.20
(https://github.com/farion1231/cc-switch).
"""

import json
import sqlite3
from contextlib import suppress
from typing import Any

from signalbox.migrate.environment import listen
from signalbox.migrate.form import (
    Migration,
    SourceError,
    base_url,
    chat_provider,
    duration,
    messages_provider,
    named_by,
    variable_name,
)
from signalbox.migrate.tree import Tree

_TIERS = {
    "*haiku*": ("ANTHROPIC_DEFAULT_HAIKU_MODEL", "ANTHROPIC_SMALL_FAST_MODEL"),
    "*sonnet*": ("ANTHROPIC_DEFAULT_SONNET_MODEL",),
    "*opus*": ("ANTHROPIC_DEFAULT_OPUS_MODEL",),
    "*fable*": ("ANTHROPIC_DEFAULT_FABLE_MODEL",),
    "*": ("ANTHROPIC_MODEL",),
}
_LOGINS = {"codex_oauth", "xai_oauth", "github_copilot"}
_ORIGIN = "a configuration of cc-switch"


def recognises(tree: dict[str, Any]) -> bool:
    return (
        "claude" in tree or (isinstance(tree.get("providers"), dict) and "current" in tree) or "env" in tree
    )


def migrate(tree: dict[str, Any]) -> Migration:
    """Of config.json (versions 1 and 2), or of Claude Code's settings.json. Raises SourceError."""
    whole = Tree(tree)
    if "env" in tree and "claude" not in tree:
        entry = Tree({"settingsConfig": {"env": tree["env"]}})
        return _migrated([entry], "", Tree({}), "the settings.json of Claude Code")
    claude = whole.tree("claude") if "claude" in tree else whole
    providers = claude.tree("providers")
    entries = []
    for id in providers.names:
        entry = providers.tree(id)
        entries.append(Tree({"id": id} | {name: entry.take(name) for name in entry.names}, entry.place))
    entries.sort(key=lambda entry: entry.number("sortIndex") or 0)
    return _migrated(entries, claude.text("current"), Tree({}))


def migrate_database(database: sqlite3.Connection) -> Migration:
    """Of cc-switch.db. Raises SourceError and sqlite3.Error."""
    rows = database.execute(
        "SELECT id, name, settings_config, meta, is_current, in_failover_queue FROM providers"
        " WHERE app_type = 'claude' ORDER BY COALESCE(sort_index, 999999), created_at, id"
    ).fetchall()
    entries, current = [], ""
    for id, name, config, meta, is_current, queued in rows:
        place = f"provider {name}"
        try:
            entry = {"settingsConfig": json.loads(config), "meta": json.loads(meta or "{}")}
        except ValueError:
            raise SourceError("its settings are not JSON", place) from None
        entries.append(Tree({"id": id, "name": name, "inFailoverQueue": bool(queued), **entry}, place))
        current = id if is_current else current
    proxy: dict[str, Any] = {}
    with suppress(sqlite3.OperationalError):  # older databases have no such table
        cursor = database.execute("SELECT * FROM proxy_config WHERE app_type = 'claude'")
        if row := cursor.fetchone():
            proxy = dict(zip([column[0] for column in cursor.description], row, strict=True))
    return _migrated(entries, current, Tree(proxy, "proxy_config"))


def _migrated(entries: list[Tree], current: str, proxy: Tree, origin: str = _ORIGIN) -> Migration:
    migration = Migration(origin)
    names: dict[str, str] = {}
    queue = []
    for entry in entries:
        id = entry.text("id")
        if name := _add_provider(migration, entry):
            names[id] = name
            if entry.flag("inFailoverQueue"):
                queue.append(name)
    if not names:
        raise SourceError("it has no provider for Claude Code")
    selected = names.get(current) or next(iter(names.values()))
    if current not in names and len(names) > 1:
        migration.note("no provider is selected: the first one answers")
    if len(names) > 1:
        migration.note("to switch, change the order in the rule's to: it applies to the next request")
    failover = queue if proxy.flag("auto_failover_enabled") else []
    if queue and not failover:
        migration.note("automatic failover is off, and its queue is left out: " + ", ".join(queue))
    migration.rules.append(
        {"name": "selected", "match": "*", "to": list(dict.fromkeys([selected, *failover]))}
    )
    _proxy(migration, proxy)
    return migration


def _add_provider(migration: Migration, entry: Tree) -> str | None:
    config, meta = entry.tree("settingsConfig"), entry.tree("meta")
    env = config.tree("env")
    url = env.text("ANTHROPIC_BASE_URL") or config.text("base_url", "baseURL")
    label = entry.text("name") or entry.text("id") or named_by(url, "provider")
    if (kind := meta.text("providerType")) in _LOGINS:
        migration.note(f"{label}: left out, its login ({kind}) is cc-switch's own")
        return None
    if not url or named_by(url, "") == "anthropic":
        key = env.text("ANTHROPIC_API_KEY")
        if not key:
            return migration.anthropic()
        own = migration.secret(f"{variable_name(label)}_API_KEY", key)
        return migration.provider(label, {"url": "https://api.anthropic.com", "key": own})
    token, key = (
        env.text("ANTHROPIC_AUTH_TOKEN"),
        env.text("ANTHROPIC_API_KEY") or config.text("apiKey", "api_key"),
    )
    reference = migration.secret(f"{variable_name(label)}_API_KEY", token or key) if token or key else None
    format = meta.text("apiFormat") or "anthropic"
    place = env.at("ANTHROPIC_BASE_URL")
    if format == "openai_chat":
        settings = chat_provider(base_url(url, "openai", place), reference)
    elif format == "openai_responses":
        settings = {**chat_provider(base_url(url, "responses", place), reference), "api": "responses"}
    elif format == "anthropic":
        settings = messages_provider(base_url(url, "anthropic", place), reference, bearer=bool(token))
    else:
        migration.note(f"{label}: left out, its format {format} has no counterpart")
        return None
    rename = {pattern: model for pattern, names in _TIERS.items() if (model := _model(env, names))}
    if rename:
        settings["rename"] = rename
    if agent := meta.text("customUserAgent"):
        settings["headers"] = {"User-Agent": agent}
    if most := meta.number("maxOutputTokens"):
        settings["max_tokens"] = int(most)
    for limit in ("limitDailyUsd", "limitMonthlyUsd", "localProxyRequestOverrides"):
        if meta.take(limit):
            migration.note(f"{label}: {limit} has no counterpart")
    if milliseconds := env.number("API_TIMEOUT_MS"):
        settings["timeout"] = {"first_byte": duration(min(milliseconds / 1000, 86400))}
    for name in env.left:
        migration.note(f"{label}: {name} stays a variable of Claude Code's settings")
    return migration.provider(label, settings)


def _model(env: Tree, names: tuple[str, ...]) -> str:
    """`[1m]` says how long the context is, and is not part of the model's name."""
    return env.text(*names).removesuffix("[1m]").removesuffix("[1M]")


def _proxy(migration: Migration, proxy: Tree) -> None:
    """The address and the limits of cc-switch's own proxy."""
    if proxy.flag("proxy_enabled") and (port := proxy.number("listen_port")):
        listen(migration, proxy.text("listen_address"), int(port))
    circuit = {
        "open_after": int(proxy.number("circuit_failure_threshold") or 0),
        "cooldown": proxy.number("circuit_timeout_seconds"),
    }
    timeout = {
        "first_byte": proxy.number("streaming_first_byte_timeout"),
        "idle": proxy.number("streaming_idle_timeout"),
    }
    if not proxy.flag("auto_failover_enabled"):
        return
    for provider in migration.providers.values():
        provider["circuit"] = {
            key: duration(value) if key == "cooldown" else value for key, value in circuit.items() if value
        }
        provider.setdefault("timeout", {key: duration(value) for key, value in timeout.items() if value})
        for key in ("circuit", "timeout"):
            if not provider[key]:
                del provider[key]
    if retries := proxy.number("max_retries"):
        migration.note(f"max_retries ({retries:g}): each provider of the list is asked once")
