"""Routers in processes of their own: started, found and ended."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from signalbox.config.fields import Listen
from signalbox.lifecycle.running import identity_at, registered, running
from signalbox.lifecycle.spec import LOG, RouterSpec, regular, reverse
from signalbox.lifecycle.start import StartError, keep_running, start, wait_for
from tests.support.router_process import (
    ROOT,
    START,
    authority_folder,
    clean_environment,
    free_ports,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def spec(tmp_path):
    """A router that ends with the tests."""
    (tmp_path / "rules.yaml").write_text("")
    (port,) = free_ports(1)
    return RouterSpec(
        modes=(reverse(Listen("127.0.0.1", port)),),
        rules=tmp_path / "rules.yaml",
        state=tmp_path / "state",
        script=ROOT / "addon" / "router.py",
        arguments=("--set", f"confdir={authority_folder()}"),
        log=LOG,
        bound=True,
    )


def test_a_router_is_ready_when_start_returns_and_gone_when_it_is_ended(spec):
    router = start(spec)
    port = spec.listeners[0].port
    try:
        assert running("127.0.0.1", port) is not None
        assert identity_at("127.0.0.1", port) == router.identity
        found = registered(spec.state)
        assert found is not None
        assert found.spec == spec
        assert f"point Claude Code here: ANTHROPIC_BASE_URL=http://127.0.0.1:{port} claude" in router.lines
        (again,) = free_ports(1)
        with pytest.raises(StartError, match=f"runs already: process {router.identity.pid}"):
            start(replace(spec, modes=(reverse(Listen("127.0.0.1", again)),)))
    finally:
        ended = router.end()
    assert ended is not None
    assert ended.gently
    assert registered(spec.state) is None
    assert router.process.returncode is not None


def test_a_forward_proxy_beside_it_ends_with_the_process_that_started_it(spec):
    router = start(replace(spec, modes=(regular(spec.listeners[0]),), registered=False))
    assert router.health.mode_at(spec.listeners[0].port) == "regular"
    assert router.process.stdin is not None
    router.process.stdin.close()
    assert router.process.wait(30) == 0
    wait_until(lambda: running("127.0.0.1", spec.listeners[0].port) is None, 5, lambda: "its end")


def test_errors_of_the_rules_come_back_to_who_started_it(spec):
    spec.rules.write_text("rulez: []\n")
    with pytest.raises(StartError) as refused:
        start(replace(spec, fail="closed"))
    assert refused.value.lines == ('rules.yaml:1: unknown key "rulez", did you mean "rules"? (at $)',)


class Commands:
    """The commands of `signalbox` with a HOME of their own."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = clean_environment(folder, {"XDG_STATE_HOME": str(folder / "xdg")})

    def __call__(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "signalbox.cli", *map(str, arguments)]
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=100,
        )

    def status(self) -> dict[str, Any]:
        done = self("status", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def signalbox(tmp_path):
    commands = Commands(tmp_path)
    yield commands
    commands("stop")


CONFDIR = ("--set", f"confdir={authority_folder()}")


def listen(port: int, more: str = "") -> str:
    return f"listen: {{work: '127.0.0.1:{port}'}}\n{more}"


def test_the_life_of_a_router_in_the_background(signalbox, tmp_path):
    first, second = free_ports(2)
    rules = tmp_path / "rules.yaml"
    rules.write_text(listen(first))
    begun = signalbox("run", "--detach", *CONFDIR)
    assert begun.returncode == 0, begun.stderr
    status = signalbox.status()
    assert status["rules"]["file"] == str(rules)
    assert [one["port"] for one in status["listeners"]] == [first]
    assert f"the router runs in the background: process {status['pid']}" in begun.stdout
    assert f"ANTHROPIC_BASE_URL=http://127.0.0.1:{first} claude" in begun.stdout

    again = signalbox("run", "--detach", "--listen", f"127.0.0.1:{second}", *CONFDIR)
    assert again.returncode == 1
    assert f"runs already: process {status['pid']} on 127.0.0.1:{first}: --replace" in again.stderr

    rules.write_text(listen(second))
    assert signalbox("restart").returncode == 0
    restarted = signalbox.status()
    assert restarted["pid"] != status["pid"]
    assert [one["port"] for one in restarted["listeners"]] == [second]

    logs = signalbox("logs")
    assert logs.stdout.count("rules loaded: ") >= 2
    state = tmp_path / "xdg" / "signalbox"
    assert [path.name for path in state.iterdir() if path.stat().st_mode & 0o077] == []

    assert signalbox("stop").returncode == 0
    assert running("127.0.0.1", second) is None
    gone = signalbox("status")
    assert (gone.returncode, gone.stdout) == (1, "")


def test_a_router_that_does_not_start_anew_runs_again_as_before(signalbox, tmp_path):
    (port,) = free_ports(1)
    (tmp_path / "rules.yaml").write_text(listen(port))
    assert signalbox("run", "--detach", *CONFDIR).returncode == 0
    (tmp_path / "rules.yaml").write_text("listen: {work: '192.0.2.1:8082'}\n")  # no address of this machine
    refused = signalbox("restart")
    assert (refused.returncode, refused.stdout) == (1, "")
    pid = signalbox.status()["pid"]
    assert refused.stderr.endswith(f"the router that ran before was started again: process {pid}\n")
    assert running("127.0.0.1", port) is not None


def test_broken_rules_let_a_start_in_the_background_go_on_or_end_it(signalbox, tmp_path):
    (port,) = free_ports(1)
    (tmp_path / "rules.yaml").write_text(listen(port, "rulez: []\n"))
    error = 'rules.yaml:2: unknown key "rulez", did you mean "rules"? (at $)'
    closed = signalbox("run", "--detach", "--fail", "closed", *CONFDIR)
    assert (closed.returncode, closed.stdout, closed.stderr) == (1, "", f"{error}\n")
    begun = signalbox("run", "--detach", *CONFDIR)
    assert begun.returncode == 0
    assert error in begun.stdout.splitlines()
    assert signalbox.status()["rules"] | {"loaded_at": ""} == {
        "file": str(tmp_path / "rules.yaml"), "loaded_at": "", "error": error, "source": "fail-open",
    }  # fmt: skip


@pytest.mark.parametrize("how", ["Ctrl-C", "--replace"])
def test_a_router_in_a_terminal_ends_cleanly_by_a_signal_and_for_another(signalbox, tmp_path, how):
    (port,) = free_ports(1)
    (tmp_path / "rules.yaml").write_text(listen(port))
    command = [sys.executable, "-m", "signalbox.cli", "run", *CONFDIR]
    with subprocess.Popen(
        command, cwd=tmp_path, env=signalbox.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            wait_until(lambda: running("127.0.0.1", port), START, lambda: "the router to answer")
            assert signalbox.status()["pid"] == process.pid
            if how == "--replace":
                begun = signalbox("run", "--detach", "--replace", *CONFDIR)
                assert begun.returncode == 0, begun.stderr
                assert begun.stderr == f"the router has ended: process {process.pid}\n"
            else:
                process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=30)[0].decode()
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Traceback" not in said


SYSTEMCTL = """#!{python}
# As much of `systemctl --user` as an installation needs.
import os, shlex, signal, subprocess, sys, time
from pathlib import Path
home = Path(os.environ["HOME"])
unit, pid = home / ".config/systemd/user/signalbox.service", home.parent / "service.pid"
verb = sys.argv[2]
if verb in ("restart", "disable") and pid.exists():
    os.kill(int(pid.read_text()), signal.SIGTERM)
    while Path(f"/proc/{{pid.read_text()}}").exists():
        time.sleep(0.05)
    pid.unlink()
if verb == "restart":
    lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line)
    started = subprocess.Popen(
        shlex.split(lines["ExecStart"]), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True, cwd="/",
        env={{"HOME": str(home), **dict([shlex.split(lines["Environment"])[0].split("=", 1)])}},
    )
    pid.write_text(str(started.pid))
sys.exit(verb == "is-active" and not pid.exists())
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the service manager is played by means of /proc")
def test_a_service_is_installed_used_and_removed_without_a_trace(tmp_path):
    home = tmp_path / "home"
    (home / ".claude").mkdir(parents=True)
    settings, own = home / ".claude" / "settings.json", '{\n  "model": "opus"\n}\n'
    settings.write_text(own)
    (port,) = free_ports(1)
    (home / "rules.yaml").write_text(
        listen(port, "providers: {zai: {url: 'https://h', key: '${ZAI_KEY}'}}\n")
    )
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(SYSTEMCTL.format(python=sys.executable))
    systemctl.chmod(0o755)
    signalbox = Commands(home)
    signalbox.environment["PATH"] = f"{systemctl.parent}:{signalbox.environment['PATH']}"
    before = sorted(path.relative_to(home) for path in home.rglob("*"))
    state = ("--state", tmp_path / "state")

    begun = signalbox("service", "install", "--set-base-url", *state, ZAI_KEY="zai-key-for-tests")
    try:
        assert begun.returncode == 0, begun.stderr
        assert begun.stderr == f"ZAI_KEY is set in this shell only: write it into {home / '.env'} too\n"
        url = f"http://127.0.0.1:{port}"
        assert json.loads(settings.read_text())["env"] == {"ANTHROPIC_BASE_URL": url}
        first = running("127.0.0.1", port)
        assert first is not None
        assert f"it runs: process {first.pid}" in signalbox("service", "status", *state).stdout
        assert json.loads(signalbox("status", "--json", *state).stdout)["service"] is True

        assert signalbox("restart", *state).returncode == 0
        second = wait_for(Listen("127.0.0.1", port), START)
        assert second is not None
        assert second.pid != first.pid
    finally:
        removed = signalbox("service", "uninstall", *state)
    assert removed.returncode == 0, removed.stderr
    assert running("127.0.0.1", port) is None
    assert settings.read_text() == own
    mitmproxys = home / ".mitmproxy"
    left = [path for path in home.rglob("*") if mitmproxys not in (path, *path.parents)]
    assert sorted(path.relative_to(home) for path in left) == before
    assert signalbox("service", "status", *state).returncode == 1


def test_a_service_of_windows_starts_a_router_again_that_crashed(spec):
    paused = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 2:
            raise TimeoutError

    with (
        socket.create_server(("127.0.0.1", spec.listeners[0].port)),
        pytest.raises(TimeoutError),
    ):
        keep_running(spec, pause)  # its port is taken: it ends with exit code 1
    assert paused == [5, 5]
