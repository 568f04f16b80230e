"""What providers reject, from one start to the next and from one router to another."""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from signalbox.state import unsupported_store as module
from signalbox.state.learned_db import BROKEN, FILE
from signalbox.state.unsupported_store import EVERY, MOST, WEEK, Fact, UnsupportedStore, facts, forget


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_fact_holds_for_its_provider_and_model_alone(tmp_path, clock):
    learned = UnsupportedStore(tmp_path, clock=clock)
    learned.learn("zai", "glm-4.7", ["context_management", "effort-2025-11-24"])
    assert learned.rejected("zai", "glm-4.7") == {"context_management", "effort-2025-11-24"}
    assert learned.rejected("zai", "glm-4.6") == frozenset()
    assert learned.rejected("kimi", "glm-4.7") == frozenset()


def test_facts_outlive_the_process(tmp_path, clock):
    UnsupportedStore(tmp_path, clock=clock).learn("zai", "m", ["speed"])
    assert UnsupportedStore(tmp_path, clock=clock).all() == [Fact("zai", "m", "speed", clock.now)]


def test_another_router_knows_within_seconds(tmp_path):
    clock = Clock(time.time())
    one, other = UnsupportedStore(tmp_path, clock=clock), UnsupportedStore(tmp_path, clock=clock)
    assert other.rejected("zai", "m") == frozenset()
    one.learn("zai", "m", ["speed"])
    clock.now += EVERY
    assert other.rejected("zai", "m") == {"speed"}
    forget(tmp_path)
    clock.now += EVERY
    assert other.rejected("zai", "m") == frozenset()


def test_a_week_later_the_provider_is_tried_again(tmp_path, clock):
    learned = UnsupportedStore(tmp_path, clock=clock)
    learned.learn("zai", "m", ["speed"])
    clock.now += WEEK - 1
    assert learned.rejected("zai", "m") == {"speed"}
    clock.now += 1
    assert learned.rejected("zai", "m") == frozenset()
    learned.learn("kimi", "m", ["speed"])
    assert UnsupportedStore(tmp_path, clock=clock).all() == [Fact("kimi", "m", "speed", clock.now)]


@pytest.mark.parametrize(
    ("provider", "field", "kept"),
    [
        (None, None, []),
        ("zai", None, ["kimi a"]),
        ("zai", "b", ["kimi a", "zai a"]),
        ("other", None, ["kimi a", "zai a", "zai b"]),
    ],
)
def test_all_or_a_provider_or_one_field_of_it_is_forgotten(tmp_path, clock, provider, field, kept):
    learned = UnsupportedStore(tmp_path)
    learned.learn("zai", "m", ["a", "b"])
    learned.learn("kimi", "m", ["a"])
    gone = forget(tmp_path, provider, field)
    assert len(gone) == 3 - len(kept)
    assert [f"{fact.provider} {fact.field}" for fact in facts(tmp_path)] == kept


def test_only_the_newest_facts_are_kept(tmp_path, clock):
    learned = UnsupportedStore(tmp_path, clock=clock)
    learned.learn("zai", "first", ["a"])
    clock.now += 1
    learned.learn("zai", "m", [f"f{n}" for n in range(MOST)])
    clock.now += EVERY
    for memory in (learned, UnsupportedStore(tmp_path, clock=clock)):
        assert memory.rejected("zai", "first") == frozenset()
        assert len(memory.all()) == MOST


def test_reading_makes_no_file_and_writing_one_for_its_user_only(tmp_path, clock):
    learned = UnsupportedStore(tmp_path, clock=clock)
    learned.all()
    learned.learn("zai", "m", [])
    learned.close()
    assert (facts(tmp_path), forget(tmp_path)) == ([], [])
    assert list(tmp_path.iterdir()) == []
    learned.learn("zai", "m", ["a"])
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_other_tables_of_the_file_stay(tmp_path, clock):
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("CREATE TABLE issued (digest BLOB)")
    database.close()
    UnsupportedStore(tmp_path, clock=clock).learn("zai", "m", ["a"])
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("SELECT count(*) FROM issued").fetchone() == (0,)
    database.close()


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection, which holds the write lock until it rolls back."""
    UnsupportedStore(tmp_path).learn("old", "m", ["a"])
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_what_is_learned_under_a_lock_is_written_with_the_next_look_after_it(tmp_path, lock, caplog):
    clock = Clock(time.time())
    learned = UnsupportedStore(tmp_path, clock=clock)
    began = time.monotonic()
    for field in ("a", "b"):
        learned.learn("zai", "m", [field])
        clock.now += EVERY
        assert learned.rejected("zai", "m") >= {field}
    assert time.monotonic() - began < 5  # the requests wait for it
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert [fact.provider for fact in facts(tmp_path)] == ["old"]
    lock.execute("ROLLBACK")
    clock.now += EVERY
    assert learned.rejected("zai", "m") == {"a", "b"}
    assert [fact.field for fact in facts(tmp_path) if fact.provider == "zai"] == ["a", "b"]


def test_what_is_learned_under_a_lock_is_written_at_the_end_too(tmp_path, lock):
    learned = UnsupportedStore(tmp_path)
    learned.learn("zai", "m", ["a"])
    lock.execute("ROLLBACK")
    learned.close()
    assert len(facts(tmp_path)) == 2


def test_only_so_much_waits_for_a_lock(tmp_path, lock, monkeypatch):
    monkeypatch.setattr(module, "BUSY", 0.0)
    learned = UnsupportedStore(tmp_path)
    learned.learn("zai", "m", [f"f{n:04}" for n in range(MOST + 5)])
    assert len(learned.rejected("zai", "m")) == MOST


@pytest.mark.parametrize("command", [forget, lambda folder: forget(folder, "old", "a")])
def test_a_command_that_cannot_write_forgets_nothing_and_says_so(tmp_path, lock, monkeypatch, command):
    monkeypatch.setattr(module, "LAST", 0.05)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        command(tmp_path)
    lock.execute("ROLLBACK")
    assert len(facts(tmp_path)) == 1


def test_a_damaged_file_is_set_aside_and_made_anew_with_a_line(tmp_path, clock, caplog):
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        forget(tmp_path)
    assert not caplog.records
    learned = UnsupportedStore(tmp_path, clock=clock)
    learned.learn("zai", "m", ["a"])
    assert UnsupportedStore(tmp_path, clock=clock).rejected("zai", "m") == {"a"}
    assert (tmp_path / BROKEN).read_bytes().startswith(b"no database")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_without_a_folder_a_router_knows_what_it_learned_itself(tmp_path, clock, caplog):
    learned = UnsupportedStore(tmp_path / "none", clock=clock)
    learned.learn("zai", "m", ["a"])
    clock.now += EVERY
    learned.learn("zai", "m", ["b"])
    assert learned.rejected("zai", "m") == {"a", "b"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    (tmp_path / "none").mkdir()
    clock.now += EVERY
    learned.all()
    assert UnsupportedStore(tmp_path / "none", clock=clock).rejected("zai", "m") == {"a", "b"}


def test_a_clock_that_jumps_ahead_deletes_nothing(tmp_path, clock):
    learned = UnsupportedStore(tmp_path, clock=clock)
    learned.learn("zai", "m", ["speed"])
    clock.now += 100 * WEEK
    learned.learn("zai", "m", ["effort"])
    assert learned.rejected("zai", "m") == {"effort"}
    clock.now -= 100 * WEEK
    assert learned.rejected("zai", "m") == {"speed"}, "what was learned in the future is not believed"
