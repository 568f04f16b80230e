"""Secrets kept outside the rules: in a file, or printed by a command."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import values
from .rules import Secret
from .schema import SecretSource

COMMAND_LIMIT = 10.0
"""Seconds."""


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
        argv = tuple(source.command or ())
        if argv not in self._printed:
            self._printed[argv] = self._from_command(argv)
        return self._printed[argv]

    def _from_file(self, path: Path) -> Secret:
        self.reads.append(path)
        try:
            return values.secret(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            return Secret(None, f"key file {path} cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            return Secret(None, f"key file {path} is not text")

    def _from_command(self, argv: Sequence[str]) -> Secret:
        program = argv[0]
        try:
            done = subprocess.run(  # noqa: S603  the user's own command, without a shell
                argv,
                cwd=self._folder,
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=COMMAND_LIMIT,
                check=True,
            )
        except subprocess.TimeoutExpired:
            return Secret(None, f"key command {program} took longer than {COMMAND_LIMIT:g} s")
        except subprocess.CalledProcessError as error:
            return Secret(None, f"key command {program} failed with exit code {error.returncode}")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "its arguments hold a NUL"
            return Secret(None, f"key command {program} cannot be run: {why}")
        return values.secret(done.stdout.decode("utf-8", "replace"))
