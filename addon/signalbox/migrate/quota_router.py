"""Quota routers: Anthropic's plan while it has room, LiteLLM while it is nearly used up, Composer by name."""

import json
import re
from typing import Any

from signalbox.config.fields import parse_url
from signalbox.migrate.environment import TIERS, Environment, general, leftovers, times
from signalbox.migrate.form import ANTHROPIC, Migration, SourceError, base_url, duration, glob, size

_SETTINGS = (
    "LITELLM_(URL|API_KEY|FALLBACK_.*)|REDIRECT_AT_.*|HYSTERESIS_PCT|PROBE_(INTERVAL_MS|MODEL)|CURSOR_API_KEY"
    "|COMPOSER_.*|ANTHROPIC_API_KEY_FOR_PROBES|MODELS_1M|STOCK_1M_MODELS|SEED_STOCK_MODELS|CLAUDE_USAGE_FILE"
    "|CLAUDE_CONFIG_DIRS|MAX_BUFFER_BYTES"
)
_FALLBACKS = {"haiku": "claude-haiku-4-5", "sonnet": "claude-sonnet-4-6", "opus": "claude-opus-4-7"}
"""What is asked of LiteLLM where LITELLM_FALLBACK_* is not in the file."""
_COMPOSER = "https://cursor-api.standardagents.ai"
_COMPOSER_PATH = "/opencodev2/v1"
"""Of COMPOSER_API_URL only the host counts; this path is fixed."""
_DIRECT = "CURSOR_(DIRECT|BACKEND_BASE_URL|LOCAL_AGENT_ENDPOINT|SDK_CLIENT_VERSION)|ENCRYPTION_KEY"


def recognises(env: Environment) -> bool:
    return bool(env.matching(_SETTINGS))


def migrate(env: Environment) -> Migration:
    """Raises SourceError."""
    migration = Migration("the .env of a quota router")
    anthropic = migration.provider("anthropic", _anthropic(env, migration))
    long = env.items("MODELS_1M")
    composer = _add_composer(env, migration, [one for one in long if one.lower().startswith("composer")])
    litellm = _add_litellm(env, migration, [one for one in long if not one.lower().startswith("composer")])
    _add_rules(env, migration, anthropic, litellm, composer)
    _models(env, migration, anthropic, has_more=bool(long or litellm or composer))
    if limit := env.whole("MAX_BUFFER_BYTES"):
        migration.settings["limits"] = {"body": size(limit)}
    for name in ("ANTHROPIC_BASE_URL", "CLAUDE_CONFIG_DIR"):  # the picker file names the one, is in the other
        if value := env.take(name):
            migration.variables[name] = value
    for name in env.matching(_DIRECT):
        if env.take(name):
            migration.note(f"{name} has no counterpart: Composer is asked over chat completions")
    times(env, migration, [name for name in (litellm, composer) if name])
    general(env, migration)
    leftovers(env, migration)
    return migration


def _anthropic(env: Environment, migration: Migration) -> dict[str, Any]:
    quota: dict[str, Any] = {
        "redirect_at": {
            window: _percent(env, f"REDIRECT_AT_{name}_PCT", default)
            for window, name, default in (("5h", "5H", 90), ("7d", "7D", 90), ("overage", "OVERAGE", 80))
        },
        "hysteresis": _percent(env, "HYSTERESIS_PCT", 5),
    }
    if (interval := env.number("PROBE_INTERVAL_MS")) is not None:
        quota["probe"] = duration(interval / 1000)
    if model := env.take("PROBE_MODEL"):
        quota["probe_model"] = model
    if key := env.take("ANTHROPIC_API_KEY_FOR_PROBES"):
        quota["probe_key"] = migration.secret("ANTHROPIC_API_KEY_FOR_PROBES", key)
    if path := env.take("CLAUDE_USAGE_FILE"):
        quota["status_file"] = path
    if folders := _folders(env.take("CLAUDE_CONFIG_DIRS")):
        quota["accounts"] = folders
    if env.take("ANTHROPIC_HOST_OVERRIDE"):
        migration.note("ANTHROPIC_HOST_OVERRIDE has no counterpart: a seam for tests")
    if not env.take("LITELLM_URL"):
        del quota["redirect_at"], quota["hysteresis"]
        if env.matching("REDIRECT_AT_.*|HYSTERESIS_PCT|LITELLM_.*"):
            migration.note(
                "LITELLM_URL is not set: nothing is redirected, the windows of the plan are watched"
            )
    env.take(*env.matching("REDIRECT_AT_.*"), "HYSTERESIS_PCT")
    return {"url": ANTHROPIC, "auth": "client", "quota": quota}


def _labelled(id: Any, label: Any) -> Any:
    return {"id": str(id), "label": str(label)} if label else str(id)


def _percent(env: Environment, name: str, default: int) -> int:
    value = env.whole(name)
    return default if value is None else value


def _folders(written: str) -> list[str]:
    """Separated by commas or semicolons, or as PATH is on Unix."""
    separator = "[,;]" if re.search("[,;]", written) else r"(?<!^[A-Za-z]):"
    return [folder.strip() for folder in re.split(separator, written) if folder.strip()]


def _add_litellm(env: Environment, migration: Migration, long: list[str]) -> str | None:
    url, key = env.take("LITELLM_URL"), env.take("LITELLM_API_KEY")
    if not url:
        env.take(*env.matching("LITELLM_.*"))
        return None
    settings: dict[str, Any] = {"url": base_url(url, "anthropic", env.line("LITELLM_URL"))}
    if key:
        settings |= {"key": migration.secret("LITELLM_API_KEY", key), "key_header": "authorization"}
    settings["models"] = "list"
    if long:
        settings["long_context"] = long
    return migration.provider("litellm", settings)


def _add_composer(env: Environment, migration: Migration, long: list[str]) -> str | None:
    key, models, url = env.take("CURSOR_API_KEY"), env.items("COMPOSER_MODELS"), env.take("COMPOSER_API_URL")
    if not key:
        if models or url:
            migration.note("CURSOR_API_KEY is not set: Composer is left out")
        return None
    try:
        parts = parse_url(url or _COMPOSER)
    except ValueError as fault:
        message = f"COMPOSER_API_URL is not a URL that can be asked: {fault}"
        raise SourceError(message, env.line("COMPOSER_API_URL")) from None
    if not url:
        migration.note("Composer's hosted address may be shut down: examples/composer.yaml asks a local one")
    settings = {
        "url": f"{parts.scheme}://{parts.authority}{_COMPOSER_PATH}",
        "api": "openai",
        "dialect": "composer",
        "key": migration.secret("CURSOR_API_KEY", key),
        "models": models or ["composer-2.5"],
    }
    if long:
        settings["long_context"] = long
    return migration.provider("composer", settings)


def _add_rules(
    env: Environment, migration: Migration, anthropic: str, litellm: str | None, composer: str | None
) -> None:
    if composer:
        migration.rules.append({"name": "composer", "match": "composer-*", "to": composer})
    if not litellm:
        migration.rules.append({"match": "*", "to": anthropic})
        return
    for tier in reversed(TIERS):
        name = f"LITELLM_FALLBACK_{tier.upper()}"
        model = env.take(name) if name in env else _FALLBACKS[tier]
        rule: dict[str, Any] = {"name": tier, "match": {"model": "claude-*", "tier": tier}}
        if model:
            rule["to"] = [anthropic, f"{litellm}/{model}"]
        else:
            message = f"The plan is used up, and {name} is empty."
            rule |= {"to": [anthropic, {"reject": 500, "message": message}], "failover": {"on": []}}
        migration.rules.append(rule)
    migration.rules += [
        {"name": "claude", "match": "claude-*", "to": [anthropic, litellm]},
        {"name": "others", "match": "*", "to": litellm},
    ]
    migration.settings["failover"] = {"on": ["429"]}
    migration.note(
        "only a used up plan moves requests to LiteLLM, as before; without failover other errors do too"
    )


def _models(env: Environment, migration: Migration, anthropic: str, *, has_more: bool) -> None:
    """What the picker shows of Claude's own models."""
    settings = migration.providers[anthropic]
    stock = env.take("SEED_STOCK_MODELS")
    if stock:
        line = env.line("SEED_STOCK_MODELS")
        try:
            listed = json.loads(stock)
            settings["models"] = [_labelled(one["id"], one.get("display_name")) for one in listed]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise SourceError("SEED_STOCK_MODELS should be a JSON list of {id, display_name}", line) from None
    long = env.items("STOCK_1M_MODELS")
    if long:
        settings["long_context"] = [one if re.search(r"[*?]", one) else glob(one) for one in long]
    if stock or long or has_more:
        migration.settings["picker"] = True
