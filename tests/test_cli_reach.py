"""Rules that no request reaches."""

import fnmatch
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.cli.reach import covers, never_reached
from signalbox.config.load import parse


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
def test_a_rule_behind_one_that_takes_all_of_its_requests_is_told(first, second):
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
def test_one_behind_a_rule_that_leaves_some_is_not(first, second):
    assert told(first, second) == []


def test_a_glob_of_several_that_is_taken_before_is_told_by_itself():
    (warning,) = told("'*haiku*'", "{model: [claude-haiku-4-5, 'glm-*']}")
    told_of = '"claude-haiku-4-5" is never reached here: rule #1 on line 3 takes it first'
    assert warning == f"rules.yaml:4: {told_of} (at $.rules[1].match)"


def test_rules_may_take_all_of_another_together():
    (warning,) = told("'*haiku*'", "'*opus*'", "['*haiku*', '*opus*']")
    assert "rule #1 on line 3, rule #2 on line 4 takes its requests first" in warning


def test_a_glob_that_stands_twice_in_a_rule_is_told():
    assert told("[a, b, A]") == ['rules.yaml:3: "a" stands in this rule twice (at $.rules[0].match)']


def test_behind_a_rule_that_takes_everything_nothing_more_is_told():
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


def test_hundreds_of_rules_are_looked_at_in_time():
    assert told(*(f"'model-{n}-*'" for n in range(300))) == []
