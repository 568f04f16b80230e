"""`signalbox claude` from its start to its end, with a stub in place of Claude Code."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from signalbox.lifecycle.running import running
from tests.support.answers import Answer
from tests.support.fake_provider import Upstream
from tests.support.router_process import ROOT, Router, clean_environment, free_ports, wait_until
from tests.support.tls import certify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.name != "posix", reason="a stub of POSIX"),
]

SIGNALBOX = Path(sys.executable).with_name("signalbox")
STUB = ROOT / "tests/support/scripts/claude_stub.py"
RULES = """
providers:
  anthropic: {url: "https://api.anthropic.com", auth: client}
  zai: {url: "http://127.0.0.1:1", key: zai-key-for-tests, models: [glm-4.7]}
rules:
  - {match: "glm-*", to: zai}
"""


class Machine:
    """An empty home, a project with rules, a free port for the router, and a stub as `claude` on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.home, self.project = folder / "home", folder / "project"
        states = "Library/Application Support" if sys.platform == "darwin" else ".local/state"
        self.state = self.home / states / "signalbox"
        programs = folder / "bin"
        for one in (self.home, self.project, programs):
            one.mkdir()
        (programs / "claude").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
        (programs / "claude").chmod(0o755)
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        (self.project / "rules.yaml").write_text(f"{RULES}\nlisten: {{here: 127.0.0.1:{self.port}}}\n")
        self.path = f"{programs}:/usr/bin:/bin"

    def popen(self, *arguments: str, environ: dict[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [SIGNALBOX, "claude", *arguments],
            cwd=self.project,
            env=clean_environment(self.home, {"PATH": self.path, **(environ or {})}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, environ: dict[str, str] | None = None) -> tuple[int, str, list[str]]:
        """Exit code, standard output, and the lines on standard error."""
        with self.popen(*arguments, environ=environ) as process:
            out, err = process.communicate(timeout=100)
        return process.returncode, out, err.splitlines()

    @contextmanager
    def counting(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """While the stub waits for the end of its input."""
        with self.popen(*arguments, "count") as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                yield process
            finally:
                process.kill()

    def files(self) -> list[str]:
        """The files in the home and the project that are not in the state folder."""
        found = (path for folder in (self.home, self.project) for path in sorted(folder.rglob("*")))
        return [str(path) for path in found if path.is_file() and not path.is_relative_to(self.state)]

    def write_settings(self, settings: object) -> None:
        """The user's own of Claude Code."""
        (self.home / ".claude").mkdir()
        (self.home / ".claude/settings.json").write_text(json.dumps(settings))

    def is_left(self) -> bool:
        """Whether a router still runs."""
        return running("127.0.0.1", self.port) is not None


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def settings_in(given: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = given["settings"]["values"]
    return found


def test_router_lives_as_long_as_claude_code_and_leaves_nothing_behind(machine):
    trusted = certify(machine.project / "company.pem")
    before = machine.files()
    code, out, err = machine.run("print", "-p", "a prompt", environ={"NODE_EXTRA_CA_CERTS": str(trusted)})
    assert code == 0
    given = json.loads(out)
    assert given["arguments"][0] == "--settings"
    assert given["arguments"][2:] == ["print", "-p", "a prompt"]
    settings = settings_in(given)
    assert [row["model"] for row in settings["modelPicker"]["options"]] == ["glm-4.7"]
    assert settings["statusLine"]["command"].endswith("signalbox statusline")
    assert given["settings"]["mode"] == 0o600
    assert not Path(given["arguments"][1]).exists()
    assert given["environment"]["HTTPS_PROXY"] == machine.url
    certificates = Path(given["environment"]["NODE_EXTRA_CA_CERTS"])
    assert certificates.is_relative_to(machine.state)
    assert trusted.read_bytes().rstrip() in certificates.read_bytes()
    assert certificates.read_bytes().count(b"BEGIN CERTIFICATE") == 2
    assert stat.S_IMODE(machine.state.stat().st_mode) == 0o700
    assert err == [
        f"signalbox: intercept, rules {machine.project}/rules.yaml, a router of its own at {machine.url}",
        "signalbox: Remote Control ✓  tool search ✓  1M ✓  quota ✓",
        f"signalbox: dashboard {machine.url}/ui",
    ]
    assert machine.files() == before
    assert not machine.is_left()


def test_exit_code_of_claude_code_is_passed_on_and_plain_leaves_the_settings_out(machine):
    code, out, err = machine.run("--plain", "--via=base-url", "--", "exit", "7")
    assert code == 7
    given = json.loads(out)
    assert given["arguments"] == ["exit", "7"]
    assert given["environment"]["ANTHROPIC_BASE_URL"] == machine.url
    assert err[1].startswith("signalbox: Remote Control ✗  tool search ✓")


def test_interrupt_reaches_claude_code_once_and_its_end_is_that_of_the_router(machine):
    with machine.counting() as process:
        assert process.stdout is not None
        for name in ("SIGINT", "SIGTERM"):
            os.killpg(process.pid, getattr(signal, name))
            assert process.stdout.readline() == f"got {name}\n"
        out, _ = process.communicate("\n", timeout=60)
        assert json.loads(out) == {"SIGINT": 1, "SIGTERM": 1}
    assert not machine.is_left()


def test_router_that_is_killed_is_started_again_and_ends_even_if_nobody_could_end_it(machine):
    with machine.counting("--via", "base-url") as process:
        found = running("127.0.0.1", machine.port)
        assert found is not None
        psutil.Process(found.pid).kill()
        assert process.stderr is not None
        said = next(line for line in process.stderr if "the router ended" in line)
        assert said.startswith("signalbox: the router ended (signal 9; its log: ")
        assert said.endswith(") and was started again\n")
        assert machine.is_left()
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not machine.is_left(), 30, lambda: "the router to end")


def test_settings_of_the_user_stay_and_what_they_would_override_is_passed(machine):
    own = {
        "statusLine": {"type": "command", "command": "mine"},
        "env": {"ANTHROPIC_BASE_URL": "http://old:1"},
    }
    machine.write_settings(own)
    _, out, err = machine.run("model", "glm-4.7")
    settings = settings_in(json.loads(out))
    assert settings["env"] == {"ANTHROPIC_BASE_URL": ""}
    assert "statusLine" not in settings
    assert "modelPicker" in settings
    assert any("is not used: http://old:1" in line for line in err)
    assert err[-1].startswith("signalbox: glm-4.7 is now the default model of every `claude`")
    assert str(machine.home / ".claude/settings.json") in err[-1]


def test_port_of_another_program_is_named_and_own_settings_are_the_only_ones(machine):
    machine.write_settings({"env": {"ANTHROPIC_BASE_URL": "http://old:1"}})
    with Upstream(port=machine.port) as other:
        other.answer(Answer(404))
        _, out, err = machine.run("print", "--settings", "{}")
    assert err[0].startswith(f"signalbox: port {machine.port} is taken by ")
    assert json.loads(out)["environment"]["HTTPS_PROXY"] != machine.url
    assert json.loads(out)["arguments"] == ["print", "--settings", "{}"]
    assert err[-1].startswith("signalbox: since you gave --settings, these count and not what ")


def test_router_that_runs_with_the_same_rules_is_used_and_stays(machine, tmp_path):
    folder = tmp_path / "router"
    folder.mkdir()
    with Router(folder, "https://api.anthropic.com", rules=RULES) as router:
        router.rules(f"{RULES}listen: {{here: 127.0.0.1:{router.ports[0]}}}\n")
        same = ("--rules", str(router.rules_file), "--state", str(router.state))
        _, out, err = machine.run(*same, "--via", "base-url", "print")
        assert json.loads(out)["environment"]["ANTHROPIC_BASE_URL"] == router.url
        assert err[0].endswith(f"the router that runs at {router.url}")
        _, out, err = machine.run(*same, "print")
        assert json.loads(out)["environment"]["HTTPS_PROXY"] != router.url
        assert (
            err[0] == f"signalbox: the router at {router.url} is no forward proxy: this session gets its own"
        )
        assert "a router of its own at" in err[1]
        assert router.health()["status"]


def test_what_keeps_claude_code_from_starting_is_one_line(machine):
    (machine.project / "rules.yaml").write_text("rules: [{match: x}]\n")
    code, out, err = machine.run("print")
    assert (code, out) == (1, "")
    assert err[0].startswith("rules.yaml:1: ")
    code, out, err = machine.run("print", environ={"PATH": "/nowhere"})
    assert (code, out) == (1, "")
    (machine.project / "rules.yaml").write_text(RULES)
    code, out, err = machine.run("print", environ={"PATH": "/nowhere"})
    assert (code, out) == (127, "")
    assert err[0].endswith(" This installs it: npm install -g @anthropic-ai/claude-code")
