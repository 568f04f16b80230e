"""A clock that is wrong for a moment makes nothing too old."""

import os

from signalbox.record.retention_clock import DAY, RetentionClock, last_use

NOW = 1_800_000_000.0
YEARS = 3650 * DAY


class Machine:
    """`clock` is what it says, `ran` how long it has run."""

    def __init__(self, clock: float = NOW) -> None:
        self.clock = clock
        self.ran = 5000.0

    def passes(self, seconds: float) -> None:
        self.clock += seconds
        self.ran += seconds

    def steady(self, last_use: float | None = NOW) -> RetentionClock:
        return RetentionClock(last_use, clock=lambda: self.clock, elapsed=lambda: self.ran)


def test_a_clock_that_goes_on_is_followed():
    machine = Machine()
    steady = machine.steady()
    for _ in range(100):
        machine.passes(DAY / 3)
        assert steady.now() == machine.clock


def test_a_jump_ahead_is_followed_after_a_day_only():
    machine = Machine()
    steady = machine.steady()
    machine.passes(3600)
    assert steady.now() == machine.clock
    machine.clock += YEARS
    for _ in range(11):
        assert steady.now() < NOW + 2 * DAY
        machine.passes(7200)
    machine.passes(DAY)
    assert steady.now() == machine.clock


def test_a_jump_that_is_taken_back_changes_nothing():
    machine = Machine()
    steady = machine.steady()
    machine.clock += YEARS
    assert steady.now() < NOW + 2 * DAY
    machine.clock -= YEARS
    machine.passes(60)
    assert steady.now() == machine.clock


def test_a_start_with_a_wrong_clock_is_doubted_for_a_day():
    machine = Machine(NOW + YEARS)
    steady = machine.steady()
    assert steady.now() == NOW + DAY
    machine.passes(2 * DAY)
    assert steady.now() == machine.clock


def test_a_start_within_a_day_of_the_last_use_is_not_doubted():
    machine = Machine(NOW + DAY - 1)
    assert machine.steady().now() == machine.clock
    assert machine.steady(None).now() == machine.clock


def test_a_clock_that_is_set_back_is_followed():
    machine = Machine()
    steady = machine.steady()
    machine.clock -= 10 * DAY
    assert steady.now() == machine.clock


def test_the_last_use_of_a_folder_is_its_newest_file(tmp_path):
    assert last_use(tmp_path) is None
    assert last_use(tmp_path / "none") is None
    for name, moment in (("a", NOW), ("b", NOW - 5)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (moment, moment))
    assert last_use(tmp_path) == NOW
