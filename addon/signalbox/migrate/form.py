"""The intermediate form of a migration: keys of rules.yaml, variables of `.env`, and notes."""

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from signalbox.config import fields
from signalbox.config.rules import OPENAI_HOST

_REFERENCE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_ENDINGS = {
    "openai": ("/chat/completions",),
    "responses": ("/responses",),
    "anthropic": ("/v1/messages", "/messages", "/v1"),
}
"""What other routers append to a base URL themselves, or want in it, by protocol."""
_BEARER = (
    "openrouter.ai",
    "moonshot.ai",
    "moonshot.cn",
    "kimi.com",
    "minimax.io",
    "minimaxi.com",
    "requesty.ai",
)
"""Domains whose Messages API takes the key as Bearer only (docs/providers.md)."""
_NAMES = {
    "anthropic.com": "anthropic",
    "z.ai": "zai",
    "bigmodel.cn": "zai",
    "moonshot.ai": "kimi",
    "moonshot.cn": "kimi",
    "kimi.com": "kimi",
    "minimax.io": "minimax",
    "minimaxi.com": "minimax",
    "openrouter.ai": "openrouter",
    "requesty.ai": "requesty",
    "deepseek.com": "deepseek",
    "openai.com": "openai",
    "openai.azure.com": "azure",
    "googleapis.com": "gemini",
}
_OWN_MODELS = {"zai": "glm-*", "kimi": "kimi-*", "minimax": "minimax-*", "deepseek": "deepseek-*"}
"""Models of makers, by the name of the provider."""
ANTHROPIC = "https://api.anthropic.com"


class SourceError(ValueError):
    """The file cannot be migrated. `place` is a line (`12`) or a path (`$.Providers[0]`) in it, if known."""

    def __init__(self, message: str, place: int | str | None = None) -> None:
        super().__init__(message)
        self.place = place


class Migration(msgspec.Struct):
    """What one configuration becomes. `providers`, `rules` and `settings` have the form of rules.yaml."""

    origin: str
    """What it comes from, for the head of the file: `a claude-code-router configuration`."""
    providers: dict[str, dict[str, Any]] = {}
    rules: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    """The other keys of the top level."""
    variables: dict[str, str] = {}
    """`.env`: secrets, and what else is named there. An empty value is for the user to fill in."""
    notes: list[str] = []
    """What has no counterpart, one line each, without secrets."""

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def secret(self, name: str, value: str) -> str:
        """Stores the value in `.env` under this name, or another where that is taken; gives `${NAME}`.

        A value that is a variable itself (`$NAME`, `${NAME}`) keeps its name.
        """
        if found := _REFERENCE.fullmatch(value):
            name = found[1] or found[2]
            self.variables.setdefault(name, "")
            return f"${{{name}}}"
        wanted = name = variable_name(name)
        number = 1
        while name in self.variables and self.variables[name] != value:
            number += 1
            name = f"{wanted}_{number}"
        self.variables[name] = value
        return f"${{{name}}}"

    def provider(self, name: str, settings: dict[str, Any]) -> str:
        """Adds a provider, unless one with the same settings is there; gives its name."""
        for known, those in self.providers.items():
            if those == settings:
                return known
        wanted = name = provider_name(name)
        number = 1
        while name in self.providers:
            number += 1
            name = f"{wanted}-{number}"
        self.providers[name] = settings
        return name

    def anthropic(self) -> str:
        """The provider that passes the caller's own login on."""
        return self.provider("anthropic", {"url": ANTHROPIC, "auth": "client"})

    def own_models(self) -> None:
        """Rules that send the models of a maker to itself: Claude Code may ask for them, since variables
        outside the migrated file may name them."""
        for name in self.providers:
            if own := _OWN_MODELS.get(name):
                self.rules.append({"match": own, "to": name})

    def through(self, proxy: str) -> None:
        """Asks all providers but those on this machine through an outbound proxy."""
        written = self.secret("PROXY_URL", proxy) if "@" in proxy else proxy
        for provider in self.providers.values():
            if urlsplit(provider["url"]).hostname not in ("localhost", "127.0.0.1", "::1"):
                provider["proxy"] = written

    def client(self, secret: str) -> None:
        """The secret that callers of the old router present. Kept apart from variables such as
        ANTHROPIC_API_KEY, which may be set in the environment to something else."""
        self.settings["clients"] = {"client": self.secret("CLIENT_SECRET", secret)}


def provider_name(text: str) -> str:
    """`text` as the name of a provider: letters, digits, `_` and `-`."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-").lower() or "provider"


def variable_name(text: str) -> str:
    """`text` as the name of a variable: `my-router key` becomes `MY_ROUTER_KEY`."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").upper() or "SECRET"
    return f"_{name}" if name[0].isdigit() else name


def base_url(url: str, api: str, place: int | str) -> str:
    """The base URL as rules.yaml takes it, without what is appended there. Raises SourceError."""
    url = url.strip().rstrip("/")
    for ending in _ENDINGS[api]:
        url = url.removesuffix(ending).rstrip("/")
    try:
        fields.parse_url(url)
    except ValueError as fault:
        raise SourceError(f"this is not a URL that can be asked: {fault}", place) from None
    return url


def named_by(url: str, default: str) -> str:
    """The usual name of the provider at this URL, by its domain."""
    host = (urlsplit(url).hostname or "").lower()
    return next((name for domain, name in _NAMES.items() if _is_within(host, domain)), default)


def messages_provider(url: str, key: str | None, *, bearer: bool = False) -> dict[str, Any]:
    """A provider with the Messages API. `bearer`: the old router sends the key as Bearer."""
    host = (urlsplit(url).hostname or "").lower()
    settings: dict[str, Any] = {"url": url}
    if key:
        settings["key"] = key
        if bearer or any(_is_within(host, domain) for domain in _BEARER):
            settings["key_header"] = "authorization"
    if not _is_within(host, "anthropic.com"):
        settings["count_tokens"] = "estimate"
    return settings


def chat_provider(url: str, key: str | None) -> dict[str, Any]:
    """A provider with chat completions. OpenAI itself is asked in the Responses API, since its models take
    tools together with reasoning there alone."""
    host = (urlsplit(url).hostname or "").lower()
    settings: dict[str, Any] = {"url": url, "api": "responses" if host == OPENAI_HOST else "openai"}
    if key:
        settings["key"] = key
        if host.endswith(".openai.azure.com"):
            settings["key_header"] = "api-key"
    return settings


def glob(model: str) -> str:
    """A glob that matches this model alone."""
    return re.sub(r"[\[*?]", r"[\g<0>]", model)


def duration(seconds: float) -> str:
    """As rules.yaml writes it: `90s`, `10m`."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1 or not seconds else f"{seconds * 1000:g}ms"


def size(count: int) -> str:
    """Bytes as rules.yaml writes them: `10MB`."""
    for unit, one in (("MB", 1024**2), ("KB", 1024)):
        if count % one == 0:
            return f"{count // one}{unit}"
    return f"{count}B"


def _is_within(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")
