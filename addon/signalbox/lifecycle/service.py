"""The router as a service of the user: systemd, launchd, or the task scheduler of Windows.

Each starts it when the user logs in and again after a crash, and leaves it alone after it was told to end.
What is written and which commands are run are plain values (`Service`); `install` and its kin act on them.
"""

import getpass
import os
import plistlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from signalbox.lifecycle.start import RESTART
from signalbox.state import atomic_file

NAME = "signalbox"
LABEL = "signalbox.router"
"""Name of the job on macOS, which wants one with a dot."""
DESCRIPTION = "Signalbox, the router of Claude Code"
END = 20
"""Seconds that the system waits for the router to end."""
INSTEAD = "signalbox run --detach starts a router in the background, until the machine restarts"
LIMIT = 60.0
"""Seconds for one command of the system."""
TASK = "http://schemas.microsoft.com/windows/2004/02/mit/task"

VARIABLES = ("PATH", "PYTHONPATH")
"""What the service gets of the environment of the user who installs it."""

type Command = tuple[str, ...]


class ServiceError(Exception):
    """The system refused, or has no such services. The text is one line for people."""


class Program(NamedTuple):
    """What a service runs, for whom. Paths are absolute."""

    command: Command
    """Program and arguments; the program is a Python."""
    home: Path
    uid: int
    """0 on Windows, which has none."""
    user: str
    r"""On Windows `DOMAIN\NAME`."""
    variables: Mapping[str, str]
    """Of its environment, where the system can set any: `PATH`, for commands in the rules."""


class Service(NamedTuple):
    """A service as one kind of system has it."""

    file: Path
    content: bytes
    is_kept: bool
    """Whether the system reads the file again later; otherwise it is deleted after the installation."""
    install: tuple[Command, ...]
    uninstall: tuple[Command, ...]
    restart: tuple[Command, ...]
    status: Command
    """Exits with 0 where the service runs."""
    ends_router: bool = True
    """Whether the system tells the router to end, at a restart and when it is uninstalled. Otherwise it would
    be killed, and is told before."""
    reload: Command | None = None
    """Run after the file was deleted."""


def this_user(command: Iterable[str], environ: Mapping[str, str] = os.environ) -> Program:
    """The command as a service of the user who calls."""
    variables = {name: environ[name] for name in VARIABLES if environ.get(name)}
    domain = environ.get("USERDOMAIN")
    user = rf"{domain}\{getpass.getuser()}" if domain else getpass.getuser()
    uid = os.getuid() if sys.platform != "win32" else 0
    return Program(tuple(command), Path.home(), uid, user, variables)


def service_of(system: str, program: Program, environ: Mapping[str, str] = os.environ) -> Service:
    """The service on this system, `sys.platform`. Raises ServiceError where it has none that is known."""
    if system == "win32":
        local = environ.get("LOCALAPPDATA") or program.home / "AppData" / "Local"
        return task(program, Path(local) / NAME)
    if system == "darwin":
        return launchd(program)
    if system.startswith("linux"):
        config = environ.get("XDG_CONFIG_HOME") or program.home / ".config"
        return systemd(program, Path(config))
    raise ServiceError(f"signalbox knows no services of {system}: {INSTEAD}")


# systemd


def systemd(program: Program, config: Path) -> Service:
    """A user unit (systemd.service(5)); `config` is the user's configuration folder."""
    unit, variables = f"{NAME}.service", program.variables.items()
    lines = (
        "[Unit]",
        f"Description={DESCRIPTION}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        f"ExecStart={' '.join(map(_for_systemd, program.command))}",
        *(f"Environment={_for_systemd(f'{name}={value}', runs=False)}" for name, value in variables),
        "Restart=on-failure",
        f"RestartSec={RESTART}",
        f"TimeoutStopSec={END}",
        "UMask=0077",
        "",
        "[Install]",
        "WantedBy=default.target",
    )
    ask = ("systemctl", "--user")
    return Service(
        file=config / "systemd" / "user" / unit,
        content="".join(f"{line}\n" for line in lines).encode(),
        is_kept=True,
        install=((*ask, "daemon-reload"), (*ask, "enable", unit), (*ask, "restart", unit)),
        uninstall=((*ask, "disable", "--now", unit),),
        restart=((*ask, "restart", unit),),
        status=(*ask, "is-active", "--quiet", unit),
        reload=(*ask, "daemon-reload"),
    )


def _for_systemd(word: str, *, runs: bool = True) -> str:
    """A word of a command line, or of another list, in quotes. `%` begins a specifier, `$` a variable of a
    command line (systemd.syntax(7), "Quoting"; systemd.service(5), "Command lines")."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{word.replace("$", "$$") if runs else word}"'


# launchd


def launchd(program: Program) -> Service:
    """An agent of the user (launchd.plist(5), launchctl(1))."""
    file = program.home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    content = {
        "Label": LABEL,
        "ProgramArguments": list(program.command),
        "EnvironmentVariables": dict(program.variables),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": RESTART,
        "ExitTimeOut": END,
        "Umask": 0o077,
    }
    domain = f"gui/{program.uid}"
    job = f"{domain}/{LABEL}"
    return Service(
        file=file,
        content=plistlib.dumps(content, sort_keys=False),
        is_kept=True,
        install=(("launchctl", "bootstrap", domain, str(file)),),
        uninstall=(("launchctl", "bootout", job),),
        restart=(("launchctl", "kickstart", "-k", job),),
        status=("launchctl", "print", job),
    )


# Windows


def task(program: Program, folder: Path) -> Service:
    """A task of the scheduler (its XML schema, namespace `TASK`); the file in `folder` is only for schtasks.

    It runs `pythonw`, which has no console window. `RestartOnFailure` starts again what could not be started,
    not what ended; `start.keep_running` does that. Its count is a byte.
    """
    python, *arguments = program.command
    if python.lower().endswith("\\python.exe"):
        python = f"{python[: -len('python.exe')]}pythonw.exe"
    ElementTree.register_namespace("", TASK)
    root = ElementTree.Element(f"{{{TASK}}}Task", version="1.2")
    _add(root, {
        "RegistrationInfo": {"Description": DESCRIPTION},
        "Triggers": {"LogonTrigger": {"Enabled": "true", "UserId": program.user}},
        "Principals": {
            "Principal": {
                "UserId": program.user, "LogonType": "InteractiveToken", "RunLevel": "LeastPrivilege",
            },
        },
        "Settings": {
            "MultipleInstancesPolicy": "IgnoreNew",
            "DisallowStartIfOnBatteries": "false",
            "StopIfGoingOnBatteries": "false",
            "StartWhenAvailable": "true",
            "RestartOnFailure": {"Interval": "PT1M", "Count": "255"},
            "ExecutionTimeLimit": "PT0S",
        },
        "Actions": {
            "Exec": {
                "Command": python,
                "Arguments": subprocess.list2cmdline(arguments),
                "WorkingDirectory": str(program.home),
            },
        },
    })  # fmt: skip
    ElementTree.indent(root)
    file = folder / f"{NAME}-task.xml"
    named = ("/TN", NAME)
    return Service(
        file=file,
        content=ElementTree.tostring(root, encoding="utf-16", xml_declaration=True),
        is_kept=False,
        install=(("schtasks", "/Create", *named, "/XML", str(file), "/F"), ("schtasks", "/Run", *named)),
        uninstall=(("schtasks", "/Delete", *named, "/F"),),
        restart=(("schtasks", "/Run", *named),),
        ends_router=False,
        status=("schtasks", "/Query", *named),
    )


type Tree = Mapping[str, "str | Tree"]


def _add(parent: ElementTree.Element, children: Tree) -> None:
    for name, content in children.items():
        child = ElementTree.SubElement(parent, f"{{{TASK}}}{name}")
        if isinstance(content, str):
            child.text = content
        else:
            _add(child, content)


# acting


def install(service: Service) -> None:
    """Writes the file and has the system start the router. Raises ServiceError; then nothing is left."""
    try:
        atomic_file.replace(service.file, service.content)
        run(service.install)
    except OSError as error:
        _forget(service)
        raise ServiceError(f"{service.file} cannot be written: {error.strerror}") from None
    except ServiceError:
        _forget(service)
        raise
    if not service.is_kept:
        _delete(service.file)


def uninstall(service: Service) -> bool:
    """Ends the router and removes the service; gives whether there was one. Raises ServiceError."""
    there = service.file.exists() if service.is_kept else is_running(service)
    if not there:
        return False
    try:
        run(service.uninstall)
    except ServiceError:  # it may have been unloaded by hand
        if is_running(service):
            raise
    _delete(service.file)
    if service.reload is not None:
        run([service.reload])
    return True


def is_running(service: Service) -> bool:
    """Whether the system runs the service. On Windows: whether it is installed."""
    try:
        run([service.status])
    except ServiceError:
        return False
    return True


def run(commands: Iterable[Command]) -> None:
    """Runs the commands, which print nothing. Raises ServiceError at the first that fails."""
    for program, *arguments in commands:
        found = shutil.which(program)
        if found is None:
            raise ServiceError(f"{program} is not there: {INSTEAD}")
        try:
            done = subprocess.run(  # noqa: S603  our own arguments, without a shell
                [found, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LIMIT,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ServiceError(f"{program} failed: {error}") from None
        if done.returncode:
            said = " ".join((done.stderr.strip() or done.stdout.strip()).split())
            why = said or f"exit code {done.returncode}"
            raise ServiceError(f"{program} {' '.join(arguments)} failed: {why}")


def _forget(service: Service) -> None:
    for command in service.uninstall:
        with suppress(ServiceError):
            run([command])
    _delete(service.file)
    if service.reload is not None:
        with suppress(ServiceError):
            run([service.reload])


def _delete(file: Path) -> None:
    """The file, and the folders above it that are empty then, less the home."""
    file.unlink(missing_ok=True)
    with suppress(OSError):  # there is something else in it
        for folder in file.parents:
            if folder == Path.home():
                break
            for empty in folder.glob("*.wants"):  # systemd made it
                empty.rmdir()
            folder.rmdir()
