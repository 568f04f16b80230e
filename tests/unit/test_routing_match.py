"""Whether a rule's conditions hold, and what to say where they do not."""

import fnmatch
import json
import re
from typing import Any

import pytest

from signalbox.anthropic.json_edit import Body
from signalbox.config.fields import Glob
from signalbox.config.regexes import Regex
from signalbox.config.rules import Failover, Match, Rule, Rules
from signalbox.routing.facts import Facts
from signalbox.routing.match import conditions, first_match, matches, why


def globs(*texts: str) -> tuple[Glob, ...]:
    return tuple(Glob(text, re.compile(fnmatch.translate(text), re.IGNORECASE)) for text in texts)


def request(**changes: Any) -> Facts:
    fields = {
        "model": "claude-sonnet-4-5[1m]",
        "messages": [{"role": "user", "content": "Fix the flaky test"}],
        "system": "You are careful.",
        "tools": [{"name": "Bash"}, {"name": "mcp__db__query"}],
        "thinking": {"type": "adaptive"},
        "stream": True,
    } | changes
    headers = {
        "x-team": "Blue",
        "x-claude-code-session-id": "s-1",
        "x-claude-code-request-class": "compaction",
        "x-signalbox-project": "/home/j%C3%B6rg/Shop",
    }
    body = Body.parse(json.dumps(fields).encode())
    return Facts(path="/v1/messages", port=8082, headers=headers, body=body, client="laptop")


QUOTA = {("anthropic", "7d"): 80.0}

HOLD = [
    Match(),
    Match(model=globs("glm-*", "*SONNET*")),
    Match(tier=("opus", "sonnet")),
    Match(path=globs("/v1/messages")),
    Match(port=(8082, 8083)),
    Match(client=globs("lap*")),
    Match(header=(("x-team", globs("blue")), ("x-claude-code-session-id", globs("*")))),
    Match(agent=("subagent", "main")),
    Match(request_class=("auxiliary", "compaction")),
    Match(project=globs("/srv/*", "*/jörg/shop")),
    Match(thinking=True),
    Match(images=False),
    Match(stream=True),
    Match(tools=globs("WebSearch", "mcp__*")),
    Match(tokens_over=5, tokens_under=5000),
    Match(system=(Regex("nothing"), Regex("careful"))),
    Match(prompt=(Regex("flaky|slow"),)),
    Match(quota=((("anthropic", "7d"), (">=", 80.0)), (("anthropic", "7d"), ("<", 80.5)))),
]

FAIL = [
    (
        Match(model=globs("*haiku*", "glm-*")),
        'model "claude-sonnet-4-5" is not *haiku* or glm-*',
    ),
    (Match(tier=("haiku", "opus")), "tier sonnet is not haiku or opus"),
    (Match(path=globs("*/count_tokens")), "path /v1/messages is not */count_tokens"),
    (Match(port=(9000, 9001)), "port 8082 is not 9000 or 9001"),
    (Match(client=globs("ci")), 'client "laptop" is not ci'),
    (Match(header=(("x-team", globs("red")),)), 'header x-team "Blue" is not red'),
    (Match(header=(("x-team", globs("*")), ("x-absent", globs("*")))), "header x-absent none is not *"),
    (Match(agent=("subagent",)), "agent main is not subagent"),
    (Match(request_class=("main", "subagent")), "class compaction is not main or subagent"),
    (Match(project=globs("*/shop/*")), 'project "/home/jörg/Shop" is not */shop/*'),
    (Match(thinking=False), "thinking is not false"),
    (Match(images=True), "images is not true"),
    (Match(stream=False), "stream is not false"),
    (Match(tools=globs("Web*")), "no tool is Web*"),
    (Match(system=(Regex("^careful"),)), "system text has no /^careful/"),
    (Match(prompt=(Regex("You are"),)), "prompt has no /You are/"),
    (Match(quota=((("anthropic", "7d"), (">", 80.0)),)), "quota anthropic.7d is 80%, not >80"),
    (Match(quota=((("anthropic", "5h"), ("<", 80.0)),)), "quota anthropic.5h is unknown, not <80"),
]


@pytest.mark.parametrize("match", HOLD, ids=repr)
def test_a_condition_that_holds(match):
    assert matches(match, request(), QUOTA)
    assert why(match, request(), QUOTA) == ""


@pytest.mark.parametrize(("match", "reason"), FAIL, ids=[reason for _, reason in FAIL])
def test_a_condition_that_does_not_hold_says_why(match, reason):
    assert not matches(match, request(), QUOTA)
    assert why(match, request(), QUOTA) == reason


@pytest.mark.parametrize("name", Match.__struct_fields__)
def test_every_condition_is_shown_to_people(name):
    asked = next(match for match in HOLD if getattr(match, name) not in ((), None))
    assert conditions(asked)


def test_token_limits_are_strict():
    tokens = request().tokens
    assert why(Match(tokens_over=tokens), request()) == f"about {tokens} tokens are not over {tokens}"
    assert why(Match(tokens_under=tokens), request()) == f"about {tokens} tokens are not under {tokens}"
    assert matches(Match(tokens_over=tokens - 1, tokens_under=tokens + 1), request())


def test_zero_is_a_limit_too():
    assert matches(Match(tokens_over=0), request())
    assert not matches(Match(tokens_under=0), request())


def test_every_condition_must_hold():
    assert not matches(Match(model=globs("*sonnet*"), stream=False), request())


def test_what_the_request_lacks_matches_no_glob():
    bare = Facts(path="/v1/messages", port=8082, headers={}, body=None)
    assert why(Match(model=globs("*")), bare) == "model none is not *"
    assert why(Match(client=globs("*")), bare) == "client none is not *"
    assert why(Match(tier=("opus",)), bare) == "tier none is not opus"
    assert why(Match(request_class=("main",)), bare) == "class none is not main"
    assert why(Match(project=globs("*")), bare) == "project none is not *"


def test_dear_facts_are_not_asked_for_where_a_cheap_condition_fails():
    facts = request()
    match = Match(model=globs("glm-*"), prompt=(Regex("Fix"),), tools=globs("Bash"), tokens_over=1)
    assert not matches(match, facts)
    assert not {"prompt", "tools", "tokens", "images"} & vars(facts).keys()


def test_the_first_rule_that_matches_wins():
    def rule(label: str, match: Match) -> Rule:
        return Rule(label=label, match=match, choices=(), reject=None, failover=Failover(), line=1)

    rules = Rules(
        rules=(
            rule("#1", Match(model=globs("*haiku*"))),
            rule("#2", Match(tier=("sonnet",))),
            rule("#3", Match(model=globs("*"))),
        )
    )
    assert first_match(rules, request()) is rules.rules[1]
    assert first_match(rules, request(model="glm-4.7")) is rules.rules[2]
    assert first_match(Rules(), request()) is None
