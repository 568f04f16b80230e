"""`signalbox check`."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from signalbox.cli.check import check, check_command
from signalbox.cli.options import default_rules
from tests.support.router_process import ROOT, free_ports

PROVIDERS = "providers:\n  a: {url: https://h}\n"


@pytest.fixture
def rules(tmp_path, monkeypatch):
    """Writes rules.yaml into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str):
        (tmp_path / "rules.yaml").write_text(text)
        return tmp_path / "rules.yaml"

    return write


def test_good_rules_have_no_findings(rules):
    path = rules(PROVIDERS + "rules: [{match: '*', to: a}]\n")
    assert check(path, {}) == ([], [])


def test_errors_are_those_of_the_loader(rules):
    assert check(rules("modle: 1\nb: 2\n"), {}) == (
        ['rules.yaml:1: unknown key "modle" (at $)', 'rules.yaml:2: unknown key "b" (at $)'],
        [],
    )


def test_warnings_are_those_of_the_rules(rules):
    path = rules("providers:\n  a:\n    url: https://h\n    key: ${A}\nlisten: {}\n")
    assert check(path, {})[1] == [
        'rules.yaml:4: A is not set: provider "a" is unavailable (at $.providers.a.key)',
    ]
    assert check(path, {"A": "key-for-tests"})[1] == []


@pytest.mark.parametrize(
    ("match", "falling"),
    [
        ("'*haiku*'", ["sonnet", "opus"]),
        ("['*HAIKU*', claude-sonnet-*]", ["opus"]),
        ("{tier: [haiku, opus]}", ["sonnet"]),
        ("{model: '*', tier: opus}", ["haiku", "sonnet"]),
        ("{model: '*', thinking: true}", ["haiku", "sonnet", "opus"]),
        ("{}", []),
    ],
)
def test_tiers_that_no_rule_takes_by_the_model_fall_through(rules, match, falling):
    path = rules(PROVIDERS + f"rules: [{{match: {match}, to: a}}]\n")
    assert check(path, {})[1] == [f'tier "{tier}" falls through to the upstream' for tier in falling]


CHAT = """
providers:
  a: {url: "https://api.anthropic.com", auth: client}
  chat: {url: "https://api.openai.com/v1", api: openai, key: fake, rename: {"*haiku*": small}}
  other: {url: "https://openrouter.ai/api/v1", api: openai, key: fake}
"""


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("[{match: '*', to: chat}]", "claude-sonnet-4-5"),
        ("[{match: '*opus*', to: [a, [other, chat]]}, {match: '*', to: a}]", "claude-opus-4-5"),
        ("[{match: {tier: sonnet, thinking: true}, to: chat}, {match: '*', to: a}]", "claude-sonnet-4-5"),
        ("[{match: '*', to: [chat/gpt, other]}]", ""),
        ("[{match: '*haiku*', to: chat}, {match: 'gpt-*', to: chat}, {match: '*', to: a}]", ""),
    ],
)
def test_claude_model_for_a_maker_of_other_models_is_a_warning(rules, written, asked):
    message = f"chat is asked for {asked}, which it does not have: write chat/MODEL (at $.rules[0].to)"
    expected = [f"rules.yaml:6: {message}"] if asked else []
    assert check(rules(CHAT + f"rules: {written}\n"), {}) == ([], expected)


@pytest.mark.parametrize("url", ["https://chatgpt.com/backend-api/codex", "https://api.x.ai/v1"])
def test_a_claude_model_for_a_maker_is_a_warning_in_the_responses_api_too(rules, url):
    text = (
        f"providers: {{up: {{url: '{url}', api: responses, key: fake}}}}\nrules: [{{match: '*', to: up}}]\n"
    )
    message = "up is asked for claude-haiku-4-5, which it does not have: write up/MODEL (at $.rules[0].to)"
    assert check(rules(text), {})[1] == [f"rules.yaml:2: {message}"]


@pytest.mark.parametrize(
    ("match", "to", "model"),
    [
        ("'*'", "mixed/o3", "o3"),
        ("'*'", "mixed", "claude-haiku-4-5"),
        ("'*opus*'", "'mixed/x-{model}'", "x-claude-opus-4-5"),
        ("'*'", "mixed/gpt-6-sol", ""),
        ("'gpt-*'", "mixed", ""),
    ],
)
def test_a_model_that_no_glob_of_its_providers_api_matches_is_a_warning(rules, match, to, model):
    """It would be asked in the Messages API, which is seldom meant."""
    text = "providers: {mixed: {url: 'https://h', api: {'gpt-*': responses}, key: fake}}\n"
    path = rules(f"{text}rules: [{{match: {match}, to: {to}}}]\n")
    message = f"no glob in the api of mixed matches {model}, so it is asked as anthropic"
    found = [line for line in check(path, {})[1] if "glob" in line]
    assert found == ([f"rules.yaml:2: {message} (at $.rules[0].to)"] if model else [])


@pytest.mark.parametrize(
    ("provider", "to", "warned"),
    [
        ("api: openai", "chat/gpt-5.6-sol", "gpt-5.6-sol"),
        ("api: openai, rename: {'*': gpt-6-sol}", "chat", "gpt-6-sol"),
        ("api: {'gpt-6-*': responses, '*': openai}", "[chat/gpt-6-sol, chat/gpt-5.4-mini]", "gpt-5.4-mini"),
        ("api: openai", "chat/gpt-5.1", ""),
        ("api: responses", "chat/gpt-5.6-sol", ""),
        ("api: openai, dialect: generic", "chat/gpt-5.6-sol", ""),
    ],
)
def test_a_model_that_cannot_reason_over_chat_completions_is_a_warning(rules, provider, to, warned):
    text = f'providers:\n  chat: {{url: "https://api.openai.com/v1", key: fake, {provider}}}\n'
    found = check(rules(f"{text}rules: [{{match: '*', to: {to}}}]\n"), {})
    message = f"{warned} takes tools here only without reasoning: write api: responses"
    assert found == ([], [f"rules.yaml:2: {message} (at $.providers.chat.api)"] if warned else [])


def test_without_rules_nothing_falls_through(rules):
    assert check(rules(""), {}) == ([], [])


def test_good_rules_print_ok_and_the_exit_code_is_0(rules):
    rules(PROVIDERS + "rules: [{match: '*', to: a}]\n")
    result = CliRunner().invoke(check_command)
    assert (result.exit_code, result.stdout) == (0, "rules.yaml: ok, 1 provider, 1 rule\n")


def test_warnings_are_printed_and_the_exit_code_is_0(rules):
    path = rules("providers: {a: {url: https://h, key: '${UNSET_KEY}'}}\n")
    result = CliRunner().invoke(check_command, [str(path)])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        'rules.yaml:1: UNSET_KEY is not set: provider "a" is unavailable (at $.providers.a.key)',
        "rules.yaml: ok, 1 provider, 0 rules",
    ]


@pytest.mark.parametrize("text", ["modle: 1", "a: [", "rules: \0"])
def test_errors_go_to_stderr_and_the_exit_code_is_1(rules, text):
    rules(text)
    result = CliRunner().invoke(check_command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("rules.yaml:1: ")
    assert "Traceback" not in result.stderr


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    result = CliRunner().invoke(check_command, [str(tmp_path / "none.yaml")])
    assert result.exit_code == 1
    assert "none.yaml does not exist" in result.stderr


def test_without_rules_here_those_of_the_project_are_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_rules() == ROOT / "rules.yaml"
    Path("rules.yaml").write_text("")
    assert default_rules() == Path("rules.yaml")
    assert CliRunner().invoke(check_command).stdout == "rules.yaml: ok, 0 providers, 0 rules\n"


def test_missing_login_is_reported(rules, tmp_path):
    own = f'{{url: "https://api.anthropic.com", auth: claude-login, login: "{tmp_path}/none"}}'
    _, warnings = check(rules(f"providers: {{own: {own}}}"), {})
    assert warnings == [f'provider "own" is unavailable: there is no login in {tmp_path}/none']


def listed(rules, text: str) -> list[str]:
    return [line for line in check(rules(text), {})[1] if "is listed for" in line]


def test_model_listed_by_one_provider_and_routed_to_another_is_a_warning(rules):
    text = """providers:
  anthropic: {url: "https://api.anthropic.com", auth: client, models: [claude-x]}
  a:
    url: https://h
    key: ${UNSET}
    models:
      - glm-4.7
      - k3
      - claude-k4
  b: {url: "https://h", models: list}
rules:
  - {match: "glm-*", to: [[b, a], anthropic]}
  - {match: "claude-*", to: [b, a]}
"""
    first, second, third = listed(rules, text)
    told = 'model "claude-x" is listed for anthropic and routed to b (at $.providers.anthropic.models[0])'
    assert first == f"rules.yaml:2: {told}"
    told = 'model "k3" is listed for a and routed to the upstream (at $.providers.a.models[1])'
    assert second == f"rules.yaml:8: {told}"
    assert third.startswith('rules.yaml:9: model "claude-k4" is listed for a and routed to b (')


@pytest.mark.parametrize(
    ("rule", "to"),
    [("{match: 'claude-y', to: {reject: 404}}", "no provider"), ("{match: z, to: a}", "the upstream")],
)
def test_listed_model_without_a_rule_is_a_warning_except_for_anthropic(rules, rule, to):
    (told,) = listed(
        rules,
        "providers:\n  a: {url: https://h, models: [claude-y]}\n"
        f"  c: {{url: https://api.anthropic.com, auth: client, models: [claude-w]}}\nrules: [{rule}]\n",
    )
    assert f"routed to {to} " in told


def test_unreached_rule_is_a_warning_with_its_line(rules):
    path = rules(PROVIDERS + "rules:\n  - {match: '*', to: a}\n  - {match: x, to: a}\n")
    assert [line[:13] for line in check(path, {})[1]] == ["rules.yaml:4:"]
    text = "rules:\n  - {match: 'x*', to: a}\n  - {match: xy, to: a}\n  - {match: '*', to: a}\n"
    (warning,) = check(rules(PROVIDERS + text), {})[1]
    assert warning.startswith("rules.yaml:5: this rule is never reached: rule #1 on line 4 takes ")


def test_port_without_listener_is_a_warning_with_its_line(rules):
    with socket.create_server(("127.0.0.1", 0)) as server:
        used, (port,) = server.getsockname()[1], free_ports(1)
        text = "rules:\n  - {match: {port: [8082, USED]}, to: a}\n  - {match: {port: FREE}, to: a}\n"
        text = text.replace("USED", str(used)).replace("FREE", str(port))
        lines = check(rules(PROVIDERS + text + "  - {match: '*', to: a}\n"), {})[1]
    message = f"nothing listens on port {port} now: it takes `listen: {{NAME: '127.0.0.1:{port}'}}`"
    assert lines == [f"rules.yaml:5: {message} (at $.rules[1].match.port)"]


def test_port_of_a_named_listener_is_known(rules):
    (port,) = free_ports(1)
    text = f"listen: {{work: '127.0.0.1:{port}'}}\nrules: [{{match: {{port: work}}, to: a}}]"
    assert [line for line in check(rules(PROVIDERS + text), {})[1] if "listens on" in line] == []


def test_slow_expression_is_a_warning(rules):
    path = rules(PROVIDERS + "rules:\n- {match: {prompt: ['\\s+$', fix]}, to: a}\n- {match: '*', to: a}\n")
    errors, warnings = check(path, {})
    assert errors == []
    assert len(warnings) == 1
    assert warnings[0].startswith(r"rules.yaml:4: /\s+$/ cannot be searched in linear time")
