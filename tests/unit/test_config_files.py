"""Looks at files that end in time, whatever the disk does."""

import asyncio
import logging
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from signalbox.config import files


@pytest.fixture
def hanging(tmp_path):
    """A path whose disk does not answer until the event is set."""
    gate = threading.Event()
    yield tmp_path / "gone", gate
    gate.set()


def test_result_and_exception_of_a_call_are_passed_on(tmp_path):
    (tmp_path / "file").write_bytes(b"text")
    assert files.read_file(tmp_path / "file") == b"text"
    assert files.stat(tmp_path / "file").st_size == 4
    with pytest.raises(FileNotFoundError):
        files.read_file(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        files.read_file(tmp_path)


def test_hanging_disk_is_waited_for_once_and_noticed_when_it_recovers(hanging):
    path, gate = hanging
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="the disk does not answer"):
        files.within(path, gate.wait, 0.05)
    late = time.monotonic()
    for _ in range(10):
        with pytest.raises(TimeoutError):
            files.within(path, lambda: "never", 5.0)
    assert time.monotonic() - late < 1
    assert late - began < 1
    gate.set()
    while True:
        try:
            assert files.within(path, lambda: "again", 1.0) == "again"
            break
        except TimeoutError:
            assert time.monotonic() - late < 5


def test_disk_that_hangs_for_long_is_logged_once(hanging, monkeypatch, caplog):
    path, gate = hanging
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "signalbox"):
        for seconds in (0, files.LIMIT / 2, 2 * files.LIMIT, 3 * files.LIMIT):
            monkeypatch.setattr(time, "monotonic", lambda now=began + seconds: now)
            with pytest.raises(TimeoutError):
                files.within(path, gate.wait, 0.01)
            assert bool(caplog.records) == (seconds > files.LIMIT)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: the disk does not answer; it is left out until it does"
    ]


def test_other_path_is_not_blocked_by_a_hanging_one(hanging, tmp_path):
    path, gate = hanging
    with pytest.raises(TimeoutError):
        files.within(path, gate.wait, 0.01)
    assert files.within(tmp_path, lambda: "well", 1.0) == "well"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is not a regular file"):
        files.read_file(tmp_path / "pipe")
    assert files.read_file(Path(os.devnull)) == b""


def test_a_file_is_read_to_a_bound(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert files.read_file(tmp_path / "file", most=5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        files.read_file(tmp_path / "file", most=4)


def test_the_event_loop_goes_on_beside_a_call(hanging):
    _, gate = hanging

    async def scenario() -> str:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def work() -> str:
            loop.call_soon_threadsafe(begun.set)
            gate.wait()
            return "done"

        waiting = asyncio.create_task(files.in_daemon_thread(work))
        await begun.wait()
        assert not waiting.done()
        gate.set()
        return await waiting

    assert asyncio.run(scenario()) == "done"


def test_the_event_loop_goes_on_while_a_coroutine_waits_for_a_file(hanging, tmp_path):
    path, gate = hanging

    async def scenario() -> str:
        with pytest.raises(TimeoutError):
            await files.within_async(path, gate.wait, 0.02)
        with pytest.raises(TimeoutError):  # at once: the call before still hangs
            await files.within_async(path, lambda: "never", 60)
        return await files.within_async(tmp_path / "other", lambda: "done", 5)

    assert asyncio.run(scenario()) == "done"
