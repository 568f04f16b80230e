"""What happens around Claude Code, before a router is started."""

import json
import os
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from signalbox.claude.session import Session, run_session, settings_argument
from signalbox.cli.group import signalbox_command
from signalbox.config.fields import Listen
from signalbox.config.rules import Rules
from signalbox.lifecycle.start import StartError


@pytest.mark.skipif(sys.platform == "win32", reason="file modes")
def test_settings_are_a_file_for_this_user_alone_and_not_an_argument(tmp_path):
    given = {"env": {"ANTHROPIC_CUSTOM_HEADERS": "x-signalbox-client: secret-of-ann"}}
    with ExitStack() as held:
        option, name = settings_argument(given, tmp_path, held)
        assert (option, json.loads(Path(name).read_text())) == ("--settings", given)
        assert Path(name).is_relative_to(tmp_path)
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
    assert not Path(name).exists()


def test_settings_of_a_session_that_was_killed_are_removed_by_the_next_one(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    others = f"settings-{os.getppid()}.json", "settings-of-mine.json", f"settings-{'9' * 20}.json"
    old, young = f"settings-{gone.pid}.json", f"settings-0{gone.pid}.json"
    (tmp_path / "claude").mkdir()
    for name in (old, young, *others):
        file = tmp_path / "claude" / name
        file.write_text("{}")
        if name != young:
            os.utime(file, (0, 0))
    with ExitStack() as held:
        settings_argument({"env": {}}, tmp_path, held)
    assert {file.name for file in (tmp_path / "claude").iterdir()} == {young, *others}


def test_no_settings_are_no_argument(tmp_path):
    with ExitStack() as held:
        assert settings_argument({}, tmp_path, held) == []


@pytest.mark.parametrize("below", ["", "deeper"])
@pytest.mark.skipif(sys.platform == "win32", reason="a program without .exe")
def test_a_state_folder_that_cannot_be_used_is_said_to_be_the_cause(tmp_path, below):
    (tmp_path / "claude").write_text("#!/bin/sh\n")
    (tmp_path / "claude").chmod(0o755)
    state = tmp_path / "file" / below
    (tmp_path / "file").write_text("")
    session = Session((), Rules(), state, Listen("127.0.0.1", 1))
    with pytest.raises(StartError, match=f"^cannot use the state folder {state}: "):
        run_session(session, {"PATH": str(tmp_path), "CLAUDE_CONFIG_DIR": str(tmp_path)}, print)


@pytest.mark.parametrize("option", ["--rules", "--state", "--via"])
@pytest.mark.parametrize("rest", [[], ["--", "-p", "a prompt"]])
def test_an_option_without_its_value_is_wrong_usage(option, rest):
    result = CliRunner().invoke(signalbox_command, ["claude", "--plain", option, *rest])
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Option '{option}' requires an argument." in result.stderr
