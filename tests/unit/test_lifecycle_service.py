"""The service files of each system and the commands that install them, and what an installation leaves."""

import os
import plistlib
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from signalbox.lifecycle.service import (
    TASK,
    Program,
    Service,
    ServiceError,
    install,
    is_running,
    launchd,
    service_of,
    systemd,
    task,
    this_user,
    uninstall,
)

PROGRAM = Program(
    command=(
        "/opt/my python/bin/python",
        "-m",
        "signalbox.cli",
        "run",
        "--rules",
        '/home/me/50%/$a"b\\c.yaml',
    ),
    home=Path("/home/me"),
    uid=501,
    user="me",
    variables={"PATH": "/usr/bin:/home/me/50% $HOME"},
)


def test_the_unit_of_systemd():
    service = systemd(PROGRAM, Path("/home/me/.config"))
    assert service.file == Path("/home/me/.config/systemd/user/signalbox.service")
    in_quotes = r'"--rules" "/home/me/50%%/$$a\"b\\c.yaml"'
    assert service.content.decode().splitlines() == [
        "[Unit]",
        "Description=Signalbox, the router of Claude Code",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        rf'ExecStart="/opt/my python/bin/python" "-m" "signalbox.cli" "run" {in_quotes}',
        'Environment="PATH=/usr/bin:/home/me/50%% $HOME"',
        "Restart=on-failure",
        "RestartSec=5",
        "TimeoutStopSec=20",
        "UMask=0077",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    assert service.install == (
        ("systemctl", "--user", "daemon-reload"),
        ("systemctl", "--user", "enable", "signalbox.service"),
        ("systemctl", "--user", "restart", "signalbox.service"),
    )
    assert service.uninstall == (("systemctl", "--user", "disable", "--now", "signalbox.service"),)


def test_the_agent_of_launchd():
    service = launchd(PROGRAM)
    assert service.file == Path("/home/me/Library/LaunchAgents/signalbox.router.plist")
    content = plistlib.loads(service.content)
    assert content["ProgramArguments"] == list(PROGRAM.command)
    assert content["RunAtLoad"] is True
    assert content["KeepAlive"] == {"SuccessfulExit": False}
    assert content["EnvironmentVariables"] == PROGRAM.variables
    assert service.install == (("launchctl", "bootstrap", "gui/501", str(service.file)),)
    assert service.restart == (("launchctl", "kickstart", "-k", "gui/501/signalbox.router"),)
    assert service.uninstall == (("launchctl", "bootout", "gui/501/signalbox.router"),)


def test_the_task_of_windows():
    python = r"C:\Program Files\Python\python.exe"
    program = Program(
        (python, "-m", "signalbox.cli", r"C:\My <Rules>\a.yaml"), Path(r"C:\me"), 0, r"PC\me", {}
    )
    service = task(program, Path("local"))
    assert service.content.startswith(b"\xff\xfe")  # UTF-16, which schtasks wants
    root = ElementTree.fromstring(service.content.decode("utf-16"))
    values = {
        element.tag.removeprefix(f"{{{TASK}}}"): element.text
        for element in root.iter()
        if element.text and element.text.strip()
    }
    assert values["Command"] == r"C:\Program Files\Python\pythonw.exe"
    assert values["Arguments"] == r'-m signalbox.cli "C:\My <Rules>\a.yaml"'
    assert values["UserId"] == r"PC\me"
    assert (values["LogonType"], values["RunLevel"]) == ("InteractiveToken", "LeastPrivilege")
    assert (values["ExecutionTimeLimit"], values["MultipleInstancesPolicy"]) == ("PT0S", "IgnoreNew")
    assert (values["Interval"], int(values["Count"] or 0) < 256) == ("PT1M", True)
    assert root.find(f"{{{TASK}}}Triggers/{{{TASK}}}LogonTrigger") is not None
    assert service.install[0] == (
        "schtasks", "/Create", "/TN", "signalbox", "/XML", str(service.file), "/F",
    )  # fmt: skip
    assert not service.is_kept


@pytest.mark.parametrize(
    ("system", "environ", "file"),
    [
        ("linux", {}, "/home/me/.config/systemd/user/signalbox.service"),
        ("linux", {"XDG_CONFIG_HOME": "/etc/me"}, "/etc/me/systemd/user/signalbox.service"),
        ("darwin", {}, "/home/me/Library/LaunchAgents/signalbox.router.plist"),
        ("win32", {}, "/home/me/AppData/Local/signalbox/signalbox-task.xml"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/signalbox/signalbox-task.xml"),
    ],
)
def test_each_system_has_its_place(system, environ, file):
    assert service_of(system, PROGRAM, environ).file == Path(file)


def test_other_systems_have_none():
    with pytest.raises(ServiceError, match="no services of freebsd14: signalbox run --detach"):
        service_of("freebsd14", PROGRAM, {})


def test_a_service_gets_the_path_of_who_installs_it():
    program = this_user(["python"], {"PATH": "/bin", "ZAI_API_KEY": "zai-key-for-tests", "USERDOMAIN": "PC"})
    assert program.variables == {"PATH": "/bin"}
    assert program.user.startswith("PC\\")


@pytest.fixture
def home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Lets `systemctl` do what the text says; gives the file in which it notes its arguments."""
    noted = tmp_path / "noted"

    def write(script: str) -> Path:
        program = tmp_path / "bin" / "systemctl"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "$*" >> {shlex.quote(str(noted))}\n{script}\n')
        program.chmod(0o755)
        return noted

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return write


def unit(home: Path) -> Service:
    return systemd(PROGRAM, home / ".config")


posix = pytest.mark.skipif(sys.platform == "win32", reason="the commands are shell scripts")


@posix
def test_nothing_is_left_after_the_service_was_removed(home, system):
    wants = home / ".config" / "systemd" / "user" / "default.target.wants"
    noted = system(f'[ "$2" != enable ] || mkdir {wants}')
    service = unit(home)
    install(service)
    assert service.file.read_bytes() == service.content
    assert service.file.stat().st_mode & 0o777 == 0o600
    assert uninstall(service)
    assert list(home.iterdir()) == []
    assert noted.read_text().splitlines() == [
        "--user daemon-reload",
        "--user enable signalbox.service",
        "--user restart signalbox.service",
        "--user disable --now signalbox.service",
        "--user daemon-reload",
    ]
    assert not uninstall(service)


@posix
def test_what_was_there_before_stays(home, system):
    system("")
    other = home / ".config" / "systemd" / "user" / "other.service"
    other.parent.mkdir(parents=True)
    other.write_text("")
    install(unit(home))
    uninstall(unit(home))
    assert list(other.parent.iterdir()) == [other]


@posix
@pytest.mark.parametrize("is_active", [False, True])
def test_a_service_that_was_unloaded_by_hand_is_removed_all_the_same(home, system, is_active):
    system(f'case "$2" in disable) exit 1;; is-active) exit {int(not is_active)};; esac')
    install(unit(home))
    if is_active:
        with pytest.raises(ServiceError, match=r"disable --now .* failed: exit code 1"):
            uninstall(unit(home))
    else:
        assert uninstall(unit(home))
    assert (list(home.iterdir()) == []) is not is_active


@posix
def test_a_system_that_refuses_is_quoted_and_nothing_is_left(home, system):
    system("echo 'Failed to connect to bus:' >&2; echo 'No medium found' >&2; exit 1")
    words = "systemctl --user daemon-reload failed: Failed to connect to bus: No medium found"
    with pytest.raises(ServiceError, match=words):
        install(unit(home))
    assert list(home.iterdir()) == []
    assert not is_running(unit(home))


def test_a_system_without_the_program_says_what_to_do_instead(home, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ServiceError, match="systemctl is not there: signalbox run --detach starts a router"):
        install(unit(home))
    assert list(home.iterdir()) == []
