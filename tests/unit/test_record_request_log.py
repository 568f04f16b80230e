import gzip
import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from signalbox.record.entry import Entry, json_line
from signalbox.record.request_log import RequestLog, entries

VIENNA = ZoneInfo("Europe/Vienna")
EVENING = datetime(2026, 11, 19, 23, 59, tzinfo=VIENNA)
MORNING = datetime(2026, 11, 20, 0, 1, tzinfo=VIENNA)
DAY = 86400.0
ADDON = Path(__file__).parents[2] / "addon"

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")


class Clock:
    def __init__(self) -> None:
        self.now = EVENING

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_log(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., RequestLog]]:
    opened = []

    def open_log(file: str = "requests.jsonl", keep: float = 3 * DAY) -> RequestLog:
        log = RequestLog(tmp_path, file, keep, now=clock)
        opened.append(log)
        return log

    yield open_log
    for log in opened:
        log.close()


def entry(ts: datetime, model: str = "glm-4.7") -> Entry:
    return Entry(ts=ts, model=model, backend="zai", status="success", snippet="a secret prompt")


def models(file: Path) -> list[str]:
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return [json.loads(line)["model"] for line in data.splitlines()]


def visible(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))


def test_each_entry_is_one_line(tmp_path, open_log, clock):
    log = open_log()
    log.write(entry(clock.now, "first"))
    log.write(entry(clock.now, "second"))
    assert models(tmp_path / "requests.jsonl") == ["first", "second"]
    assert b"secret" not in (tmp_path / "requests.jsonl").read_bytes()


@posix
def test_only_the_owner_may_read_what_is_recorded(tmp_path, clock):
    log = RequestLog(tmp_path / "state", "requests.jsonl", DAY, now=clock)
    log.write(entry(clock.now))
    clock.now = MORNING
    log.write(entry(clock.now))
    log.close()
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "state").iterdir()}
    assert {"requests.jsonl", "requests-2026-11-19.jsonl.gz"} < modes.keys()
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_at_local_midnight_the_day_becomes_an_archive(tmp_path, open_log, clock):
    log = open_log()
    log.write(entry(clock.now, "evening"))
    clock.now = MORNING
    log.write(entry(clock.now, "morning"))
    log.close()
    assert visible(tmp_path) == ["requests-2026-11-19.jsonl.gz", "requests.jsonl"]
    assert models(tmp_path / "requests-2026-11-19.jsonl.gz") == ["evening"]
    assert models(tmp_path / "requests.jsonl") == ["morning"]


def test_midnight_in_another_time_zone_turns_nothing_over(tmp_path, open_log, clock):
    log = open_log()
    clock.now = datetime(2026, 11, 19, 0, 30, tzinfo=VIENNA)
    log.write(entry(clock.now, "before midnight UTC"))
    clock.now += timedelta(hours=2)
    log.write(entry(clock.now, "after midnight UTC"))
    log.close()
    assert visible(tmp_path) == ["requests.jsonl"]


def test_an_idle_router_can_rotate_by_a_clock(tmp_path, open_log, clock):
    log = open_log()
    log.write(entry(clock.now))
    clock.now = MORNING
    log.rotate_if_due()
    log.close()
    assert visible(tmp_path) == ["requests-2026-11-19.jsonl.gz"]


def test_a_start_after_days_off_turns_over_by_the_last_entry(tmp_path, open_log, clock):
    log = open_log()
    log.write(entry(clock.now, "thursday"))
    log.close()
    clock.now = datetime(2026, 11, 21, 9, 0, tzinfo=VIENNA)
    open_log().close()
    assert visible(tmp_path) == ["requests-2026-11-19.jsonl.gz"]


def test_a_restart_on_the_same_day_goes_on_in_the_same_file(tmp_path, open_log, clock):
    open_log().write(entry(clock.now, "before"))
    open_log().write(entry(clock.now, "after"))
    assert models(tmp_path / "requests.jsonl") == ["before", "after"]


def test_a_second_archive_of_a_day_gets_a_number(tmp_path, open_log, clock):
    log = open_log()
    for model in ("first", "second", "third"):
        clock.now = EVENING
        log.write(entry(clock.now, model))
        clock.now = MORNING
        log.rotate_if_due()
        log.close()
    archives = [
        "requests-2026-11-19.2.jsonl.gz",
        "requests-2026-11-19.3.jsonl.gz",
        "requests-2026-11-19.jsonl.gz",
    ]
    assert visible(tmp_path) == archives
    assert [models(tmp_path / name) for name in archives] == [["second"], ["third"], ["first"]]


def test_a_clock_that_goes_back_loses_nothing(tmp_path, open_log, clock):
    log = open_log()
    for now in (EVENING, MORNING, EVENING, MORNING, EVENING - timedelta(days=40), MORNING):
        clock.now = now
        log.write(entry(now, f"{now}"))
    log.close()
    recorded = [model for name in visible(tmp_path) for model in models(tmp_path / name)]
    assert len(recorded) == 6


@pytest.mark.parametrize(
    "change", [datetime(2026, 3, 29, 1, 59, tzinfo=VIENNA), datetime(2026, 10, 25, 2, 59, tzinfo=VIENNA)]
)
def test_a_change_to_or_from_summer_time_turns_nothing_over(tmp_path, open_log, clock, change):
    log = open_log()
    for minutes in (0, 2, 61, 122):
        clock.now = (change.astimezone(UTC) + timedelta(minutes=minutes)).astimezone(VIENNA)
        log.write(entry(clock.now))
    log.close()
    assert visible(tmp_path) == ["requests.jsonl"]
    assert len(models(tmp_path / "requests.jsonl")) == 4


def test_what_is_older_than_keep_is_deleted_and_nothing_else(tmp_path, open_log, clock):
    kept = [
        "requests-2026-11-17.jsonl.gz",
        "requests-2026-11-18.2.jsonl.gz",
        "requests-2026-11-01.jsonl.gz.bak",
        "requests-2026-99-99.jsonl.gz",
        "other-2026-11-01.jsonl.gz",
        "signalbox.log",
        "signalbox-2026-11-17.log.gz",
        "notes-2026-11-01.log",
        "ledger.sqlite",
    ]
    outdated = [
        "requests-2026-11-15.jsonl.gz",
        "requests-2026-11-15.jsonl.gz.a1b2c3_4.tmp",
        "requests-2025-11-18.2.jsonl",
        "signalbox-2026-11-15.log.gz",
        "signalbox-2026-11-15.2.log",
    ]
    for name in (*kept, *outdated):
        (tmp_path / name).touch()
    open_log(keep=3 * DAY).close()
    assert visible(tmp_path) == sorted(kept)


def test_what_a_crash_left_uncompressed_is_compressed_at_the_next_start(tmp_path, open_log, clock):
    log = open_log()
    log.write(entry(clock.now, "evening"))
    log.close()
    (tmp_path / "requests.jsonl").rename(tmp_path / "requests-2026-11-19.jsonl")
    (tmp_path / "requests-2026-11-19.jsonl.gz").write_bytes(b"half an archive")
    open_log().close()
    assert visible(tmp_path) == ["requests-2026-11-19.jsonl.gz"]
    assert models(tmp_path / "requests-2026-11-19.jsonl.gz") == ["evening"]


def test_a_line_that_a_crash_tore_costs_only_itself(tmp_path, open_log, clock):
    (tmp_path / "requests.jsonl").write_bytes(b'{"ts":"2026-11-19T10:00:00.000Z","model":"to')
    os.utime(tmp_path / "requests.jsonl", (EVENING.timestamp(), EVENING.timestamp()))
    open_log().write(entry(clock.now, "whole"))
    torn, whole = (tmp_path / "requests.jsonl").read_bytes().splitlines()
    assert torn.endswith(b"to")
    assert json.loads(whole)["model"] == "whole"


def test_a_full_disk_is_logged_once_and_never_raised(tmp_path, open_log, clock, caplog):
    log = open_log()
    caplog.set_level(logging.INFO, "signalbox")
    (tmp_path / "requests.jsonl").mkdir()
    for _ in range(3):
        log.write(entry(clock.now))
    (tmp_path / "requests.jsonl").rmdir()
    log.write(entry(clock.now, "later"))
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert caplog.messages[0].startswith("requests are not recorded: ")
    assert models(tmp_path / "requests.jsonl") == ["later"]


def test_a_line_cut_by_a_full_disk_does_not_harm_the_next_one(tmp_path, open_log, clock, monkeypatch):
    log = open_log()
    whole_write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: whole_write(file, data[:20]))
    log.write(entry(clock.now, "cut"))
    monkeypatch.undo()
    log.write(entry(clock.now, "whole"))
    cut, whole = (tmp_path / "requests.jsonl").read_bytes().splitlines()
    assert len(cut) == 20
    assert json.loads(whole)["model"] == "whole"


def test_a_turnover_that_fails_costs_no_entry(tmp_path, open_log, clock, monkeypatch, caplog):
    log = open_log()
    log.write(entry(clock.now, "evening"))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    clock.now = MORNING
    log.write(entry(clock.now, "morning"))
    log.write(entry(clock.now, "later"))
    assert models(tmp_path / "requests.jsonl") == ["evening", "morning", "later"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_file_and_keep_change_live(tmp_path, open_log, clock):
    log = open_log()
    log.write(entry(clock.now, "old"))
    log.reconfigure("sub/other.jsonl", 0)
    log.write(entry(clock.now, "new"))
    clock.now = MORNING
    log.rotate_if_due()
    log.close()
    assert models(tmp_path / "requests.jsonl") == ["old"]
    assert visible(tmp_path / "sub") == []


@posix
def test_nobody_sets_a_file_aside_while_a_line_is_written(tmp_path, open_log, clock, monkeypatch):
    import fcntl

    log = open_log()
    whole_write, refused = os.write, []

    def write(file: int, data: bytes) -> int:
        with (tmp_path / ".requests.jsonl.lock").open() as lock, pytest.raises(BlockingIOError) as refusal:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        refused.append(refusal)
        return whole_write(file, data)

    monkeypatch.setattr(os, "write", write)
    log.write(entry(clock.now))
    assert len(refused) == len(models(tmp_path / "requests.jsonl")) == 1


def test_what_comes_after_another_process_set_the_file_aside_goes_to_a_new_one(tmp_path, open_log, clock):
    log = open_log()
    log.write(entry(clock(), "before"))
    (tmp_path / FILE).rename(tmp_path / "aside.jsonl")
    log.write(entry(clock(), "after"))
    (tmp_path / FILE).unlink()
    (tmp_path / f".{FILE}.lock").unlink()
    log.write(entry(clock(), "anew"))
    assert models(tmp_path / "aside.jsonl") == ["before"]
    assert models(tmp_path / FILE) == ["anew"]


def test_a_log_that_is_written_does_not_keep_others_from_setting_it_aside(tmp_path, open_log, clock):
    """Its file and its lock stay open between two writes, but the lock is not held."""
    log = open_log()
    log.write(entry(clock(), "before"))
    clock.now += timedelta(days=1)
    open_log().rotate_if_due()
    log.write(entry(clock(), "after"))
    assert models(tmp_path / FILE) == ["after"]


APPEND = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signalbox.record.entry import Entry
from signalbox.record.request_log import RequestLog

now = datetime(2026, 11, 1, tzinfo=UTC)
log = RequestLog(Path(sys.argv[1]), "requests.jsonl", 10**9, now=lambda: now)
for number in range(1000):
    now += timedelta(minutes=15)  # ten days
    log.write(Entry(ts=now, model=f"{sys.argv[2]}-{number}", backend="zai" * 100, status="success"))
log.close()
"""


@pytest.mark.slow
def test_two_processes_can_append_and_rotate_at_the_same_time(tmp_path):
    running = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, tmp_path, name], env={**os.environ, "PYTHONPATH": str(ADDON)}
        )
        for name in ("one", "two")
    ]
    assert [process.wait(30) for process in running] == [0, 0]
    assert len(visible(tmp_path)) > 10
    recorded = [model for name in visible(tmp_path) for model in models(tmp_path / name)]
    assert sorted(recorded) == sorted(f"{name}-{number}" for name in ("one", "two") for number in range(1000))


NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)
FILE = "requests.jsonl"


def line(model: str, ts: datetime = NOON) -> bytes:
    return json_line(Entry(ts=ts, model=model, backend="zai", status="success"))


def read_back(folder: Path, since: datetime | None = None) -> list[str]:
    return [entry.model for entry in entries(folder, FILE, since)]


def test_archives_and_files_are_read_oldest_first(tmp_path):
    (tmp_path / "requests.jsonl").write_bytes(line("today"))
    (tmp_path / "requests-2026-11-18.2.jsonl").write_bytes(line("yesterday, later"))
    (tmp_path / "requests-2026-11-18.jsonl.gz").write_bytes(gzip.compress(line("yesterday")))
    (tmp_path / "requests-2026-11-09.jsonl.gz").write_bytes(gzip.compress(line("long ago")))
    (tmp_path / "other-2026-11-09.jsonl").write_bytes(line("not ours"))
    assert read_back(tmp_path) == ["long ago", "yesterday", "yesterday, later", "today"]


def test_nothing_on_record_is_no_error(tmp_path):
    assert read_back(tmp_path / "missing") == []
    assert read_back(tmp_path) == []


def test_only_what_is_recent_enough_is_given(tmp_path):
    (tmp_path / FILE).write_bytes(line("early") + line("late", NOON + timedelta(hours=1)))
    assert read_back(tmp_path, NOON + timedelta(minutes=1)) == ["late"]
    assert read_back(tmp_path, NOON) == ["early", "late"]


@pytest.mark.parametrize(
    "broken",
    [
        b'{"ts":"2026-11-19T12:',
        b"[]",
        b"\xff\xfe",
        b'{"model":"\xff"}',
        b'{"ts":"yesterday","model":"m","backend":"b","status":"success"}',
        b'{"ts":"2026-11-19T12:00:00","model":"m","backend":"b","status":"success"}',
        line("m").replace(b'"input_tokens":0', b'"input_tokens":"many"').rstrip(),
    ],
)
def test_broken_lines_are_counted_and_left_out(tmp_path, broken):
    (tmp_path / FILE).write_bytes(line("before") + broken + b"\n" + line("after"))
    seen: list[None] = []
    found = list(entries(tmp_path, FILE, on_broken=lambda: seen.append(None)))
    assert [entry.model for entry in found] == ["before", "after"]
    assert len(seen) == 1


@pytest.mark.parametrize(
    "archive", [b"no archive", gzip.compress(line("cut" * 999))[:-9], b"\x1f\x8b\x08" + b"\x07" * 99]
)
def test_a_broken_archive_does_not_hide_the_others(tmp_path, archive):
    (tmp_path / "requests-2026-11-18.jsonl.gz").write_bytes(archive)
    (tmp_path / FILE).write_bytes(line("today"))
    seen: list[None] = []
    found = [entry.model for entry in entries(tmp_path, FILE, on_broken=lambda: seen.append(None))]
    assert found[-1] == "today"
    assert seen


def test_a_file_and_its_archive_are_read_once(tmp_path):
    (tmp_path / "requests-2026-11-18.jsonl").write_bytes(line("yesterday"))
    (tmp_path / "requests-2026-11-18.jsonl.gz").write_bytes(gzip.compress(line("yesterday")))
    assert read_back(tmp_path) == ["yesterday"]


def rotate(folder: Path) -> None:
    RequestLog(folder, FILE, 10**9, now=lambda: NOON + timedelta(days=1)).close()
    (folder / FILE).write_bytes(line("new day"))


def test_a_log_rotated_before_it_was_opened_is_read_once(tmp_path, monkeypatch):
    (tmp_path / FILE).write_bytes(line("first") + line("second"))
    open_file = Path.open

    def late(path: Path, mode: str):
        monkeypatch.undo()
        rotate(tmp_path)
        return open_file(path, mode)

    monkeypatch.setattr(Path, "open", late)
    assert read_back(tmp_path) == ["first", "second", "new day"]


def test_a_log_rotated_while_it_is_read_is_read_once(tmp_path):
    (tmp_path / FILE).write_bytes(line("first") + line("second"))
    found = entries(tmp_path, FILE)
    first = next(found)
    rotate(tmp_path)
    assert [first.model, *(entry.model for entry in found)] == ["first", "second"]


def test_a_file_compressed_or_deleted_while_it_waits_is_no_error(tmp_path):
    for day in ("16", "17", "18"):
        (tmp_path / f"requests-2026-11-{day}.jsonl").write_bytes(line(day))
    found = entries(tmp_path, FILE)
    first = next(found)
    (tmp_path / "requests-2026-11-17.jsonl").unlink()
    rotate(tmp_path)
    assert [first.model, *(entry.model for entry in found)] == ["16", "18"]
