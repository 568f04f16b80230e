"""Who issued which block, from one start of the router to the next."""

import os
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.messages.issued import Block
from signalbox.upkeep import issued
from signalbox.upkeep.issued import FILE, PATIENCE, Issued
from tests.running import wait_until

ONE, TWO, THREE = (bytes([number]) * 16 for number in (1, 2, 3))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Issued]]:
    """Opens a memory on the same folder; all are closed with the test."""
    with ExitStack() as started:
        yield lambda **settings: started.enter_context(closing(Issued(tmp_path, **settings)))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_learned_is_known_at_once(start):
    memory = start()
    memory.learn([ONE, TWO], "zai")
    assert [memory.issuer(digest) for digest in (ONE, TWO, THREE)] == ["zai", "zai", None]


def test_what_is_learned_outlives_the_router(start):
    memory = start()
    memory.learn([ONE], "zai")
    memory.learn([TWO], "deepseek")
    memory.close()
    again = start()
    assert again.key == memory.key
    assert (again.issuer(ONE), again.issuer(TWO)) == ("zai", "deepseek")


def test_a_block_is_known_by_its_digest_under_the_key(start):
    memory = start()
    block = Block("thinking", "unsigned")
    memory.learn([block.digest(memory.key) or b""], "deepseek")
    assert memory.issuer_of(block) == "deepseek"
    assert memory.issuer_of(Block("thinking", "another")) is None
    assert memory.issuer_of(Block("thinking", "")) is None


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([ONE, TWO, THREE]), st.sampled_from(["zai", "kimi"])), max_size=6))
def test_who_was_first_has_issued_it_after_a_restart_too(learned):
    with tempfile.TemporaryDirectory() as folder:
        with closing(Issued(Path(folder))) as memory:
            for digest, provider in learned:
                memory.learn([digest], provider)
            before = [memory.issuer(digest) for digest in (ONE, TWO, THREE)]
        with closing(Issued(Path(folder))) as memory:
            assert [memory.issuer(digest) for digest in (ONE, TWO, THREE)] == before
    assert before == [dict(reversed(learned)).get(digest) for digest in (ONE, TWO, THREE)]


def test_only_the_newest_are_kept(start):
    memory = start(most=2)
    for digest in (ONE, TWO, THREE):
        memory.learn([digest], "zai")
    assert [memory.issuer(digest) for digest in (ONE, TWO, THREE)] == [None, "zai", "zai"]
    memory.close()
    again = start()
    assert [again.issuer(digest) for digest in (ONE, TWO, THREE)] == [None, "zai", "zai"]


def test_an_unknown_block_is_looked_for_with_other_routers_but_not_all_the_time(start):
    clock = Clock()
    here, there = start(clock=clock), start()
    there.learn([ONE], "zai")
    there.close()
    assert here.issuer(ONE) is None
    clock.now += PATIENCE
    assert here.issuer(ONE) == "zai"


def test_what_other_routers_learn_is_read_beside_requests(start, monkeypatch):
    monkeypatch.setattr(issued, "EVERY", 0.01)
    here, there = start(clock=lambda: 0.0), start()
    there.learn([ONE], "zai")
    wait_until(lambda: here.issuer(ONE) == "zai", 5, lambda: "not known")


def test_of_two_routers_the_one_that_wrote_first_is_right(start):
    here, there = start(clock=lambda: 0.0), start()
    there.learn([ONE], "kimi")
    there.close()
    here.learn([ONE], "zai")
    wait_until(lambda: here.issuer(ONE) == "kimi", 5, lambda: "not known")


def test_the_file_is_for_its_owner_alone_and_holds_no_text(start, tmp_path):
    memory = start()
    memory.learn([Block("thinking", "private text").digest(memory.key) or b""], "deepseek")
    memory.close()
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert b"private text" not in (tmp_path / FILE).read_bytes()


def _corrupt(file: Path) -> None:
    file.write_bytes(b"no database" * 1000)


@pytest.mark.parametrize("spoil", [_corrupt, Path.mkdir])
def test_without_a_usable_file_it_goes_on_in_memory_and_says_so(start, tmp_path, caplog, spoil):
    spoil(tmp_path / FILE)
    memory = start()
    memory.learn([ONE], "zai")
    assert (memory.issuer(ONE), memory.issuer(TWO)) == ("zai", None)
    (line,) = caplog.messages
    assert FILE in line
    assert "until the end only" in line


def test_a_file_that_fails_later_costs_a_line_and_what_was_on_it(start, tmp_path, caplog):
    clock = Clock()
    memory = start(clock=clock)
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("DROP TABLE issued")
    memory.learn([ONE], "zai")
    wait_until(lambda: caplog.messages, 5, lambda: "no line in the log")
    memory.learn([TWO], "kimi")
    clock.now += PATIENCE
    assert [memory.issuer(digest) for digest in (ONE, TWO, THREE)] == ["zai", "kimi", None]
    memory.close()
    assert len(caplog.messages) == 1


def test_a_lost_file_is_made_anew(start, tmp_path):
    memory = start()
    memory.learn([ONE], "zai")
    memory.close()
    (tmp_path / FILE).unlink()
    assert start().issuer(ONE) is None
