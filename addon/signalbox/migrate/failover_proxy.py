"""Failover proxies: a chain of providers, in an `.env` or as a list in JSON or YAML.

Some have their records in PostgreSQL, and a quota of tokens a week.
"""

import re
from typing import Any

from signalbox.migrate.environment import (
    Environment,
    default_models,
    general,
    leftovers,
    listen,
    tier_models,
    times,
    tokens,
)
from signalbox.migrate.form import (
    ANTHROPIC,
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

_DATABASE = "POSTGRES_.*|PG(HOST|USER|PASSWORD|DATABASE)|DATABASE_URL|ADMINER_.*"
_NUMBERED = r"(?:PROVIDER|UPSTREAM|BACKEND)_?(\d+)_[A-Z_]+"
_WEEKLY = re.compile(
    r"(?:(?P<who>.+?)_)?(?:WEEKLY_(?:TOKENS?_)?(?:QUOTA|LIMIT|BUDGET)(?:_TOKENS)?|WEEKLY_TOKENS|TOKENS_PER_WEEK)"
)
_SHARE = re.compile(
    r"(?:(?P<who>.+?)_)?(?:WEEKLY_QUOTA|WEEKLY|QUOTA)_(?:PERCENT|PCT|THRESHOLD(?:_PCT|_PERCENT)?)"
)
_ORDER = ("PROVIDER_ORDER", "FAILOVER_ORDER", "FAILOVER_CHAIN", "PROVIDERS", "PROVIDER_PRIORITY")
_KEY = r"(.+?)_(?:API_KEY|AUTH_TOKEN|TOKEN|KEY)"
_URL = r"(.+?)_(?:BASE_URL|API_URL|URL|API_BASE)"
_KNOWN = {
    "ANTHROPIC": ANTHROPIC,
    "ZAI": "https://api.z.ai/api/anthropic",
    "GLM": "https://api.z.ai/api/anthropic",
    "KIMI": "https://api.moonshot.ai/anthropic",
    "MOONSHOT": "https://api.moonshot.ai/anthropic",
    "MINIMAX": "https://api.minimax.io/anthropic",
    "DEEPSEEK": "https://api.deepseek.com/anthropic",
    "OPENROUTER": "https://openrouter.ai/api",
    "OPENAI": "https://api.openai.com/v1",
}
"""Addresses of providers that a file names by their key alone."""
_LISTS = ("providers", "backends", "upstreams")
_ADDRESSES = {"base_url", "url", "endpoint"}
_OURS = {"POSTGRES", "PG", "DATABASE", "PROXY", "CLIENT", "ACCESS", "ADMINER", "WEBHOOK"}
"""What a name that ends like a key or URL may begin with without being a provider."""


def recognises(env: Environment) -> bool:
    names = "|".join((_DATABASE, _NUMBERED, *_ORDER))
    return bool(env.matching(names) or any(_WEEKLY.fullmatch(name) for name in env.names))


def migrate(env: Environment) -> Migration:
    """Raises SourceError."""
    migration = Migration("the .env of a failover proxy")
    default_models(env, migration)
    prefixes = _prefixes(env)
    chain = {prefix: name for prefix in prefixes if (name := _add_provider(env, migration, prefix))}
    if not chain:
        raise SourceError("it names no provider: expected NAME_API_KEY or NAME_BASE_URL", 1)
    if not env.named(*_ORDER):
        migration.note("the chain has the order of the file; change it in the rule's to")
    env.take(*_ORDER)
    _weekly_quota(env, migration, chain)
    if secret := env.take("PROXY_API_KEY", "ACCESS_TOKEN", "CLIENT_SECRET", "CLIENT_API_KEY", "AUTH_TOKEN"):
        migration.client(secret)
    migration.own_models()
    migration.rules.append({"name": "chain", "match": "*", "to": list(dict.fromkeys(chain.values()))})
    times(env, migration, list(chain.values()))
    general(env, migration)
    leftovers(env, migration)
    return migration


def recognises_tree(tree: dict[str, Any]) -> bool:
    """By the spelling of addresses and keys: claude-code-router has a list of providers too."""
    listed: list[Any] = next((tree[name] for name in _LISTS if isinstance(tree.get(name), list)), [])
    return any(isinstance(one, dict) and not _ADDRESSES.isdisjoint(one) for one in listed)


def migrate_tree(tree: dict[str, Any]) -> Migration:
    """Raises SourceError."""
    migration = Migration("the configuration of a failover proxy")
    whole = Tree(tree)
    entries = whole.trees(*_LISTS)
    order = {entry.place: entry.number("priority", "order") or 0 for entry in entries}
    entries.sort(key=lambda entry: order[entry.place])
    chain = [name for entry in entries if (name := _add_listed(migration, entry))]
    if not chain:
        raise SourceError("no provider of the list can be asked", "$")
    if secret := whole.text("access_token", "auth_token", "api_key", "password"):
        migration.client(secret)
    breaker = [whole, whole.tree("circuit_breaker"), whole.tree("failover").tree("circuit_breaker")]
    circuit: dict[str, Any] = {}
    for one in breaker:
        if failures := one.number("failure_threshold", "max_failures"):
            circuit["open_after"] = int(failures)
        if seconds := one.number("reset_timeout", "open_timeout_seconds", "recovery_timeout", "cooldown"):
            circuit["cooldown"] = duration(seconds)
    timeout = whole.number("timeout", "request_timeout")
    for name in chain:
        migration.providers[name] |= {"circuit": circuit} if circuit else {}
        migration.providers[name] |= {"timeout": {"first_byte": duration(timeout)}} if timeout else {}
    if retries := whole.number("max_retries", "retries"):
        migration.settings["failover"] = {"retries": int(min(retries, 10))}
    if port := whole.number("port"):
        listen(migration, whole.text("host", "bind"), int(port))
    migration.rules.append({"name": "chain", "match": "*", "to": list(dict.fromkeys(chain))})
    for name in whole.left:
        migration.note(f"{name} has no counterpart")
    return migration


def _add_listed(migration: Migration, entry: Tree) -> str | None:
    label = entry.text("name", "id") or named_by(entry.text("base_url", "url"), "provider")
    if entry.flag("enabled") is False or entry.flag("disabled"):
        migration.note(f"{label}: is switched off and left out")
        return None
    url, place = entry.text("base_url", "url", "endpoint"), entry.at("base_url")
    if not url:
        migration.note(f"{label}: left out, it has no address")
        return None
    keys = entry.texts("tokens", "api_keys", "keys") or [entry.text("token", "auth_token", "api_key", "key")]
    references = [migration.secret(f"{variable_name(label)}_API_KEY", key) for key in keys if key]
    first = references[0] if references else None
    kind = entry.text("platform", "type", "format", "protocol").lower()
    if kind.startswith("openai") or url.rstrip("/").endswith("/chat/completions"):
        settings = chat_provider(base_url(url, "openai", place), first)
    else:
        bearer = "token" in entry or "tokens" in entry or "auth_token" in entry
        settings = messages_provider(base_url(url, "anthropic", place), first, bearer=bearer)
    if len(references) > 1:
        settings["keys"] = references
        del settings["key"]
    if model := entry.text("model"):
        settings["rename"] = {"*": model}
    for name in entry.left:
        migration.note(f"{label}: {name} has no counterpart")
    return migration.provider(label, settings)


def _prefixes(env: Environment) -> list[str]:
    """What the names of each provider's settings begin with, in the order of the chain."""
    found: list[str] = []
    for name in env.names:
        numbered = re.fullmatch(_NUMBERED, name)
        named = re.fullmatch(_KEY, name) or re.fullmatch(_URL, name)
        if numbered:
            found.append(name[: numbered.end(1)])
        elif named and named[1] not in _OURS:
            found.append(named[1])
    found = list(dict.fromkeys(found))
    wanted = [one.upper().replace("-", "_") for one in env.items(*_ORDER)]
    if not wanted and (first := env.take("PRIMARY_PROVIDER", "DEFAULT_PROVIDER")):
        wanted = [
            first.upper(),
            *(one.upper() for one in env.items("FALLBACK_PROVIDER", "FALLBACK_PROVIDERS")),
        ]
    numbers = {one: int(number[0]) for one in found if (number := re.findall(r"\d+$", one))}
    found.sort(key=lambda one: numbers.get(one, 0))
    return [one for one in wanted if one in found or one in _KNOWN] or found


def _add_provider(env: Environment, migration: Migration, prefix: str) -> str | None:
    urls = [f"{prefix}_{end}" for end in ("BASE_URL", "API_URL", "URL", "API_BASE")]
    keys = [f"{prefix}_{end}" for end in ("API_KEY", "AUTH_TOKEN", "TOKEN", "KEY")]
    url_name, key_name = env.named(*urls), env.named(*keys)
    url, key = env.take(*urls) or _KNOWN.get(prefix, ""), env.take(*keys)
    if env.take(f"{prefix}_ENABLED").lower() in ("false", "0", "no", "off"):
        env.take(*env.matching(f"{prefix}_.*"))
        migration.note(f"{prefix}_ENABLED: the provider is left out")
        return None
    if not url:
        migration.note(f"{prefix}: left out, it has no address ({prefix}_BASE_URL)")
        return None
    kind = env.take(f"{prefix}_TYPE", f"{prefix}_PLATFORM", f"{prefix}_API", f"{prefix}_FORMAT").lower()
    is_chat = kind.startswith("openai") or prefix == "OPENAI" or url.rstrip("/").endswith("/chat/completions")
    url = base_url(url, "openai" if is_chat else "anthropic", env.line(url_name) if url_name else 1)
    reference = migration.secret(key_name, key) if key else None
    settings: dict[str, Any]
    if is_chat:
        settings = chat_provider(url, reference)
    elif named_by(url, "") == "anthropic" and not key.startswith("sk-ant-"):
        migration.variables.pop(key_name, None)
        settings = {"url": url, "auth": "client"}
    else:
        settings = messages_provider(url, reference, bearer="TOKEN" in key_name)
    if rename := _rename(env, prefix):
        settings["rename"] = rename
    label = env.take(f"{prefix}_NAME") or named_by(url, prefix)
    return migration.provider(label, settings)


def _rename(env: Environment, prefix: str) -> dict[str, str]:
    models = tier_models(env, prefix + "_{}_MODEL", prefix + "_MODEL_{}")
    found = {f"*{tier}*": model for tier, model in models.items()}
    if every := env.take(f"{prefix}_MODEL", f"{prefix}_TARGET_MODEL", f"{prefix}_DEFAULT_MODEL"):
        found["*"] = every
    return found


def _weekly_quota(env: Environment, migration: Migration, chain: dict[str, str]) -> None:
    """`ZAI_WEEKLY_QUOTA` is Z.ai's; without a provider in the name it is the first one's."""
    first = next(iter(chain.values()))
    for name in env.names:
        found = _WEEKLY.fullmatch(name)
        if found and (written := env.take(name)):
            provider = chain.get(found["who"] or "", first)
            budget: dict[str, Any] = {"tokens": tokens(written, name, env.line(name)), "per": "week"}
            if share := _share(env, found["who"]):
                budget["at"] = share
            migration.providers[provider]["budget"] = budget


def _share(env: Environment, who: str | None) -> int | None:
    """Percent, also where it is written as a part of 1."""
    for name in env.matching(_SHARE.pattern):
        found = _SHARE.fullmatch(name)
        if found and found["who"] == who and (value := env.number(name)) is not None:
            return round(value * 100) if 0 < value <= 1 else round(value)
    return None
