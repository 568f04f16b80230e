"""`signalbox learned`."""

import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from signalbox.cli.learned import learned_command
from signalbox.upkeep.learned import WEEK, Learned


@pytest.fixture
def state(tmp_path: Path) -> Path:
    Learned(tmp_path).learn("zai", "glm-4.7", ["context_management", "tools.strict"])
    Learned(tmp_path, clock=lambda: time.time() - WEEK + 7000).learn("kimi", "k3\x1b[2J", ["speed"])
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
