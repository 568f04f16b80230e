"""Writes small files atomically, in a thread."""

import logging
import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("signalbox")

EVERY = 0.1
"""Seconds between two writes. Only the last content of each file is written."""

LAST = 5.0
"""Seconds that `close` waits for the disk."""


class FileWriter:
    """Writes files in a thread, which runs while there is something to write."""

    def __init__(self) -> None:
        self._waiting: dict[Path, bytes] = {}
        self._failing: set[Path] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._writer: threading.Thread | None = None

    def put(self, file: Path, data: bytes) -> None:
        """Replaces the content of `file` soon. Returns at once."""
        with self._lock:
            self._waiting[file] = data
            if self._writer is None:
                self._closing.clear()
                self._writer = threading.Thread(target=self._write, name="signalbox-files", daemon=True)
                self._writer.start()

    def close(self) -> None:
        """Returns when everything is written, at most after LAST seconds. `put` can still be called."""
        self._closing.set()
        if (writer := self._writer) is not None:
            writer.join(LAST)

    def _write(self) -> None:
        while True:
            with self._lock:
                waiting, self._waiting = self._waiting, {}
                if not waiting:
                    self._writer = None
                    return
            for file, data in waiting.items():
                self._replace(file, data)
            self._closing.wait(EVERY)

    def _replace(self, file: Path, data: bytes) -> None:
        """Only the first of consecutive failures is logged."""
        try:
            replace(file, data)
        except OSError as fault:
            if file not in self._failing:
                log.warning("%s cannot be written: %s", file, fault.strerror or fault)
            self._failing.add(file)
        else:
            self._failing.discard(file)


def replace(file: Path, data: bytes) -> None:
    """Replaces a file, or a symbolic link, with a new file of mode 0600. A reader sees either the old or the
    new content. Raises OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, written = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as new:
            new.write(data)
        Path(written).replace(file)
    except BaseException:
        with suppress(OSError):
            Path(written).unlink()
        raise
