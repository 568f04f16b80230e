"""Secrets kept outside the rules: in a file, or printed by a command."""

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from . import files, values
from .rules import Command, Provider, Rules, Secret, unavailable
from .schema import SecretSource

COMMAND_LIMIT = 10.0
"""Seconds."""
LARGEST = 64 * 1024
"""Bytes of a secret, more of which are never read."""


class Vault:
    """Fetches secrets for one load. What a command prints goes nowhere but into the secret."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.reads: list[Path] = []
        self._folder = folder
        self._environ = environ
        self._printed: dict[tuple[str, ...], Secret] = {}

    def fetch(self, source: SecretSource) -> Secret:
        if source.file is not None:
            return self._from_file(self._folder / source.file)
        command = Command(tuple(source.command or ()), self._folder, self._environ, source.every)
        if command.argv not in self._printed:
            self._printed[command.argv] = run(command)
        return replace(self._printed[command.argv], command=command)

    def _from_file(self, path: Path) -> Secret:
        self.reads.append(path)
        try:
            return values.secret(files.read(path, most=LARGEST).decode("utf-8-sig"))
        except OSError as error:
            return Secret(None, f"key file {path} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            return Secret(None, f"key file {path} is not text")


def run(command: Command) -> Secret:
    """What the command prints, as a secret; it is ended after COMMAND_LIMIT, or LARGEST bytes."""
    program = command.argv[0]
    ends = time.monotonic() + COMMAND_LIMIT
    too_late = f"key command {program} took longer than {COMMAND_LIMIT:g} s"
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
    return replace(values.secret(printed.decode("utf-8", "replace")), command=command)


def _printed(process: subprocess.Popen[bytes], limit: float) -> bytes | None:
    """One byte more than LARGEST at the most; None where it has not ended in time. A child of the process
    may hold the pipe open for longer than the process lives: nobody but a thread waits for that."""
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


def commands_of(rules: Rules) -> Iterator[Command]:
    """Those that print the secrets in force, each once."""
    secrets = [secret for provider in rules.providers.values() for secret in _secrets_of(provider)]
    found = [*(secret.command for secret in secrets), *rules.client_commands.values()]
    yield from {command.argv: command for command in found if command is not None}.values()


def with_printed(rules: Rules, printed: Secret) -> Rules:
    """The rules with this secret wherever its command prints one."""
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
