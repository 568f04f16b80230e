import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from signalbox.record import reading
from signalbox.record.entry import Entry, json_line
from signalbox.record.reading import entries
from signalbox.record.requests import RequestLog

NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)
FILE = "requests.jsonl"


def line(model: str, ts: datetime = NOON) -> bytes:
    return json_line(Entry(ts=ts, model=model, backend="zai", status="success"))


def models(folder: Path, since: datetime | None = None) -> list[str]:
    return [entry.model for entry in entries(folder, FILE, since)]


def test_archives_and_files_are_read_oldest_first(tmp_path):
    (tmp_path / "requests.jsonl").write_bytes(line("today"))
    (tmp_path / "requests-2026-11-18.2.jsonl").write_bytes(line("yesterday, later"))
    (tmp_path / "requests-2026-11-18.jsonl.gz").write_bytes(gzip.compress(line("yesterday")))
    (tmp_path / "requests-2026-11-09.jsonl.gz").write_bytes(gzip.compress(line("long ago")))
    (tmp_path / "other-2026-11-09.jsonl").write_bytes(line("not ours"))
    assert models(tmp_path) == ["long ago", "yesterday", "yesterday, later", "today"]


def test_nothing_on_record_is_no_error(tmp_path):
    assert models(tmp_path / "missing") == []
    assert models(tmp_path) == []


def test_only_what_is_recent_enough_is_given(tmp_path):
    (tmp_path / FILE).write_bytes(line("early") + line("late", NOON + timedelta(hours=1)))
    assert models(tmp_path, NOON + timedelta(minutes=1)) == ["late"]
    assert models(tmp_path, NOON) == ["early", "late"]


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
    assert models(tmp_path) == ["yesterday"]


def turn_over(folder: Path) -> None:
    RequestLog(folder, FILE, 10**9, now=lambda: NOON + timedelta(days=1)).close()
    (folder / FILE).write_bytes(line("new day"))


def test_a_log_turned_over_before_it_was_opened_is_read_once(tmp_path, monkeypatch):
    (tmp_path / FILE).write_bytes(line("first") + line("second"))
    open_current: Callable = reading._current

    def late(path: Path):
        monkeypatch.undo()
        turn_over(tmp_path)
        return open_current(path)

    monkeypatch.setattr(reading, "_current", late)
    assert models(tmp_path) == ["first", "second", "new day"]


def test_a_log_turned_over_while_it_is_read_is_read_once(tmp_path):
    (tmp_path / FILE).write_bytes(line("first") + line("second"))
    found = entries(tmp_path, FILE)
    first = next(found)
    turn_over(tmp_path)
    assert [first.model, *(entry.model for entry in found)] == ["first", "second"]


def test_a_file_compressed_or_deleted_while_it_waits_is_no_error(tmp_path):
    for day in ("16", "17", "18"):
        (tmp_path / f"requests-2026-11-{day}.jsonl").write_bytes(line(day))
    found = entries(tmp_path, FILE)
    first = next(found)
    (tmp_path / "requests-2026-11-17.jsonl").unlink()
    turn_over(tmp_path)
    assert [first.model, *(entry.model for entry in found)] == ["16", "18"]
