"""What providers reject, from one start to the next and from one router to another."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from signalbox.upkeep.learned import EVERY, FILE, MOST, WEEK, Fact, Learned


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_fact_holds_for_its_provider_and_model_alone(tmp_path, clock):
    learned = Learned(tmp_path, clock=clock)
    learned.learn("zai", "glm-4.7", ["context_management", "effort-2025-11-24"])
    assert learned.rejected("zai", "glm-4.7") == {"context_management", "effort-2025-11-24"}
    assert learned.rejected("zai", "glm-4.6") == frozenset()
    assert learned.rejected("kimi", "glm-4.7") == frozenset()


def test_facts_outlive_the_process(tmp_path, clock):
    Learned(tmp_path, clock=clock).learn("zai", "m", ["speed"])
    assert Learned(tmp_path, clock=clock).all() == [Fact("zai", "m", "speed", clock.now)]


def test_another_router_knows_within_seconds(tmp_path, clock):
    one, other = Learned(tmp_path, clock=clock), Learned(tmp_path, clock=clock)
    assert other.rejected("zai", "m") == frozenset()
    one.learn("zai", "m", ["speed"])
    clock.now += EVERY
    assert other.rejected("zai", "m") == {"speed"}
    one.forget()
    clock.now += EVERY
    assert other.rejected("zai", "m") == frozenset()


def test_a_week_later_the_provider_is_tried_again(tmp_path, clock):
    learned = Learned(tmp_path, clock=clock)
    learned.learn("zai", "m", ["speed"])
    clock.now += WEEK - 1
    assert learned.rejected("zai", "m") == {"speed"}
    clock.now += 1
    assert learned.rejected("zai", "m") == frozenset()
    learned.learn("kimi", "m", ["speed"])
    assert Learned(tmp_path, clock=lambda: 1_000_001.0).all() == [Fact("kimi", "m", "speed", clock.now)]


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
    learned = Learned(tmp_path, clock=clock)
    learned.learn("zai", "m", ["a", "b"])
    learned.learn("kimi", "m", ["a"])
    gone = learned.forget(provider, field)
    assert len(gone) == 3 - len(kept)
    for memory in (learned, Learned(tmp_path, clock=clock)):
        assert [f"{fact.provider} {fact.field}" for fact in memory.all()] == kept


def test_only_the_newest_facts_are_kept(tmp_path, clock):
    learned = Learned(tmp_path, clock=clock)
    learned.learn("zai", "first", ["a"])
    clock.now += 1
    learned.learn("zai", "m", [f"f{n}" for n in range(MOST)])
    clock.now += EVERY
    for memory in (learned, Learned(tmp_path, clock=clock)):
        assert memory.rejected("zai", "first") == frozenset()
        assert len(memory.all()) == MOST


def test_reading_makes_no_file_and_writing_one_for_its_user_only(tmp_path, clock):
    learned = Learned(tmp_path, clock=clock)
    learned.all()
    learned.forget()
    learned.learn("zai", "m", [])
    assert list(tmp_path.iterdir()) == []
    learned.learn("zai", "m", ["a"])
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_other_tables_of_the_file_stay(tmp_path, clock):
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("CREATE TABLE issued (digest BLOB)")
    database.close()
    Learned(tmp_path, clock=clock).learn("zai", "m", ["a"])
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("SELECT count(*) FROM issued").fetchone() == (0,)
    database.close()


@pytest.mark.parametrize("broken", ["corrupt", "no folder"])
def test_without_a_file_a_router_knows_what_it_learned_itself(tmp_path: Path, clock, caplog, broken):
    folder = tmp_path / "state"
    if broken == "corrupt":
        folder.mkdir()
        (folder / FILE).write_bytes(b"no database" * 1000)
    learned = Learned(folder, clock=clock)
    learned.learn("zai", "m", ["a"])
    clock.now += EVERY
    learned.learn("zai", "m", ["b"])
    assert learned.rejected("zai", "m") == {"a", "b"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
