"""`signalbox learned`."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from signalbox.cli.learned import learned_command
from signalbox.state import unsupported_store as module
from signalbox.state.learned_db import FILE
from signalbox.state.unsupported_store import WEEK, UnsupportedStore


@pytest.fixture
def state(tmp_path: Path) -> Path:
    UnsupportedStore(tmp_path).learn("zai", "glm-4.7", ["context_management", "tools.strict"])
    UnsupportedStore(tmp_path, clock=lambda: time.time() - WEEK + 7000).learn("kimi", "k3\x1b[2J", ["speed"])
    return tmp_path


def learned(state: Path, *args: str) -> Result:
    return CliRunner().invoke(learned_command, [*args, "--state", str(state)])


def test_list_tells_what_is_left_out_where_and_for_how_long(state):
    result = learned(state, "list")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        r"kimi/k3\x1b[2J: speed (for another 2 hours)",
        "zai/glm-4.7: context_management (for another 7 days)",
        "zai/glm-4.7: tools.strict (for another 7 days)",
    ]


def test_forget_takes_a_provider_and_a_field(state):
    result = learned(state, "forget", "zai", "tools.strict")
    assert result.stdout == "Forgotten: zai/glm-4.7: tools.strict\n"
    assert len(learned(state, "list").stdout.splitlines()) == 2


def test_forget_alone_forgets_everything(state):
    assert len(learned(state, "forget").stdout.splitlines()) == 3
    assert learned(state, "list").stdout == "Nothing was learned.\n"


def test_nothing_to_forget_is_said(state, tmp_path):
    assert learned(state, "forget", "other").stdout == "There is nothing to forget.\n"
    assert learned(tmp_path / "none", "list").stdout == "Nothing was learned.\n"


def test_what_cannot_be_forgotten_is_said_in_a_line_and_stays(state, monkeypatch):
    monkeypatch.setattr(module, "LAST", 0.05)
    with closing(sqlite3.connect(state / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = learned(state, "forget", "zai")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"Error: {state / FILE}: database is locked: nothing was forgotten\n"
        assert len(learned(state, "list").stdout.splitlines()) == 3


def test_a_damaged_file_is_said_and_left_to_the_router(state):
    (state / FILE).write_bytes(b"no database" * 1000)
    for command in ("list", "forget"):
        result = learned(state, command)
        assert result.exit_code == 1
        assert "file is not a database" in result.stderr
    assert (state / FILE).read_bytes().startswith(b"no database")
