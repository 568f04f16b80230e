"""A start with broken rules that is not to end the router: the rules that were last good, or none."""

import asyncio
from pathlib import Path

import pytest

from signalbox.config.load import RulesError
from signalbox.config.watch import Live
from signalbox.state.good_rules import GoodRules

GOOD = "providers:\n  zai: {url: https://h, key: '${ZAI}'}\nrules:\n  - {match: '*', to: zai/one}\n"
BROKEN = GOOD.replace("to:", "too:")
ERROR = 'rules.yaml:4: unknown key "too", did you mean "to"? (at $.rules[0])'
NO_RULES = "there are no rules that were good before: requests pass to the upstream unrouted"


class Start:
    """A start, in spite of the error that it raised at first."""

    def __init__(self, path: Path, last_good: str | None) -> None:
        self.said: list[tuple[str, str]] = []
        self.live = Live(path, {"ZAI": "secret"}, log=lambda *line: self.said.append(line), poll=0.01)
        self.heard = []
        self.live.on_change.append(self.heard.append)
        with pytest.raises(RulesError) as raised:
            self.live.start()
        self.live.start_despite(raised.value, last_good)

    def look(self, times: int = 2) -> None:
        async def looks() -> None:
            for _ in range(times):
                await self.live.look()

        asyncio.run(looks())


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(BROKEN)
    return path


def test_the_last_good_rules_are_in_force_and_the_errors_are_said(path):
    start = Start(path, GOOD)
    assert (start.live.source, start.live.error) == ("last-good", ERROR)
    assert start.live.rules.rules[0].choices[0][0].model == "one"
    assert start.live.rules.providers["zai"].key == "secret"
    assert start.heard == [start.live.rules]
    assert start.said[0] == ("warn", ERROR)
    assert start.said[-1] == ("warn", "the rules that were last good are in force until rules.yaml is fixed")


def test_without_them_every_request_passes_unrouted(path):
    start = Start(path, None)
    assert (start.live.source, start.live.error) == ("fail-open", ERROR)
    assert start.live.rules.fails_open
    assert start.live.rules.rules == ()
    assert start.said == [("warn", ERROR), ("warn", f"{NO_RULES} until rules.yaml is fixed")]


def test_last_good_rules_that_are_good_no_more_count_for_nothing(path):
    start = Start(path, "rules: 1")
    assert start.live.source == "fail-open"
    assert start.said[-1][1].startswith("the rules that were last good have errors too (rules.yaml:1: ")


def test_no_error_of_a_start_is_logged_as_one_since_that_would_end_it(path):
    assert {level for level, _ in Start(path, GOOD).said} <= {"info", "warn"}
    assert {level for level, _ in Start(path, None).said} <= {"info", "warn"}


@pytest.mark.parametrize("last_good", [GOOD, None])
def test_a_file_that_is_repaired_is_in_force_without_another_start(path, last_good):
    start = Start(path, last_good)
    start.look()
    assert start.live.error == ERROR
    path.write_text(GOOD.replace("one", "two"))
    start.look()
    assert (start.live.source, start.live.error) == ("file", "")
    assert start.live.rules.rules[0].choices[0][0].model == "two"
    assert start.live.text == path.read_text()


def test_a_file_that_stays_broken_is_complained_of_once(path):
    start = Start(path, None)
    said = len(start.said)
    start.look(4)
    assert len(start.said) == said
    path.write_text(BROKEN + "modle: 1\n")
    start.look()
    assert start.said[-1] == ("error", "the router stays without rules until the file is fixed")


def test_the_text_is_kept_for_this_user_alone_and_without_values_of_secrets(tmp_path):
    kept = GoodRules(tmp_path / "state", tmp_path / "rules.yaml")
    assert kept.read() is None
    kept.keep(GOOD)
    kept.close()
    assert kept.path.read_text() == GOOD
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert GoodRules(tmp_path / "state", tmp_path / "rules.yaml").read() == GOOD


def test_each_rules_file_has_its_own(tmp_path):
    kept = GoodRules(tmp_path, tmp_path / "rules.yaml")
    kept.keep(GOOD)
    kept.close()
    assert GoodRules(tmp_path, tmp_path / "other.yaml").read() is None
