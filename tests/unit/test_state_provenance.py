"""Who issued which block, from one start of the router to the next."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.anthropic.issued import ThinkingBlock
from signalbox.state.learned_db import BROKEN, FILE
from signalbox.state.provenance import WAIT, ProvenanceStore
from signalbox.state.unsupported_store import UnsupportedStore
from tests.support.router_process import wait_until

ONE, TWO, THREE = (bytes([number]) * 16 for number in (1, 2, 3))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ProvenanceStore]]:
    """Opens a memory on the same folder; all are closed with the test."""
    with ExitStack() as started:
        yield lambda **settings: started.enter_context(closing(ProvenanceStore(tmp_path, **settings)))


def learns_of(store: ProvenanceStore, digest: bytes, issuer: str) -> None:
    """Fails where the store does not read from the file that this provider issued the block."""

    def knows() -> bool:
        asyncio.run(store.refreshed())
        return store.issuer(digest) == issuer

    wait_until(knows, 5, lambda: f"{store.issuer(digest)} issued it")


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


def test_a_closed_store_learns_on_and_writes_when_it_is_closed_again(start):
    memory = start()
    memory.close()
    memory.close()
    memory.learn([ONE], "zai")
    assert memory.issuer(ONE) == "zai"
    memory.close()
    assert start().issuer(ONE) == "zai"


def test_a_block_is_recognized_by_its_digest_under_the_key(start):
    memory = start()
    block = ThinkingBlock("thinking", "unsigned")
    memory.learn([block.digest(memory.key) or b""], "deepseek")
    assert memory.issuer_of(block) == "deepseek"
    assert memory.issuer_of(ThinkingBlock("thinking", "another")) is None
    assert memory.issuer_of(ThinkingBlock("thinking", "")) is None


@settings(max_examples=settings.default.max_examples // 4)
@given(st.lists(st.tuples(st.sampled_from([ONE, TWO, THREE]), st.sampled_from(["zai", "kimi"])), max_size=6))
def test_who_was_first_has_issued_it_after_a_restart_too(learned):
    with tempfile.TemporaryDirectory() as folder:
        with closing(ProvenanceStore(Path(folder))) as memory:
            for digest, provider in learned:
                memory.learn([digest], provider)
            before = [memory.issuer(digest) for digest in (ONE, TWO, THREE)]
        with closing(ProvenanceStore(Path(folder))) as memory:
            assert [memory.issuer(digest) for digest in (ONE, TWO, THREE)] == before
    assert before == [dict(reversed(learned)).get(digest) for digest in (ONE, TWO, THREE)]


def test_only_the_newest_are_kept(start):
    memory = start(limit=2)
    for digest in (ONE, TWO, THREE):
        memory.learn([digest], "zai")
    assert [memory.issuer(digest) for digest in (ONE, TWO, THREE)] == [None, "zai", "zai"]
    memory.close()
    again = start()
    assert [again.issuer(digest) for digest in (ONE, TWO, THREE)] == [None, "zai", "zai"]


def test_a_store_learns_what_another_one_has_written(start):
    here, there = start(), start()
    for digest, provider in ((ONE, "zai"), (TWO, "kimi")):
        there.learn([digest], provider)
        learns_of(here, digest, provider)


def test_of_two_routers_the_one_that_wrote_first_is_right(start):
    here, there = start(), start()
    there.learn([ONE], "kimi")
    there.close()
    here.learn([ONE], "zai")
    learns_of(here, ONE, "kimi")


async def longest_pause(stop: asyncio.Event) -> float:
    """Seconds between two turns of the event loop at the most."""
    longest, last = 0.0, time.perf_counter()
    while not stop.is_set():
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest


def test_the_event_loop_never_waits_for_a_locked_file(start, tmp_path):
    """One stream waits WAIT at the most, once; the loop not at all."""
    memory = start()
    waited = []

    async def answers() -> float:
        stop = asyncio.Event()
        pause = asyncio.create_task(longest_pause(stop))
        for number in range(20):
            digest = number.to_bytes(16)
            began = time.perf_counter()
            memory.learn([digest], "zai")
            await memory.written()
            await memory.refreshed()
            waited.append(time.perf_counter() - began)
            assert memory.issuer(digest) == "zai"
        stop.set()
        return await pause

    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        pause = asyncio.run(answers())
        other.execute("ROLLBACK")
    assert pause < WAIT
    assert sorted(waited)[len(waited) // 2] < WAIT / 2
    assert sum(waited) < 6 * WAIT


_OTHER = """
import sys
from pathlib import Path
from signalbox.state.provenance import WAIT, ProvenanceStore
memory = ProvenanceStore(Path(sys.argv[1]))
memory.learn([bytes.fromhex(sys.argv[2])], "other")
memory.close()
"""


def other_process(folder: Path, digest: bytes) -> None:
    """A router elsewhere learns this, and ends."""
    subprocess.run([sys.executable, "-c", _OTHER, folder, digest.hex()], check=True, timeout=30)


@pytest.mark.slow
def test_another_process_that_ends_leaves_the_file_as_it_is(start, tmp_path, caplog):
    """It would remove the write-ahead log if this process had lost its locks on the file."""
    here = start()
    unsupported = UnsupportedStore(tmp_path)
    unsupported.learn("zai", "m", ["a"])
    unsupported.close()
    for digest in (ONE, TWO):
        other_process(tmp_path, digest)
        learns_of(here, digest, "other")
    here.learn([THREE], "here")
    here.close()
    assert [start().issuer(digest) for digest in (ONE, TWO, THREE)] == ["other", "other", "here"]
    assert not caplog.messages


_ENDLESS = """
import os, sys, time
from pathlib import Path
from signalbox.state.provenance import WAIT, ProvenanceStore
memory = ProvenanceStore(Path(sys.argv[1]))
while True:
    digest = os.urandom(16)
    memory.learn([digest], "other")
    print(digest.hex(), flush=True)
    time.sleep(0.001)
"""


@pytest.mark.slow
def test_a_router_that_is_killed_while_it_writes_harms_nobody(start, tmp_path, caplog):
    here = start()
    with subprocess.Popen(
        [sys.executable, "-c", _ENDLESS, tmp_path], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        told = [bytes.fromhex(other.stdout.readline()) for _ in range(20)]
        learns_of(here, told[0], "other")
        other.kill()
    here.learn([ONE], "here")
    here.close()
    again = start()
    assert (again.key, again.issuer(ONE), again.issuer(told[0])) == (here.key, "here", "other")
    with closing(sqlite3.connect(tmp_path / FILE)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not caplog.messages


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection, which holds the write lock until it rolls back."""
    start = ProvenanceStore(tmp_path)
    start.close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_a_write_lock_delays_what_is_shared_and_costs_a_line(start, lock, caplog):
    here = start(lock_timeout=0.05, retry=0.01)
    here.learn([ONE], "zai")
    wait_until(lambda: caplog.messages, 5, lambda: "no line in the log")
    here.learn([TWO], "kimi")
    there = start(lock_timeout=0.05, retry=0.01)
    assert (there.key, there.issuer(ONE)) == (here.key, None)
    lock.execute("ROLLBACK")
    learns_of(there, TWO, "kimi")
    assert there.issuer(ONE) == "zai"
    (line,) = caplog.messages
    assert line.endswith("database is locked: what is learned is kept in memory until that is over")


def test_a_lock_that_is_never_released_does_not_keep_a_router_from_ending(start, lock):
    memory = start(lock_timeout=0.05)
    memory.learn([ONE], "zai")
    began = time.monotonic()
    memory.close()
    assert time.monotonic() - began < 5


def test_only_the_newest_wait_for_a_lock(start, lock):
    here = start(limit=2, lock_timeout=0.05, retry=0.01)
    for digest in (ONE, TWO, THREE):
        here.learn([digest], "zai")
    lock.execute("ROLLBACK")
    here.close()
    again = start()
    assert [again.issuer(digest) for digest in (ONE, TWO, THREE)] == [None, "zai", "zai"]


def test_the_file_is_for_its_owner_alone_and_holds_no_text(start, tmp_path):
    memory = start()
    memory.learn([ThinkingBlock("thinking", "private text").digest(memory.key) or b""], "deepseek")
    memory.close()
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert b"private text" not in (tmp_path / FILE).read_bytes()


def damage(file: Path) -> None:
    file.write_bytes(b"no database" * 1000)


def test_a_damaged_file_is_set_aside_and_made_anew_with_a_line(start, tmp_path, caplog):
    damage(tmp_path / FILE)
    memory = start()
    memory.learn([ONE], "zai")
    memory.close()
    assert (start().key, start().issuer(ONE)) == (memory.key, "zai")
    assert (tmp_path / BROKEN).read_bytes().startswith(b"no database")
    (line,) = caplog.messages
    assert line.endswith(f"file is not a database: set aside as {BROKEN} and begun anew")


def test_a_file_that_is_damaged_later_is_set_aside_too_and_the_key_stays(start, tmp_path, caplog):
    here, there = start(), start()
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damage(tmp_path / FILE)
    here.learn([ONE], "zai")
    here.close()
    learns_of(there, ONE, "zai")
    assert there.key == here.key
    there.learn([TWO], "kimi")
    there.close()
    assert [start().issuer(digest) for digest in (ONE, TWO)] == ["zai", "kimi"]
    assert len(caplog.messages) == 1


def test_a_file_that_is_damaged_again_is_left_alone(start, tmp_path, caplog, monkeypatch):
    damage(tmp_path / FILE)
    memory = start()
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (tmp_path / FILE).write_bytes(b"again" * 1000)
    memory.learn([ONE], "zai")
    memory.close()
    assert (tmp_path / BROKEN).read_bytes().startswith(b"no database")
    assert memory.issuer(ONE) == "zai"
    assert len(caplog.messages) == 2


def test_without_a_usable_file_it_goes_on_in_memory_and_says_so_once(start, tmp_path, caplog):
    (tmp_path / FILE).mkdir()
    memory = start()
    memory.learn([ONE], "zai")
    asyncio.run(memory.refreshed())
    assert (memory.issuer(ONE), memory.issuer(TWO)) == ("zai", None)
    memory.close()
    (line,) = caplog.messages
    assert FILE in line
    assert "kept in memory" in line


def test_a_lost_file_is_made_anew(start, tmp_path):
    memory = start()
    memory.learn([ONE], "zai")
    memory.close()
    (tmp_path / FILE).unlink()
    assert start().issuer(ONE) is None


@pytest.mark.skipif(os.name != "posix", reason="an open file cannot be removed")
def test_a_file_that_is_lost_while_it_runs_is_made_anew(start, tmp_path):
    here, there = start(), start()
    for file in tmp_path.iterdir():
        file.unlink()
    here.learn([ONE], "zai")
    here.close()
    learns_of(there, ONE, "zai")


_ECHO = """
import asyncio, sys
from pathlib import Path
from signalbox.state.provenance import ProvenanceStore
memory = ProvenanceStore(Path(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    command, digest = line.split()
    if command == "learn":
        memory.learn([bytes.fromhex(digest)], "other")
        asyncio.run(memory.written())
    else:
        asyncio.run(memory.refreshed())
    print(memory.issuer(bytes.fromhex(digest)), flush=True)
memory.close()
"""


@pytest.mark.slow
def test_two_processes_know_each_others_blocks_in_time(start, tmp_path):
    """Each asks for a block as soon as the other has let its last bytes go."""
    here, late = start(), 0
    with subprocess.Popen(
        [sys.executable, "-c", _ECHO, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None

        def ask(command: str, digest: bytes) -> str:
            other.stdin.write(f"{command} {digest.hex()}\n")
            other.stdin.flush()
            return other.stdout.readline().strip()

        assert other.stdout.readline() == "ready\n"
        for number in range(40):
            theirs, ours = number.to_bytes(16), (1000 + number).to_bytes(16)
            assert ask("learn", theirs) == "other"
            asyncio.run(here.refreshed())
            late += here.issuer(theirs) != "other"
            here.learn([ours], "here")
            asyncio.run(here.written())
            late += ask("refresh", ours) != "here"
        other.stdin.close()
    assert late < 20  # of 80: on a busy machine a write may take longer than WAIT


def test_a_file_that_did_not_change_is_not_read_again(start, tmp_path):
    with closing(start()) as here, closing(start()) as there:
        here.learn([ONE], "zai")
        wait_until(lambda: here.is_current, 5, lambda: "it is not current")
        there.learn([TWO], "kimi")
        asyncio.run(there.written())
        assert not here.is_current
        asyncio.run(here.refreshed())
        assert here.issuer(TWO) == "kimi"
        wait_until(lambda: here.is_current, 5, lambda: "it is not current")
