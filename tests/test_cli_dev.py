"""`just dev` restarts its command when the code changes."""

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from signalbox.cli import dev
from tests.running import ROOT, clean_environment, wait_until

# Tells on its first line that it runs, and then stays until it is ended.
STAYING = "import sys, time; open(sys.argv[1], 'a').write('up\\n'); time.sleep(60)"


def staying(note: Path) -> list[str]:
    return [sys.executable, "-c", STAYING, str(note)]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "addon"
    folder.mkdir()
    (folder / "router.py").write_text("a = 1\n")
    return folder


def in_thread(function, *arguments):
    """Run it in a thread; gives the thread and where its result will be."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function(*arguments)), daemon=True)
    thread.start()
    return thread, results


@pytest.mark.parametrize("change", ["edited", "added", "removed"])
def test_a_change_of_the_code_ends_the_command(code, tmp_path, change):
    note = tmp_path / "note"
    thread, results = in_thread(dev.run_until_changed, staying(note), code, 0.01)
    wait_until(lambda: note.exists() and note.read_text(), 10, lambda: "the command to run")
    if change == "removed":
        (code / "router.py").unlink()
    else:
        (code / ("router.py" if change == "edited" else "other.py")).write_text("a = 22\n")
    thread.join(10)
    assert results == [None]


def test_a_command_that_ends_by_itself_gives_its_exit_code(code):
    assert dev.run_until_changed([sys.executable, "-c", "raise SystemExit(3)"], code, 0.01) == 3


def test_files_that_are_not_python_are_no_change(code):
    before = dev.snapshot(code)
    (code / "rules.schema.json").write_text("{}")
    assert dev.snapshot(code) == before


def test_after_a_failure_the_next_change_is_waited_for(code):
    _, results = in_thread(dev.wait_for_change, code, 0.01)
    edits = itertools.count()

    def seen() -> bool:
        (code / "router.py").write_text(f"a = {next(edits)}\n")
        return results == [None]

    wait_until(seen, 10, lambda: "the edit to be seen")


def test_a_clean_end_of_the_command_ends_it_all(monkeypatch, code):
    monkeypatch.setattr(dev, "CODE", code)
    assert dev.main([sys.executable, "-c", ""]) == 0


def test_sigterm_ends_the_command_too(tmp_path):
    note = tmp_path / "note"
    command = "import os, sys, time; open(sys.argv[1], 'w').write(f'{os.getpid()}\\n'); time.sleep(60)"
    environment = clean_environment(tmp_path, {"PYTHONPATH": str(ROOT / "addon")})
    arguments = [sys.executable, "-m", "signalbox.cli.dev", sys.executable, "-c", command, str(note)]
    process = subprocess.Popen(arguments, env=environment)
    try:
        wait_until(
            lambda: note.exists() and note.read_text().endswith("\n"), 10, lambda: "the command to run"
        )
        process.terminate()
        assert process.wait(10) == 143
        with pytest.raises(ProcessLookupError):
            os.kill(int(note.read_text()), 0)
    finally:
        process.kill()
        process.wait()
