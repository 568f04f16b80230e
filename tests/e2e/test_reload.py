"""Rules edited while the router runs."""

from tests.support.reloading import ask, rules, seen_within_a_second


def test_a_saved_edit_is_in_force_within_a_second(start_router, upstream, second):
    router = start_router(upstream.url, rules=rules(upstream, second))
    assert ask(router)[0] == "glm-1"
    for number, replace in ((2, True), (3, False), (4, True), (5, False)):  # by rename, and in place
        router.rules(rules(upstream, second, f"zai/glm-{number}"), replace=replace)
        assert seen_within_a_second(router, f"glm-{number}")
