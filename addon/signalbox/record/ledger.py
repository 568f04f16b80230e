"""The ledger: a row for each request and each attempt, in `ledger.sqlite`.

A thread writes, several requests in one transaction. Requests never wait for it, and no error of the disk
harms one. It also reads the usage of providers, which budgets are compared with.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from datetime import datetime
from itertools import islice, takewhile
from pathlib import Path
from typing import NamedTuple

from signalbox.config import rules
from signalbox.record.database import (
    AT_ONCE,
    FILE,
    LOCK_TIMEOUT,
    PREFIXES_KEPT,
    Database,
    DatabaseError,
    milliseconds,
)
from signalbox.record.entry import Entry
from signalbox.record.spool import orphans

log = logging.getLogger("signalbox")

MOST = 10_000
"""Requests that may wait to be written; what comes on top is lost."""
BATCH = 500
"""Requests in one transaction."""
HOUR = 3600.0
DAY = 24 * HOUR
"""Seconds between two deletions of rows that are too old."""
QUIET = 60.0
"""Seconds between two log lines about consecutive failures."""


class Timing(NamedTuple):
    """Seconds."""

    lock_timeout: float = LOCK_TIMEOUT
    """For which a write waits for another router's."""
    linger: float = 0.25
    """For which more entries are waited for, so that they share a transaction."""
    poll: float = 3.0
    """Between two looks at what other routers wrote, where there are budgets."""
    retry: float = 1.0
    """Until what failed is tried again."""
    close: float = 3.0
    """For which `close` tries to write the last entries."""
    spool: float = 1.0
    """For which an entry waits for the spool: one that is in the ledger alone is missing in the request log
    after a SIGKILL."""


TIMING = Timing()


class UsageCounter:
    """Tokens used by the providers that were asked for. Moments are Unix milliseconds."""

    def __init__(self) -> None:
        self.since: dict[str, int] = {}
        """By provider, the moment from which on tokens are counted."""
        self._read: dict[str, int] = {}
        self._own: dict[str, int] = {}

    def ask(self, provider: str, moment: int, unwritten: Iterable[Entry]) -> None:
        """Count the tokens of this provider since that moment from now on."""
        self.since[provider] = moment
        self._read[provider] = 0
        self._own[provider] = sum(self._used(entry, provider) for entry in unwritten)

    def used(self, provider: str) -> int:
        return self._read.get(provider, 0) + self._own.get(provider, 0)

    def add(self, entry: Entry) -> None:
        """Count an entry that is not in the file yet."""
        for provider in {attempt.provider for attempt in entry.attempt_rows} & self.since.keys():
            self._own[provider] += self._used(entry, provider)

    def refresh(self, read: Mapping[str, int], unwritten: Iterable[Entry]) -> None:
        """`read` is the usage in the file, which lacks the entries `unwritten`."""
        self._read = dict(read)
        self._own = dict.fromkeys(self.since, 0)
        for entry in unwritten:
            self.add(entry)

    def _used(self, entry: Entry, provider: str) -> int:
        since = self.since[provider]
        return sum(
            attempt.tokens
            for attempt in entry.attempt_rows
            if attempt.provider == provider and milliseconds(attempt.started) >= since
        )


class _Waiting(NamedTuple):
    number: int
    since: float
    """On the monotonic clock."""
    entry: Entry


class Ledger:
    """The ledger of one router. `follow` starts it.

    Entries that come after `close` are written too, before the process ends.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        spool: str = "",
        restored: Callable[[list[Entry]], None] = lambda _: None,
        timing: Timing = TIMING,
        most: int = MOST,
        at_once: int = AT_ONCE,
    ) -> None:
        """`clock` gives Unix seconds; `spool` is the name of this router's spool, if it has one.

        `restored` is called with the entries that were found in the spool of a router that is gone. `most`
        entries may wait to be written; `at_once` requests are deleted in one transaction.
        """
        self._timing = timing
        self._most = most
        self._at_once = at_once
        self._folder = folder
        self._file = folder / FILE
        self._spool = spool
        self._restored = restored
        self._adopted = False
        self._clock = clock
        self._keep = rules.LedgerSettings().keep
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._is_read = threading.Event()
        """Set when all usage that `used` was asked for has been read."""
        self._is_read.set()
        self._lock = threading.Lock()
        """Of what follows, which the thread shares with the event loop."""
        self._thread: threading.Thread | None = None
        self._waiting: deque[_Waiting] = deque()
        self._number = 0
        """Of the entry that came last."""
        self.written = 0
        """The number up to which all entries are in the file, or lost."""
        self.spooled = 0
        """The number up to which all entries are in the spool; set by its writer."""
        self._lost = 0
        self._usage = UsageCounter()
        self._give_up = 0.0
        """When `close` gives up, on the monotonic clock."""
        # For the thread alone:
        self._forgot: tuple[float, float] | None = None
        """When, and beyond which age, rows were last deleted."""
        self._version = -1
        self._logged_at: float | None = None
        """When an error was last logged, on the monotonic clock; None while there is none."""

    def follow(self, keep: float) -> None:
        """Delete rows older than `keep` seconds from now on."""
        self._keep = keep
        self._closing.clear()
        with self._lock:
            self._start()
        self._wanted.set()

    def enter(self, entry: Entry) -> int:
        """Add an entry; returns its number, from 1."""
        with self._lock:
            self._number += 1
            if len(self._waiting) < self._most:
                self._waiting.append(_Waiting(self._number, time.monotonic(), entry))
            else:
                self._lost += 1
            self._usage.add(entry)
            self._start()
            number = self._number
        self._wanted.set()
        return number

    @property
    def waiting(self) -> int:
        """Requests that are not in the database yet."""
        return len(self._waiting)

    def has_spooled(self, number: int) -> None:
        """All entries up to this number are in the spool, or will never be."""
        self.spooled = number
        self._wanted.set()

    def used(self, provider: str, since: datetime) -> int:
        """Tokens of all four kinds of the attempts that began then or later, in all routers with this file.

        Returns at once: what is in the file is missing until it has been read for the first time.
        """
        moment = milliseconds(since)
        with self._lock:
            if self._usage.since.get(provider) != moment:
                self._usage.ask(provider, moment, self._unwritten())
                self._is_read.clear()
                self._start()
                self._wanted.set()
            return self._usage.used(provider)

    def ready(self, timeout: float = 2.0) -> None:
        """Wait until all usage that `used` was asked for has been read."""
        self._is_read.wait(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Returns when all is written, or cannot be; after `timeout` seconds at the latest."""
        timing = self._timing
        self._give_up = time.monotonic() + timing.close
        self._closing.set()
        self._wanted.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timing.close + 2 * timing.lock_timeout if timeout is None else timeout)

    def _start(self) -> None:
        if self._thread is None:
            # Not a daemon after `close`: the process ends once the entry is written.
            is_late = self._closing.is_set()
            self._thread = threading.Thread(target=self._run, name="signalbox-ledger", daemon=not is_late)
            self._thread.start()

    # in the thread

    def _run(self) -> None:
        timing = self._timing
        database = Database(self._file, lock_timeout=timing.lock_timeout, at_once=self._at_once)
        with closing(database):
            while True:
                idle = timing.poll if self._usage.since else HOUR
                self._wanted.wait(timing.spool if self._waiting else idle)
                if self._is_read.is_set():
                    self._closing.wait(timing.linger)
                self._wanted.clear()
                succeeded = self._settle(database)
                if self._is_over(succeeded):
                    break
                if not succeeded:
                    time.sleep(timing.retry)
                    self._wanted.set()

    def _settle(self, database: Database) -> bool:
        """Write, delete and read what is due; whether that succeeded."""
        try:
            self._adopt(database)
            self._write(database)
            self._forget(database)
            self._read_usage(database)
        except DatabaseError as error:
            database.close()
            self._version = -1
            self._log_error(error)
            return False
        if self._logged_at is not None:
            self._logged_at = None
            with self._lock:
                lost, self._lost = self._lost, 0
            log.info("%s: requests are recorded again, %d were lost", self._file, lost)
        return True

    def _adopt(self, database: Database) -> None:
        """Write the spools of routers that were killed; once."""
        if self._adopted:
            return
        for orphan in orphans(self._folder):
            remove = False
            try:
                missing = database.adopt(orphan.name, orphan.entries)
                remove = True
                if missing:
                    log.info(
                        "%s: %d requests of a router that was killed are recorded", self._file, len(missing)
                    )
                    self._restored(missing)
            except DatabaseError:
                raise
            except Exception as error:  # of any kind: the others must still be recorded
                log.error("%s cannot be recorded: %s", orphan.path, type(error).__name__)
            finally:
                orphan.release(remove=remove)
        self._adopted = True

    def _may_be_written(self, one: "_Waiting") -> bool:
        is_spooled = not self._spool or one.number <= self.spooled or self._closing.is_set()
        return is_spooled or time.monotonic() - one.since > self._timing.spool

    def _unwritten(self) -> list[Entry]:
        return [one.entry for one in self._waiting]

    def _write(self, database: Database) -> None:
        while True:
            with self._lock:
                batch = list(takewhile(self._may_be_written, islice(self._waiting, BATCH)))
            if not batch:
                return
            try:
                database.write([one.entry for one in batch], self._spool, batch[-1].number)
            except DatabaseError:
                raise
            except Exception as error:  # of any kind: the following ones must still be written
                log.error(
                    "%s: %d requests are not recorded: %s", self._file, len(batch), type(error).__name__
                )
            with self._lock:
                for _ in batch:
                    self._waiting.popleft()
                self.written = batch[-1].number

    def _forget(self, database: Database) -> None:
        """Delete what is too old once a day; never what a running budget still counts."""
        now, keep = self._clock(), self._keep
        if self._forgot is not None and self._forgot[1] == keep and now - self._forgot[0] < DAY:
            return
        with self._lock:
            counted = min(self._usage.since.values(), default=int(now * 1000))
        database.forget(min(int((now - keep) * 1000), counted), int((now - PREFIXES_KEPT) * 1000))
        self._forgot = (now, keep)

    def _read_usage(self, database: Database) -> None:
        """Read the usage, where that was not done yet or another router has written."""
        with self._lock:
            since = dict(self._usage.since)
        if not since:
            return
        version = database.version()
        if self._is_read.is_set() and version == self._version:
            return
        read = database.used(since)
        self._version = version
        with self._lock:
            self._usage.refresh(read, self._unwritten())
            if since == self._usage.since:
                self._is_read.set()

    def _log_error(self, error: DatabaseError) -> None:
        now = time.monotonic()
        if self._logged_at is None or now - self._logged_at >= QUIET:
            self._logged_at = now
            waiting = f"{len(self._waiting)} requests wait to be recorded, {self._lost} are lost"
            log.warning("%s: %s: %s", self._file, error, waiting)

    def _is_over(self, succeeded: bool) -> bool:
        """Whether the router ends and nothing is left to write, or cannot be written."""
        with self._lock:
            if not self._closing.is_set() or (
                self._waiting if succeeded else time.monotonic() < self._give_up
            ):
                return False
            unwritten = len(self._waiting)
            self._waiting.clear()
            self._thread = None
        if unwritten:
            log.error("%s: %d requests are not recorded", self._file, unwritten)
        return True
