"""The rules in force: one immutable value that every request keeps from its start to its end.

The loader makes it from rules.yaml, with all text already turned into what it means: durations are
seconds, sizes bytes, globs compiled, `${NAME}` replaced. Nothing here reads a file or a clock.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from .regexes import Regex

type Api = Literal["anthropic", "openai"]
type Auth = Literal["key", "client", "claude-login", "none"]
type KeyHeader = Literal["x-api-key", "authorization", "api-key"]
type CountTokens = Literal["forward", "estimate", "reject"]
type Level = Literal["debug", "info", "warn", "error", "silent"]

ANTHROPIC_HOST = "api.anthropic.com"


class Glob(msgspec.Struct, frozen=True):
    """A case-insensitive glob (`*`, `?`, `[abc]`) over a whole text."""

    text: str
    pattern: re.Pattern[str]

    def matches(self, text: str) -> bool:
        return self.pattern.match(text) is not None


class Url(msgspec.Struct, frozen=True):
    """A base URL in parts. `path` is the prefix: empty, or starting and never ending with a slash."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str = ""

    @property
    def authority(self) -> str:
        """Host, and the port where it is not the scheme's own; IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.scheme == "https" else 80
        return host if self.port == usual else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


class Command(msgspec.Struct, frozen=True):
    """A program that prints a secret, and the environment that it is given."""

    argv: tuple[str, ...]
    folder: Path
    environ: Mapping[str, str] = {}
    every: float | None = None
    """Seconds after which what it printed is no longer good; None where that is not known."""

    def __repr__(self) -> str:
        return f"Command({self.argv[0]!r})"


class Secret(msgspec.Struct, frozen=True):
    """A key as resolved at load. `value` is None where it could not be had; `reason` then says why."""

    value: str | None
    reason: str = ""
    command: Command | None = None
    """What printed it, if anything did."""

    def __repr__(self) -> str:
        return "Secret(***)" if self.value else f"Secret(reason={self.reason!r})"


def unavailable(auth: Auth, keys: Iterable[Secret]) -> str:
    """Why a provider with these keys cannot be asked, else empty."""
    if auth == "key" and not any(key.value for key in keys):
        return next(key.reason for key in keys)
    return ""


class BodyEdit(msgspec.Struct, frozen=True):
    """Top-level fields of the outgoing body to set (plain JSON values) and to drop."""

    set: Mapping[str, Any] = {}
    drop: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.set or self.drop)


class Timeout(msgspec.Struct, frozen=True):
    """Seconds. `first_byte_whole` is for requests that are not streamed."""

    connect: float = 10.0
    first_byte: float = 120.0
    first_byte_whole: float = 600.0
    idle: float = 300.0


class Circuit(msgspec.Struct, frozen=True):
    degraded_after: int = 3
    open_after: int = 5
    cooldown: float = 60.0


class Quota(msgspec.Struct, frozen=True):
    redirect_at: Mapping[str, int] = {}
    hysteresis: int = 5
    probe: float = 300.0
    probe_key: Secret | None = None
    probe_model: str = "claude-haiku-4-5"
    status_file: Path | None = None
    accounts: tuple[Path, ...] = ()


class Budget(msgspec.Struct, frozen=True):
    tokens: int
    per: Literal["day", "week", "month"]
    at: int = 100


class Price(msgspec.Struct, frozen=True):
    """USD per million tokens."""

    input: float = 0.0
    output: float = 0.0
    cache_read: float = 0.0
    cache_write: float = 0.0


def unlisted(name: str) -> str:
    """A name for who is not in the rules, as no provider there can have it: `(anthropic)`."""
    return f"({name})"


def shown(name: str) -> str:
    """A provider's name as headers, console and request log tell it: `anthropic` for `(anthropic)`."""
    return name.strip("()")


class Provider(msgspec.Struct, frozen=True):
    """Who serves models, with what it is asked with. See the contract, section 2, for each key."""

    name: str
    url: Url
    api: Api = "anthropic"
    auth: Auth = "none"
    keys: tuple[Secret, ...] = ()
    key_header: KeyHeader = "x-api-key"
    login: Path = Path("~/.claude")
    headers: Mapping[str, str] = {}
    path: str | None = None
    query: Mapping[str, str] = {}
    body: BodyEdit = BodyEdit()
    rename: tuple[tuple[Glob, str], ...] = ()
    beta: Literal["forward", "learn", "drop"] | tuple[str, ...] = "learn"
    count_tokens: CountTokens = "forward"
    thinking: Literal["own", "keep", "strip"] = "own"
    models: Literal["list"] | tuple[str, ...] | None = None
    long_context: tuple[Glob, ...] = ()
    timeout: Timeout = Timeout()
    circuit: Circuit = Circuit()
    quota: Quota = Quota()
    budget: Budget | None = None
    prices: tuple[tuple[Glob, Price], ...] = ()
    dialect: str | None = None
    max_tokens: tuple[tuple[Glob, int], ...] = ()
    unavailable: str = ""
    """Why no request can go there as far as the rules tell (`ZAI_API_KEY is not set`), else empty."""

    @property
    def shown(self) -> str:
        return shown(self.name)

    @property
    def is_anthropic(self) -> bool:
        """Whether this is "Anthropic itself" in the sense of the contract, section 5."""
        return self.auth in ("client", "claude-login") or self.url.host == ANTHROPIC_HOST

    @property
    def key(self) -> str | None:
        """The first key that could be had."""
        return next((secret.value for secret in self.keys if secret.value), None)


class Target(msgspec.Struct, frozen=True):
    """Where one attempt may go, as written in a rule. `model` None keeps the requested one."""

    provider: str
    model: str | None = None
    body: BodyEdit = BodyEdit()
    headers: Mapping[str, str] = {}


class Reject(msgspec.Struct, frozen=True):
    """The answer that a list of targets may end in."""

    status: int
    message: str


class Match(msgspec.Struct, frozen=True):
    """Conditions that must all hold; an empty one is not asked. Within a tuple any will do."""

    model: tuple[Glob, ...] = ()
    tier: tuple[str, ...] = ()
    path: tuple[Glob, ...] = ()
    port: tuple[int, ...] = ()
    client: tuple[Glob, ...] = ()
    header: tuple[tuple[str, tuple[Glob, ...]], ...] = ()
    """Header names in lower case; every name must match."""
    agent: Literal["main", "subagent"] | None = None
    thinking: bool | None = None
    images: bool | None = None
    stream: bool | None = None
    tools: tuple[Glob, ...] = ()
    tokens_over: int | None = None
    tokens_under: int | None = None
    system: tuple[Regex, ...] = ()
    prompt: tuple[Regex, ...] = ()
    quota: tuple[tuple[str, str, Literal[">", ">=", "<", "<="], float], ...] = ()
    """(provider, window, operator, percent)."""


class Failover(msgspec.Struct, frozen=True):
    on: frozenset[str] = frozenset(
        {"auth", "408", "429", "500", "502", "503", "504", "529", "connect", "timeout", "stream_error"}
    )
    retries: int = 0
    wait: float = 0.0


class Rule(msgspec.Struct, frozen=True):
    """One rule. `choices` holds, in order, sets of equal targets; most sets have one member."""

    label: str
    """The name given, else `#2` for the second rule."""
    match: Match
    choices: tuple[tuple[Target, ...], ...]
    reject: Reject | None
    failover: Failover
    line: int
    """Where it stands in the file, from 1."""


class Listen(msgspec.Struct, frozen=True):
    host: str
    port: int


class Log(msgspec.Struct, frozen=True):
    level: Level = "info"
    file: str = "requests.jsonl"
    keep: float = 3 * 86400.0
    prompts: bool = True


class Inspect(msgspec.Struct, frozen=True):
    keep: int = 500
    bodies: int = 2 * 1024 * 1024
    secrets: Literal["mask", "show"] = "mask"


class Week(msgspec.Struct, frozen=True):
    """`starts` is (weekday 0 = monday, hour, minute); `timezone` is `local` or an IANA name."""

    starts: tuple[int, int, int] = (0, 0, 0)
    timezone: str = "local"


class Ledger(msgspec.Struct, frozen=True):
    url: str = "sqlite"
    keep: float = 400 * 86400.0


class Rules(msgspec.Struct, frozen=True):
    """Everything rules.yaml says."""

    providers: Mapping[str, Provider] = {}
    rules: tuple[Rule, ...] = ()
    failover: Failover = Failover()
    clients: Mapping[str, str] = {}
    """Name to secret; empty means that only this machine may connect."""
    client_commands: Mapping[str, Command] = {}
    """The commands that printed these secrets, where any did."""
    body_limit: int = 32 * 1024 * 1024
    """Bytes, after decoding, on the two messages paths."""
    week: Week = Week()
    ledger: Ledger = Ledger()
    log: Log = Log()
    picker: bool = False
    fail: Literal["open", "closed"] = "open"
    inspect: Inspect = Inspect()
    ui_hosts: tuple[str, ...] = ()
    listen: Mapping[str, Listen] = {}
    file: Path = Path("rules.yaml")
    reads: tuple[Path, ...] = ()
    """Other files whose change means loading again: `.env`, secrets' files."""
    warnings: tuple[str, ...] = ()
    """What `check` has to say beside errors, each one line with its place."""
    environment: Mapping[str, str] = {}
    """What the environment, else `.env`, says of `ANTHROPIC_DEFAULT_*_MODEL` and the like."""

    @property
    def searches_text(self) -> bool:
        """Whether any rule asks for what a request's text holds."""
        return any(rule.match.system or rule.match.prompt for rule in self.rules)

    @property
    def lists_models(self) -> bool:
        """Whether any provider adds to the model list."""
        return any(provider.models is not None for provider in self.providers.values())
