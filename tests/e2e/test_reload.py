"""Rules edited while the router runs."""

import pytest

from tests.support.reloading import ask, rules, seen_within_a_second


@pytest.mark.parametrize("replace", [True, False], ids=["by rename", "in place"])
def test_a_saved_edit_is_in_force_within_a_second(start_router, upstream, second, replace):
    router = start_router(upstream.url, rules=rules(upstream, second))
    assert ask(router)[0] == "glm-1"
    for number in range(2, 5):
        router.rules(rules(upstream, second, f"zai/glm-{number}"), replace=replace)
        assert seen_within_a_second(router, f"glm-{number}")
