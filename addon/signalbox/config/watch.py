"""The rules in force, and their reload when a file changes. No fault ever loses the last good ones."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from .load import RulesError, dotenv_files, load
from .rules import Level, Rules

POLL = 0.2
"""Seconds between two looks at the files."""
COMMANDS_REST = 10.0
"""Seconds between two runs of the commands that print keys."""

type Stamp = dict[Path, tuple[int, int, int, int] | None]


class Live:
    """Reads the file at `path` again and again. `log` gets a level (`error`, `warn`, `info`) and a line."""

    def __init__(self, path: Path, environ: Mapping[str, str], *, log: Callable[[Level, str], None]) -> None:
        self.rules = Rules(file=path)
        self.error = ""
        """The first line about the last edit, if that failed."""
        self.loaded_at = datetime.now(UTC)
        self.on_change: list[Callable[[Rules], None]] = []
        """Called with new rules, in the event loop; those of the start are the first."""
        self._path = path
        self._environ = environ
        self._log = log
        self._reads = dotenv_files(path)
        self._settled: Stamp = {}
        """The files as they were when last loaded or complained about."""
        self._seen: Stamp = {}
        """The files as they were at the last look."""
        self._told: tuple[str, ...] = ()
        self._refreshing = asyncio.Lock()
        self._refreshed = float("-inf")

    def start(self) -> None:
        """Loads for the first time. Raises RulesError; an empty file is a pure pipe."""
        stamp = self._stamp()
        self._put_in_force(load(self._path, self._environ), stamp)

    async def watch(self) -> None:
        """Looks for changes until cancelled."""
        while True:
            await asyncio.sleep(POLL)
            await self.look()

    async def look(self) -> None:
        """One look. A good edit is applied at once; a fault counts once the files have rested for a look."""
        try:
            await self._look()
        except Exception as error:  # whatever it is, the next edit must still be seen
            self._log("error", f"a look at {self._path.name} failed: {error!r}")

    def reload(self) -> str:
        """Loads now, in the caller's thread. Returns the first line of what is wrong, or nothing."""
        stamp = self._stamp()
        try:
            self._replace(self._load(), stamp)
        except RulesError as error:
            self._complain(error, stamp)
        return self.error

    async def refresh_commands(self) -> None:
        """Runs the commands that print keys again, after a 401; at most every 10 s."""
        async with self._refreshing:
            if time.monotonic() - self._refreshed < COMMANDS_REST:
                return
            stamp = self._stamp()
            try:
                self._replace(await asyncio.to_thread(self._load), stamp)
            except RulesError:
                return  # the watcher tells, once the file has rested
            finally:
                self._refreshed = time.monotonic()

    async def _look(self) -> None:
        stamp = self._stamp()
        if stamp == self._settled:
            return
        if stamp != self._seen:  # it may still be being written: let it rest for one look
            self._seen = stamp
            return
        try:
            self._replace(await asyncio.to_thread(self._load), stamp)
        except RulesError as error:
            self._complain(error, stamp)

    def _load(self) -> Rules:
        """A file that lost all it held is a save half done, or a mistake."""
        held_nothing = not (self.rules.providers or self.rules.rules)
        return load(self._path, self._environ, may_be_empty=held_nothing)

    def _replace(self, rules: Rules, stamp: Stamp) -> None:
        if rules == self.rules and not self.error:
            self._settle(rules.reads, stamp)
            return
        self._put_in_force(rules, stamp)

    def _put_in_force(self, rules: Rules, stamp: Stamp) -> None:
        old, self.rules = self.rules, rules
        self.error, self._told = "", ()
        self.loaded_at = datetime.now(UTC)
        self._settle(rules.reads, stamp)
        for callback in self.on_change:
            self._call(callback)
        self._log("info", f"rules loaded: {counted(rules)}")
        for warning in rules.warnings:
            if warning not in old.warnings:
                self._log("warn", warning)

    def _complain(self, error: RulesError, stamp: Stamp) -> None:
        """Tells a fault once. The rules in force stay."""
        if error.errors != self._told:
            for line in error.errors:
                self._log("error", line)
        self.error, self._told = error.errors[0], error.errors
        self._settle((*self.rules.reads, *error.reads), stamp)

    def _call(self, callback: Callable[[Rules], None]) -> None:
        try:
            callback(self.rules)
        except Exception as error:  # one listener's fault must not keep the rules from the others
            self._log("error", f"new rules were not taken everywhere: {error!r}")

    def _settle(self, reads: tuple[Path, ...], stamp: Stamp) -> None:
        """From now on only a change to what was just read is news; for files just met that is now."""
        self._reads = reads
        self._settled = {path: stamp.get(path, now) for path, now in self._stamp().items()}

    def _stamp(self) -> Stamp:
        return {path: _stamp_of(path) for path in (self._path, *self._reads)}


def counted(rules: Rules) -> str:
    """`3 providers, 1 rule`"""
    return f"{_plural(len(rules.providers), 'provider')}, {_plural(len(rules.rules), 'rule')}"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _stamp_of(path: Path) -> tuple[int, int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
