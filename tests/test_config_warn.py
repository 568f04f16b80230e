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
