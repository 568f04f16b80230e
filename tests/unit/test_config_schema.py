"""Defaults, and one shape for what has several spellings."""

from pathlib import Path

import pytest

from signalbox.config.fields import Listen, Secret, parse_glob
from signalbox.config.load import parse
from signalbox.config.rules import (
    Budget,
    Circuit,
    Failover,
    Match,
    Model,
    Price,
    Provider,
    Reject,
    Rule,
    Rules,
    Target,
    Timeout,
    Ui,
)

FILE = Path("/nowhere/rules.yaml")


def rules_of(text: str, **environ: str) -> Rules:
    return parse(text, file=FILE, environ=environ)


def provider_of(keys: str) -> Provider:
    return rules_of(f"providers: {{a: {{url: https://h{keys}}}}}").providers["a"]


def rule_of(keys: str) -> Rule:
    providers = "providers: {a: {url: https://h}, b: {url: https://h}}"
    return rules_of(f"{providers}\nlisten: {{w: 127.0.0.1:81}}\nrules: [{keys}]").rules[0]


@pytest.mark.parametrize(
    ("keys", "auth", "key_header", "beta", "count_tokens", "unavailable"),
    [
        ("", "none", "x-api-key", "learn", "forward", ""),
        (", key: k", "key", "x-api-key", "learn", "forward", ""),
        (", key: k, key_header: api-key", "key", "api-key", "learn", "forward", ""),
        (", auth: client", "client", "x-api-key", "forward", "forward", ""),
        (", auth: client, beta: drop", "client", "x-api-key", "drop", "forward", ""),
        (", auth: claude-login", "claude-login", "x-api-key", "forward", "forward", ""),
        (", api: openai, key: k", "key", "authorization", "learn", "estimate", ""),
        (", api: responses, key: k", "key", "authorization", "learn", "estimate", ""),
        (", key: '${K}'", "key", "x-api-key", "learn", "forward", "K is not set"),
        (", keys: ['${K}', k]", "key", "x-api-key", "learn", "forward", ""),
        (", keys: ['${K}', '${L}']", "key", "x-api-key", "learn", "forward", "K is not set"),
        (", key: '${K:-}'", "key", "x-api-key", "learn", "forward", "the key is empty"),
    ],
)  # fmt: skip
def test_defaults_of_a_provider(keys, auth, key_header, beta, count_tokens, unavailable):
    found = provider_of(keys)
    api = found.api_for("any")
    assert (found.auth, found.key_header_for(api), found.beta) == (auth, key_header, beta)
    assert (found.count_tokens_for(api), found.unavailable) == (count_tokens, unavailable)


def test_the_api_may_depend_on_the_model_sent_and_the_first_match_wins():
    found = provider_of(", key: k, api: {'Claude-*': anthropic, 'gpt-*': openai}")
    apis = {model: found.api_for(model) for model in ("claude-opus-4-5", "gpt-5.6-sol", "other", None)}
    assert apis == {
        "claude-opus-4-5": "anthropic",
        "gpt-5.6-sol": "openai",
        "other": "anthropic",
        None: "anthropic",
    }
    assert (found.apis, found.list_api) == (("anthropic", "openai"), "openai")


@pytest.mark.parametrize(
    ("host", "header"),
    [
        ("api.githubcopilot.com", "authorization"),
        ("claude.googleapis.com", "authorization"),
        ("aws-external-anthropic.us-west-2.api.aws", "x-api-key"),
    ],
)
def test_clouds_that_serve_claude_get_their_key_in_their_own_header(host, header):
    provider = rules_of(f"providers: {{c: {{url: 'https://{host}', key: k}}}}").providers["c"]
    assert provider.key_header_for("anthropic") == header


def test_defaults_of_key_header_and_count_tokens_follow_the_api_of_the_model():
    found = provider_of(", key: k, api: {'claude-*': anthropic, '*': openai}")
    assert [found.key_header_for(api) for api in found.apis] == ["x-api-key", "authorization"]
    assert [found.count_tokens_for(api) for api in found.apis] == ["forward", "estimate"]
    given = provider_of(", key: k, key_header: api-key, count_tokens: reject, api: {'*': openai}")
    assert (given.key_header_for("openai"), given.count_tokens_for("openai")) == ("api-key", "reject")


@pytest.mark.parametrize("host", ["api.openai.com", "eu.api.openai.com"])
def test_openai_itself_counts_tokens(host):
    text = f"providers: {{a: {{url: https://{host}/v1, api: responses, count_tokens: forward, key: k}}}}"
    assert rules_of(text).providers["a"].count_tokens_for("responses") == "forward"


def test_first_available_key_is_the_key():
    found = provider_of(", keys: ['${K}', l, m]")
    assert found.keys == (Secret(None, "K is not set"), Secret("l"), Secret("m"))
    assert found.key == "l"


@pytest.mark.parametrize(
    ("keys", "name", "value"),
    [
        (
            ", rename: {'*haiku*': x, '*': y}",
            "rename",
            ((parse_glob("*haiku*"), "x"), (parse_glob("*"), "y")),
        ),
        (", beta: [a-1, b-2]", "beta", ("a-1", "b-2")),
        (", beta: []", "beta", ()),
        (", models: list", "models", "list"),
        (", models: [m]", "models", (Model("m"),)),
        (
            ", models: [{id: m, label: M, description: slow, behaves_as: claude-haiku-4-5}]",
            "models",
            (Model("m", "M", "slow", "claude-haiku-4-5"),),
        ),
        (", long_context: ['*']", "long_context", (parse_glob("*"),)),
        (", max_tokens: 8k", "max_tokens", ((parse_glob("*"), 8000),)),
        (", max_tokens: {'x*': 1, '*': 2}", "max_tokens", ((parse_glob("x*"), 1), (parse_glob("*"), 2))),
        (", prices: {'*': {input: 0.6, output: 2}}", "prices", ((parse_glob("*"), Price(0.6, 2.0)),)),
        (", budget: {tokens: 50M, per: day}", "budget", Budget(50_000_000, "day", 100)),
        (", circuit: {cooldown: 5s}", "circuit", Circuit(3, 5, 5.0)),
        (", timeout: {idle: 1m}", "timeout", Timeout(10, None, 60)),
        (", timeout: {first_byte: 30s}", "timeout", Timeout(10, 30, 300)),
        (", query: {api-version: 2024-10-21}", "query", {"api-version": "2024-10-21"}),
        (", path: /x", "path", "/x"),
        (", login: other", "login", Path("/nowhere/other")),
        (", login: ~/x", "login", Path("~/x").expanduser()),
        (", dialect: glm", "dialect", "glm"),
        (", thinking: strip", "thinking", "strip"),
    ],
)
def test_a_key_of_a_provider(keys, name, value):
    assert getattr(provider_of(keys), name) == value


def test_status_file_is_written_where_quota_is_given():
    assert provider_of("").quota.status_file is None
    assert provider_of(", quota: {}").quota.status_file == Path("~/.claude/usage-status.md").expanduser()
    quota = provider_of(", quota: {redirect_at: {5h: 90}, probe: 0s, probe_key: '${K}', accounts: [x]}").quota
    assert (quota.redirect_at, quota.probe, quota.probe_key) == (
        {"5h": 90},
        0.0,
        Secret(None, "K is not set"),
    )
    assert quota.accounts == (Path("/nowhere/x"),)


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ('"*x*"', Match(model=(parse_glob("*x*"),))),
        ('["*x*", y]', Match(model=(parse_glob("*x*"), parse_glob("y")))),
        ("{}", Match()),
        ("{model: x, tier: opus}", Match(model=(parse_glob("x"),), tier=("opus",))),
        ("{tier: [opus, fable]}", Match(tier=("opus", "fable"))),
        ("{path: /v1/*}", Match(path=(parse_glob("/v1/*"),))),
        ("{client: [a, b]}", Match(client=(parse_glob("a"), parse_glob("b")))),
        ("{port: 80}", Match(port=(80,))),
        ("{port: [80, w]}", Match(port=(80, 81))),
        ("{header: {X-A: y}}", Match(header=(("x-a", (parse_glob("y"),)),))),
        ("{agent: subagent, thinking: false}", Match(agent=("subagent",), thinking=False)),
        ("{agent: [main, subagent]}", Match(agent=("main", "subagent"))),
        ("{images: true, stream: 'false'}", Match(images=True, stream=False)),
        ("{tokens_over: 60k, tokens_under: 1M}", Match(tokens_over=60_000, tokens_under=1_000_000)),
        (
            '{quota: {a.7d: ">80", b.overage: "<=5"}}',
            Match(quota=((("a", "7d"), (">", 80)), (("b", "overage"), ("<=", 5)))),
        ),
    ],
)  # fmt: skip
def test_conditions_of_a_match(match, expected):
    assert rule_of(f"{{match: {match}, to: a}}").match == expected


def test_regexes_are_compiled():
    match = rule_of('{match: {system: "^You", prompt: [a, b]}, to: a}').match
    assert [pattern.text for pattern in (*match.system, *match.prompt)] == ["^You", "a", "b"]


@pytest.mark.parametrize(
    ("to", "choices", "reject"),
    [
        ("a", ((Target("a"),),), None),
        ("[a/x, b]", ((Target("a", "x"),), (Target("b"),)), None),
        ("[[a, b], {provider: a, model: y}]", ((Target("a"), Target("b")), (Target("a", "y"),)), None),
        ("[a, {reject: 429, message: no}]", ((Target("a"),),), Reject(429, "no")),
        ("{reject: 403}", (), Reject(403, "rejected by the rules")),
    ],
)
def test_targets_of_a_rule(to, choices, reject):
    found = rule_of(f'{{match: "*", to: {to}}}')
    assert (found.choices, found.reject) == (choices, reject)


def test_a_target_brings_its_own_body_and_headers():
    target = rule_of('{match: "*", to: {provider: a, body: {set: {n: 1}}, headers: {X-Y: z}}}').choices[0][0]
    assert (target.body.set, target.headers) == ({"n": 1}, {"X-Y": "z"})


def test_a_rule_without_a_name_is_labelled_by_its_place():
    text = """
providers: {a: {url: https://h}}
rules:
  - {match: x, to: a}
  - {match: y, to: a, name: why}
  - {match: z, to: a}
"""
    assert [(rule.label, rule.line) for rule in rules_of(text).rules] == [("#1", 4), ("why", 5), ("#3", 6)]


def test_a_rules_failover_overrides_key_by_key():
    text = """
failover: {retries: 2, on: [429]}
providers: {a: {url: https://h}}
rules: [{match: x, to: a, failover: {wait: 5s, on: [timeout, 500]}}]
"""
    found = rules_of(text)
    assert found.failover == Failover(on=frozenset({"429"}), retries=2, wait=0)
    assert found.rules[0].failover == Failover(on=frozenset({"timeout", "500"}), retries=2, wait=5)


def test_the_top_level_keys():
    text = """
clients: {me: secret-for-tests}
limits: {body: 1MB}
week: {starts: sunday 12:30, timezone: UTC}
ledger: {url: postgresql+psycopg://h/db, keep: 1d}
log: {level: debug, file: x.jsonl, keep: 1h, prompts: false}
picker: true
fail: closed
inspect: {keep: 5, bodies: 1KB, secrets: show}
ui: {hosts: [Box.LAN.], open: true}
listen: {work: 127.0.0.1:8083}
"""
    found = rules_of(text)
    assert (found.clients, found.body_limit) == ({"me": "secret-for-tests"}, 1 << 20)
    assert (found.week.starts, found.week.timezone) == ((6, 12, 30), "UTC")
    assert (found.ledger.url, found.ledger.keep) == ("postgresql+psycopg://h/db", 86400)
    assert (found.log.level, found.log.file, found.log.keep, found.log.prompts) == (
        "debug",
        "x.jsonl",
        3600,
        False,
    )
    assert (found.picker, found.fail, found.ui) == (True, "closed", Ui(("box.lan",), True))
    assert (found.inspect.keep, found.inspect.bodies, found.inspect.secrets) == (5, 1024, "show")
    assert found.listen == {"work": Listen("127.0.0.1", 8083)}


def test_a_ledger_may_be_named_alone():
    assert rules_of("ledger: sqlite").ledger.url == "sqlite"


def test_log_level_in_the_environment_wins():
    assert rules_of("log: {level: debug}", LOG_LEVEL="WARN").log.level == "warn"
    assert rules_of("log: {level: debug}", LOG_LEVEL="loud").log.level == "debug"


def test_only_the_names_that_others_need_are_taken_from_the_environment():
    environ = {"ANTHROPIC_DEFAULT_OPUS_MODEL": "glm-5", "HOME_SECRET": "x", "CLAUDE_CONFIG_DIR": ""}
    assert rules_of("", **environ).environment == {"ANTHROPIC_DEFAULT_OPUS_MODEL": "glm-5"}


CLOUDS = [
    ("api: vertex, url: https://h/v1/projects/p/locations/l", True, "vertex"),
    ("url: https://claude.googleapis.com/v1/x", True, "google"),
    ("url: https://bedrock-mantle.us-east-1.api.aws/anthropic", True, "bedrock"),
    ("url: https://aws-external-anthropic.us-west-2.api.aws", True, "aws"),
    ("url: https://my-res.services.ai.azure.com/anthropic", True, "foundry"),
    ("url: https://my-res.services.ai.azure.com/openai/v1, api: openai", False, None),
    ("url: https://bedrock-mantle.us-east-1.api.aws/openai, api: responses", False, None),
    ("url: https://api.githubcopilot.com", False, "copilot"),
    ("url: https://api.business.githubcopilot.com", False, "copilot"),
    ("url: https://copilot-api.example.ghe.com, dialect: copilot", False, "copilot"),
    ("url: https://api.anthropic.com", False, None),
    ("url: https://bedrock-mantle.us-east-1.api.aws.example", False, None),
    ("url: https://h, claude: true", True, None),
    ("url: https://claude.googleapis.com/v1/x, claude: false", False, "google"),
]


@pytest.mark.parametrize(("keys", "claude", "cloud"), CLOUDS)
def test_a_cloud_is_recognized_by_its_host(keys, claude, cloud):
    found = rules_of(f"providers: {{a: {{{keys}}}}}").providers["a"]
    assert (found.claude, found.cloud) == (claude, cloud)


def test_vertex_takes_a_bearer_and_counts():
    found = rules_of(f"providers: {{a: {{{CLOUDS[0][0]}, key: k}}}}").providers["a"]
    assert (found.key_header_for("vertex"), found.count_tokens_for("vertex")) == ("authorization", "forward")


def test_a_codex_login_is_in_codexs_folder_and_speaks_its_dialect(monkeypatch):
    monkeypatch.setenv("HOME", "/home/fake")
    found = provider_of(", api: responses, auth: codex-login, quota: {redirect_at: {5h: 90}}")
    assert (found.login, found.dialect) == (Path("/home/fake/.codex"), "codex")
    assert found.quota.status_file == Path("/home/fake/.codex/usage-status.md")
