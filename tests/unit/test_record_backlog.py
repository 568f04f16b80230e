"""What waits to be written: its order, its limit, and what it adds to the sums of the ledger."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from signalbox.record.backlog import Backlog, UsageCounter
from signalbox.record.entry import AttemptRow, Entry, milliseconds

NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)


@given(st.integers(1, 4), st.lists(st.sampled_from(["add", "write one", "write all"]), max_size=40))
def test_every_entry_is_written_once_and_in_order_from_memory_or_from_the_spool(most, steps):
    backlog, spool, number, written = Backlog(most, has_spool=True), [], 0, []
    for step in [*steps, *["write all"] * 45]:
        if step == "add":
            number += 1
            spool.append(number)
            backlog.append(number, used(1, "zai"))
            assert len(backlog.in_memory) <= most
        elif (gap := backlog.gap) is not None:
            found = [one for one in spool if gap.after < one <= gap.upto]
            written += found if step == "write all" else found[:1]
            backlog.written(written[-1])
        elif batch := backlog.first(1 if step == "write one" else most):
            written += [one.number for one in batch]
            backlog.written(written[-1])
        assert len(backlog) == number - len(written)
    assert written == spool


def test_without_a_spool_what_memory_cannot_hold_is_lost():
    backlog = Backlog(2, has_spool=False)
    for number in (1, 2, 3):
        backlog.append(number, used(1, "zai"))
    assert (len(backlog), backlog.lost) == (2, 1)


MOMENT = milliseconds(NOON)


def used(tokens: int, *providers: str) -> Entry:
    """One attempt at each provider, each of so many tokens."""
    rows = tuple(
        AttemptRow(provider=name, started=NOON, latency_ms=0, outcome="200", output_tokens=tokens)
        for name in providers
    )
    return Entry(ts=NOON, model="", backend="", status="success", attempt_rows=rows)


def test_nothing_is_added_up_for_who_is_not_asked_for():
    counter = UsageCounter()
    counter.add(used(1, "zai"))
    assert counter.used("zai") == 0


def test_what_waits_to_be_written_counts_when_it_is_asked_for_first():
    counter = UsageCounter()
    counter.ask("zai", MOMENT, [used(1, "zai"), used(10, "kimi"), used(100, "zai", "zai")])
    assert counter.used("zai") == 201


def test_what_is_read_takes_the_place_of_all_that_is_written():
    counter = UsageCounter()
    counter.ask("zai", MOMENT, [])
    counter.ask("kimi", MOMENT, [])
    waiting = [used(1, "zai"), used(10, "zai", "kimi")]
    for one in waiting:
        counter.add(one)
    counter.refresh({"zai": 1001, "kimi": 0}, waiting[1:])
    assert (counter.used("zai"), counter.used("kimi")) == (1011, 10)


def test_asking_from_another_moment_on_leaves_the_other_providers_as_they_are():
    counter = UsageCounter()
    counter.ask("zai", MOMENT, [])
    counter.ask("kimi", MOMENT, [])
    counter.add(used(5, "zai", "kimi"))
    counter.ask("zai", MOMENT + 1, [used(5, "zai", "kimi")])
    assert (counter.used("zai"), counter.used("kimi")) == (0, 5)
