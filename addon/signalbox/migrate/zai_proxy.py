"""Z.ai proxies: some or all of Claude's models under GLM's names, the others at Anthropic."""

from signalbox.migrate.environment import (
    TIERS,
    Environment,
    default_models,
    general,
    leftovers,
    tier_models,
    times,
)
from signalbox.migrate.form import ANTHROPIC, Migration, base_url, messages_provider, named_by

_URLS = (
    "ZAI_BASE_URL",
    "ZAI_ANTHROPIC_BASE_URL",
    "ZAI_API_URL",
    "ZAI_API_BASE",
    "ZAI_API_BASE_URL",
    "ZAI_URL",
)
_KEYS = ("ZAI_API_KEY", "ZAI_KEY", "ZAI_TOKEN", "ZAI_AUTH_TOKEN", "Z_AI_API_KEY", "GLM_API_KEY")
_MODELS = ("ZAI_MODEL", "ZAI_TARGET_MODEL", "ZAI_DEFAULT_MODEL", "GLM_MODEL")
_ANTHROPIC = {
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_API_URL",
    "ANTHROPIC_URL",
}
"""Settings of which each means that Anthropic is asked too."""
_DEFAULT_URL = "https://api.z.ai/api/anthropic"


def recognises(env: Environment) -> bool:
    return bool(env.matching("(ZAI|GLM)_.*|Z_AI_API_KEY|ANTHROPIC_(BASE_URL|AUTH_TOKEN)"))


def migrate(env: Environment) -> Migration:
    """Raises SourceError."""
    migration = Migration("the .env of a Z.ai proxy")
    default = default_models(env, migration)
    zai = add_zai(env, migration)
    is_named = not _ANTHROPIC.isdisjoint(env.left)
    anthropic = add_anthropic(env, migration) if is_named or zai is None else None
    models = tier_models(env, "ZAI_{}_MODEL", "GLM_{}_MODEL")
    every = env.take(*_MODELS) or ("" if anthropic else env.take("ANTHROPIC_MODEL"))
    if zai and not anthropic:  # what Claude Code's own variables would ask for
        small = env.take("ANTHROPIC_SMALL_FAST_MODEL")
        models = ({"haiku": small} if small else {}) | default | models
    if secret := env.take("PROXY_API_KEY", "ACCESS_TOKEN", "AUTH_TOKEN"):
        migration.client(secret)
    rest = anthropic or zai
    if zai and zai != "zai":
        migration.origin = "the .env of Claude Code"
    elif zai:
        migration.rules.append({"name": "glm", "match": "glm-*", "to": zai})
    if zai:
        for tier in TIERS:
            if tier in models:
                migration.rules.append({"name": tier, "match": f"*{tier}*", "to": f"{zai}/{models[tier]}"})
        if anthropic and every and not models:
            migration.rules.append(
                {"name": "execution", "match": {"thinking": False}, "to": f"{zai}/{every}"},
            )
            migration.note(f"requests without thinking go to {every}, those with thinking to Anthropic")
        elif not anthropic and every:
            rest = f"{zai}/{every}"
        elif not anthropic and not models:
            migration.note("no model is named: Z.ai chooses one by the name of Claude's; write zai/MODEL")
    migration.rules.append({"match": "*", "to": rest})
    times(env, migration, [zai] if zai else [])
    general(env, migration)
    leftovers(env, migration)
    return migration


def add_zai(env: Environment, migration: Migration) -> str | None:
    """The provider for ZAI_*, or where ANTHROPIC_BASE_URL leads to another host; None without either."""
    url_name = env.named(*_URLS)
    url, key = env.take(*_URLS), env.take(*_KEYS)
    line = env.line(url_name) if url_name else 1
    if not key and not url:
        url = env.take("ANTHROPIC_BASE_URL")
        if not url or named_by(url, "") == "anthropic":
            return None
        line = env.line("ANTHROPIC_BASE_URL")
        key = env.take("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY")
    url = base_url(url or _DEFAULT_URL, "openai", line)
    if "/paas/" in f"{url}/":
        migration.note(
            "Z.ai is asked in Anthropic's format instead of chat completions: no translation is needed"
        )
        url = f"{url.partition('/api/')[0]}/api/anthropic"
    url = base_url(url, "anthropic", line)
    reference = migration.secret(f"{named_by(url, 'provider')}_API_KEY", key) if key else None
    return migration.provider(named_by(url, "provider"), messages_provider(url, reference, bearer=True))


def add_anthropic(env: Environment, migration: Migration) -> str:
    """Anthropic with the key of the file, or with the caller's own login."""
    name = env.named("ANTHROPIC_API_KEY")
    url_name = env.named("ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL", "ANTHROPIC_URL")
    url = env.take("ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL", "ANTHROPIC_URL") or ANTHROPIC
    url = base_url(url, "anthropic", env.line(url_name) if url_name else 1)
    key = env.take("ANTHROPIC_API_KEY")
    if token := env.take("ANTHROPIC_AUTH_TOKEN"):
        migration.note(
            "ANTHROPIC_AUTH_TOKEN: the caller's own login passes on; auth: claude-login reads ~/.claude"
        )
    if named_by(url, "") != "anthropic":
        migration.note(
            "ANTHROPIC_BASE_URL is the address of the router itself; Anthropic is asked at its own"
        )
        url = ANTHROPIC
    if not key or (not key.startswith("sk-ant-") and token):
        return migration.anthropic()
    reference = migration.secret(name, key)
    return migration.provider("anthropic", messages_provider(url, reference))
