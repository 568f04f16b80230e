"""Who is to answer: targets in order, who is passed over, and why."""

import fnmatch
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from signalbox.anthropic.json_edit import Body
from signalbox.config.fields import Glob, Secret, Url
from signalbox.config.rules import Failover, Match, Provider, Reject, Rule, Rules, Target
from signalbox.protocols import translation_refusal
from signalbox.routing.facts import Facts
from signalbox.routing.plan import Candidate, Plan, Skip, plan

NO_KEY = "ZAI_API_KEY is not set"


def provider(name: str, **options: Any) -> Provider:
    return Provider(name=name, url=Url("https", f"{name}.invalid", 443), **options)


def keyed(name: str, **options: Any) -> Provider:
    return provider(name, auth="key", keys=(Secret("zai-key-for-tests"),), **options)


def keyless(name: str) -> Provider:
    return provider(name, auth="key", keys=(Secret(None, NO_KEY),), unavailable=NO_KEY)


ANTHROPIC = provider("anthropic", auth="client")
ZAI = keyed("zai")


def rules_of(
    providers: tuple[Provider, ...], *to: str | Target | tuple[str, ...], reject: Reject | None = None
) -> Rules:
    """One rule that matches everything; `to` as in rules.yaml, an inner tuple being a set of equals."""
    candidates = tuple(
        tuple(map(target, each)) if isinstance(each, tuple) else (target(each),) for each in to
    )
    rule = Rule(label="coding", match=Match(), choices=candidates, reject=reject, failover=Failover(), line=3)
    return Rules(providers={each.name: each for each in providers}, rules=(rule,))


def target(written: str | Target) -> Target:
    if isinstance(written, Target):
        return written
    name, slash, model = written.partition("/")
    return Target(name, model if slash else None)


def request(
    model: Any = "claude-sonnet-4-5", headers: Mapping[str, str] = {}, *, has_login: bool = True, **more: Any
) -> Facts:
    body = Body.parse(json.dumps({"model": model, **more}).encode())
    return Facts(path="/v1/messages", port=8082, headers=headers, body=body, has_login=has_login)


def providers_of(planned: Plan) -> list[str]:
    return [candidate.provider.name for candidate in planned.candidates]


def model_to(receiver: Provider, asked: str, model: str | None = None) -> str | None:
    planned = plan(rules_of((receiver,), Target(receiver.name, model)), request(asked))
    return planned.candidates[0].model


def in_cooldown(candidate: Candidate, facts: Facts) -> tuple[str, str]:
    return "cooldown", "asked to wait"


def test_a_rules_targets_are_tried_in_order():
    rules = rules_of((ANTHROPIC, ZAI), "zai/glm-4.7", "anthropic")
    targets = (
        Candidate(ZAI, Target("zai", "glm-4.7"), "glm-4.7"),
        Candidate(ANTHROPIC, Target("anthropic"), "claude-sonnet-4-5"),
    )
    assert plan(rules, request()) == Plan(
        rule=rules.rules[0],
        label="coding",
        reason="rule:coding",
        candidates=targets,
        chain=targets,
        is_first=True,
    )


def test_chain_holds_targets_that_may_still_be_asked():
    def waits(candidate: Candidate, facts: Facts) -> tuple[str, str] | None:
        return ("cooldown", "for 3 s") if candidate.provider.name in ("zai", "last") else None

    rules = rules_of((ANTHROPIC, ZAI, keyless("kimi"), keyed("last")), "zai", "kimi", "anthropic", "last")
    planned = plan(rules, request(), refusals=[waits])
    assert providers_of(planned) == ["anthropic"]
    assert [candidate.provider.name for candidate in planned.chain] == ["zai", "anthropic", "last"]
    assert [skip.why for skip in planned.skipped] == ["cooldown, for 3 s", NO_KEY, "cooldown, for 3 s"]


def test_target_without_a_key_is_skipped():
    planned = plan(rules_of((ANTHROPIC, keyless("zai")), "zai/glm-4.7", "anthropic"), request())
    assert providers_of(planned) == ["anthropic"]
    assert planned.skipped == (Skip("zai", "glm-4.7", "no-key", NO_KEY),)
    assert (planned.reason, planned.is_first) == ("no-key", False)


def test_skipped_later_target_leaves_the_first_one_first():
    planned = plan(rules_of((ANTHROPIC, keyless("zai")), "anthropic", "zai/glm-4.7"), request())
    assert (planned.reason, planned.is_first) == ("rule:coding", True)
    assert [skip.provider for skip in planned.skipped] == ["zai"]


SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def test_chat_target_is_skipped_for_an_untranslatable_request():
    chat = keyed("openrouter", api="openai")
    rules = rules_of((ANTHROPIC, chat), "openrouter/glm", "anthropic")
    planned = plan(
        rules,
        request(tools=[SEARCH]),
        refusals=(translation_refusal,),
    )
    [skip] = planned.skipped
    assert (skip.provider, skip.reason) == ("openrouter", "untranslatable")
    assert skip.detail.endswith("(web_search)")
    assert [candidate.provider.name for candidate in planned.candidates] == ["anthropic"]


def test_chat_target_is_not_forced_for_an_untranslatable_request():
    rules = rules_of((keyed("openrouter", api="openai"),), "openrouter/glm")
    planned = plan(
        rules,
        request(tools=[SEARCH]),
        refusals=(translation_refusal,),
    )
    assert planned.candidates == ()


def test_target_with_auth_client_needs_the_callers_login():
    rules = rules_of((ANTHROPIC, ZAI), "anthropic", "zai/glm-4.7")
    planned = plan(rules, request(has_login=False))
    assert providers_of(planned) == ["zai"]
    assert (planned.reason, planned.is_first) == ("no-login", False)
    assert plan(rules, request()).is_first


def test_permanent_refusals_come_before_temporary_ones():
    rules = rules_of((ANTHROPIC, ZAI, keyless("kimi")), "kimi", "zai", "anthropic")

    def zai_rests(candidate: Candidate, facts: Facts) -> tuple[str, str] | None:
        return in_cooldown(candidate, facts) if candidate.provider is not ANTHROPIC else None

    planned = plan(rules, request(), refusals=[zai_rests])
    assert [(skip.provider, skip.reason) for skip in planned.skipped] == [
        ("kimi", "no-key"),
        ("zai", "cooldown"),
    ]
    assert providers_of(planned) == ["anthropic"]


def test_last_target_is_asked_where_all_are_skipped():
    planned = plan(rules_of((ANTHROPIC, ZAI), "zai", "anthropic"), request(), refusals=[in_cooldown])
    assert providers_of(planned) == ["anthropic"]
    assert [skip.provider for skip in planned.skipped] == ["zai"]
    assert (planned.reason, planned.is_first) == ("cooldown", False)


def test_only_target_that_is_asked_anyway_is_still_the_first():
    planned = plan(rules_of((ZAI,), "zai"), request(), refusals=[in_cooldown])
    assert (providers_of(planned), planned.skipped) == (["zai"], ())
    assert (planned.reason, planned.is_first) == ("rule:coding", True)


def test_last_target_is_not_forced_without_a_key():
    planned = plan(rules_of((ZAI, keyless("kimi")), "zai", "kimi"), request(), refusals=[in_cooldown])
    assert (planned.candidates, planned.reject) == ((), None)
    assert [skip.reason for skip in planned.skipped] == ["cooldown", "no-key"]
    assert planned.reason == "cooldown"


def test_last_resorts_are_asked_where_the_last_target_has_no_key():
    rules = rules_of((ANTHROPIC, ZAI, keyed("spent"), keyless("kimi")), "zai", "spent", "anthropic", "kimi")
    planned = plan(
        rules,
        request(),
        refusals=[in_cooldown],
        is_last_resort=lambda candidate: candidate.provider.name != "spent",
    )
    assert providers_of(planned) == ["zai", "anthropic"]
    assert [(skip.provider, skip.reason) for skip in planned.skipped] == [
        ("spent", "cooldown"),
        ("kimi", "no-key"),
    ]
    assert (planned.reason, planned.is_first) == ("rule:coding", True)


def test_target_without_a_key_is_no_last_resort():
    planned = plan(rules_of((keyless("zai"),), "zai"), request(), is_last_resort=lambda _: True)
    assert planned.candidates == ()


def test_no_last_resort_is_asked_before_a_reject():
    reject = Reject(429, "come back later")
    planned = plan(
        rules_of((ZAI, keyless("kimi")), "zai", "kimi", reject=reject),
        request(),
        refusals=[in_cooldown],
        is_last_resort=lambda _: True,
    )
    assert (planned.candidates, planned.reject) == ((), reject)


def test_last_target_is_not_forced_where_the_list_ends_in_reject():
    reject = Reject(429, "come back later")
    planned = plan(rules_of((ZAI,), "zai", reject=reject), request(), refusals=[in_cooldown])
    assert (planned.candidates, planned.reject, planned.reason) == ((), reject, "cooldown")


def test_rule_with_only_a_reject_counts_as_its_first_target():
    reject = Reject(403, "not here")
    planned = plan(rules_of((), reject=reject), request())
    assert (planned.candidates, planned.reject) == ((), reject)
    assert (planned.reason, planned.is_first) == ("rule:coding", True)


@pytest.mark.parametrize(
    ("rules", "model", "reason"),
    [
        (Rules(), "claude-sonnet-4-5", "no-rule"),
        (Rules(), None, "no-rule"),
        (rules_of((ZAI,), "zai"), None, "no-model"),
        (rules_of((ZAI,), "zai"), "", "no-model"),
    ],
)
def test_no_candidate_without_a_rule_or_a_model(rules, model, reason):
    assert plan(rules, request(model)) == Plan(rule=None, label="none", reason=reason)


def test_quota_conditions_are_asked_of_the_quota_given():
    match = Match(quota=((("anthropic", "7d"), (">", 80.0)),))
    rule = Rule(
        label="#1", match=match, choices=((Target("zai"),),), reject=None, failover=Failover(), line=1
    )
    rules = Rules(providers={"zai": ZAI}, rules=(rule,))
    assert plan(rules, request()).label == "none"
    assert plan(rules, request(), quota={("anthropic", "7d"): 81.0}).label == "#1"


def first_choices(equals: tuple[str, ...], conversations: int) -> list[str]:
    """Who comes first among the equals, in each of as many conversations."""
    rules = rules_of(tuple(map(keyed, "abcd")), equals, "d")
    sessions = ({"x-claude-code-session-id": f"s-{number}"} for number in range(conversations))
    plans = [plan(rules, request(headers=session)) for session in sessions]
    assert all(sorted(providers_of(planned)) == sorted((*equals, "d")) for planned in plans)
    assert all(providers_of(planned)[-1] == "d" for planned in plans)
    assert all(planned.is_first for planned in plans)
    return [providers_of(planned)[0] for planned in plans]


def test_each_conversation_keeps_one_of_the_equals_and_conversations_spread():
    first = first_choices(("a", "b", "c"), 300)
    assert first == first_choices(("a", "b", "c"), 300)
    assert all(70 <= count <= 130 for count in Counter(first).values())


def test_the_order_in_which_equals_are_written_does_not_matter():
    assert first_choices(("a", "b", "c"), 50) == first_choices(("c", "a", "b"), 50)


def test_one_more_equal_takes_only_the_conversations_that_it_wins():
    changes = zip(first_choices(("a", "b"), 200), first_choices(("a", "b", "c"), 200), strict=True)
    assert {after for before, after in changes if before != after} == {"c"}


def test_without_a_session_equals_keep_the_written_order():
    rules = rules_of(tuple(map(keyed, "abc")), ("b", "c", "a"))
    assert providers_of(plan(rules, request())) == ["b", "c", "a"]


def test_a_session_id_that_is_no_text_has_an_order_too():
    rules = rules_of(tuple(map(keyed, "ab")), ("a", "b"))
    odd = {"x-claude-code-session-id": "\udcff"}
    assert plan(rules, request(headers=odd)) == plan(rules, request(headers=odd))


@pytest.mark.parametrize(
    ("model", "asked", "sent"),
    [
        (None, "claude-sonnet-4-5", "claude-sonnet-4-5"),
        (None, "anthropic/claude-sonnet-4-5", "claude-sonnet-4-5"),
        (None, "glm-4.7[1M]", "glm-4.7"),
        ("glm-4.7", "claude-sonnet-4-5", "glm-4.7"),
        ("glm-4.7[1m]", "claude-sonnet-4-5", "glm-4.7"),
        ("anthropic/{model}", "claude-router-claude-sonnet-4-5[1m]", "anthropic/claude-sonnet-4-5"),
        ("{model}:free", "glm-4.7[1m]", "glm-4.7:free"),
    ],
)
def test_the_model_as_sent_to_another_provider(model, asked, sent):
    assert model_to(ZAI, asked, model) == sent


@pytest.mark.parametrize(
    ("model", "asked", "sent"),
    [
        (None, "claude-opus-4-5[1m]", "claude-opus-4-5[1m]"),
        (None, "anthropic/claude-opus-4-5[1m]", "claude-opus-4-5[1m]"),
        ("claude-opus-4-5[1m]", "claude-sonnet-4-5", "claude-opus-4-5[1m]"),
    ],
)
def test_anthropic_itself_gets_the_long_context_suffix(model, asked, sent):
    assert model_to(ANTHROPIC, asked, model) == sent


def test_the_providers_names_are_used_where_the_target_has_none():
    renames = (("*Haiku*", "glm-4.5-air"), ("claude-*", "glm-4.7"))
    rename = tuple((Glob(glob, re.compile(fnmatch.translate(glob), re.I)), model) for glob, model in renames)
    renaming = keyed("zai", rename=rename)
    assert model_to(renaming, "anthropic/claude-haiku-4-5[1m]") == "glm-4.5-air"
    assert model_to(renaming, "claude-sonnet-4-5") == "glm-4.7"
    assert model_to(renaming, "gpt-5") == "gpt-5"
    assert model_to(renaming, "claude-sonnet-4-5", "glm-4.6") == "glm-4.6"
