"""Values that the rules take from elsewhere: `${NAME}`, `.env`, key files, key commands."""

import io
import re
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from dotenv import parser
from msgspec.structs import replace

from . import fields, files
from .fields import Command, Secret
from .rules import Provider, Rules, unavailable
from .schema import SecretSource

COMMAND_LIMIT = 10.0
"""Seconds that a key command may take."""
LARGEST = 64 * 1024
"""Bytes of the longest secret; no more are read."""

_REFERENCE = re.compile(
    r"(?P<literal>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:(?!\$\{)[^}])*))?\}|(?P<bad>\$\{)"
)


class UnsetError(ValueError):
    """A name without a default has no value."""


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`text` with each `${NAME}` replaced and `$${` turned into `${`.

    Raises UnsetError, or ValueError if `${` is not followed by a name, perhaps a default, and `}`.
    """

    def value(found: re.Match[str]) -> str:
        if found["literal"]:
            return "${"
        if found["bad"]:
            raise ValueError("expected ${NAME} or ${NAME:-default} (write $${ for the two characters)")
        if found["name"] in variables:
            return variables[found["name"]]
        if found["default"] is None:
            raise UnsetError(f"{found['name']} is not set")
        return found["default"]

    return _REFERENCE.sub(value, text)


class Dotenv(msgspec.Struct, frozen=True):
    """One `.env` file: names with their literal values, and the line (from 1) of each."""

    file: str = ".env"
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    ignored: tuple[int, ...] = ()
    """Lines that are neither a setting nor a comment."""


def from_dotenv(text: str, file: str = ".env") -> Dotenv:
    """Parses the text of an `.env` file. An empty value counts as unset; the last setting of a name wins."""
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    ignored = []
    for line, name, value in dotenv_settings(text):
        if name is None:
            ignored.append(line)
        else:
            values[name], lines[name] = value, line
    return Dotenv(file, {name: value for name, value in values.items() if value}, lines, tuple(ignored))


def dotenv_settings(text: str) -> Iterator[tuple[int, str | None, str]]:
    """(line from 1, name, literal value) of each setting in the text of an `.env` file, in its order. The
    name is None where a line is neither a setting nor a comment."""
    for found in parser.parse_stream(io.StringIO(text)):
        written = found.original.string
        line = found.original.line + written[: len(written) - len(written.lstrip())].count("\n")
        if found.error:
            yield line, None, ""
        elif found.key is not None:
            yield line, found.key, found.value or ""


def in_force(environ: Mapping[str, str], *files: Dotenv) -> dict[str, str]:
    """All names with a value: the environment wins over `files`, an earlier file over a later one."""
    settings = [file.values for file in reversed(files)]
    return {name: value for values in (*settings, environ) for name, value in values.items() if value}


def origins(environ: Mapping[str, str], *files: Dotenv) -> dict[str, str]:
    """`FILE:LINE` of each name whose value comes from one of the files."""
    found = {name: f"{file.file}:{file.lines[name]}" for file in reversed(files) for name in file.values}
    return {name: place for name, place in found.items() if not environ.get(name)}


def set_in(text: str, places: Mapping[str, str]) -> str:
    """` (ZAI_URL is set in .env:3)` for the names in `text` that `places` has; empty if there are none."""
    names = [found["name"] for found in _REFERENCE.finditer(text)]
    found = ", ".join(f"{name} is set in {places[name]}" for name in names if name in places)
    return f" ({found})" if found else ""


type Printed = tuple[tuple[Command, Secret], ...]
"""Commands, and the secret that each has printed; one without value where it failed."""


class Vault:
    """Fetches secrets for one load. The output of a command is used for its secret only."""

    def __init__(self, folder: Path, environ: Mapping[str, str], printed: Printed = ()) -> None:
        """`printed` is what commands have printed before: these are not run again; see `to_run`."""
        self.reads: list[Path] = []
        self._folder = folder
        self._environ = environ
        self._printed = printed

    def fetch(self, sources: Iterable[SecretSource]) -> dict[SecretSource, Secret]:
        """The secret of each source. The commands run side by side, each for at most COMMAND_LIMIT."""
        files, commands = {}, {}
        for source in dict.fromkeys(sources):
            if source.file is not None:
                files[source] = self._from_file(self._folder / source.file)
            else:
                argv = tuple(source.command or ())
                commands[source] = Command(argv, self._folder, self._environ, source.every)
        printed = {command.argv: secret for command, secret in self._printed}
        printed |= run_all(to_run(commands.values(), self._printed))
        return files | {
            source: replace(printed[command.argv], command=command) for source, command in commands.items()
        }

    def _from_file(self, path: Path) -> Secret:
        self.reads.append(path)
        try:
            text = files.read_file(path, most=LARGEST).decode("utf-8-sig")
            return replace(fields.parse_secret(text), file=path)
        except OSError as error:
            return Secret(None, f"key file {path} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            return Secret(None, f"key file {path} is not text")


def to_run(commands: Iterable[Command], printed: Printed) -> dict[tuple[str, ...], Command]:
    """The commands that have not printed one of `printed` with the same `every`, by their arguments."""
    known = {(command.argv, command.every) for command, _ in printed}
    return {one.argv: one for one in commands if (one.argv, one.every) not in known}


def run_all(commands: Mapping[tuple[str, ...], Command]) -> dict[tuple[str, ...], Secret]:
    """The output of the commands as secrets, by their arguments. They run side by side, in daemon threads: a
    process that ends does not wait for them."""
    printed: dict[tuple[str, ...], Secret] = {}

    def keep(command: Command) -> None:
        printed[command.argv] = run(command)

    threads = [
        threading.Thread(target=keep, args=(command,), name="signalbox-key", daemon=True)
        for command in commands.values()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return printed


def run(command: Command, limit: float = COMMAND_LIMIT) -> Secret:
    """The output of the command as a secret. The command is killed after `limit` seconds or LARGEST bytes."""
    program = command.argv[0]
    ends = time.monotonic() + limit
    too_late = f"key command {program} took longer than {limit:g} s"
    try:
        process = subprocess.Popen(  # noqa: S603  the user's own command, without a shell
            command.argv,
            cwd=command.folder,
            env=dict(command.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "its arguments hold a NUL"
        return Secret(None, f"key command {program} cannot be run: {why}", command)
    try:
        printed = _printed(process, ends - time.monotonic())
        if printed is None:
            return Secret(None, too_late, command)
        if len(printed) > LARGEST:
            return Secret(None, f"key command {program} printed more than {LARGEST} bytes", command)
        status = process.wait(max(0.0, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        return Secret(None, too_late, command)
    finally:
        process.kill()
        process.wait()
    if status != 0:
        return Secret(None, f"key command {program} failed with exit code {status}", command)
    return replace(fields.parse_secret(printed.decode("utf-8", "replace")), command=command)


def _printed(process: subprocess.Popen[bytes], limit: float) -> bytes | None:
    """At most LARGEST + 1 bytes of output; None if it has not ended in time. Read in a thread, since a child
    of the process may hold the pipe open after the process has ended."""
    found: list[bytes] = []
    assert process.stdout is not None
    pipe = process.stdout

    def read() -> None:
        with pipe:
            found.append(pipe.read(LARGEST + 1))

    reader = threading.Thread(target=read, name="signalbox-key", daemon=True)
    reader.start()
    reader.join(limit)
    return found[0] if found else None


def printed_in(rules: Rules) -> Printed:
    """The secrets whose source is a command, with or without a value, and the command of each."""
    secrets = [secret for provider in rules.providers.values() for secret in _secrets_of(provider)]
    secrets += [Secret(rules.clients[name], command=one) for name, one in rules.client_commands.items()]
    return tuple((secret.command, secret) for secret in secrets if secret.command is not None)


def commands_of(rules: Rules) -> Iterator[Command]:
    """The commands that print the secrets in force, each once for each `every`."""
    yield from {(command.argv, command.every): command for command, _ in printed_in(rules)}.values()


def with_printed(rules: Rules, printed: Secret) -> Rules:
    """The rules with this secret, which has a value, for every secret of the same command."""
    command = printed.command
    assert command is not None
    assert printed.value is not None

    def is_its(other: Command | None) -> bool:
        return other is not None and other.argv == command.argv

    def renewed(secret: Secret) -> Secret:
        return replace(printed, command=secret.command) if is_its(secret.command) else secret

    def of(provider: Provider) -> Provider:
        if not any(is_its(secret.command) for secret in _secrets_of(provider)):
            return provider
        keys, probe_key = tuple(map(renewed, provider.keys)), provider.quota.probe_key
        quota = replace(provider.quota, probe_key=renewed(probe_key)) if probe_key else provider.quota
        return replace(provider, keys=keys, quota=quota, unavailable=unavailable(provider.auth, keys))

    clients = {
        name: printed.value if is_its(rules.client_commands.get(name)) else secret
        for name, secret in rules.clients.items()
    }
    providers = {name: of(provider) for name, provider in rules.providers.items()}
    return replace(rules, providers=providers, clients=clients)


def _secrets_of(provider: Provider) -> tuple[Secret, ...]:
    probe_key = provider.quota.probe_key
    return (*provider.keys, *([probe_key] if probe_key is not None else []))
