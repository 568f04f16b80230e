"""Tokens since a moment: what is on file, and what is not there yet."""

from datetime import UTC, datetime

from signalbox.record.database import milliseconds
from signalbox.record.entry import Attempt, Entry
from signalbox.record.tally import Tally

NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)
MOMENT = milliseconds(NOON)


def entry(tokens: int, *providers: str) -> Entry:
    """One attempt at each provider, each of so many tokens."""
    tried = tuple(
        Attempt(provider=name, started=NOON, latency_ms=0, outcome="200", output_tokens=tokens)
        for name in providers
    )
    return Entry(ts=NOON, model="", backend="", status="success", tried=tried)


def test_nothing_is_added_up_for_who_is_not_asked_for():
    tally = Tally()
    tally.add(entry(1, "zai"))
    assert tally.used("zai") == 0


def test_what_waits_to_be_written_counts_when_it_is_asked_for_first():
    tally = Tally()
    tally.ask("zai", MOMENT, [entry(1, "zai"), entry(10, "kimi"), entry(100, "zai", "zai")])
    assert tally.used("zai") == 201


def test_what_is_read_takes_the_place_of_all_that_is_written():
    tally = Tally()
    tally.ask("zai", MOMENT, [])
    tally.ask("kimi", MOMENT, [])
    waiting = [entry(1, "zai"), entry(10, "zai", "kimi")]
    for one in waiting:
        tally.add(one)
    tally.refresh({"zai": 1001, "kimi": 0}, waiting[1:])
    assert (tally.used("zai"), tally.used("kimi")) == (1011, 10)


def test_asking_from_another_moment_on_leaves_the_other_providers_as_they_are():
    tally = Tally()
    tally.ask("zai", MOMENT, [])
    tally.ask("kimi", MOMENT, [])
    tally.add(entry(5, "zai", "kimi"))
    tally.ask("zai", MOMENT + 1, [entry(5, "zai", "kimi")])
    assert (tally.used("zai"), tally.used("kimi")) == (0, 5)
