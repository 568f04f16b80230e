"""The log of a router in the background: modes, turning over, what the starter reads."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest

from signalbox.lifecycle.log import MOST, START, LogFile, files, follow

TODAY = date(2026, 11, 29)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "signalbox.log"


def log_file(path, also=None, today=TODAY):
    return LogFile(path, also, today=lambda: today)


def test_lines_are_appended_to_a_file_for_this_user_alone(path):
    print("first", file=log_file(path))
    print("second → \ud800", file=log_file(path))
    assert path.read_text(encoding="utf-8") == "first\nsecond → \\ud800\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_of_a_megabyte_is_rotated(path):
    log = log_file(path)
    log.write("a" * (MOST - 1) + "\n")
    log.write("b\n")
    log.write("c" * MOST + "\n")
    log.write("d\n")
    assert [file.name for file in files(path.parent)] == [
        "signalbox-2026-11-29.log",
        "signalbox-2026-11-29.2.log",
        "signalbox-2026-11-29.3.log",
        "signalbox.log",
    ]
    assert [file.read_bytes()[:1] for file in files(path.parent)] == [b"a", b"b", b"c", b"d"]
    assert {file.stat().st_mode & 0o777 for file in files(path.parent)} == {0o600}


def test_a_line_in_pieces_is_not_torn(path):
    log = log_file(path)
    log.write("a" * MOST)
    log.write("\n")
    log.write("b\n")
    assert path.read_bytes() == b"b\n"


@pytest.mark.slow
def test_threads_lose_no_line(path):
    log = log_file(path)
    lines = [f"{'x' * 1000} {number}\n" for number in range(4000)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(log.write, lines))
    assert len(files(path.parent)) > 3
    written = "".join(file.read_text() for file in files(path.parent)).splitlines(keepends=True)
    assert sorted(written) == sorted(lines)


def test_the_first_line_of_another_day_turns_it_over(path):
    days = [date(2026, 11, 28)]
    log = LogFile(path, today=lambda: days[-1])
    log.write("yesterday\n")
    days.append(TODAY)
    log.write("today\n")
    log.write("more\n")
    assert path.read_text() == "today\nmore\n"
    assert (path.parent / "signalbox-2026-11-28.log").read_text() == "yesterday\n"


def test_a_log_to_which_nobody_writes_is_rotated_with_its_day_too(path):
    days = [date(2026, 11, 28)]
    log = LogFile(path, today=lambda: days[-1])
    log.write("yesterday\n")
    log.rotate_if_due()
    assert files(path.parent) == [path]
    days.append(TODAY)
    log.rotate_if_due()
    assert [file.name for file in files(path.parent)] == ["signalbox-2026-11-28.log", "signalbox.log"]
    log.rotate_if_due()
    assert path.read_text() == ""


def test_a_file_of_an_earlier_day_is_rotated_by_a_later_router(path):
    path.write_text("old\n")
    os.utime(path, (0, 0))
    log_file(path).write("new\n")
    assert path.read_text() == "new\n"
    assert [file.read_text() for file in files(path.parent)] == ["old\n", "new\n"]


def test_who_starts_the_router_gets_its_first_lines(path):
    starter = io.StringIO()
    log = log_file(path, starter)
    log.write("rules.yaml:1: unknown key\n")
    assert starter.getvalue() == "rules.yaml:1: unknown key\n"
    for _ in range(3):
        log.write("x" * (START // 2))
    assert len(starter.getvalue()) == START


def test_lines_are_written_after_the_starter_has_left(path):
    starter = io.StringIO()
    log = log_file(path, starter)
    starter.close()
    log.write("line\n")
    assert path.read_text() == "line\n"


def test_a_log_is_followed_past_its_rotation(path):
    log = log_file(path)
    log.write("before\n")
    writes = [
        lambda: log.write("one\n"),
        lambda: log.write("two → "),
        lambda: (log.write("three\n"), log.write("x" * (MOST - 10) + "\n"), log.write("after\n")),
        lambda: path.write_text(""),
        lambda: log.write("emptied\n"),
    ]
    followed = follow(path, pause=lambda: writes.pop(0)())
    told = ""
    while "emptied\n" not in told:
        told += next(followed)
    followed.close()
    assert told.replace("x", "") == "one\ntwo → three\n\nafter\nemptied\n"


def test_a_log_can_be_followed_before_there_is_one(path):
    writes = [lambda: None, lambda: log_file(path).write("first\n")]
    followed = follow(path, pause=lambda: writes.pop(0)())
    assert next(followed) == "first\n"
    followed.close()
