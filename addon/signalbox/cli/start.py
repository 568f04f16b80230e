"""Started by `just run` and `just web`: checks arguments and ports, then executes mitmdump or mitmweb.

mitmproxy itself takes any other argument as a filter of flows, and reports a taken port only by its errno.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from signalbox.ports import is_free, taken

WEB_PORT = 8081
"""Default port of mitmweb's pages."""
_RULES = re.compile(r"[^-=][^=]*\.ya?ml", re.IGNORECASE)
_JUST = re.compile(r"(port|web_port)=(\d*)|(\d+)")
_MODE = re.compile(r"@(?:(?P<host>[^@]*):)?(?P<port>\d{1,5})$")


class RefusedError(ValueError):
    """Arguments that are certainly a mistake; the text says what to write instead."""


def understood(arguments: Sequence[str]) -> list[str]:
    """The arguments as mitmproxy takes them: `my.yaml` becomes `--set router_rules=my.yaml`.

    Raises RefusedError.
    """
    found: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if not before.startswith("-") and (meant := _JUST.fullmatch(argument)):
            name, number = meant[1] or "port", meant[2] or meant[3] or "8090"
            raise RefusedError(f"{argument} is no argument of run: write just {name}={number} run")
        found += ["--set", f"router_rules={argument}"] if _RULES.fullmatch(argument) else [argument]
    files = list(values(found, "--set", "router_rules="))
    if len(files) > 1:
        raise RefusedError(f"one rules file at a time: {' and '.join(files)} are given")
    return found


def values(arguments: Sequence[str], option: str, prefix: str = "") -> Iterator[str]:
    """The values given with an option (`--set X` or `--set=X`) that begin with `prefix`, without it."""
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option and option.startswith("--") and equals:
            given = value
        elif argument == option and i + 1 < len(arguments):
            given = arguments[i + 1]
        else:
            continue
        if given.startswith(prefix):
            yield given.removeprefix(prefix)


def wanted_ports(program: str, arguments: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """(variable of the justfile, host, port) of each listener that the arguments ask for."""
    for mode in (*values(arguments, "--mode"), *values(arguments, "-m")):
        if found := _MODE.search(mode):
            yield "port", (found["host"] or "").strip("[]"), int(found["port"])
    if Path(program).stem == "mitmweb":
        asked = [*values(arguments, "--web-port"), *values(arguments, "--set", "web_port=")]
        host = [*values(arguments, "--web-host"), *values(arguments, "--set", "web_host="), "127.0.0.1"][0]
        yield "web_port", host, next((int(port) for port in asked if port.isdecimal()), WEB_PORT)


def port_refusal(program: str, arguments: Sequence[str]) -> str:
    """One line about the first port that is taken, with the remedy; empty if all are free."""
    recipe = "web" if Path(program).stem == "mitmweb" else "run"
    for variable, host, port in wanted_ports(program, arguments):
        if not is_free(port, host):
            other = next((more for more in range(port + 1, 65536) if is_free(more, host)), port)
            return f"{taken(port)}: end that, or take another: just {variable}={other} {recipe}"
    return ""


def start_mitmproxy(command: Sequence[str]) -> int:
    """Executes `command` (program and arguments), or prints one line why not. Exit codes: 1, 2."""
    program, *given = command
    try:
        arguments = understood(given)
    except RefusedError as error:
        print(error, file=sys.stderr)  # noqa: T201  for the user
        return 2
    if line := port_refusal(program, arguments):
        print(line, file=sys.stderr)  # noqa: T201  for the user
        return 1
    if os.name == "posix":
        os.execv(program, [program, *arguments])  # noqa: S606  what the recipe asks for
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the child
    return subprocess.call([program, *arguments])  # noqa: S603  what the recipe asks for


if __name__ == "__main__":
    sys.exit(start_mitmproxy(sys.argv[1:]))
