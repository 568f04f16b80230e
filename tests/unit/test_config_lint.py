"""Lint of rules.yaml: warnings of every load, and what only check looks for."""

import fnmatch
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.config import document
from signalbox.config.lint import covers, findings, never_reached, on_a_plan
from signalbox.config.load import parse

PROVIDER = "providers:\n  a: {url: https://h}\n"


def warnings_of(text: str, **environ: str) -> tuple[str, ...]:
    return parse(text, file=Path("rules.yaml"), environ=environ).warnings


def test_unset_key_warning_names_the_unavailable_provider():
    assert warnings_of("providers:\n  zai:\n    url: https://h\n    key: ${ZAI_API_KEY}\n") == (
        'rules.yaml:4: ZAI_API_KEY is not set: provider "zai" is unavailable (at $.providers.zai.key)',
    )


def test_one_unset_key_of_several_is_a_warning():
    assert warnings_of("providers:\n  zai:\n    url: https://h\n    keys: ['${A}', k]\n") == (
        "rules.yaml:4: A is not set (at $.providers.zai.keys)",
    )


@pytest.mark.parametrize("key", ["key: sk-ant-fake-1", "keys: [k, sk-ant-fake-1]"])
def test_anthropic_key_for_another_host_is_a_warning_without_the_key(key):
    (warning,) = warnings_of(f"providers:\n  zai:\n    {key}\n    url: https://api.z.ai\n")
    assert warning.startswith("rules.yaml:3: a key of Anthropic's is configured for api.z.ai")
    assert "fake" not in warning


@pytest.mark.parametrize(
    "provider",
    [
        "url: https://api.anthropic.com",
        "url: https://aws-external-anthropic.us-west-2.api.aws",
        "url: https://claude.example, claude: true",
    ],
)
def test_anthropic_key_for_who_serves_claude_is_fine(provider):
    assert warnings_of(f"providers: {{a: {{{provider}, key: sk-ant-fake-1}}}}") == ()


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        (
            "",
            "needs a key: requests are not signed (SigV4), write an API key of Amazon's",
        ),
        (", key: bedrock-key-for-tests", None),
        (", headers: {Authorization: Bearer key-for-tests}", None),
    ],
)
@pytest.mark.parametrize(
    "host", ["bedrock-mantle.us-east-1.api.aws", "bedrock-runtime.us-east-1.amazonaws.com"]
)
def test_amazon_without_a_key_is_a_warning(provider, expected, host):
    found = warnings_of(f"providers: {{a: {{url: 'https://{host}'{provider}}}}}")
    place = "(at $.providers.a.url)"
    assert found == ((f"rules.yaml:1: {host} {expected} {place}",) if expected else ())


@pytest.mark.parametrize("match", ['"*"', "{}", "{model: '**'}", "[x, '*']"])
def test_rules_after_one_that_matches_everything_are_a_warning(match):
    assert warnings_of(PROVIDER + f"rules:\n  - {{match: {match}, to: a}}\n  - {{match: x, to: a}}\n") == (
        "rules.yaml:4: the rules after this one are never reached: it matches everything (at $.rules[0])",
    )


@pytest.mark.parametrize("match", ["x*", "{model: '*', thinking: true}", "{stream: true}"])
def test_rules_after_one_that_does_not_are_fine(match):
    assert warnings_of(PROVIDER + f"rules:\n  - {{match: {match}, to: a}}\n  - {{match: '*', to: a}}\n") == ()


def test_unknown_log_level_is_a_warning():
    assert warnings_of("", LOG_LEVEL="loud") == (
        'rules.yaml:1: LOG_LEVEL is "loud": expected debug, info, warn, error, silent (at $.log.level)',
    )


def provider(written: str) -> str:
    return "providers:\n  a:\n    " + written.replace("; ", "\n    ") + "\n"


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("url: http://api.z.ai; key: fake", 3),
        ("key: fake; url: http://8.8.8.8:8080/x", 4),
        ("keys: [fake]; url: http://[2606:4700::1111]", 4),
        ("url: http://api.anthropic.com; auth: client", 3),
    ],
)
def test_credential_sent_unencrypted_to_a_public_host_is_a_warning(written, line):
    (warning,) = warnings_of(provider(written))
    assert warning.startswith(f"rules.yaml:{line}: the ")
    assert "unencrypted: write https:// (at $.providers.a.url)" in warning


@pytest.mark.parametrize(
    "host",
    [
        "localhost:1",
        "127.0.0.1",
        "[::1]",
        "10.1.2.3",
        "192.168.0.9",
        "[fd00::1]",
        "gpu",
        "gpu.local",
        "x.internal.",
    ],
)
def test_credential_may_go_unencrypted_within_the_own_network(host):
    assert warnings_of(provider(f"url: http://{host}; key: fake")) == ()


def test_requests_without_credential_may_go_unencrypted():
    assert warnings_of(provider("url: http://api.z.ai")) == ()


@pytest.mark.parametrize(
    ("auth", "url"),
    [
        ("client", "https://api.z.ai"),
        ("client", "https://api.anthropic.com.evil.example"),
        ("claude-login", "https://h"),
    ],
)
def test_login_sent_to_another_host_than_anthropic_is_a_warning(auth, url):
    (warning,) = warnings_of(provider(f"url: {url}; auth: {auth}"))
    assert warning.startswith("rules.yaml:4: ")
    assert f"goes to {url[8:]}, which is not Anthropic's" in warning
    assert warning.endswith("(at $.providers.a.auth)")


@pytest.mark.parametrize(("host", "warned"), [("chatgpt.com", False), ("codex.example", True)])
def test_codex_login_sent_to_another_host_is_a_warning(host, warned):
    written = f"providers: {{a: {{url: 'https://{host}/x', api: responses, auth: codex-login}}}}"
    message = "rules.yaml:1: a login of Codex goes to codex.example, which is not chatgpt.com"
    assert warnings_of(written) == ((f"{message} (at $.providers.a.auth)",) if warned else ())


def test_a_plan_of_chatgpt_is_a_finding():
    text = "providers:\n  a:\n    url: https://chatgpt.com/x\n    api: responses\n    auth: codex-login\n"
    (found,) = on_a_plan(parse(text, file=Path("rules.yaml"), environ={}), document.read_yaml(text)[0])
    assert (found.line, found.path) == (5, "$.providers.a.auth")
    assert found.message == "the terms of the ChatGPT plan are yours to keep: one user, this machine"


def test_a_login_for_anthropic_is_fine():
    assert warnings_of(provider("url: https://api.anthropic.com; auth: client")) == ()


@pytest.mark.parametrize("tokens", ["tokens_over: 2k, tokens_under: 1k", "tokens_over: 5, tokens_under: 6"])
def test_conditions_that_no_request_meets_are_a_warning(tokens):
    (warning,) = warnings_of(PROVIDER + f"rules:\n  - match: {{{tokens}}}\n    to: a\n")
    assert warning.startswith("rules.yaml:4: this rule is never reached: no request has more than ")


def test_one_count_that_meets_both_is_enough():
    assert warnings_of(PROVIDER + "rules: [{match: {tokens_over: 5, tokens_under: 7}, to: a}]") == ()


def test_unknown_client_is_a_warning():
    text = (
        PROVIDER + "clients: {laptop: s1, build: s2}\nrules:\n  - {match: {client: [lap*, bulid]}, to: a}\n"
    )
    assert warnings_of(text) == ('rules.yaml:5: no client is called "bulid" (at $.rules[0].match.client)',)


def test_name_of_two_rules_is_a_warning():
    text = PROVIDER + "rules:\n  - {name: x, match: a, to: a}\n  - {name: x, match: b, to: a}\n"
    assert warnings_of(text) == (
        'rules.yaml:5: the rule on line 4 has the name "x" too (at $.rules[1].name)',
    )


def test_findings_are_in_the_order_of_the_file():
    rules = """
providers: {a: {url: https://h}}
rules:
  - {match: 'a', to: a}
  - {match: 'a', to: a}
  - {match: {prompt: '(a+)+$'}, to: a}
"""
    found = findings(parse(rules, file=Path("rules.yaml"), environ={}))
    assert [finding.line for finding in found] == [5, 6]


def told(*matches: str) -> list[str]:
    """What is said of rules with these matches, the first on line 3."""
    rules = "".join(f"\n  - {{match: {match}, to: a}}" for match in matches)
    found = parse(f"providers: {{a: {{url: https://h}}}}\nrules:{rules}", file=Path("rules.yaml"), environ={})
    return [fault.within("rules.yaml") for fault in never_reached(found.rules)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("'*haiku*'", "'*haiku*'"),
        ("'*haiku*'", "'*HAIKU*'"),
        ("'*haiku*'", "claude-haiku-4-5"),
        ("'*haiku*'", "'claude-haiku-*'"),
        ("'*haiku*'", "{tier: haiku}"),
        ("{tier: [haiku, opus]}", "{tier: haiku, thinking: true}"),
        ("{tier: haiku}", "'*haiku*'"),
        ("['glm-*', 'kimi-*']", "[kimi-k3, 'glm-4.?']"),
        ("{model: 'glm-*', thinking: true}", "{model: glm-4.7, thinking: true, agent: main}"),
        ("{tokens_over: 10k}", "{tokens_over: 20k}"),
        ("{tokens_under: 2k}", "{model: x, tokens_under: 1k}"),
        ("{port: [8082, 8083]}", "{port: 8083}"),
        ("{header: {x-a: 'b*'}}", "{header: {X-A: bc, x-d: e}}"),
        ("{tools: '*search*'}", "{tools: [web_search, search]}"),
        ("{prompt: [a, b]}", "{prompt: b}"),
        ("{quota: {a.5h: '>80'}}", "{quota: {a.5h: '>80', a.7d: '>80'}}"),
    ],
)
def test_rule_after_one_that_takes_all_of_its_requests_is_a_finding(first, second):
    (warning,) = told(first, second)
    assert warning == (
        "rules.yaml:4: this rule is never reached: rule #1 on line 3 takes its requests first (at $.rules[1])"
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("'claude-haiku-*'", "'*haiku*'"),
        ("'glm-4.?'", "'glm-4.*'"),
        ("'glm-[45]'", "'glm-?'"),
        ("{model: '*haiku*', thinking: true}", "'*haiku*'"),
        ("{model: '*', stream: true}", "{model: x, stream: false}"),
        ("{tokens_over: 20k}", "{tokens_over: 10k}"),
        ("{tokens_over: 20k}", "{tokens_under: 30k}"),
        ("{tools: web_search}", "{tools: [web_search, search]}"),
        ("{header: {x-a: b}}", "{header: {x-d: b}}"),
        ("{quota: {a.5h: '>80'}}", "{quota: {a.5h: '>90'}}"),
        ("{tier: haiku}", "'*'"),
    ],
)
def test_rule_after_one_that_leaves_some_is_no_finding(first, second):
    assert told(first, second) == []


def test_glob_taken_by_an_earlier_rule_is_a_finding_of_its_own():
    (warning,) = told("'*haiku*'", "{model: [claude-haiku-4-5, 'glm-*']}")
    told_of = '"claude-haiku-4-5" is never reached here: rule #1 on line 3 takes it first'
    assert warning == f"rules.yaml:4: {told_of} (at $.rules[1].match)"


def test_rules_may_take_all_of_another_together():
    (warning,) = told("'*haiku*'", "'*opus*'", "['*haiku*', '*opus*']")
    assert "rule #1 on line 3, rule #2 on line 4 takes its requests first" in warning


def test_repeated_glob_in_a_rule_is_a_finding():
    assert told("[a, b, A]") == ['rules.yaml:3: "a" stands in this rule twice (at $.rules[0].match)']


def test_no_findings_after_a_rule_that_takes_everything():
    assert told("'*'", "x", "x") == []


GLOBS = st.text("ab?*", min_size=1, max_size=6) | st.just("[ab]a*")


@given(GLOBS, GLOBS, st.lists(st.text("ab", max_size=6), max_size=20))
def test_what_a_covered_glob_matches_is_matched(wide, narrow, texts):
    if covers(wide, narrow):
        assert all(fnmatch.fnmatchcase(text, wide) for text in texts if fnmatch.fnmatchcase(text, narrow))


@given(GLOBS)
def test_every_glob_covers_itself_and_is_covered_by_the_star(glob):
    assert covers(glob, glob)
    assert covers("*", glob)


@pytest.mark.slow
def test_hundreds_of_rules_are_checked_in_time():
    assert told(*(f"'model-{n}-*'" for n in range(300))) == []
