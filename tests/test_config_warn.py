"""What is allowed and surely not meant."""

from pathlib import Path

import pytest

from signalbox.config.load import parse

PROVIDER = "providers:\n  a: {url: https://h}\n"


def warnings_of(text: str, **environ: str) -> tuple[str, ...]:
    return parse(text, file=Path("rules.yaml"), environ=environ).warnings


def test_an_unset_key_tells_who_is_unavailable():
    assert warnings_of("providers:\n  zai:\n    url: https://h\n    key: ${ZAI_API_KEY}\n") == (
        'rules.yaml:4: ZAI_API_KEY is not set: provider "zai" is unavailable (at $.providers.zai.key)',
    )


def test_one_unset_key_of_several_is_told_too():
    assert warnings_of("providers:\n  zai:\n    url: https://h\n    keys: ['${A}', k]\n") == (
        "rules.yaml:4: A is not set (at $.providers.zai.keys)",
    )


@pytest.mark.parametrize("key", ["key: sk-ant-fake-1", "keys: [k, sk-ant-fake-1]"])
def test_a_key_of_anthropics_for_another_host_is_told_without_the_key(key):
    (warning,) = warnings_of(f"providers:\n  zai:\n    {key}\n    url: https://api.z.ai\n")
    assert warning.startswith("rules.yaml:3: a key of Anthropic's is configured for api.z.ai")
    assert "fake" not in warning


def test_a_key_of_anthropics_for_anthropic_is_fine():
    assert warnings_of("providers: {a: {url: https://api.anthropic.com, key: sk-ant-fake-1}}") == ()


@pytest.mark.parametrize("match", ['"*"', "{}", "{model: '**'}", "[x, '*']"])
def test_rules_behind_one_that_matches_everything_are_told(match):
    assert warnings_of(PROVIDER + f"rules:\n  - {{match: {match}, to: a}}\n  - {{match: x, to: a}}\n") == (
        "rules.yaml:4: the rules after this one are never reached: it matches everything (at $.rules[0])",
    )


@pytest.mark.parametrize("match", ["x*", "{model: '*', thinking: true}", "{stream: true}"])
def test_rules_behind_one_that_does_not_are_fine(match):
    assert warnings_of(PROVIDER + f"rules:\n  - {{match: {match}, to: a}}\n  - {{match: '*', to: a}}\n") == ()


def test_a_log_level_that_is_none_is_told():
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
def test_a_credential_that_leaves_the_house_unencrypted_is_told(written, line):
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
def test_within_the_house_it_may_go_unencrypted(host):
    assert warnings_of(provider(f"url: http://{host}; key: fake")) == ()


def test_without_a_credential_it_may_go_unencrypted():
    assert warnings_of(provider("url: http://api.z.ai")) == ()


@pytest.mark.parametrize(
    ("auth", "url"),
    [
        ("client", "https://api.z.ai"),
        ("client", "https://api.anthropic.com.evil.example"),
        ("claude-login", "https://h"),
    ],
)
def test_a_login_for_others_than_anthropic_is_told(auth, url):
    (warning,) = warnings_of(provider(f"url: {url}; auth: {auth}"))
    assert warning.startswith("rules.yaml:4: ")
    assert f"goes to {url[8:]}, which is not Anthropic's" in warning
    assert warning.endswith("(at $.providers.a.auth)")


def test_a_login_for_anthropic_is_fine():
    assert warnings_of(provider("url: https://api.anthropic.com; auth: client")) == ()


@pytest.mark.parametrize("tokens", ["tokens_over: 2k, tokens_under: 1k", "tokens_over: 5, tokens_under: 6"])
def test_conditions_that_no_request_meets_are_told(tokens):
    (warning,) = warnings_of(PROVIDER + f"rules:\n  - match: {{{tokens}}}\n    to: a\n")
    assert warning.startswith("rules.yaml:4: this rule is never reached: no request has more than ")


def test_one_count_that_meets_both_is_enough():
    assert warnings_of(PROVIDER + "rules: [{match: {tokens_over: 5, tokens_under: 7}, to: a}]") == ()


def test_a_client_that_there_is_not_is_told():
    text = (
        PROVIDER + "clients: {laptop: s1, build: s2}\nrules:\n  - {match: {client: [lap*, bulid]}, to: a}\n"
    )
    assert warnings_of(text) == ('rules.yaml:5: no client is called "bulid" (at $.rules[0].match.client)',)


def test_a_name_given_to_two_rules_is_told():
    text = PROVIDER + "rules:\n  - {name: x, match: a, to: a}\n  - {name: x, match: b, to: a}\n"
    assert warnings_of(text) == (
        'rules.yaml:5: the rule on line 4 has the name "x" too (at $.rules[1].name)',
    )
