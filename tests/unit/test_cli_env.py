"""`signalbox env`: lines for a shell."""

import shutil
import subprocess

import pytest
from click.testing import CliRunner

from signalbox.cli.env import env_command, shell_lines, usual_shell
from tests.support.router_process import free_ports

CHANGES = {"A_URL": "http://127.0.0.1:8082", "B": 'it\'s a \\ "$HOME" `x`', "C": None}


def test_lines_are_what_a_shell_evaluates():
    program = shutil.which("sh")
    assert program is not None
    script = "\n".join([*shell_lines(CHANGES, "bash"), 'printf "%s\\n" "$A_URL" "$B" "${C-unset}"'])
    done = subprocess.run(
        [program, "-c", script], env={"C": "set"}, capture_output=True, text=True, timeout=10, check=True
    )
    assert done.stdout.splitlines() == [CHANGES["A_URL"], CHANGES["B"], "unset"]


@pytest.mark.parametrize(
    ("shell", "lines"),
    [
        ("fish", ["set -gx A 'it\\'s \\\\ $x'", "set -e C"]),
        ("powershell", ["$env:A = 'it''s \\ $x'", "Remove-Item Env:C -ErrorAction SilentlyContinue"]),
        ("cmd", ['set "A=it\'s \\ $x"', 'set "C="']),
    ],
)
def test_other_shells_have_their_own_quotes(shell, lines):
    assert list(shell_lines({"A": "it's \\ $x", "C": None}, shell)) == lines


def test_the_usual_shell_is_that_of_the_user_or_of_windows():
    assert usual_shell({"SHELL": "/usr/bin/fish"}, "linux") == "fish"
    assert usual_shell({"SHELL": "/bin/zsh"}, "darwin") == "bash"
    assert usual_shell({}, "win32") == "powershell"


def test_lines_are_those_of_the_first_listener_less_what_the_user_has_set(tmp_path, monkeypatch):
    (port,) = free_ports(1)
    for name in ("ANTHROPIC_BASE_URL", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ENABLE_TOOL_SEARCH", "auto")
    rules = tmp_path / "rules.yaml"
    rules.write_text(f"listen: {{here: 0.0.0.0:{port}}}\n")
    result = CliRunner().invoke(env_command, ["--shell", "bash", "--rules", str(rules)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"export ANTHROPIC_BASE_URL=http://127.0.0.1:{port}",
        "export CLAUDE_CODE_GATEWAY_HINT_HEADERS=1",
        "export CLAUDE_CODE_ENABLE_FINE_GRAINED_TOOL_STREAMING=1",
    ]
    assert f"no router answers at http://127.0.0.1:{port}: start one with signalbox run" in result.stderr
