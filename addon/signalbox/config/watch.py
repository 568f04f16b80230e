"""Live reload: loads the rules again when a file changes. After an error the last good rules stay in
force."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from . import files
from .fields import Command
from .load import RulesError, dotenv_files, load, read_text
from .rules import Level, Rules
from .secrets import Printed, commands_of, printed_in, run, to_run, with_printed

POLL = 0.4
"""Seconds between two checks of the files; half of that after a change, which counts once it has rested."""
COMMAND_PAUSE = 10.0
"""Seconds for which a command that printed the same key again is not run after another refusal."""
AHEAD = 60.0
"""Seconds before the end of a command's `every` at which it is run again; a tenth of it if that is less."""
AGAIN = 30.0
"""Seconds, but at most a tenth of `every`, after which a command that failed is run again."""

WITHOUT_FILE = "create it (an empty one forwards everything), or name another with --set router_rules=PATH"
"""What to do in mitmproxy where the rules file is not there."""

type Source = Literal["file", "last-good", "fail-open"]

type FileStamp = tuple[int, int, int, int]
type FileStamps = dict[Path, FileStamp | None]


class _Ran(NamedTuple):
    """The last run of a command: its time on the monotonic clock, and its result."""

    at: float
    failed: bool = False
    changed_nothing: bool = False

    def due(self, every: float) -> float:
        """When it must run again."""
        return self.at + (min(AGAIN, every / 10) if self.failed else every - min(AHEAD, every / 10))


class Live:
    """Reads the file at `path` every `poll` seconds.

    `log` gets a level (`error`, `warn`, `info`) and a line.
    """

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        *,
        log: Callable[[Level, str], None],
        poll: float = POLL,
        given: Rules | None = None,
    ) -> None:
        """`given` are the rules in force, whatever the file says."""
        self.rules = Rules(file=path)
        self.error = ""
        """The first error of the last edit; empty if it was loaded."""
        self.loaded_at = datetime.now(UTC)
        self.source: Source = "file"
        """Where the rules in force come from: the file; the text of the last good ones, or nowhere, since the
        file had errors at the start."""
        self.text = ""
        """The text of the last good rules; empty before there were any."""
        self.on_change: list[Callable[[Rules], None]] = []
        """Called with new rules in the event loop, first with those of the start."""
        self._given = given
        self._path = path
        self._environ = environ
        self._log = log
        self._poll = poll
        self._reads = dotenv_files(path)
        self._settled: FileStamps = {}
        """The files at the last load, good or not."""
        self._seen: FileStamps = {}
        """The files at the last check."""
        self._logged: tuple[str, ...] = ()
        self._commands: dict[tuple[str, ...], _Ran] = {}
        self._running: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._stats = files.Worker(path, is_told=False)

    def start(self) -> None:
        """Loads for the first time. Raises RulesError. An empty file routes nothing: everything is piped."""
        if self._given is not None:
            self._announce(self._given)
            return
        stamp = self._stamp()
        began = time.monotonic()
        text = read_text(self._path, WITHOUT_FILE)
        self._put_in_force(load(self._path, self._environ, text=text), text, stamp)
        self._note_runs(began)

    def start_despite(self, error: RulesError, last_good: str | None) -> None:
        """Starts, after `start` has raised this error, with the text of the rules that were last good, or
        passes every request on unrouted. The file is watched: once it is mended it is in force.

        The errors are logged as warnings, since mitmproxy would end a start by an error."""
        stamp = self._stamp()
        for line in error.errors:
            self._log("warn", line)
        began = time.monotonic()
        rules, self.source = Rules(file=self._path, fails_open=True), "fail-open"
        instead = "there are no rules that were good before: requests pass to the upstream unrouted"
        if last_good is not None:
            try:
                rules, self.source = load(self._path, self._environ, text=last_good), "last-good"
                self.text, instead = last_good, "the rules that were last good are in force"
            except RulesError as other:
                instead = f"the rules that were last good have errors too ({other.errors[0]}): {instead[9:]}"
        self.error, self._logged = error.errors[0], error.errors
        self._announce(rules)
        self._settle((*rules.reads, *error.reads), stamp)
        self._note_runs(began)
        self._log("warn", f"{instead} until {self._path.name} is fixed")

    async def watch(self) -> None:
        """Checks for changes until cancelled."""
        while True:
            await asyncio.sleep(self._poll if self._seen == self._settled else self._poll / 2)
            self._run_due()
            await self.look()

    async def look(self, *, runs_all: bool = False) -> None:
        """Checks once. A change is loaded when two checks in a row see the same files.

        A load runs the commands that are new in the rules, with `runs_all` the others too."""
        try:
            await self._look(runs_all)
        except Exception as error:  # of any kind: the next edit must still be seen
            self._log("error", f"a look at {self._path.name} failed: {error!r}")

    async def renew(self, command: Command, since: float) -> None:
        """Runs a command whose key was refused for a request sent at `since` (monotonic).

        Does nothing if the command has run since then; waits if it is running: parallel requests share a run.
        """
        ran = self._commands.get(command.argv, _Ran(float("-inf")))
        pauses = ran.changed_nothing and time.monotonic() - ran.at < COMMAND_PAUSE
        if ran.at <= since and not pauses:
            await asyncio.shield(self._run(command, was_refused=True))

    def _run_due(self) -> None:
        """Runs each command with `every` before the key that it printed last expires."""
        now = time.monotonic()
        for command in commands_of(self.rules):
            ran = self._commands.get(command.argv)
            if command.every is not None and ran is not None and now >= ran.due(command.every):
                self._run(command)

    def _run(self, command: Command, *, was_refused: bool = False) -> asyncio.Task[None]:
        running = self._running.get(command.argv)
        if running is None:
            running = asyncio.get_running_loop().create_task(self._renew(command, was_refused=was_refused))
            self._running[command.argv] = running
            running.add_done_callback(lambda _: self._running.pop(command.argv, None))
        return running

    async def _renew(self, command: Command, *, was_refused: bool) -> None:
        """Runs a command and puts its key in force. If it fails, the key that it printed before stays. Where
        its environment has changed meanwhile it runs again."""
        while True:
            began = time.monotonic()
            secret = await files.in_daemon_thread(partial(run, command))
            latest = next((one for one in commands_of(self.rules) if one.argv == command.argv), command)
            if latest.environ == command.environ:
                break
            command = latest
        if secret.value is None:
            self._commands[command.argv] = _Ran(began, failed=True)
            stays = any(old.value for one, old in printed_in(self.rules) if one.argv == command.argv)
            self._log("warn", secret.reason + ("; what it printed before stays in use" if stays else ""))
            return
        rules = with_printed(self.rules, secret)
        changed_nothing = rules == self.rules
        self._commands[command.argv] = _Ran(began, changed_nothing=was_refused and changed_nothing)
        if not changed_nothing:
            self.rules = rules
            for callback in self.on_change:
                self._call(callback)
            self._log("info", f"key command {command.argv[0]} printed another key")

    def _note_runs(self, began: float, before: Printed = ()) -> None:
        """Notes the runs of a load that began then, with what commands had printed before it.

        A command that was not run then, but had failed or has another environment now, runs again: the load
        does not wait for it."""
        new = to_run(commands_of(self.rules), before)
        environs = {command.argv: command.environ for command, _ in before}
        last, self._commands = self._commands, {}
        for command, secret in printed_in(self.rules):
            argv = command.argv
            if argv in new:
                self._commands[argv] = _Ran(began, failed=secret.value is None)
                continue
            self._commands[argv] = last.get(argv, _Ran(began))
            if self._commands[argv].failed or environs[argv] != command.environ:
                self._run(command)

    async def reload(self) -> None:
        """Load now and run every command, also where nothing has changed, and say so. Errors are logged;
        the rules in force stay."""
        before, self._logged = self.loaded_at, ()
        self._settled, self._seen = {}, await files.in_daemon_thread(self._stamp)
        await self.look(runs_all=True)
        if not self.error and self.loaded_at == before:
            self._log("info", f"rules unchanged: {counted(self.rules)}")

    async def _look(self, runs_all: bool) -> None:
        try:
            stamp = await self._stats.call_async(self._stamp_at_once, files.SOON)
        except TimeoutError:
            stamp = await files.in_daemon_thread(self._stamp)
        if stamp == self._settled:
            self._seen = stamp
            return
        if stamp != self._seen:  # it may still be being written: wait for one more check
            self._seen = stamp
            return
        began, before = time.monotonic(), () if runs_all else printed_in(self.rules)
        try:
            rules, text = await files.in_daemon_thread(partial(self._load, before))
        except RulesError as error:
            self._complain(error, stamp)
            return
        new = to_run(commands_of(rules), before)
        for command, secret in printed_in(self.rules):  # a key may have been renewed during the load
            if command.argv not in new and secret.value is not None:
                rules = with_printed(rules, secret)
        self._replace(rules, text, stamp)
        self._note_runs(began, before)

    def _load(self, printed: Printed) -> tuple[Rules, str]:
        """A file that has become empty is an error: it is half saved, or a mistake."""
        held_nothing = not (self.rules.providers or self.rules.rules)
        text = read_text(self._path, WITHOUT_FILE)
        return load(self._path, self._environ, text=text, may_be_empty=held_nothing, printed=printed), text

    def _replace(self, rules: Rules, text: str, stamp: FileStamps) -> None:
        if rules == self.rules and not self.error:
            self._settle(rules.reads, stamp)
            return
        self._put_in_force(rules, text, stamp)

    def _put_in_force(self, rules: Rules, text: str, stamp: FileStamps) -> None:
        self.error, self._logged = "", ()
        self.text, self.source = text, "file"
        self._settle(rules.reads, stamp)
        self._announce(rules)

    def _announce(self, rules: Rules) -> None:
        old, self.rules = self.rules, rules
        self.loaded_at = datetime.now(UTC)
        for callback in self.on_change:
            self._call(callback)
        if not rules.fails_open:
            self._log("info", f"rules loaded: {counted(rules)}")
        for warning in rules.warnings:
            if warning not in old.warnings:
                self._log("warn", warning)

    def _complain(self, error: RulesError, stamp: FileStamps) -> None:
        """Logs an error once. The rules in force stay."""
        if error.errors != self._logged:
            for line in error.errors:
                self._log("error", line)
            since = self.loaded_at.astimezone()
            kept = "the router stays without rules" if self.source == "fail-open" else ""
            kept = kept or f"the rules loaded at {since:%H:%M:%S} stay in force"
            self._log("error", f"{kept} until the file is fixed")
        self.error, self._logged = error.errors[0], error.errors
        self._settle((*self.rules.reads, *error.reads), stamp)

    def _call(self, callback: Callable[[Rules], None]) -> None:
        try:
            callback(self.rules)
        except Exception as error:  # the other callbacks still get the rules
            self._log("error", f"new rules were not taken everywhere: {error!r}")

    def _settle(self, reads: tuple[Path, ...], stamp: FileStamps) -> None:
        """Later changes are compared with this stamp; for files that it lacks, with their state now."""
        self._reads = reads
        self._settled = {path: stamp.get(path, now) for path, now in self._stamp().items()}

    def _stamp_at_once(self) -> FileStamps:
        """The same in a twentieth of the time, as long as all disks answer."""
        return {path: _stamp_by(path.stat) for path in (self._path, *self._reads)}

    def _stamp(self) -> FileStamps:
        """The state of all files. A file on a disk that does not answer counts as unchanged."""
        return {path: _stamp_of(path, self._settled.get(path)) for path in (self._path, *self._reads)}


def counted(rules: Rules) -> str:
    """`3 providers, 1 rule`"""
    return f"{_plural(len(rules.providers), 'provider')}, {_plural(len(rules.rules), 'rule')}"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _stamp_of(path: Path, before: FileStamp | None) -> FileStamp | None:
    try:
        return _stamp_by(partial(files.stat, path))
    except TimeoutError:
        return before


def _stamp_by(look: Callable[[], os.stat_result]) -> FileStamp | None:
    """Raises TimeoutError."""
    try:
        stat = look()
    except TimeoutError:
        raise
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
