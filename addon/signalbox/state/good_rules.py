"""The text of the rules that were last good, in the state folder: a later start with broken rules uses it.

The text holds secrets as the file does, as `${NAME}` where the user wrote so, never their values. Each rules
file that this state folder was used with has its own.
"""

from hashlib import sha256
from pathlib import Path

from signalbox.config import files
from signalbox.state.atomic_file import FileWriter


class GoodRules:
    def __init__(self, state: Path, rules: Path) -> None:
        name = sha256(str(rules.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:12]
        self.path = state / f"good-rules-{name}.yaml"
        self._writer = FileWriter()
        self._text: str | None = None
        """What the file holds, as far as this process knows."""

    def read(self) -> str | None:
        """None where no rules were good before."""
        try:
            self._text = files.read_file(self.path).decode("utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        return self._text

    def keep(self, text: str) -> None:
        """Keeps this text. Written by a thread, mode 0600; returns at once."""
        if text != self._text:
            self._text = text
            self._writer.put(self.path, text.encode("utf-8"))

    def close(self) -> None:
        """Returns when it is written, or cannot be."""
        self._writer.close()
