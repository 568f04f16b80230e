"""The rules in force: one immutable value that every request keeps from its start to its end.

All text is parsed: durations are seconds, sizes bytes, globs compiled, `${NAME}` replaced. Nothing here reads
a file or a clock. A struct whose fields are annotated with the kinds of `fields` has the same form in
rules.yaml: the decoder and the JSON Schema follow the annotations. The form of the others is in `schema`.
"""

import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import msgspec

from .clouds import CloudName, is_amazon
from .document import ConflictError
from .fields import (
    PLAIN,
    AtLeastOne,
    ClaudeModel,
    Command,
    Comparison,
    Count,
    Dollars,
    Duration,
    ErrorStatus,
    Flag,
    Glob,
    GlobText,
    HeaderName,
    HeaderValue,
    HostName,
    LedgerUrl,
    Listen,
    LowerHeaderName,
    ModelGlob,
    Percent,
    Port,
    ProviderName,
    ProviderWindow,
    Proxy,
    RegexText,
    Secret,
    SentModel,
    Size,
    Text,
    Timezone,
    Url,
    WeekTime,
    Whole,
    parse_sent_model,
    parse_text,
    string_schema,
)
from .outbound import Outbound
from .typespec import OneOrMore, Reads, Refers

type Api = Literal["anthropic", "openai", "responses", "vertex"]
type Auth = Literal["key", "client", "claude-login", "codex-login", "none"]
type KeyHeader = Literal["x-api-key", "authorization", "api-key"]
type Agent = Literal["main", "subagent"]
type CountTokens = Literal["forward", "estimate", "reject"]
type Level = Literal["debug", "info", "warn", "error", "silent"]
type RequestClass = Literal["main", "subagent", "workflow", "compaction", "auxiliary"]
type Tier = Literal["opus", "sonnet", "haiku", "fable"]
type ChatDialect = Literal[
    "openai", "azure", "openrouter", "gemini", "kimi", "glm", "minimax", "deepseek", "mistral", "ollama",
    "vllm", "lmstudio", "composer", "copilot", "generic",
]  # fmt: skip
type ResponsesDialect = Literal[
    "openai", "azure", "openrouter", "xai", "codex", "copilot", "vllm", "lmstudio", "ollama", "generic",
]  # fmt: skip
type DialectName = Literal[
    "openai", "azure", "openrouter", "gemini", "kimi", "glm", "minimax", "deepseek", "mistral", "xai",
    "codex", "copilot", "ollama", "vllm", "lmstudio", "composer", "generic",
]  # fmt: skip
type Globs = OneOrMore[GlobText]
type ApiByModel = tuple[tuple[Glob, Api], ...]
"""The API for each model as sent; the first glob that matches wins."""

TIERS: tuple[Tier, ...] = get_args(Tier.__value__)
"""In the order in which names are searched for them."""
DEFAULT_MODELS = {"haiku": "claude-haiku-4-5", "sonnet": "claude-sonnet-4-5", "opus": "claude-opus-4-5"}
"""The models that Claude Code asks for by default, by tier."""
ANTHROPIC_HOST = "api.anthropic.com"
CLAUDE_APIS = frozenset[Api]({"anthropic", "vertex"})
"""The APIs in which thinking has the signatures of Claude itself."""
OPENAI_HOST = "api.openai.com"
CHAT_DIALECTS: tuple[ChatDialect, ...] = get_args(ChatDialect.__value__)
RESPONSES_DIALECTS: tuple[ResponsesDialect, ...] = get_args(ResponsesDialect.__value__)


def tier_of(model: str) -> Tier | None:
    """The tier that a model's name contains: `claude-3-5-haiku-latest` is `haiku`."""
    lowered = model.lower()
    return next((tier for tier in TIERS if tier in lowered), None)


def unavailable(auth: Auth, keys: Iterable[Secret]) -> str:
    """Why a provider with these keys cannot be asked; empty if it can."""
    if auth == "key" and not any(key.value for key in keys):
        return next(key.reason for key in keys)
    return ""


class BodyEdit(msgspec.Struct, frozen=True):
    """Changes to the top-level fields of the outgoing body."""

    schema_name: ClassVar[str] = "Body"

    set: Annotated[Mapping[Text, Any], "Fields and their JSON values."] = {}
    drop: Annotated[tuple[Text, ...], "Fields to leave out."] = ()

    def __post_init__(self) -> None:
        for place, names in (("set", self.set), ("drop", self.drop)):
            if "model" in names:
                raise ConflictError("the model is named in a target or in rename, not here", place)

    def __bool__(self) -> bool:
        return bool(self.set or self.drop)


class Timeout(msgspec.Struct, frozen=True):
    """How long to wait for a provider."""

    connect: Annotated[Duration, "For the connection. Default 10s."] = 10.0
    first_byte: Annotated[
        Duration | None,
        "From the request sent to the first byte of the answer. Default 120s, 600s if it is not streamed.",
    ] = None
    idle: Annotated[Duration, "Between two chunks of the answer. Default 300s."] = 300.0

    def first_byte_limit(self, *, streamed: bool) -> float:
        """Seconds. The longer default for whole answers applies only if the limit is not set."""
        if self.first_byte is not None:
            return self.first_byte
        return 120.0 if streamed else 600.0


class Circuit(msgspec.Struct, frozen=True):
    """When a failing provider is skipped."""

    degraded_after: Annotated[AtLeastOne, "Failures in a row until it is shown as degraded. Default 3."] = 3
    open_after: Annotated[AtLeastOne, "Failures in a row until it is skipped. Default 5."] = 5
    cooldown: Annotated[Duration, "Time until one trial request is sent. Default 60s."] = 60.0


class Quota(msgspec.Struct, frozen=True):
    redirect_at: Mapping[str, int] = {}
    hysteresis: int = 5
    probe: float = 300.0
    probe_key: Secret | None = None
    probe_model: str = "claude-haiku-4-5"
    status_file: Path | None = None
    accounts: tuple[Path, ...] = ()


class Budget(msgspec.Struct, frozen=True):
    """How many tokens may be used in a period."""

    tokens: Annotated[Count, "Tokens of all four kinds, for example 50M."]
    per: Annotated[Literal["day", "week", "month"], "The period."]
    at: Annotated[Percent, "Percent of the tokens from which the provider is skipped. Default 100."] = 100


class Price(msgspec.Struct, frozen=True):
    """US dollars per million tokens."""

    input: Dollars = 0.0
    output: Dollars = 0.0
    cache_read: Dollars | None = None
    """None: a token from the cache costs what any other of the prompt does."""
    cache_write: Dollars | None = None
    """The same for what is written to the cache."""


class Model(msgspec.Struct, frozen=True):
    """A model that a provider adds to the model list and to Claude Code's picker."""

    id: Annotated[Text, "The model's name, as it is sent."]
    label: Annotated[Text | None, "Its name in the picker. Default: the id, and the provider's name."] = None
    description: Annotated[Text | None, "The words beside it in the picker. Default: its price."] = None
    behaves_as: Annotated[
        ClaudeModel | None,
        "Full id of the Claude model that Claude Code treats it as. Default claude-sonnet-4-6.",
    ] = None


type ModelText = Annotated[
    Model, Reads("the id of a model", lambda written: Model(parse_text(written)), PLAIN)
]


def unlisted(name: str) -> str:
    """The name of a provider outside the rules, which no provider in the rules can have: `(anthropic)`."""
    return f"({name})"


UPSTREAMS = (unlisted("anthropic"), unlisted("upstream"))
"""The names of the reverse upstream, which counts as Anthropic itself."""


def display_name(name: str) -> str:
    """A provider's name in headers, console and request log: `anthropic` for `(anthropic)`."""
    return name.strip("()")


class Provider(msgspec.Struct, frozen=True):
    """A provider of models. See the contract, section 2, for each key."""

    name: str
    url: Url
    api: Api | ApiByModel = "anthropic"
    auth: Auth = "none"
    keys: tuple[Secret, ...] = ()
    key_header: KeyHeader | None = None
    """None: that of the API in which a model is asked; see `key_header_for`."""
    login: Path = Path("~/.claude")
    headers: Mapping[str, str] = {}
    path: str | None = None
    query: Mapping[str, str] = {}
    body: BodyEdit = BodyEdit()
    proxy: Proxy | None = None
    """Through which it is asked; None if it is asked directly."""
    rename: tuple[tuple[Glob, str], ...] = ()
    beta: Literal["forward", "learn", "drop"] | tuple[str, ...] = "learn"
    claude: bool = False
    """Whether it serves Claude itself, without being Anthropic itself."""
    cloud: CloudName | None = None
    """The cloud that it is, if it is one."""
    count_tokens: CountTokens | None = None
    """None: by the API in which a model is asked; see `count_tokens_for`."""
    thinking: Literal["own", "keep", "strip"] = "own"
    models: Literal["list"] | tuple[Model, ...] | None = None
    long_context: tuple[Glob, ...] = ()
    timeout: Timeout = Timeout()
    circuit: Circuit = Circuit()
    quota: Quota = Quota()
    budget: Budget | None = None
    prices: tuple[tuple[Glob, Price], ...] = ()
    dialect: DialectName | None = None
    max_tokens: tuple[tuple[Glob, int], ...] = ()
    unavailable: str = ""
    """Why the provider is unavailable by the rules alone (`ZAI_API_KEY is not set`), else empty."""

    @property
    def shown(self) -> str:
        return display_name(self.name)

    def api_for(self, model: str | None) -> Api:
        """The API in which a model, named as sent, is asked. A model that no glob matches is asked in the
        Messages API."""
        if isinstance(self.api, str):
            return self.api
        return next((api for glob, api in self.api if glob.matches(model or "")), "anthropic")

    def has_api_for(self, model: str) -> bool:
        """Whether the rules say in which API a model, named as sent, is asked."""
        return isinstance(self.api, str) or any(glob.matches(model) for glob, _ in self.api)

    @property
    def list_api(self) -> Api:
        """The API whose model list it has: the last one, where it depends on the model."""
        return self.apis[-1]

    @property
    def apis(self) -> tuple[Api, ...]:
        """Every API that it is asked in."""
        return (self.api,) if isinstance(self.api, str) else tuple(api for _, api in self.api)

    def key_header_for(self, api: Api) -> KeyHeader:
        """The header that carries the key of a request in this API (clouds.md, 7)."""
        is_claudes_own = api == "anthropic" and self.cloud not in ("google", "copilot")
        return self.key_header or ("x-api-key" if is_claudes_own else "authorization")

    def count_tokens_for(self, api: Api) -> CountTokens:
        """Who counts the tokens of a request in this API."""
        return self.count_tokens or ("forward" if api in CLAUDE_APIS else "estimate")

    @property
    def is_anthropic(self) -> bool:
        """Whether this is "Anthropic itself" in the sense of the contract, section 5."""
        return self.auth in ("client", "claude-login") or self.url.host == ANTHROPIC_HOST

    @property
    def uses_login(self) -> bool:
        """Whether it is asked with the token of a login in `login`."""
        return self.auth in ("claude-login", "codex-login")

    def has_long_context(self, model: str) -> bool:
        """Whether the model is also offered with `[1m]`."""
        return any(glob.matches(model) for glob in self.long_context)

    @property
    def serves_claude(self) -> bool:
        """Whether it belongs to the group that takes each other's signed thinking; see `Rules.kin_of`."""
        return self.claude or self.is_anthropic

    @property
    def expired_key_statuses(self) -> tuple[int, ...]:
        """The statuses of an answer to a key that has expired. Amazon sends 403 for its short-term keys."""
        return (401, 403) if is_amazon(self.url) else (401,)

    @property
    def key(self) -> str | None:
        """The first available key."""
        return next((secret.value for secret in self.keys if secret.value), None)

    def account_of(self, key: str | None) -> str:
        """Names the account of a key or a login's token, the same after it is renewed; see `Secret.account`.
        Empty without either."""
        if self.uses_login:
            return f"login\0{self.login}"
        return next((secret.account for secret in self.keys if key and secret.value == key), "")


class Target(msgspec.Struct, frozen=True):
    """Where an attempt goes, with changes to the request."""

    provider: Annotated[ProviderName, "A name from providers."]
    model: Annotated[SentModel | None, "Model to send; {model} stands for the requested one."] = None
    body: Annotated[BodyEdit, "Changes to the body, after the provider's."] = BodyEdit()
    headers: Annotated[Mapping[HeaderName, HeaderValue], "Headers, after the provider's."] = {}


def parse_target(written: str) -> Target:
    """`provider` or `provider/model`; the provider ends at the first slash."""
    provider, slash, model = written.partition("/")
    if not provider:
        raise ValueError
    return Target(provider, parse_sent_model(model) if slash else None)


type TargetText = Annotated[
    Target,
    Reads(
        "provider or provider/model",
        parse_target,
        string_schema(r"[A-Za-z0-9_-]+(/.+)?") | {"type": ["string", "integer"]},
    ),
    Refers("providers", "provider", operator.attrgetter("provider")),
]


class Reject(msgspec.Struct, frozen=True):
    """An error that the router answers with, last in a list."""

    own_key: ClassVar[str] = "reject"

    status: Annotated[ErrorStatus, "Status of the answer."] = msgspec.field(name="reject")
    message: Annotated[Text, "Message of the error that the caller gets."] = "rejected by the rules"


class Match(msgspec.Struct, frozen=True):
    """Conditions that must all hold; of a list of values one must match."""

    model: Annotated[OneOrMore[ModelGlob], "Globs on the requested model, case-insensitive."] = ()
    tier: Annotated[OneOrMore[Tier], "What the requested model's name contains."] = ()
    path: Annotated[Globs, "Globs on the path, without query."] = ()
    port: Annotated[OneOrMore[Port], "The listener that received the request: port or name."] = ()
    client: Annotated[Globs, "Globs on the client's name."] = ()
    header: Annotated[tuple[tuple[LowerHeaderName, Globs], ...], "Globs on headers, by name."] = ()
    agent: Annotated[OneOrMore[Agent], "Which agent sent the request."] = ()
    request_class: Annotated[
        OneOrMore[RequestClass], "What the request is for, as Claude Code says if it sends hint headers."
    ] = msgspec.field(default=(), name="class")
    project: Annotated[Globs, "Globs on the folder that signalbox claude was started in."] = ()
    thinking: Annotated[Flag | None, "Whether the request asks for thinking."] = None
    images: Annotated[Flag | None, "Whether the request contains images."] = None
    stream: Annotated[Flag | None, "Whether the request asks for a stream."] = None
    tools: Annotated[Globs, "Globs on the names of the tools offered."] = ()
    tokens_over: Annotated[Count | None, "More estimated input tokens than this."] = None
    tokens_under: Annotated[Count | None, "Fewer estimated input tokens than this."] = None
    system: Annotated[OneOrMore[RegexText], "Regular expressions to find in the system text."] = ()
    prompt: Annotated[OneOrMore[RegexText], "Regular expressions to find in the last user text."] = ()
    quota: Annotated[
        tuple[tuple[ProviderWindow, Comparison], ...],
        'Quota windows: {anthropic.7d: ">80"}; unknown is false.',
    ] = ()


class Failover(msgspec.Struct, frozen=True):
    on: frozenset[str] = frozenset(
        {"auth", "408", "429", "500", "502", "503", "504", "529", "connect", "timeout", "stream_error"}
    )
    retries: int = 0
    wait: float = 0.0


class Rule(msgspec.Struct, frozen=True):
    """One rule. `choices` are sets of equal targets, in order; most sets have one member."""

    label: str
    """The name given, else `#2` for the second rule."""
    match: Match
    choices: tuple[tuple[Target, ...], ...]
    reject: Reject | None
    failover: Failover
    line: int
    """Its line in the file, from 1."""


class Log(msgspec.Struct, frozen=True):
    """What is logged."""

    level: Annotated[Level, "Default info. LOG_LEVEL in the environment wins."] = "info"
    file: Annotated[Text, "Request log, relative to router_state. Default requests.jsonl."] = "requests.jsonl"
    keep: Annotated[Duration, "How long logs are kept. Default 3d."] = 3 * 86400.0
    prompts: Annotated[Flag, "Whether the console shows how a prompt begins. Default true."] = True


class Inspect(msgspec.Struct, frozen=True):
    """What mitmweb keeps and shows."""

    keep: Annotated[Whole, "Number of flows. Default 500."] = 500
    bodies: Annotated[Size, "How much of each body. Default 2MB."] = 2 * 1024 * 1024
    secrets: Annotated[Literal["mask", "show"], "Whether credentials are masked. Default mask."] = "mask"


class Week(msgspec.Struct, frozen=True):
    """When weeks begin, for sums and budgets."""

    starts: Annotated[WeekTime, "Default monday 00:00."] = (0, 0, 0)
    """(weekday 0 = monday, hour, minute)"""
    timezone: Annotated[Timezone, "Default local."] = "local"


class LedgerSettings(msgspec.Struct, frozen=True):
    """The ledger, in which requests are recorded."""

    schema_name: ClassVar[str] = "Ledger"

    url: Annotated[LedgerUrl, "sqlite, or the SQLAlchemy URL of a PostgreSQL."] = "sqlite"
    keep: Annotated[Duration, "Default 400d."] = 400 * 86400.0

    @property
    def shared_url(self) -> str | None:
        """The PostgreSQL that routers on many machines share; None if the ledger is a file."""
        return None if self.url.partition(":")[0] == "sqlite" else self.url


class Ui(msgspec.Struct, frozen=True):
    """Who may read the router's own pages."""

    hosts: Annotated[
        tuple[HostName, ...], "Further Host names under which the router and its pages answer."
    ] = ()
    open: Annotated[Flag, "Whether /ui and /metrics are read without a client's secret. Default false."] = (
        False
    )


class Rules(msgspec.Struct, frozen=True):
    """All of rules.yaml."""

    providers: Mapping[str, Provider] = {}
    rules: tuple[Rule, ...] = ()
    failover: Failover = Failover()
    clients: Mapping[str, str] = {}
    """Secrets by name; if empty, only this machine may connect."""
    client_commands: Mapping[str, Command] = {}
    """The commands that printed these secrets, if any, by name."""
    body_limit: int = 32 * 1024 * 1024
    """Bytes of a decoded body on the two messages paths."""
    week: Week = Week()
    ledger: LedgerSettings = LedgerSettings()
    log: Log = Log()
    picker: bool = False
    fail: Literal["open", "closed"] = "open"
    fails_open: bool = False
    """Whether these stand in for rules that could not be loaded: every request is passed on unrouted."""
    inspect: Inspect = Inspect()
    ui: Ui = Ui()
    listen: Mapping[str, Listen] = {}
    outbound: Outbound = Outbound()
    """The proxies of the environment, for hosts that are no provider's."""
    file: Path = Path("rules.yaml")
    reads: tuple[Path, ...] = ()
    """Other files whose change causes a reload: `.env`, files with secrets."""
    warnings: tuple[str, ...] = ()
    """Warnings for `check`, each one line with its place."""
    environment: Mapping[str, str] = {}
    """Values of `schema.NEEDED_LATER` from the environment, else from `.env`."""

    @property
    def searches_text(self) -> bool:
        """Whether any rule searches the text of requests."""
        return any(rule.match.system or rule.match.prompt for rule in self.rules)

    @property
    def login_folders(self) -> tuple[Path, ...]:
        """Folders whose logins requests depend on: those of `auth: claude-login` and of accounts."""
        providers = self.providers.values()
        own = (provider.login for provider in providers if provider.auth == "claude-login")
        accounts = (folder for provider in providers for folder in provider.quota.accounts)
        return tuple(dict.fromkeys((*own, *accounts)))

    @property
    def codex_folders(self) -> tuple[Path, ...]:
        """The same of `auth: codex-login`."""
        providers = self.providers.values()
        return tuple(dict.fromkeys(one.login for one in providers if one.auth == "codex-login"))

    def kin_of(self, provider: Provider) -> frozenset[str]:
        """The names of the providers whose signed thinking this one takes besides its own.

        All that serve Claude are one group, but two that are Anthropic itself count as two: some models bind
        their thinking to the account.
        """
        if not provider.serves_claude:
            return frozenset()
        group = (one for one in self.providers.values() if one.serves_claude)
        names = {one.name for one in group if not (one.is_anthropic and provider.is_anthropic)}
        return frozenset(names if provider.is_anthropic else {*names, *UPSTREAMS})

    @property
    def lists_models(self) -> bool:
        """Whether any provider adds to the model list."""
        return any(provider.models is not None for provider in self.providers.values())
