"""The form of rules.yaml, as far as it differs from the rules in force, and the conversion between both.

A key is declared in a struct here, or in one of `rules` if the file and the rules in force have the same
form. The string in each annotation describes the key in the JSON Schema. `in_force` fills in defaults that
depend on other keys, fetches secrets stored elsewhere, and resolves paths against the folder of the rules.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import msgspec
from msgspec.structs import replace

from . import document, fields, outbound, rules
from .clouds import COPILOT, VERTEX, CloudName, cloud_of
from .document import ConflictError
from .fields import (
    BaseUrl,
    Beta,
    ClientSecret,
    Count,
    Duration,
    Flag,
    GlobText,
    HeaderName,
    HeaderValue,
    KeyText,
    LedgerUrl,
    Listen,
    ListenAddress,
    Location,
    Loose,
    ModelGlob,
    NewName,
    OutcomeLabel,
    Percent,
    RuleName,
    Secret,
    Size,
    Text,
    UrlPath,
    Whole,
)
from .rules import (
    BodyEdit,
    Budget,
    Circuit,
    Inspect,
    LedgerSettings,
    Log,
    Match,
    Price,
    Reject,
    Rules,
    Target,
    TargetText,
    Timeout,
    Ui,
    Week,
)
from .typespec import OneOrMore

_VERTEX_PATH = re.compile(r"/projects/[^/]+/locations/[^/]+$")

type Secrets = Mapping[SecretSource, Secret]
type Fetch = Callable[[Iterable[SecretSource]], Secrets]
"""Gets secrets that are stored elsewhere."""

_DIALECTS: Mapping[rules.Api, tuple[str, ...]] = {
    "openai": rules.CHAT_DIALECTS,
    "responses": rules.RESPONSES_DIALECTS,
}
_OPENAI = f".{rules.OPENAI_HOST}"
type NonEmpty[T] = Annotated[tuple[T, ...], msgspec.Meta(min_length=1)]

LEVELS = get_args(rules.Level.__value__)
NEEDED_LATER = (
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "CLAUDE_CONFIG_DIR",
    "LOG_LEVEL",
)
"""Variables of the environment, or `.env`, that other packages need."""


def given(written: msgspec.Struct | None) -> dict[str, Any]:
    """The keys that the user gave."""
    if written is None:
        return {}
    return {key: value for key, value in msgspec.structs.asdict(written).items() if value is not None}


class SecretSource(msgspec.Struct, frozen=True):
    """Where a secret is stored: a file or a command, not both."""

    file: Annotated[Location | None, "File with the secret; read again when it changes."] = None
    command: Annotated[
        NonEmpty[Text] | None,
        "Program and arguments that print the secret; run at first load and after a 401, for at most 10 s.",
    ] = None
    every: Annotated[
        Duration | None, "With command: how long its output is valid; it is run again before that ends."
    ] = None

    def __post_init__(self) -> None:
        if (self.file is None) == (self.command is None):
            raise ConflictError("give either file or command")
        if self.every is not None and self.command is None:
            raise ConflictError("every goes with command; a file is read again when it changes", "every")
        if self.every is not None and self.every < 1:
            raise ConflictError("every is 1s at least", "every")


type KeySpec = KeyText | SecretSource


class QuotaSpec(msgspec.Struct, frozen=True):
    """How the quota windows that Anthropic reports are used."""

    schema_name: ClassVar[str] = "Quota"

    redirect_at: Annotated[
        dict[Text, Percent] | None,
        "Percent per window (5h, 7d, overage) from which the provider is skipped.",
    ] = None
    hysteresis: Annotated[Percent | None, "How far below its mark a window must fall. Default 5."] = None
    probe: Annotated[Duration | None, "How often to probe while skipped; 0s turns it off. Default 5m."] = None
    probe_key: Annotated[KeySpec | None, "Key for the probe. Default: the last one seen."] = None
    probe_model: Annotated[Text | None, "Model for the probe. Default claude-haiku-4-5."] = None
    status_file: Annotated[
        Location | None, "File for the state of the windows. Default ~/.claude/usage-status.md."
    ] = None
    accounts: Annotated[
        tuple[Location, ...] | None, "Config folders; each is an account with its own quota."
    ] = None

    def in_force(self, folder: Path, default: Path, secrets: Secrets) -> rules.Quota:
        """`default` is the status file, if none is given."""
        settings = given(self)
        if self.probe_key is not None:
            settings["probe_key"] = _secret(self.probe_key, secrets)
        status_file = self.status_file or default
        accounts = tuple(folder / account for account in self.accounts or ())
        return rules.Quota(**settings | {"status_file": folder / status_file, "accounts": accounts})


class ProviderSpec(msgspec.Struct, frozen=True):
    """A service with models, and how requests to it are made."""

    schema_name: ClassVar[str] = "Provider"

    url: Annotated[
        BaseUrl,
        "Base URL; its path is kept as prefix. For api: openai /chat/completions is appended, for api: "
        "responses /responses.",
    ]
    api: Annotated[
        rules.Api | tuple[tuple[GlobText, rules.Api], ...] | None,
        "anthropic (Messages), openai (Chat Completions), responses (OpenAI Responses) or vertex (Claude on "
        "Vertex AI), or by glob on the model sent; the first match wins. Default anthropic.",
    ] = None
    key: Annotated[
        KeySpec | None, "The provider's key, often ${NAME}, or {file: PATH} or {command: [...]}."
    ] = None
    keys: Annotated[
        NonEmpty[KeySpec] | None,
        "Several keys: a session keeps its key while that is usable.",
    ] = None
    key_header: Annotated[
        rules.KeyHeader | None, "Header that carries the key. authorization sends it as Bearer."
    ] = None
    auth: Annotated[
        rules.Auth | None,
        "key: the key above. client: the caller's own credentials. claude-login, codex-login: the login in "
        "login. none: no credential. Default key if a key is given, else none.",
    ] = None
    login: Annotated[
        Location | None,
        "Folder of the login for auth: claude-login (default ~/.claude) or codex-login (default ~/.codex).",
    ] = None
    headers: Annotated[
        dict[HeaderName, HeaderValue] | None, "Set on each request; an empty value removes the header."
    ] = None
    path: Annotated[UrlPath | None, "Replaces the request's path."] = None
    query: Annotated[dict[Text, Loose] | None, "Query parameters to add."] = None
    body: Annotated[BodyEdit | None, "Changes to the outgoing body."] = None
    proxy: Annotated[
        outbound.ProxyText | None,
        "Proxy on the way to it, http://[user:password@]host:port, or none. Default: HTTPS_PROXY or "
        "HTTP_PROXY of the environment, less what NO_PROXY names.",
    ] = None
    rename: Annotated[
        tuple[tuple[GlobText, Text], ...] | None,
        "Model to send if the target names none, by glob; the first match wins.",
    ] = None
    beta: Annotated[
        Literal["forward", "learn", "drop"] | tuple[Beta, ...] | None,
        "Which values of anthropic-beta are sent. Default forward for client and claude-login, else learn.",
    ] = None
    claude: Annotated[
        Flag | None,
        "Whether it serves Claude itself: signed thinking and [1m] stay. Default true for the clouds' own "
        "endpoints.",
    ] = None
    count_tokens: Annotated[
        rules.CountTokens | None,
        "Who counts tokens. Default forward, or estimate for api: openai and responses.",
    ] = None
    thinking: Annotated[
        Literal["own", "keep", "strip"] | None, "Which thinking blocks stay in requests. Default own."
    ] = None
    models: Annotated[
        Literal["list"] | tuple[rules.ModelText | rules.Model, ...] | None,
        "What it adds to GET /v1/models and the picker: list for its own list, or a list of models.",
    ] = None
    long_context: Annotated[tuple[GlobText, ...] | None, "Its models that are also listed with [1m]."] = None
    timeout: Annotated[Timeout | None, "How long to wait for it."] = None
    circuit: Annotated[Circuit | None, "When it is skipped after failures."] = None
    quota: Annotated[QuotaSpec | None, "How its quota windows are used."] = None
    budget: Annotated[Budget | None, "How many tokens it may use."] = None
    prices: Annotated[
        tuple[tuple[GlobText, Price], ...] | None, "Dollars per million tokens, by glob on the model sent."
    ] = None
    dialect: Annotated[
        rules.DialectName | None,
        "For api: openai and responses, the variant of the protocol. Default by the URL's host.",
    ] = None
    max_tokens: Annotated[
        Count | tuple[tuple[GlobText, Count], ...] | None,
        "Upper bound for max_tokens, or bounds by glob on the model sent.",
    ] = None

    def __post_init__(self) -> None:
        if self.key is not None and self.keys is not None:
            raise ConflictError("give either key or keys", "keys")
        own = self.key is not None or self.keys is not None
        if own and self.auth in ("client", "claude-login", "codex-login", "none"):
            raise ConflictError(f"auth: {self.auth} uses no key: remove the key", "auth")
        if self.auth == "key" and not own:
            raise ConflictError("auth: key needs a key", "auth")
        self._check_api()
        if self.auth == "codex-login":
            self._check_codex()
        if "vertex" in self._apis():
            self._check_vertex()
        if self.path is None:
            self._check_url()

    def in_force(
        self, name: str, folder: Path, environment: outbound.Outbound, secrets: Secrets
    ) -> rules.Provider:
        written = self.keys if self.keys is not None else () if self.key is None else (self.key,)
        keys = tuple(_secret(key, secrets) for key in written)
        auth = self.auth or ("key" if keys else "none")
        cloud = self._cloud()
        defaults: dict[str, Any] = {
            "claude": cloud not in (None, "copilot"),
            "cloud": cloud,
            "beta": "forward" if auth in ("client", "claude-login") else "learn",
        }
        settings = defaults | {key: value for key, value in given(self).items() if key not in ("key", "keys")}
        if isinstance(self.max_tokens, int):
            settings["max_tokens"] = ((fields.parse_glob("*"), self.max_tokens),)
        is_codex = auth == "codex-login"
        login = self.login or fields.parse_location("~/.codex" if is_codex else "~/.claude")
        if is_codex:
            settings["dialect"] = "codex"
        if self.quota is not None:
            status = (login if is_codex else fields.parse_location("~/.claude")) / "usage-status.md"
            settings["quota"] = self.quota.in_force(folder, status, secrets)
        return rules.Provider(
            **settings
            | {
                "name": name,
                "auth": auth,
                "keys": keys,
                "login": folder / login,
                "proxy": environment.to(self.url) if self.proxy is None else self._own_proxy,
                "unavailable": rules.unavailable(auth, keys),
            }
        )

    @property
    def _own_proxy(self) -> fields.Proxy | None:
        return None if self.proxy == "none" else self.proxy

    def _apis(self) -> tuple[rules.Api, ...]:
        """Every API that it is asked in."""
        if isinstance(self.api, tuple):
            return tuple(api for _, api in self.api)
        return (self.api or "anthropic",)

    def _cloud(self) -> CloudName | None:
        """The cloud at this URL."""
        if self.dialect == "copilot" or COPILOT.fullmatch(self.url.host.lower()):
            return "copilot"
        if "vertex" in self._apis():
            return "vertex"
        return cloud_of(self.url) if "anthropic" in self._apis() else None

    def _check_api(self) -> None:
        if self.api == ():
            raise ConflictError("api by model names no model", "api")
        if self.claude and not rules.CLAUDE_APIS.intersection(self._apis()):
            raise ConflictError("claude: true is for providers that speak the Messages API", "claude")
        for api in (api for api in self._apis() if api != "anthropic"):
            if self.auth in ("client", "claude-login"):
                message = f"auth: {self.auth} is Anthropic's: api: {api} takes a key or none"
                raise ConflictError(message, "auth")
            if self.count_tokens == "forward" and not self._counts(api):
                message = f"api: {api} cannot count tokens: write estimate or reject"
                raise ConflictError(message, "count_tokens")
        known = {name for api in self._apis() for name in _DIALECTS.get(api, ())}
        if self.dialect is not None and known and self.dialect not in known:
            message = f"api: {self._apis()[-1]} has no dialect {self.dialect}"
            raise ConflictError(f"{message}: expected {', '.join(sorted(known))}", "dialect")

    def _counts(self, api: rules.Api) -> bool:
        """Whether a provider of this API has a counter: of those that speak Responses only OpenAI itself."""
        if api in rules.CLAUDE_APIS:
            return True
        host = f".{self.url.host.lower()}"
        return api == "responses" and (self.dialect or "openai") == "openai" and host.endswith(_OPENAI)

    def _check_codex(self) -> None:
        if self._apis() != ("responses",):
            raise ConflictError("auth: codex-login is for api: responses", "auth")
        if self.dialect not in (None, "codex"):
            raise ConflictError("auth: codex-login goes with dialect: codex", "dialect")
        if self.quota is not None and self.quota.accounts:
            raise ConflictError("accounts are config folders of Claude Code", "quota", "accounts")
        if self.models == "list":
            raise ConflictError("Codex's backend lists models for its own program alone: name them", "models")

    def _check_vertex(self) -> None:
        if self.models == "list":
            raise ConflictError("Vertex AI has no list of models: name them", "models")
        if self.path is None and not _VERTEX_PATH.search(self.url.path):
            raise ConflictError("the url of api: vertex ends in /projects/PROJECT/locations/LOCATION", "url")

    def _check_url(self) -> None:
        if "vertex" in self._apis():
            return
        if "anthropic" in self._apis() and VERTEX.fullmatch(self.url.host):
            raise ConflictError("Claude on Vertex AI needs api: vertex", "url")
        if "anthropic" not in self._apis():
            endings: tuple[str, ...] = ("/chat/completions", "/responses")
        elif self.url.path.endswith("/chat/completions"):
            raise ConflictError("this URL is for api: openai, with /chat/completions left off", "url")
        elif self.url.path.endswith("/responses"):
            raise ConflictError("this URL is for api: responses, with /responses left off", "url")
        else:
            endings = ("/v1/messages", "/v1/messages/count_tokens", "/v1")
        for ending in endings:
            if self.url.path.endswith(ending):
                base = str(self.url).removesuffix(ending)
                chat = ", or add api: openai or api: responses" if ending == "/v1" else ""
                raise ConflictError(f'leave "{ending}" off: write {base}{chat}', "url")


type OneTarget = TargetText | Target
type Choice = TargetText | Reject | Target | NonEmpty[OneTarget]


class FailoverSpec(msgspec.Struct, frozen=True):
    """When the next target is tried."""

    schema_name: ClassVar[str] = "Failover"

    on: Annotated[
        tuple[OutcomeLabel, ...] | None,
        "Outcomes after which the next target is asked: statuses, auth, connect, timeout, stream_error.",
    ] = None
    retries: Annotated[Whole | None, "Attempts on the same target first. Default 0."] = None
    wait: Annotated[Duration | None, "The longest retry-after that is waited for. Default 0s."] = None

    def over(self, failover: rules.Failover) -> rules.Failover:
        """`failover`, overridden by the keys that are given here."""
        changes = given(self)
        if "on" in changes:
            changes["on"] = frozenset(changes["on"])
        return replace(failover, **changes)


class RuleSpec(msgspec.Struct, frozen=True):
    """Which requests go to which targets."""

    schema_name: ClassVar[str] = "Rule"

    match: Annotated[
        OneOrMore[ModelGlob] | Match,
        "A glob on the requested model, a list of globs, or conditions.",
    ]
    to: Annotated[
        TargetText | Reject | Target | NonEmpty[Choice],
        "provider, provider/model, or a list in order. An inner list is a set of equal targets.",
    ]
    name: Annotated[RuleName | None, "Shown in logs and headers. Default #N."] = None
    failover: Annotated[FailoverSpec | None, "Overrides the global failover, key by key."] = None

    def __post_init__(self) -> None:
        choices = self.to if isinstance(self.to, tuple) else (self.to,)
        for i, choice in enumerate(choices[:-1]):
            if isinstance(choice, Reject):
                raise ConflictError("reject must be the last of the list", "to", i)

    def in_force(
        self, number: int, line: int, failover: rules.Failover, listen: Mapping[str, Listen]
    ) -> rules.Rule:
        choices = self.to if isinstance(self.to, tuple) else (self.to,)
        targets = (choice for choice in choices if not isinstance(choice, Reject))
        return rules.Rule(
            label=self.name or f"#{number}",
            match=self._match(listen),
            choices=tuple(choice if isinstance(choice, tuple) else (choice,) for choice in targets),
            reject=choices[-1] if isinstance(choices[-1], Reject) else None,
            failover=self.failover.over(failover) if self.failover else failover,
            line=line,
        )

    def _match(self, listen: Mapping[str, Listen]) -> Match:
        if not isinstance(self.match, Match):
            return Match(model=self.match)
        ports = tuple(listen[port].port if isinstance(port, str) else port for port in self.match.port)
        return replace(self.match, port=ports)


class LimitsSpec(msgspec.Struct, frozen=True):
    """What is refused."""

    schema_name: ClassVar[str] = "Limits"

    body: Annotated[Size | None, "Larger requests get 413. Default 32MB."] = None


class RulesFile(msgspec.Struct, frozen=True):
    """Signalbox's rules: which provider answers which request."""

    providers: Annotated[
        dict[NewName, ProviderSpec] | None, "Who serves models, by a name of your choice."
    ] = None
    rules: Annotated[
        tuple[RuleSpec, ...] | None,
        "The first that matches wins; a request none matches goes to the upstream.",
    ] = None
    failover: Annotated[FailoverSpec | None, "When the next target is tried."] = None
    clients: Annotated[
        dict[Text, ClientSecret | SecretSource] | None,
        "Callers and their secrets. None: only this machine may connect.",
    ] = None
    limits: Annotated[LimitsSpec | None, "What is refused."] = None
    week: Annotated[Week | None, "When weekly sums and budgets begin."] = None
    ledger: Annotated[LedgerUrl | LedgerSettings | None, "Where requests are recorded. Default sqlite."] = (
        None
    )
    log: Annotated[Log | None, "What is logged."] = None
    picker: Annotated[Flag | None, "Whether to write Claude Code's model picker file. Default false."] = None
    fail: Annotated[
        Literal["open", "closed"] | None, "What a request gets where the router itself fails. Default open."
    ] = None
    inspect: Annotated[Inspect | None, "What mitmweb holds."] = None
    ui: Annotated[Ui | None, "Who may read the router's own pages."] = None
    listen: Annotated[dict[NewName, ListenAddress] | None, "Listeners for signalbox run, by name."] = None

    def secret_sources(self) -> Iterator[SecretSource]:
        """Where the secrets are stored that the file does not hold itself."""
        for provider in (self.providers or {}).values():
            probe_key = provider.quota.probe_key if provider.quota else None
            for key in (provider.key, *(provider.keys or ()), probe_key):
                if isinstance(key, SecretSource):
                    yield key
        yield from (one for one in (self.clients or {}).values() if isinstance(one, SecretSource))

    def in_force(
        self, root: document.Mapping, *, file: Path, variables: Mapping[str, str], secrets: Secrets
    ) -> Rules:
        """Raises ConflictError where a client has no secret. `root` is what this was decoded from, `secrets`
        has the secret of each of the `secret_sources`."""
        failover = self.failover.over(rules.Failover()) if self.failover else rules.Failover()
        listen = self.listen or {}
        settings = given(self)
        clients = {name: _client(name, one, secrets) for name, one in (self.clients or {}).items()}
        limit = self.limits.body if self.limits else None
        log = self.log or Log()
        level = variables.get("LOG_LEVEL", "").lower()
        environment = outbound.from_environment(variables)
        return Rules(
            **{key: settings[key] for key in ("week", "picker", "fail", "inspect", "ui") if key in settings},
            providers={
                name: one.in_force(name, file.parent, environment, secrets)
                for name, one in (self.providers or {}).items()
            },
            rules=tuple(
                rule.in_force(number, line, failover, listen)
                for number, (rule, line) in enumerate(zip(self.rules or (), _lines(root), strict=True), 1)
            ),
            failover=failover,
            clients={name: secret.value or "" for name, secret in clients.items()},
            client_commands={name: secret.command for name, secret in clients.items() if secret.command},
            body_limit=Rules().body_limit if limit is None else limit,
            ledger=LedgerSettings(self.ledger)
            if isinstance(self.ledger, str)
            else self.ledger or LedgerSettings(),
            log=replace(log, level=level) if level in LEVELS else log,
            listen=listen,
            outbound=environment,
            file=file,
            environment={name: variables[name] for name in NEEDED_LATER if name in variables},
        )


def _lines(root: document.Mapping) -> list[int]:
    """Line of each rule."""
    listed = root.get("rules")
    return [node.line for node in listed.items] if isinstance(listed, document.Sequence) else []


def _client(name: str, written: str | SecretSource, secrets: Secrets) -> Secret:
    secret = Secret(written) if isinstance(written, str) else secrets[written]
    if secret.value is None:
        raise ConflictError(secret.reason, "clients", name)
    return secret


def _secret(written: Secret | SecretSource, secrets: Secrets) -> Secret:
    return written if isinstance(written, Secret) else secrets[written]
