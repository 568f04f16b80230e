"""Which router a session uses."""

from datetime import date
from pathlib import Path

import pytest
from msgspec.structs import replace

from signalbox import __version__
from signalbox.claude.router import FoundRouter, Wish, difference, listener_for, spec_for
from signalbox.config.fields import Listen
from signalbox.lifecycle.running import Health, Listener, RulesState

RULES = Path("/rules/rules.yaml")
WISH = Wish("base-url", RULES, Path("/state"), Listen("127.0.0.1", 8082))
REVERSE = Listener("127.0.0.1", 8082, "reverse:https://api.anthropic.com@127.0.0.1:8082")
OTHER_REVERSE = Listener("127.0.0.1", 8083, "reverse:https://api.anthropic.com@127.0.0.1:8083")
REGULAR = Listener("0.0.0.0", 8090, "regular@8090")


def found(*listeners: Listener, bound: bool = False, arguments: tuple[str, ...] = ()) -> FoundRouter:
    health = Health("healthy", __version__, 7, listeners, RulesState(str(RULES), ""))
    return FoundRouter(health, arguments, bound)


def test_the_first_listener_is_used_if_it_is_of_the_mode_and_else_another_one():
    assert listener_for(WISH, found(OTHER_REVERSE, REVERSE)) == REVERSE
    assert listener_for(WISH, found(REGULAR, OTHER_REVERSE)) == OTHER_REVERSE
    assert listener_for(WISH._replace(via="intercept"), found(REVERSE, REGULAR)) == REGULAR
    assert listener_for(WISH._replace(via="intercept"), found(REVERSE)) is None
    assert difference(WISH._replace(via="intercept"), found(REVERSE)) == "is no forward proxy"


def test_router_of_another_session_is_used_only_within_that_session():
    assert listener_for(WISH, found(REVERSE, bound=True)) is None
    assert difference(WISH, found(REVERSE, bound=True)) == "belongs to another session and ends with it"
    assert listener_for(WISH._replace(is_within=True), found(REVERSE, bound=True)) == REVERSE


@pytest.mark.parametrize(
    ("health", "says"),
    [
        ({"rules": RulesState("/other.yaml", "")}, "has other rules, /other.yaml"),
        ({"version": "0.0.1"}, f"is version 0.0.1, this is {__version__}"),
        ({}, "has another state folder, /elsewhere"),
    ],
)
def test_what_is_other_about_a_router_is_named(health, says):
    one = found(REVERSE, arguments=("-s", "x", "--set", "router_state=/elsewhere"))
    one = one._replace(health=replace(one.health, **health))
    assert difference(WISH, one) == says
    assert listener_for(WISH, one) is None


def test_router_of_a_session_is_bound_to_it_and_its_log_is_deleted_with_the_old_ones():
    wish = WISH._replace(via="intercept")
    spec = spec_for(wish, WISH.listen, Path("/router.py"), ["--set", "confdir=/x"], date(2026, 11, 29))
    assert spec.modes == ("regular@127.0.0.1:8082",)
    assert (spec.bound, spec.registered, spec.fail) == (True, False, "open")
    assert spec.log == "signalbox-claude-8082-2026-11-29.log"
