"""rules.yaml as the user writes it: every key, what it takes, and what it means (for the JSON Schema too).

A key that is absent is None here; the defaults stand in `rules`. Scalars are already what they mean:
durations seconds, sizes bytes, globs compiled.
"""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from . import rules
from .faults import MisfitError
from .scalars import (
    Address,
    AtLeastOne,
    BaseUrl,
    Beta,
    ClientSecret,
    Comparison,
    Count,
    Dollars,
    Duration,
    Flag,
    GlobKey,
    GlobText,
    HeaderName,
    HeaderValue,
    HostName,
    KeyText,
    LedgerUrl,
    Location,
    Loose,
    ModelGlob,
    NewName,
    Outcome,
    Percent,
    Port,
    ProviderName,
    Regex,
    Size,
    Status,
    TargetText,
    Text,
    Timezone,
    UrlPath,
    WeekTime,
    Whole,
    Window,
)

type Json = Any

type Texts = Text | Annotated[list[Text], Meta(min_length=1)]
type Globs = GlobText | Annotated[list[GlobText], Meta(min_length=1)]
type ModelGlobs = ModelGlob | Annotated[list[ModelGlob], Meta(min_length=1)]
type Regexes = Regex | Annotated[list[Regex], Meta(min_length=1)]
type Tier = Literal["opus", "sonnet", "haiku", "fable"]
type Dialect = Literal[
    "openai", "azure", "openrouter", "gemini", "kimi", "glm", "minimax", "deepseek", "mistral", "ollama",
    "vllm", "lmstudio", "composer", "generic",
]  # fmt: skip


class SecretSource(msgspec.Struct, frozen=True):
    """Where a secret is kept: exactly one of both."""

    file: Annotated[Location | None, "File that holds it; read again when it changes."] = None
    command: Annotated[
        Annotated[list[Text], Meta(min_length=1)] | None,
        "Program and arguments that print it; run at load and after a 401, for at most 10 s.",
    ] = None
    every: Annotated[
        Duration | None, "With command: how long what it prints is good; it is run again before that."
    ] = None

    def __post_init__(self) -> None:
        if (self.file is None) == (self.command is None):
            raise MisfitError("give either file or command")
        if self.every is not None and self.command is None:
            raise MisfitError("every goes with command; a file is read again when it changes", "every")
        if self.every is not None and self.every < 1:
            raise MisfitError("every is 1s at least", "every")


type Key = KeyText | SecretSource


class Body(msgspec.Struct, frozen=True):
    """Changes to the top-level fields of the outgoing body."""

    set: Annotated[dict[Text, Json] | None, "Fields and the JSON values they are given."] = None
    drop: Annotated[list[Text] | None, "Fields to leave out."] = None

    def __post_init__(self) -> None:
        for place, names in (("set", self.set or {}), ("drop", self.drop or [])):
            if "model" in names:
                raise MisfitError("the model is named in a target or in rename, not here", place)


class Timeout(msgspec.Struct, frozen=True):
    """How long to wait for a provider."""

    connect: Annotated[Duration | None, "For the connection. Default 10s."] = None
    first_byte: Annotated[
        Duration | None,
        "From the request sent to the first byte of the answer. Default 120s, 600s where it is not streamed.",
    ] = None
    idle: Annotated[Duration | None, "Between two chunks of the answer. Default 300s."] = None


class Circuit(msgspec.Struct, frozen=True):
    """When a failing provider is left alone."""

    degraded_after: Annotated[AtLeastOne | None, "Failures in a row until it is shown. Default 3."] = None
    open_after: Annotated[AtLeastOne | None, "Failures in a row until it is passed over. Default 5."] = None
    cooldown: Annotated[Duration | None, "Until one trial request is let through. Default 60s."] = None


class Quota(msgspec.Struct, frozen=True):
    """What to do with the quota windows that Anthropic reports."""

    redirect_at: Annotated[
        dict[Text, Percent] | None,
        "Percent per window (5h, 7d, overage) from which the provider is passed over.",
    ] = None
    hysteresis: Annotated[Percent | None, "How far below its mark a window must fall. Default 5."] = None
    probe: Annotated[Duration | None, "How often to look while passed over; 0s is off. Default 5m."] = None
    probe_key: Annotated[Key | None, "Key for the probe. Default: the last one seen."] = None
    probe_model: Annotated[Text | None, "Model for the probe. Default claude-haiku-4-5."] = None
    status_file: Annotated[
        Location | None, "File to keep the state of the windows in. Default ~/.claude/usage-status.md."
    ] = None
    accounts: Annotated[list[Location] | None, "Config folders, each an account with a quota of its own."] = (
        None
    )


class Budget(msgspec.Struct, frozen=True):
    """How many tokens may be used in a period."""

    tokens: Annotated[Count, "Tokens of all four kinds, for example 50M."]
    per: Annotated[Literal["day", "week", "month"], "The period."]
    at: Annotated[Percent | None, "Percent of it from which the provider is passed over. Default 100."] = None


class Price(msgspec.Struct, frozen=True):
    """US dollars per million tokens."""

    input: Dollars | None = None
    output: Dollars | None = None
    cache_read: Dollars | None = None
    cache_write: Dollars | None = None


class Provider(msgspec.Struct, frozen=True):
    """Who serves models, and how it is asked."""

    url: Annotated[
        BaseUrl,
        "Base URL; a path in it is kept as prefix. For api: openai /chat/completions is appended.",
    ]
    api: Annotated[
        rules.Api | None, "anthropic (Messages) or openai (Chat Completions). Default anthropic."
    ] = None
    key: Annotated[Key | None, "The provider's key, often ${NAME}, or {file: PATH} or {command: [...]}."] = (
        None
    )
    keys: Annotated[
        Annotated[list[Key], Meta(min_length=1)] | None,
        "Several keys: a session keeps its key while it is well.",
    ] = None
    key_header: Annotated[
        rules.KeyHeader | None, "Header that carries the key. authorization sends it as Bearer."
    ] = None
    auth: Annotated[
        rules.Auth | None,
        "key: the key above. client: the caller's own credentials. claude-login: the login in login. "
        "none: no credential. Default key if a key is given, else none.",
    ] = None
    login: Annotated[Location | None, "Folder of the login for auth: claude-login. Default ~/.claude."] = None
    headers: Annotated[
        dict[HeaderName, HeaderValue] | None, "Set on each request; an empty value removes the header."
    ] = None
    path: Annotated[UrlPath | None, "Replaces the request's path."] = None
    query: Annotated[dict[Text, Loose] | None, "Query parameters to add."] = None
    body: Annotated[Body | None, "Changes to the outgoing body."] = None
    rename: Annotated[
        dict[GlobKey, Text] | None, "Model to send, by glob, where the target names none; first match wins."
    ] = None
    beta: Annotated[
        Literal["forward", "learn", "drop"] | list[Beta] | None,
        "The fate of the values of anthropic-beta. Default forward for a caller's credentials, else learn.",
    ] = None
    count_tokens: Annotated[
        rules.CountTokens | None, "Who counts tokens. Default forward, for api: openai estimate."
    ] = None
    thinking: Annotated[
        Literal["own", "keep", "strip"] | None, "Which thinking blocks stay in requests. Default own."
    ] = None
    models: Annotated[
        Literal["list"] | list[Text] | None, "What it adds to GET /v1/models: list asks it; or a list of ids."
    ] = None
    long_context: Annotated[list[GlobText] | None, "Its models that are also offered with [1m]."] = None
    timeout: Annotated[Timeout | None, "How long to wait for it."] = None
    circuit: Annotated[Circuit | None, "When it is left alone after failures."] = None
    quota: Annotated[Quota | None, "What to do with its quota windows."] = None
    budget: Annotated[Budget | None, "How many tokens it may use."] = None
    prices: Annotated[
        dict[GlobKey, Price] | None, "Dollars per million tokens, by glob on the model sent."
    ] = None
    dialect: Annotated[
        Dialect | None, "For api: openai, whose spelling to use. Default by the URL's host."
    ] = None
    max_tokens: Annotated[
        Count | dict[GlobKey, Count] | None,
        "Upper bound for max_tokens, or bounds by glob on the model sent.",
    ] = None

    def __post_init__(self) -> None:
        if self.key is not None and self.keys is not None:
            raise MisfitError("give either key or keys", "keys")
        own = self.key is not None or self.keys is not None
        if own and self.auth in ("client", "claude-login"):
            raise MisfitError(f"auth: {self.auth} uses no key: remove the key", "auth")
        if self.auth == "key" and not own:
            raise MisfitError("auth: key needs a key", "auth")
        if self.api == "openai":
            self._check_chat()
        if self.path is None:
            self._check_url()

    def _check_chat(self) -> None:
        if self.auth in ("client", "claude-login"):
            raise MisfitError(f"auth: {self.auth} is Anthropic's: api: openai takes a key or none", "auth")
        if self.count_tokens == "forward":
            raise MisfitError("nobody counts tokens in api: openai: write estimate or reject", "count_tokens")

    def _check_url(self) -> None:
        if self.api == "openai":
            endings: tuple[str, ...] = ("/chat/completions",)
        elif self.url.path.endswith("/chat/completions"):
            raise MisfitError("this URL is for api: openai, with /chat/completions left off", "url")
        else:
            endings = ("/v1/messages", "/v1/messages/count_tokens", "/v1")
        for ending in endings:
            if self.url.path.endswith(ending):
                base = str(self.url).removesuffix(ending)
                chat = ", or add api: openai" if ending == "/v1" else ""
                raise MisfitError(f'leave "{ending}" off: write {base}{chat}', "url")


class Match(msgspec.Struct, frozen=True):
    """Conditions that must all hold; of a list any."""

    model: Annotated[ModelGlobs | None, "Globs on the requested model, case-insensitive."] = None
    tier: Annotated[Tier | list[Tier] | None, "What the requested model's name holds."] = None
    path: Annotated[Globs | None, "Globs on the path, without query."] = None
    port: Annotated[Port | list[Port] | None, "The listener that took the request: port or name."] = None
    client: Annotated[Globs | None, "Globs on the client's name."] = None
    header: Annotated[dict[HeaderName, Globs] | None, "Globs on headers, by name."] = None
    agent: Annotated[Literal["main", "subagent"] | None, "Who asks."] = None
    thinking: Annotated[Flag | None, "Whether thinking is asked for."] = None
    images: Annotated[Flag | None, "Whether there are images."] = None
    stream: Annotated[Flag | None, "Whether a streamed answer is asked for."] = None
    tools: Annotated[Globs | None, "Globs on the names of the tools offered."] = None
    tokens_over: Annotated[Count | None, "More estimated input tokens than this."] = None
    tokens_under: Annotated[Count | None, "Fewer estimated input tokens than this."] = None
    system: Annotated[Regexes | None, "Regular expression found in the system text."] = None
    prompt: Annotated[Regexes | None, "Regular expression found in the last user text."] = None
    quota: Annotated[
        dict[Window, Comparison] | None, 'Quota windows: {anthropic.7d: ">80"}; unknown is false.'
    ] = None


class Target(msgspec.Struct, frozen=True):
    """Where an attempt goes, with changes of its own."""

    provider: Annotated[ProviderName, "A name from providers."]
    model: Annotated[Text | None, "Model to send; {model} stands for the requested one."] = None
    body: Annotated[Body | None, "Changes to the body, after the provider's."] = None
    headers: Annotated[dict[HeaderName, HeaderValue] | None, "Headers, after the provider's."] = None


class Reject(msgspec.Struct, frozen=True):
    """An answer of the router's own, last in a list."""

    told_by: ClassVar[str] = "reject"

    reject: Annotated[Status, "Status of the answer."]
    message: Annotated[Text | None, "What the caller is told."] = None


type OneTarget = TargetText | Target
type Choice = TargetText | Reject | Target | Annotated[list[OneTarget], Meta(min_length=1)]


class Failover(msgspec.Struct, frozen=True):
    """When the next target is tried."""

    on: Annotated[
        list[Outcome] | None, "Outcomes that move on: statuses, auth, connect, timeout, stream_error."
    ] = None
    retries: Annotated[Whole | None, "Attempts on the same target first. Default 0."] = None
    wait: Annotated[Duration | None, "The longest retry-after to wait out. Default 0s."] = None


class Rule(msgspec.Struct, frozen=True):
    """Which requests go where."""

    match: Annotated[
        ModelGlob | Annotated[list[ModelGlob], Meta(min_length=1)] | Match,
        "A glob on the requested model, a list of globs, or conditions.",
    ]
    to: Annotated[
        TargetText | Reject | Target | Annotated[list[Choice], Meta(min_length=1)],
        "provider, provider/model, or a list in order. An inner list is a set of equals.",
    ]
    name: Annotated[Text | None, "Shown in logs and headers. Default #N."] = None
    failover: Annotated[Failover | None, "Overrides the global failover, key by key."] = None

    def __post_init__(self) -> None:
        choices = self.to if isinstance(self.to, list) else [self.to]
        for i, choice in enumerate(choices[:-1]):
            if isinstance(choice, Reject):
                raise MisfitError("reject must be the last of the list", "to", i)


class Limits(msgspec.Struct, frozen=True):
    """What is refused."""

    body: Annotated[Size | None, "Larger requests get 413. Default 32MB."] = None


class Week(msgspec.Struct, frozen=True):
    """When weekly sums begin."""

    starts: Annotated[WeekTime | None, "Default monday 00:00."] = None
    timezone: Annotated[Timezone | None, "Default local."] = None


class Ledger(msgspec.Struct, frozen=True):
    """Where requests are recorded."""

    url: Annotated[LedgerUrl | None, "sqlite or an SQLAlchemy URL."] = None
    keep: Annotated[Duration | None, "Default 400d."] = None


class Log(msgspec.Struct, frozen=True):
    """What is logged."""

    level: Annotated[rules.Level | None, "Default info. LOG_LEVEL in the environment wins."] = None
    file: Annotated[Text | None, "Request log, relative to router_state. Default requests.jsonl."] = None
    keep: Annotated[Duration | None, "How long logs are kept. Default 3d."] = None
    prompts: Annotated[Flag | None, "Whether the console shows how a prompt begins. Default true."] = None


class Inspect(msgspec.Struct, frozen=True):
    """What mitmweb holds."""

    keep: Annotated[Whole | None, "Number of flows. Default 500."] = None
    bodies: Annotated[Size | None, "How much of each body. Default 2MB."] = None
    secrets: Annotated[Literal["mask", "show"] | None, "Whether credentials are masked. Default mask."] = None


class Ui(msgspec.Struct, frozen=True):
    """By which names browsers may ask."""

    hosts: Annotated[
        list[HostName] | None, "Further Host names under which the router and its pages answer."
    ] = None


class RulesFile(msgspec.Struct, frozen=True):
    """Signalbox's rules: which provider answers which request."""

    providers: Annotated[dict[NewName, Provider] | None, "Who serves models, by a name of your choice."] = (
        None
    )
    rules: Annotated[
        list[Rule] | None, "The first that matches wins; a request none matches goes to the upstream."
    ] = None
    failover: Annotated[Failover | None, "When the next target is tried."] = None
    clients: Annotated[
        dict[Text, ClientSecret | SecretSource] | None,
        "Callers and their secrets. None: only this machine may connect.",
    ] = None
    limits: Annotated[Limits | None, "What is refused."] = None
    week: Annotated[Week | None, "When weekly sums and budgets begin."] = None
    ledger: Annotated[LedgerUrl | Ledger | None, "Where requests are recorded. Default sqlite."] = None
    log: Annotated[Log | None, "What is logged."] = None
    picker: Annotated[Flag | None, "Whether to write Claude Code's model picker file. Default false."] = None
    fail: Annotated[
        Literal["open", "closed"] | None, "What a request gets where the router itself fails. Default open."
    ] = None
    inspect: Annotated[Inspect | None, "What mitmweb holds."] = None
    ui: Annotated[Ui | None, "By which names browsers may ask."] = None
    listen: Annotated[dict[NewName, Address] | None, "Listeners for signalbox run, by name."] = None
