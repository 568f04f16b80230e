"""What providers reject, from one start to the next and from one router to another."""

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from signalbox.state.learned_db import BROKEN, FILE
from signalbox.state.unsupported_store import LIMIT, WEEK, Fact, UnsupportedStore, facts, forget
from tests.support.router_process import wait_until


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., UnsupportedStore]]:
    """Opens a store on the same folder that looks at the file often; all are closed with the test."""

    def open_store(folder: Path = tmp_path, **settings: Any) -> UnsupportedStore:
        usual: dict[str, Any] = {"clock": clock, "poll": 0.01, "lock_timeout": 0.05}
        return started.enter_context(closing(UnsupportedStore(folder, **usual | settings)))

    with ExitStack() as started:
        yield open_store


def written(
    folder: Path, *learned: tuple[str, str, list[str]], clock: Callable[[], float] = time.time
) -> None:
    """A store that learns these facts, and ends."""
    with closing(UnsupportedStore(folder, clock=clock or time.time)) as store:
        for fact in learned:
            store.learn(*fact)


def test_a_fact_holds_for_its_provider_and_model_alone(start):
    store = start()
    store.learn("zai", "glm-4.7", ["context_management", "effort-2025-11-24"])
    assert store.rejected("zai", "glm-4.7") == {"context_management", "effort-2025-11-24"}
    assert store.rejected("zai", "glm-4.6") == frozenset()
    assert store.rejected("kimi", "glm-4.7") == frozenset()


def test_facts_outlive_the_process(start, tmp_path, clock):
    written(tmp_path, ("zai", "m", ["speed"]), clock=clock)
    assert start().all() == [Fact("zai", "m", "speed", clock.now)]


def test_another_router_learns_of_a_fact_and_of_one_that_is_forgotten(start, tmp_path, clock):
    clock.now = time.time()
    one, other = start(), start()
    assert other.rejected("zai", "m") == frozenset()
    one.learn("zai", "m", ["speed"])
    wait_until(lambda: other.rejected("zai", "m") == {"speed"}, 5, lambda: "the fact")
    forget(tmp_path)
    for store in (one, other):
        wait_until(lambda: store.rejected("zai", "m") == frozenset(), 5, lambda: "no fact")  # noqa: B023


def test_a_field_is_sent_again_after_a_week(start, clock):
    store = start()
    store.learn("zai", "m", ["speed"])
    clock.now += WEEK - 1
    assert store.rejected("zai", "m") == {"speed"}
    clock.now += 1
    assert store.rejected("zai", "m") == frozenset()
    store.learn("kimi", "m", ["speed"])
    store.close()
    assert start().all() == [Fact("kimi", "m", "speed", clock.now)]


def test_no_method_waits_for_the_file(start, tmp_path):
    """A thousand calls while another process holds all locks take less than one wait for them would."""
    written(tmp_path, ("zai", "old", ["a"]))
    store = start(lock_timeout=1.0)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.perf_counter()
        for number in range(200):
            store.learn("zai", "m", [f"field-{number}"])
            assert f"field-{number}" in store.rejected("zai", "m")
        assert time.perf_counter() - began < 0.5  # about 20 ms
        other.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("provider", "field", "kept"),
    [
        (None, None, []),
        ("zai", None, ["kimi a"]),
        ("zai", "b", ["kimi a", "zai a"]),
        ("other", None, ["kimi a", "zai a", "zai b"]),
    ],
)
def test_all_or_a_provider_or_one_field_of_it_is_forgotten(tmp_path, provider, field, kept):
    written(tmp_path, ("zai", "m", ["a", "b"]), ("kimi", "m", ["a"]))
    gone = forget(tmp_path, provider, field)
    assert len(gone) == 3 - len(kept)
    assert [f"{fact.provider} {fact.field}" for fact in facts(tmp_path)] == kept


def test_only_the_newest_facts_are_kept(start, clock):
    store = start()
    store.learn("zai", "first", ["a"])
    clock.now += 1
    store.learn("zai", "m", [f"f{n}" for n in range(LIMIT)])
    store.close()
    for memory in (store, start()):
        assert memory.rejected("zai", "first") == frozenset()
        assert len(memory.all()) == LIMIT


def test_reading_makes_no_file_and_writing_one_for_its_user_only(start, tmp_path):
    store = start()
    store.all()
    store.learn("zai", "m", [])
    store.close()
    assert (facts(tmp_path), forget(tmp_path)) == ([], [])
    assert list(tmp_path.iterdir()) == []
    store.learn("zai", "m", ["a"])
    store.close()
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_other_tables_of_the_file_stay(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("CREATE TABLE issued (digest BLOB)")
    database.close()
    written(tmp_path, ("zai", "m", ["a"]))
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("SELECT count(*) FROM issued").fetchone() == (0,)
    database.close()


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection, which holds the write lock until it rolls back."""
    written(tmp_path, ("old", "m", ["a"]))
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_what_is_learned_under_a_lock_is_written_after_it(start, tmp_path, lock, clock, caplog):
    clock.now = time.time()
    store = start()
    for field in ("a", "b"):
        store.learn("zai", "m", [field])
        assert store.rejected("zai", "m") >= {field}
    wait_until(lambda: caplog.records, 5, lambda: "a line in the log")
    assert [fact.provider for fact in facts(tmp_path)] == ["old"]
    lock.execute("ROLLBACK")
    wait_until(lambda: len(facts(tmp_path)) == 3, 5, lambda: "two more facts")
    assert store.rejected("zai", "m") == {"a", "b"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_what_is_learned_under_a_lock_is_written_at_the_end_too(start, tmp_path, lock, clock):
    clock.now = time.time()
    store = start(poll=60)
    store.learn("zai", "m", ["a"])
    lock.execute("ROLLBACK")
    store.close()
    assert len(facts(tmp_path)) == 2


def test_only_so_many_facts_wait_for_a_lock(start, lock):
    store = start()
    store.learn("zai", "m", [f"f{n:04}" for n in range(LIMIT + 5)])
    assert len(store.rejected("zai", "m")) == LIMIT


@pytest.mark.parametrize("what", [(), ("old", "a")])
def test_a_command_that_cannot_write_forgets_nothing_and_says_so(tmp_path, lock, what):
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        forget(tmp_path, *what, wait=0.05)
    lock.execute("ROLLBACK")
    assert len(facts(tmp_path)) == 1


def test_a_damaged_file_is_set_aside_and_made_anew_with_a_line(start, tmp_path, caplog):
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        forget(tmp_path)
    assert not caplog.records
    store = start()
    store.learn("zai", "m", ["a"])
    store.close()
    assert start().rejected("zai", "m") == {"a"}
    assert (tmp_path / BROKEN).read_bytes().startswith(b"no database")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_without_a_folder_a_router_knows_what_it_learned_itself(start, tmp_path, caplog):
    store = start(tmp_path / "none")
    store.learn("zai", "m", ["a"])
    store.learn("zai", "m", ["b"])
    wait_until(lambda: caplog.records, 5, lambda: "a line in the log")
    assert store.rejected("zai", "m") == {"a", "b"}
    (tmp_path / "none").mkdir()
    store.close()
    assert start(tmp_path / "none").rejected("zai", "m") == {"a", "b"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_clock_that_jumps_ahead_deletes_nothing(start, clock):
    store = start()
    store.learn("zai", "m", ["speed"])
    clock.now += 100 * WEEK
    store.learn("zai", "m", ["effort"])
    assert store.rejected("zai", "m") == {"effort"}
    clock.now -= 100 * WEEK
    assert store.rejected("zai", "m") == {"speed"}, "what was learned in the future is not believed"
