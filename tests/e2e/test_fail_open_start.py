"""A start with broken rules as `signalbox run` makes it: requests are answered all the same."""

import pytest

from tests.support.raw_client import Caller
from tests.support.reloading import ask, rules, seen_within_a_second
from tests.support.router import Router
from tests.support.router_process import wait_until

OPEN = {"SIGNALBOX_FAIL_OPEN": "1"}
BACKGROUND = {"SIGNALBOX_BACKGROUND": "1"}
BROKEN = "rulez: []\n"
ERROR = 'rules.yaml:1: unknown key "rulez", did you mean "rules"? (at $)'


def test_without_good_rules_everything_passes_to_the_upstream_and_says_so(start_router, upstream):
    router = start_router(upstream.url, rules=BROKEN, environment=OPEN)
    with Caller(router) as caller:
        caller.ask("claude-haiku-4-5")
        answer = caller.answer()
    assert (answer.status, answer.headers["x-signalbox-rule"]) == (200, "fail-open")
    assert answer.headers["x-signalbox-attempts"] == "upstream:200"
    health = router.health()
    assert health["status"] == "degraded"
    assert (health["rules"]["error"], health["rules"]["source"]) == (ERROR, "fail-open")
    router.wait_log(r"dispatch: upstream reason=fail-open model=claude-haiku-4-5")
    assert router.records(1)[0]["rule"] == "fail-open"


@pytest.mark.slow
def test_the_rules_that_were_last_good_stand_in_until_the_file_is_repaired(tmp_path, upstream, second):
    good = rules(upstream, second)
    with Router(tmp_path, upstream.url, rules=good, environment=OPEN) as router:
        wait_until(lambda: list(router.state.glob("good-rules-*.yaml")), 5, lambda: "the rules to be kept")
    (kept,) = router.state.glob("good-rules-*.yaml")
    assert kept.read_text() == good
    with Router(tmp_path, upstream.url, rules=BROKEN, environment=OPEN) as router:
        assert ask(router)[0] == "glm-1"
        assert router.health()["rules"]["source"] == "last-good"
        assert router.health()["status"] == "degraded"
        router.rules(rules(upstream, second, "zai/glm-2"))
        assert seen_within_a_second(router, "glm-2")
        assert router.health()["rules"]["source"] == "file"


@pytest.mark.parametrize(("environment", "shown"), [({}, True), (BACKGROUND, False)])
def test_the_console_of_a_router_in_the_background_has_no_words_of_a_prompt(
    start_router, upstream, environment, shown
):
    text = f"providers:\n  up: {{url: '{upstream.url}', auth: client}}\nrules:\n  - {{match: '*', to: up}}\n"
    router = start_router(upstream.url, rules=text, environment=environment)
    with Caller(router) as caller:
        caller.ask("claude-haiku-4-5")
        caller.answer()
    router.wait_log(r"\[haiku\|up\] ")
    assert ('"' in router.wait_log(r"\[haiku\|up\] .*").group()) is shown
