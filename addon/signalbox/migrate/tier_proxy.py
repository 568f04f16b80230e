"""Tier proxies: a provider for each of Haiku, Sonnet and Opus, and Anthropic for the others."""

from signalbox.migrate.environment import (
    TIERS,
    Environment,
    default_models,
    general,
    leftovers,
    tier_models,
    times,
)
from signalbox.migrate.form import Migration, base_url, glob, messages_provider, named_by

_SETTINGS = "(HAIKU|SONNET|OPUS)_PROVIDER_(API_KEY|BASE_URL)"


def recognises(env: Environment) -> bool:
    return bool(env.matching(_SETTINGS))


def migrate(env: Environment) -> Migration:
    """Raises SourceError."""
    migration = Migration("the .env of a tier proxy")
    default = default_models(env, migration)
    models = tier_models(env, "GLM_{}_MODEL", "ZAI_{}_MODEL")
    everywhere = env.take("ZAI_TARGET_MODEL")
    if secret := env.take("PROXY_API_KEY"):
        migration.client(secret)
    for tier in TIERS:
        _add_tier(env, migration, tier, default.get(tier, ""), models.get(tier) or everywhere)
    migration.own_models()
    times(env, migration, list(migration.providers))
    migration.rules.append({"match": "*", "to": migration.anthropic()})
    env.take("ANTHROPIC_BASE_URL")
    general(env, migration)
    leftovers(env, migration)
    return migration


def _add_tier(env: Environment, migration: Migration, tier: str, default: str, renamed: str) -> None:
    """`default` is the model that Claude Code asks for, `renamed` the one that is asked of Z.ai."""
    url_name, key_name = f"{tier.upper()}_PROVIDER_BASE_URL", f"{tier.upper()}_PROVIDER_API_KEY"
    url, key = env.take(url_name), env.take(key_name)
    if not url:
        if key:
            migration.note(f"{key_name} is not used: {url_name} is not set")
        return
    url = base_url(url, "anthropic", env.line(url_name))
    same = next(
        (
            name
            for name, one in migration.providers.items()
            if one["url"] == url and _has_key(migration, one, key)
        ),
        None,
    )
    reference = migration.secret(key_name, key) if key and not same else None
    name = same or migration.provider(named_by(url, tier), messages_provider(url, reference, bearer=True))
    taken = [one for rule in migration.rules for one in rule["match"]]
    globs = [f"*{tier}*"] + ([glob(default)] if default and tier not in default.lower() else [])
    model = (renamed if name.startswith("zai") else "") or default
    migration.rules.append(
        {
            "name": tier,
            "match": [one for one in globs if one not in taken],
            "to": f"{name}/{model}" if model else name,
        }
    )


def _has_key(migration: Migration, provider: dict[str, str], key: str) -> bool:
    return migration.variables.get(provider.get("key", "").strip("${}"), "") == key
