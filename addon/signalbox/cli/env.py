"""`signalbox env`: the lines that point Claude Code at the router, for a shell to evaluate."""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

import click

from signalbox.claude import certificates
from signalbox.claude.environment import (
    CUSTOM_HEADERS,
    ChildEnvironment,
    child_environment,
    trusted_files,
)
from signalbox.claude.router import FoundRouter, confdir_of, found_at
from signalbox.claude.settings import ClaudeSettings, home_folder, read_settings
from signalbox.cli.claude import first_listener, say
from signalbox.cli.options import loaded, rules_option, state_option
from signalbox.ports import url_of

type Shell = Literal["bash", "fish", "powershell", "cmd"]


def shell_lines(changes: Mapping[str, str | None], shell: Shell) -> Iterator[str]:
    """A line for each variable that is set, or taken out (None)."""
    for name, value in changes.items():
        yield _unset(name, shell) if value is None else _set(name, value, shell)


def usual_shell(environ: Mapping[str, str], platform: str = sys.platform) -> Shell:
    if platform == "win32":
        return "powershell"
    return "fish" if Path(environ.get("SHELL", "")).name == "fish" else "bash"


@click.command("env")
@click.option(
    "--shell",
    type=click.Choice(get_args(Shell.__value__)),
    help="bash is for sh and zsh too. Default: yours.",
)
@rules_option
@state_option("Folder of the router's records; certificates that are joined with yours are written there.")
def env_command(shell: Shell | None, file: Path | None, state: Path) -> None:
    """Print the lines that point Claude Code at the router that runs: eval "$(signalbox env)".

    They are those of its first listener, which is a base URL or a proxy.
    """
    listen = first_listener(loaded(file))
    found = found_at(listen)
    url = url_of(listen.host, listen.port)
    if found is None:
        say(f"no router answers at {url}: start one with signalbox run")
    settings = read_settings(os.environ, Path.cwd(), home_folder())
    try:
        made = _environment(found, url, state, settings)
    except OSError as error:
        raise click.ClickException(f"the certificates cannot be joined: {error}") from None
    changes = {name: value for name, value in made.changes.items() if name != CUSTOM_HEADERS}
    for line in shell_lines(changes, shell or usual_shell(os.environ)):
        click.echo(line)
    for line in made.remarks:
        say(line)
    for name in made.overrides.keys() - {CUSTOM_HEADERS}:
        say(f"{name} in {settings.source_of(name)} overrides its line")


def _environment(
    found: FoundRouter | None, url: str, state: Path, settings: ClaudeSettings
) -> ChildEnvironment:
    """Raises OSError."""
    is_proxy = found is not None and found.health.mode_at(int(url.rpartition(":")[2])) == "regular"
    if found is None or not is_proxy:
        return child_environment("base-url", url, None, Path.cwd(), os.environ, settings)
    ca = confdir_of(found, home_folder()) / certificates.CA
    trusted = [one for one in certificates.readable(trusted_files(os.environ, settings))[0] if one != ca]
    if trusted:
        ca = certificates.bundle([ca, *trusted], state / "claude")
    return child_environment("intercept", url, ca, Path.cwd(), os.environ, settings)


def _set(name: str, value: str, shell: Shell) -> str:
    if shell == "bash":
        return f"export {name}={shlex.quote(value)}"
    if shell == "fish":
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{quoted}'"
    if shell == "powershell":
        quoted = value.replace("'", "''")
        return f"$env:{name} = '{quoted}'"
    return f'set "{name}={value}"'


def _unset(name: str, shell: Shell) -> str:
    return {
        "bash": f"unset {name}",
        "fish": f"set -e {name}",
        "powershell": f"Remove-Item Env:{name} -ErrorAction SilentlyContinue",
        "cmd": f'set "{name}="',
    }[shell]
