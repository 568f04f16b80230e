"""Files that are replaced as a whole."""

import logging
import os
import threading
from pathlib import Path

import pytest

from signalbox.state.atomic_file import FileWriter, replace


def test_a_file_comes_to_be_with_its_folder_for_its_owner_alone(tmp_path):
    file = tmp_path / "new" / "status.md"
    replace(file, b"one\n")
    assert file.read_bytes() == b"one\n"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_link_becomes_a_file_and_what_it_led_to_stays(tmp_path):
    kept, file = tmp_path / "kept.md", tmp_path / "status.md"
    kept.write_text("stays")
    file.symlink_to(kept)
    replace(file, b"one\n")
    assert (file.is_symlink(), file.read_bytes(), kept.read_text()) == (False, b"one\n", "stays")


def test_who_has_the_old_file_open_still_reads_it_whole(tmp_path):
    file = tmp_path / "status.md"
    replace(file, b"old\n")
    with file.open("rb") as reader:
        replace(file, b"newer\n")
        assert reader.read() == b"old\n"


def test_what_cannot_be_replaced_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "status.md"
    folder.mkdir()
    with pytest.raises(OSError, match=r"status\.md"):
        replace(folder, b"one\n")
    assert os.listdir(tmp_path) == ["status.md"]  # noqa: PTH208


def test_all_is_written_when_it_closes_and_of_each_file_the_last(tmp_path):
    replacer = FileWriter()
    for number in range(100):
        replacer.put(tmp_path / "a", b"%d" % number)
        replacer.put(tmp_path / "b", b"b%d" % number)
    replacer.close()
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"99", b"b99")
    assert not [thread for thread in threading.enumerate() if thread.name == "signalbox-files"]


def test_it_may_be_used_again_after_it_was_closed(tmp_path):
    replacer = FileWriter()
    replacer.close()
    replacer.put(tmp_path / "a", b"1")
    replacer.close()
    assert (tmp_path / "a").read_bytes() == b"1"


def test_of_a_row_of_failures_the_first_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "a").mkdir()
    replacer = FileWriter()
    with caplog.at_level(logging.WARNING, "signalbox"):
        for _ in range(3):
            replacer.put(tmp_path / "a", b"1")
            replacer.close()
        (tmp_path / "a").rmdir()
        replacer.put(tmp_path / "a", b"2")
        replacer.close()
    assert (tmp_path / "a").read_bytes() == b"2"
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        f"{tmp_path / 'a'} cannot be written"
    ]
