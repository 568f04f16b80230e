"""Chat-completions proxies: one server with chat completions, and a model of it for each tier."""

import re

from signalbox.config.fields import HEADER_NAME
from signalbox.migrate.environment import Environment, general, leftovers, times
from signalbox.migrate.form import Migration, base_url, chat_provider, named_by

_MODELS = "(BIG|MIDDLE|SMALL)_MODEL"
_HEADERS = "CUSTOM_HEADER_.+"
_OWN = ["gpt-*", "o1-*", "ep-*", "doubao-*", "deepseek-*"]
"""Models that these proxies send under the name that was asked for."""
_SECRET = re.compile("auth|key|token|secret|cookie|password", re.IGNORECASE)
_FRAMING = {"host", "content-length", "connection", "transfer-encoding"}
_DEFAULT_URL = "https://api.openai.com/v1"
_GOOGLE = "https://generativelanguage.googleapis.com/v1beta/openai"


def recognises(env: Environment) -> bool:
    return bool(env.matching(f"{_MODELS}|{_HEADERS}|OPENAI_(BASE_URL|API_BASE)"))


def migrate(env: Environment) -> Migration:
    """Raises SourceError."""
    migration = Migration("the .env of a chat-completions proxy")
    name = _add_provider(env, migration)
    big = env.take("BIG_MODEL") or "gpt-4o"
    middle = env.take("MIDDLE_MODEL") or big
    small = env.take("SMALL_MODEL") or "gpt-4o-mini"
    migration.rules = [
        {"name": "small", "match": "*haiku*", "to": f"{name}/{small}"},
        {"name": "middle", "match": "*sonnet*", "to": f"{name}/{middle}"},
        {"name": "own", "match": list(_OWN), "to": name},
        {"name": "big", "match": "*", "to": f"{name}/{big}"},
    ]
    if secret := env.take("ANTHROPIC_API_KEY", "PROXY_API_KEY", "PROXY_AUTH_KEY"):
        migration.client(secret)
    else:
        migration.note("no client secret (ANTHROPIC_API_KEY): only this machine may connect")
    if env.take("MIN_TOKENS_LIMIT"):
        migration.note("MIN_TOKENS_LIMIT has no counterpart: max_tokens is sent as it was asked for")
    times(env, migration, [name])
    general(env, migration)
    leftovers(env, migration)
    return migration


def _add_provider(env: Environment, migration: Migration) -> str:
    google = env.take("PREFERRED_PROVIDER").lower() in ("google", "gemini")
    url_name = env.named("OPENAI_BASE_URL", "OPENAI_API_BASE")
    given = env.take("OPENAI_BASE_URL", "OPENAI_API_BASE")
    keys = ("GEMINI_API_KEY", "GOOGLE_API_KEY") if google else ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY")
    key_name = env.named(*keys)
    url = base_url(
        given or (_GOOGLE if google else _DEFAULT_URL), "openai", env.line(url_name) if url_name else 1
    )
    key = env.take(*keys)
    settings = chat_provider(url, migration.secret(key_name, key) if key else None)
    if version := env.take("AZURE_API_VERSION"):
        settings["query"] = {"api-version": version}
        settings["key_header"] = "api-key"
    if most := env.whole("MAX_TOKENS_LIMIT"):
        settings["max_tokens"] = most
    if headers := _headers(env, migration):
        settings["headers"] = headers
    return migration.provider(named_by(url, "openai"), settings)


def _headers(env: Environment, migration: Migration) -> dict[str, str]:
    """CUSTOM_HEADER_X_CLIENT_ID is the header X-Client-Id. Values that may be secret go to `.env`."""
    found = {}
    for name in env.matching(_HEADERS):
        header = name.removeprefix("CUSTOM_HEADER_").replace("_", "-").title()
        value = env.take(name)
        if header.lower() in _FRAMING or not re.fullmatch(HEADER_NAME, header):
            migration.note(f"{name} has no counterpart: the router writes this header itself")
        elif value:
            found[header] = migration.secret(name, value) if _SECRET.search(header) else value
    return found
