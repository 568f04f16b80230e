"""Claude Code's settings files, as far as the router reads them."""

import json
from pathlib import Path
from typing import Any

import pytest

from signalbox.claude.settings import default_model, is_foreign, is_given, read_settings


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The user's home and a project."""
    return tmp_path / "home", tmp_path / "project"


def test_the_later_file_wins_and_is_the_source(folders):
    home, project = folders
    user, ours, local = (
        home / ".claude/settings.json",
        project / ".claude/settings.json",
        project / ".claude/settings.local.json",
    )
    write(user, {"env": {"A": "user", "B": "user"}})
    write(ours, {"env": {"B": "project", "C": 7}, "statusLine": {}})
    write(local, {"env": {"A": "local"}})
    found = read_settings({}, project, home)
    assert found.env == {"A": "local", "B": "project"}
    assert (found.source_of("A"), found.source_of("B"), found.source_of("C")) == (local, ours, None)
    assert found.has("statusLine")
    assert not found.has("modelPicker")
    assert found.managed_env == {}


def test_another_config_folder_takes_the_place_of_the_users(folders):
    home, project = folders
    write(home / ".claude/settings.json", {"env": {"A": "home"}})
    write(home / "other/settings.json", {"env": {"A": "other"}})
    assert read_settings({"CLAUDE_CONFIG_DIR": str(home / "other")}, project, home).env == {"A": "other"}


def test_a_byte_order_mark_changes_nothing(folders):
    home, project = folders
    file = home / ".claude/settings.json"
    write(file, {})
    file.write_bytes(b'\xef\xbb\xbf{"env": {"A": "1"}, "model": "opus"}')
    assert read_settings({}, project, home).env == {"A": "1"}
    assert default_model(file) == "opus"


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"env": []}', "\xff", "[" * 100_000])
def test_broken_files_count_as_empty(folders, broken):
    home, project = folders
    write(home / ".claude/settings.json", broken)
    write(project / ".claude/settings.json", {"env": {"A": "1"}})
    assert read_settings({}, project, home).env == {"A": "1"}


def test_the_default_model_is_that_of_the_users_file(tmp_path):
    assert default_model(tmp_path / "settings.json") is None
    write(tmp_path / "settings.json", {"model": "glm-4.7"})
    assert default_model(tmp_path / "settings.json") == "glm-4.7"


@pytest.mark.parametrize(
    ("model", "foreign"),
    [("glm-4.7", True), ("glm-5[1m]", True), ("opus", False), ("Sonnet[1m]", False), ("claude-x", False)],
)
def test_a_foreign_model_is_one_that_anthropic_does_not_have(model, foreign):
    assert is_foreign(model) == foreign


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["--settings", "{}"], True),
        (["-p", "x", "--settings={}"], True),
        (["--setting-sources", "user"], False),
        (["-p", "--", "--settings"], False),
        ([], False),
    ],
)
def test_settings_on_the_command_line_are_seen(arguments, given):
    assert is_given(arguments, "--settings") == given
