"""Reads Claude Code's own settings, as far as they decide whether its requests come to the router.

Claude Code reads four files, each of which overrides those before: the user's, two of the project, and the
administrator's. `env` in them overrides the shell; `--settings` on the command line overrides all but the
administrator's, and counts once: of two only the last (https://code.claude.com/docs/en/settings;
claude-code-tried.md, 1 and 8). Nothing here writes.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from signalbox.anthropic.models import LONG_CONTEXT_SUFFIX, is_claudes
from signalbox.config import files

CONFIG_DIR = "CLAUDE_CONFIG_DIR"
ALIASES = ("default", "best", "opus", "sonnet", "haiku", "fable", "opusplan")
"""Names that Claude Code itself turns into a model's."""
_MANAGED = {
    "darwin": "/Library/Application Support/ClaudeCode/managed-settings.json",
    "win32": r"C:\Program Files\ClaudeCode\managed-settings.json",
}
_MANAGED_ELSEWHERE = "/etc/claude-code/managed-settings.json"


class SettingsFile(NamedTuple):
    path: Path
    values: Mapping[str, Any]
    is_managed: bool = False

    @property
    def env(self) -> dict[str, str]:
        """The variables that it sets."""
        written = self.values.get("env")
        if not isinstance(written, dict):
            return {}
        return {name: value for name, value in written.items() if isinstance(value, str)}


class ClaudeSettings:
    """The settings files that there are and can be read."""

    def __init__(self, found: Iterable[SettingsFile] = ()) -> None:
        self.files: Sequence[SettingsFile] = tuple(found)

    @property
    def env(self) -> dict[str, str]:
        """The variables that they set, as the last of them says."""
        return {name: value for file in self.files for name, value in file.env.items()}

    @property
    def managed_env(self) -> dict[str, str]:
        """Those of the administrator, which no command line overrides."""
        return {name: value for file in self.files if file.is_managed for name, value in file.env.items()}

    def source_of(self, variable: str) -> Path | None:
        """The file whose value of a variable counts."""
        return next((file.path for file in reversed(self.files) if variable in file.env), None)

    def has(self, key: str) -> bool:
        """Whether any of them has a top-level key."""
        return any(key in file.values for file in self.files)


def read_settings(
    environ: Mapping[str, str], project: Path, home: Path, platform: str = sys.platform
) -> ClaudeSettings:
    """Those for Claude Code in the folder `project`. A file that is broken counts as empty, as it does with
    `claude -p`; interactively Claude Code names it."""
    *others, managed = settings_paths(environ, project, home, platform)
    found = ((path, _values(path)) for path in dict.fromkeys((*others, managed)))
    return ClaudeSettings(SettingsFile(path, values, path == managed) for path, values in found if values)


def settings_paths(
    environ: Mapping[str, str], project: Path, home: Path, platform: str = sys.platform
) -> tuple[Path, ...]:
    """Where the files are, if they are there; the administrator's is the last."""
    return (
        config_folder(environ, home) / "settings.json",
        project / ".claude" / "settings.json",
        project / ".claude" / "settings.local.json",
        Path(_MANAGED.get(platform, _MANAGED_ELSEWHERE)),
    )


def config_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Where Claude Code has the user's settings, login and caches."""
    return Path(environ.get(CONFIG_DIR) or home / ".claude")


def default_model(settings_file: Path) -> str | None:
    """The model that the user made the default, in the file of that user."""
    model = _values(settings_file).get("model")
    return model if isinstance(model, str) else None


def is_foreign(model: str) -> bool:
    """Whether a plain Claude Code asks Anthropic for a model that it does not have."""
    return not is_claudes(model) and model.lower().removesuffix(LONG_CONTEXT_SUFFIX) not in ALIASES


def _values(path: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        values = msgspec.json.decode(files.without_bom(files.read_file(path)))
        if isinstance(values, dict):
            return values
    return {}


def is_given(arguments: Sequence[str], option: str) -> bool:
    """Whether Claude Code's arguments have an option with a value: `--settings X` or `--settings=X`."""
    before_end = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(argument == option or argument.startswith(f"{option}=") for argument in before_end)


def home_folder() -> Path:
    """As Claude Code finds it."""
    return Path(os.path.expanduser("~"))  # noqa: PTH111  which unlike Path.home() never raises
