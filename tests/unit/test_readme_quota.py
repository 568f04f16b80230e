"""The hook and the status line that docs/quota.md shows: valid settings, whose commands say what it says."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.router_process import ROOT, clean_environment

SETTINGS = {
    system: json.loads(text)
    for system, text in re.findall(
        r"^<!-- settings: ([^>]+) -->\n```json\n(.*?)^```",
        (ROOT / "docs" / "quota.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
}
LINE = "5h=9% 7d=99%! overage=0% bottleneck=seven_day (10/05/2026, 16:19:04)\n"


def hook(settings: Any) -> str:
    (entry,) = settings["hooks"]["UserPromptSubmit"]
    (command,) = entry["hooks"]
    assert command["type"] == "command"
    return str(command["command"])


def run(command: str, home: Path, **environment: str) -> str:
    """As Claude Code runs it: by a shell, with JSON on its standard input."""
    done = subprocess.run(
        ["sh", "-c", command],
        input="{}",
        capture_output=True,
        text=True,
        env=clean_environment(home, environment),
        timeout=10,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


UNIX = SETTINGS["Linux, macOS"]


@pytest.mark.parametrize("variable", [{}, {"CLAUDE_CONFIG_DIR": "work dir"}])
def test_its_commands_tell_the_line(tmp_path, variable):
    folder = tmp_path / variable.get("CLAUDE_CONFIG_DIR", ".claude")
    folder.mkdir()
    (folder / "usage-status.md").write_text(LINE)
    environment = {name: str(folder) for name in variable}
    assert run(UNIX["statusLine"]["command"], tmp_path, **environment) == LINE
    assert run(hook(UNIX), tmp_path, **environment) == f"Plan usage: {LINE}"


def test_its_commands_say_nothing_where_there_is_no_file(tmp_path):
    assert run(UNIX["statusLine"]["command"], tmp_path) == ""
    assert run(hook(UNIX), tmp_path) == ""


def test_windows_has_the_same_settings():
    windows = SETTINGS["Windows"]
    assert windows.keys() == UNIX.keys()
    assert all(
        "~/.claude/usage-status.md" in text for text in (windows["statusLine"]["command"], hook(windows))
    )
