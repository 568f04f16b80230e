"""`signalbox init` on a terminal: it asks for the preset and its keys."""

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from signalbox.config.secrets import from_dotenv
from tests.support.router_process import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="it has no pty")]

SIGNALBOX = Path(sys.executable).parent / "signalbox"


def answered(folder: Path, *answers: tuple[bytes, bytes]) -> bytes:
    """All that is on the terminal; each (question, answer) is answered once the question is there."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [SIGNALBOX, "init", "--out", "new"],
        cwd=folder,
        env=clean_environment(folder, {}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    seen, waiting, ends = b"", list(answers), time.monotonic() + 30
    try:
        while (process.poll() is None or waiting) and time.monotonic() < ends:
            try:
                seen += os.read(ours, 4096)
            except BlockingIOError:
                select.select([ours], [], [], 0.1)  # until more is there; the process may end without a word
            except OSError:  # the other end is closed
                break
            if waiting and waiting[0][0] in seen:
                os.write(ours, waiting.pop(0)[1] + b"\n")
        assert process.wait(10) == 0, seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return seen


def test_it_asks_for_the_preset_and_for_its_keys_without_showing_them(tmp_path):
    seen = answered(
        tmp_path,
        (b"Preset [default]", b"tiers"),
        (b"ZAI_API_KEY (Enter to leave it empty)", b"zai-key-for-tests"),
        (b"OPENROUTER_API_KEY (Enter to leave it empty)", b""),
    )
    assert b"zai-key-for-tests" not in seen
    assert from_dotenv((tmp_path / "new/.env").read_text()).values == {"ZAI_API_KEY": "zai-key-for-tests"}
    assert "openrouter" in (tmp_path / "new/rules.yaml").read_text()
