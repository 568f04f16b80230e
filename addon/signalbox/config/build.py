"""From the file as written to the rules in force: defaults, one shape for what has several spellings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec.structs import replace

from . import document, rules, schema, values
from .faults import MisfitError
from .rules import Glob, Reject, Rule, Rules, Secret, Target

type Fetch = Callable[[schema.SecretSource], Secret]

NEEDED_LATER = (
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "CLAUDE_CONFIG_DIR",
    "LOG_LEVEL",
)
"""Names in the environment, or `.env`, that other rooms ask for."""

LEVELS = get_args(rules.Level.__value__)

_REJECTED = "rejected by the rules"


def assemble(
    written: schema.RulesFile,
    root: document.Mapping,
    *,
    file: Path,
    variables: Mapping[str, str],
    fetch: Fetch,
) -> Rules:
    """`written` was decoded from `root` without a fault. Raises MisfitError where a client has no secret."""
    failover = merged(rules.Failover(), written.failover)
    listen = written.listen or {}
    settings = given(written)
    clients = {name: _client(name, one, fetch) for name, one in (written.clients or {}).items()}
    limit = written.limits.body if written.limits else None
    return Rules(
        providers={
            name: provider(name, one, file.parent, fetch) for name, one in (written.providers or {}).items()
        },
        rules=tuple(
            rule(number, one, line, failover, listen)
            for number, (one, line) in enumerate(zip(written.rules or (), _lines(root), strict=True), 1)
        ),
        failover=failover,
        clients={name: secret.value or "" for name, secret in clients.items()},
        client_commands={name: secret.command for name, secret in clients.items() if secret.command},
        week=rules.Week(**given(written.week)),
        ledger=ledger(written.ledger),
        log=rules.Log(**given(written.log) | _level(variables)),
        inspect=rules.Inspect(**given(written.inspect)),
        ui_hosts=_many(written.ui.hosts) if written.ui else (),
        listen=listen,
        file=file,
        environment={name: variables[name] for name in NEEDED_LATER if name in variables},
        **{key: settings[key] for key in ("picker", "fail") if key in settings},
        body_limit=Rules().body_limit if limit is None else limit,
    )


def given(written: msgspec.Struct | None) -> dict[str, Any]:
    """The keys that the user gave."""
    if written is None:
        return {}
    return {key: value for key, value in msgspec.structs.asdict(written).items() if value is not None}


def provider(name: str, written: schema.Provider, folder: Path, fetch: Fetch) -> rules.Provider:
    keys = tuple(_secret(key, fetch) for key in _many(written.keys if written.key is None else written.key))
    api = written.api or "anthropic"
    auth = written.auth or ("key" if keys else "none")
    same = (
        "url", "key_header", "headers", "path", "query", "beta", "count_tokens", "thinking", "dialect"
    )  # fmt: skip
    settings: dict[str, Any] = {
        "key_header": "authorization" if api == "openai" else "x-api-key",
        "count_tokens": "estimate" if api == "openai" else "forward",
        "beta": "forward" if auth in ("client", "claude-login") else "learn",
    } | {key: value for key, value in given(written).items() if key in same}
    if isinstance(written.beta, list):
        settings["beta"] = tuple(written.beta)
    return rules.Provider(
        name=name,
        **settings,
        api=api,
        auth=auth,
        keys=keys,
        login=folder / (written.login or values.location("~/.claude")),
        body=_body(written.body),
        rename=_by_glob(written.rename),
        models=tuple(written.models) if isinstance(written.models, list) else written.models,
        long_context=_many(written.long_context),
        timeout=_timeout(written.timeout),
        circuit=rules.Circuit(**given(written.circuit)),
        quota=_quota(written.quota, folder, fetch),
        budget=rules.Budget(**given(written.budget)) if written.budget else None,
        prices=tuple((glob, rules.Price(**given(price))) for glob, price in _by_glob(written.prices)),
        max_tokens=_by_glob(
            {"*": written.max_tokens} if isinstance(written.max_tokens, int) else written.max_tokens
        ),
        unavailable=rules.unavailable(auth, keys),
    )


def rule(
    number: int,
    written: schema.Rule,
    line: int,
    failover: rules.Failover,
    listen: Mapping[str, rules.Listen],
) -> Rule:
    choices = written.to if isinstance(written.to, list) else [written.to]
    last = choices[-1]
    reject = Reject(last.reject, last.message or _REJECTED) if isinstance(last, schema.Reject) else None
    return Rule(
        label=written.name or f"#{number}",
        match=_match(written.match, listen),
        choices=tuple(
            tuple(_target(target) for target in _many(choice))
            for choice in choices
            if not isinstance(choice, schema.Reject)
        ),
        reject=reject,
        failover=merged(failover, written.failover),
        line=line,
    )


def merged(failover: rules.Failover, written: schema.Failover | None) -> rules.Failover:
    """`failover`, with the keys that are given in its place."""
    changes = given(written)
    if "on" in changes:
        changes["on"] = frozenset(changes["on"])
    return replace(failover, **changes)


def ledger(written: str | schema.Ledger | None) -> rules.Ledger:
    return rules.Ledger(written) if isinstance(written, str) else rules.Ledger(**given(written))


def _lines(root: document.Mapping) -> list[int]:
    """Where each rule stands."""
    listed = root.get("rules")
    return [node.line for node in listed.items] if isinstance(listed, document.Sequence) else []


def _level(variables: Mapping[str, str]) -> dict[str, str]:
    level = variables.get("LOG_LEVEL", "").lower()
    return {"level": level} if level in LEVELS else {}


def _client(name: str, written: str | schema.SecretSource, fetch: Fetch) -> Secret:
    secret = Secret(written) if isinstance(written, str) else fetch(written)
    if secret.value is None:
        raise MisfitError(secret.reason, "clients", name)
    return secret


def _many(value: Any) -> tuple[Any, ...]:
    """One or a list of them, or none, as a tuple."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def _secret(written: Secret | schema.SecretSource, fetch: Fetch) -> Secret:
    return written if isinstance(written, Secret) else fetch(written)


def _body(written: schema.Body | None) -> rules.BodyEdit:
    return rules.BodyEdit(written.set or {}, _many(written.drop)) if written else rules.BodyEdit()


def _by_glob[T](written: Mapping[str, T] | None) -> tuple[tuple[Glob, T], ...]:
    return tuple((values.glob(text), value) for text, value in (written or {}).items())


def _timeout(written: schema.Timeout | None) -> rules.Timeout:
    settings = given(written)
    if "first_byte" in settings:  # the longer default for whole answers is for those who set none
        settings["first_byte_whole"] = settings["first_byte"]
    return rules.Timeout(**settings)


def _quota(written: schema.Quota | None, folder: Path, fetch: Fetch) -> rules.Quota:
    if written is None:
        return rules.Quota()
    settings = given(written)
    if written.probe_key is not None:
        settings["probe_key"] = _secret(written.probe_key, fetch)
    status_file = written.status_file or values.location("~/.claude/usage-status.md")
    accounts = tuple(folder / account for account in _many(written.accounts))
    return rules.Quota(**settings | {"status_file": folder / status_file, "accounts": accounts})


def _target(written: Target | schema.Target) -> Target:
    if isinstance(written, Target):
        return written
    return Target(written.provider, written.model, _body(written.body), written.headers or {})


def _match(written: Glob | list[Glob] | schema.Match, listen: Mapping[str, rules.Listen]) -> rules.Match:
    if not isinstance(written, schema.Match):
        return rules.Match(model=_many(written))
    lists = ("model", "tier", "path", "client", "tools", "system", "prompt")
    settings = {key: _many(value) if key in lists else value for key, value in given(written).items()}
    return rules.Match(
        **settings
        | {
            "port": tuple(
                listen[port].port if isinstance(port, str) else port for port in _many(written.port)
            ),
            "header": tuple((name.lower(), _many(globs)) for name, globs in (written.header or {}).items()),
            "quota": tuple(
                (*window.split(".", 1), *comparison) for window, comparison in (written.quota or {}).items()
            ),
        }
    )
