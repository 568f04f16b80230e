"""The ledger: a row for each request and each attempt, in SQLite or PostgreSQL.

A thread writes, several requests in one transaction. Requests never wait for it, and no error of the database
harms one: what cannot be written waits (`backlog`). The thread also reads the usage of providers, which
budgets are compared with.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice, takewhile
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, NamedTuple

from signalbox.config import rules
from signalbox.database_errors import DatabaseError, UnwritableError
from signalbox.record import prefixes
from signalbox.record.backlog import Backlog, UsageCounter, Waiting
from signalbox.record.console import cache_miss_line
from signalbox.record.entry import Entry, milliseconds
from signalbox.record.spool import Numbered, Orphan, orphans, spooled

if TYPE_CHECKING:
    from signalbox.record.database import LedgerDatabase

log = logging.getLogger("signalbox")

MOST = 10_000
"""Requests that may wait in memory; what comes on top waits in the spool alone."""
BATCH = 500
"""Requests in one transaction."""
HOUR = 3600.0
DAY = 24 * HOUR
"""Seconds between two deletions of rows that are too old."""
PREFIXES_KEPT = 7 * DAY
"""Seconds for which the digests of a request's blocks are kept."""
AT_ONCE = 5000
"""Requests that are deleted in one transaction, so that no other router waits long."""
QUIET = 60.0
"""Seconds between two log lines about consecutive failures."""


class Timing(NamedTuple):
    """Seconds."""

    lock_timeout: float = 2.0
    """For which a write waits for another router's."""
    linger: float = 0.5
    """For which more entries are waited for, so that they share a transaction, which costs as much as some
    twenty of them."""
    poll: float = 2.0
    """Between two looks at what other routers wrote, where there are budgets."""
    retry: float = 1.0
    """Until what failed is tried again."""
    close: float = 3.0
    """For which `close` tries to write the last entries."""
    spool: float = 1.0
    """For which an entry waits for the spool: one that is in the ledger alone is missing in the request log
    after a SIGKILL."""


TIMING = Timing()


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
        entries may wait in memory; `at_once` requests are deleted in one transaction.
        """
        self._timing = timing
        self._at_once = at_once
        self._folder = folder
        self._has_spool = bool(spool)
        self._name = spool or token_hex(8)
        """By which the database knows what this router has written."""
        self._restored = restored
        self._clock = clock
        self._settings = rules.LedgerSettings()
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._is_read = threading.Event()
        """Set when all usage that `used` was asked for has been read."""
        self._is_read.set()
        self._lock = threading.Lock()
        """Of what follows, which the thread shares with the event loop."""
        self._thread: threading.Thread | None = None
        self._backlog = Backlog(most, has_spool=self._has_spool)
        self._number = 0
        """Of the entry that came last."""
        self.written = 0
        """The number up to which all entries are in the database, or lost."""
        self.spooled = 0
        """The number up to which all entries are in the spool; set by its writer."""
        self._usage = UsageCounter()
        self._give_up = 0.0
        """When `close` gives up, on the monotonic clock."""
        # For the thread alone:
        self._adopted = False
        self._in_force: rules.LedgerSettings | None = None
        """The settings that the thread has followed."""
        self._forgot_at: float | None = None
        """When rows were last deleted; None where that is due."""
        self._version = -1
        self._logged_at: float | None = None
        """When an error was last logged, on the monotonic clock; None while there is none."""

    def follow(self, settings: rules.LedgerSettings) -> None:
        """Write to that database, and delete what is older than it is kept, from now on."""
        self._settings = settings
        self._closing.clear()
        with self._lock:
            self._start()
        self._wanted.set()

    def enter(self, entry: Entry) -> int:
        """Add an entry; returns its number, from 1."""
        with self._lock:
            self._number += 1
            self._backlog.append(self._number, entry)
            self._usage.add(entry)
            self._start()
            number = self._number
        self._wanted.set()
        return number

    def complete(self, number: int, entry: Entry) -> None:
        """The entry of that number, with what was found out since it came. Without effect where it is in the
        database already, or in the spool alone."""
        with self._lock:
            self._backlog.replace(number, entry)

    @property
    def waiting(self) -> int:
        """Requests that are not in the database yet."""
        return len(self._backlog)

    def has_spooled(self, number: int) -> None:
        """All entries up to this number are in the spool, or will never be."""
        self.spooled = number
        self._wanted.set()

    def used(self, provider: str, since: datetime) -> int:
        """Tokens of all four kinds of the attempts that began then or later, in all routers with this ledger.

        Returns at once: what is in the database is missing until it has been read for the first time.
        """
        moment = milliseconds(since)
        with self._lock:
            if self._usage.since.get(provider) != moment:
                self._usage.ask(provider, moment, self._backlog.in_memory)
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
        database: LedgerDatabase | None = None
        while True:
            idle = timing.poll if self._usage.since else HOUR
            self._wanted.wait(timing.spool if len(self._backlog) else idle)
            if self._is_read.is_set():
                self._closing.wait(timing.linger)
            self._wanted.clear()
            if database is None or self._settings is not self._in_force:
                try:
                    database = self._followed(database)
                except (ImportError, OSError) as error:  # such as too many open files
                    if self._may_log():
                        log.error("the ledger cannot be opened: %s", error)
                    self._in_force = None
                    self._closing.wait(timing.retry)
                    self._wanted.set()
                    if not self._closing.is_set():
                        continue
                    with self._lock:
                        self._thread = None
                    return
            succeeded = self._settle(database)
            if self._is_over(database, succeeded):
                break
            if not succeeded:
                time.sleep(timing.retry)
                self._wanted.set()
        database.close()

    def _followed(self, before: "LedgerDatabase | None") -> "LedgerDatabase":
        """The database that the settings name, which may be the one before."""
        settings, last = self._settings, self._in_force
        self._in_force = settings
        if last is None or settings.keep != last.keep:
            self._forgot_at = None
        if before is not None and last is not None and settings.url == last.url:
            return before
        if before is not None:
            before.close()
        self._version, self._forgot_at = -1, None
        return _database(self._folder, settings, self._timing.lock_timeout)

    def _settle(self, database: "LedgerDatabase") -> bool:
        """Write, delete and read what is due; whether that succeeded."""
        try:
            self._adopt(database)
            self._write(database)
            self._forget(database)
            self._read_usage(database)
        except DatabaseError as error:
            database.close()
            self._version = -1
            self._log_error(database, error)
            return False
        if self._logged_at is not None:
            self._logged_at = None
            with self._lock:
                lost, self._backlog.lost = self._backlog.lost, 0
            log.info("%s: requests are recorded again, %d were lost", database.shown, lost)
        return True

    def _adopt(self, database: "LedgerDatabase") -> None:
        """Write the spools of routers that were killed; once."""
        if self._adopted:
            return
        for orphan in orphans(self._folder):
            remove = False
            try:
                if missing := self._adopt_one(database, orphan):
                    log.info(
                        "%s: %d requests of a router that was killed are recorded", database.shown, missing
                    )
                remove = True
            except OSError as error:  # the others must still be recorded
                log.error("%s cannot be read: %s", orphan.path, error.strerror)
            finally:
                orphan.release(remove=remove)
        self._adopted = True

    def _adopt_one(self, database: "LedgerDatabase", orphan: Orphan) -> int:
        """How many requests of this spool were missing."""
        entries, number = orphan.entries(), 0
        while batch := list(islice(entries, BATCH)):
            missing = self._write_all(database, orphan.name, batch)
            number += len(missing)
            self._restored(missing)
        return number

    def _write(self, database: "LedgerDatabase") -> None:
        while True:
            with self._lock:
                batch = list(takewhile(self._may_be_written, self._backlog.first(BATCH)))
                gap = self._backlog.gap
            if gap is not None:
                if not self._write_spooled(database, after=gap.after, upto=min(gap.upto, self.spooled)):
                    return
            elif batch:
                written = self._write_all(database, self._name, [(one.number, one.entry) for one in batch])
                self._has_written(batch[-1].number)
                log_misses(written)
            else:
                return

    def _may_be_written(self, one: Waiting) -> bool:
        is_spooled = not self._has_spool or one.number <= self.spooled or self._closing.is_set()
        return is_spooled or time.monotonic() - one.since > self._timing.spool

    def _write_spooled(self, database: "LedgerDatabase", *, after: int, upto: int) -> bool:
        """Write what is in the spool alone; whether anything was there to be written."""
        if upto <= after:
            return False
        entries = self._in_spool(after)
        found = takewhile(lambda numbered: numbered[0] <= upto, entries)
        number, last = 0, after
        while batch := list(islice(found, BATCH)):
            self._write_all(database, self._name, batch)
            number, last = number + len(batch), batch[-1][0]
            self._has_written(last)
        with self._lock:
            self._backlog.lost += upto - after - number
        self._has_written(upto)
        return True

    def _in_spool(self, after: int) -> Iterator[Numbered]:
        try:
            yield from spooled(self._folder, self._name, after)
        except OSError as error:
            log.error("%s: the spool cannot be read: %s", self._folder, error.strerror)

    def _has_written(self, upto: int) -> None:
        with self._lock:
            self._backlog.written(upto)
            self.written = upto

    def _write_all(self, database: "LedgerDatabase", spool: str, batch: Sequence[Numbered]) -> list[Entry]:
        """Write a batch of a spool; returns those that were missing. One that cannot be written takes no
        other with it. Raises DatabaseError where the database is away."""
        upto = batch[-1][0]
        try:
            return database.write(spool, batch, upto)
        except UnwritableError as error:
            reason = str(error)
        except DatabaseError:
            raise
        except Exception as error:  # of any kind: the others must still be written
            reason = type(error).__name__
        if len(batch) > 1:
            return [written for one in batch for written in self._write_all(database, spool, [one])]
        log.error("%s: a request is not recorded: %s", database.shown, reason)
        return database.write(spool, [], upto)

    def _forget(self, database: "LedgerDatabase") -> None:
        """Delete what is too old once a day; never what a running budget still counts."""
        now, keep = self._clock(), self._settings.keep
        if self._forgot_at is not None and now - self._forgot_at < DAY:
            return
        with self._lock:
            counted = min(self._usage.since.values(), default=int(now * 1000))
        before = min(int((now - keep) * 1000), counted)
        database.forget(before, int((now - PREFIXES_KEPT) * 1000), self._at_once)
        self._forgot_at = now

    def _read_usage(self, database: "LedgerDatabase") -> None:
        """Read the usage, where that was not done yet or another router has written."""
        with self._lock:
            since = dict(self._usage.since)
        if not since:
            return
        version = database.version(self._name)
        if self._is_read.is_set() and version == self._version:
            return
        read = database.used(since)
        self._version = version
        with self._lock:
            self._usage.refresh(read, self._backlog.in_memory)
            if since == self._usage.since:
                self._is_read.set()

    def _log_error(self, database: "LedgerDatabase", error: DatabaseError) -> None:
        if self._may_log():
            with self._lock:
                waiting, lost = len(self._backlog), self._backlog.lost
            log.warning(
                "%s: %s: %d requests wait to be recorded, %d are lost", database.shown, error, waiting, lost
            )

    def _may_log(self) -> bool:
        """Whether an error is logged: the first, and then one in a while."""
        now = time.monotonic()
        if self._logged_at is not None and now - self._logged_at < QUIET:
            return False
        self._logged_at = now
        return True

    def _is_over(self, database: "LedgerDatabase", succeeded: bool) -> bool:
        """Whether the router ends and nothing is left to write, or cannot be written."""
        with self._lock:
            if not self._closing.is_set() or (
                len(self._backlog) if succeeded else time.monotonic() < self._give_up
            ):
                return False
            unwritten = len(self._backlog)
            self._backlog.clear()
            self._thread = None
        if unwritten and self._has_spool:
            log.warning("%s: %d requests will be recorded at the next start", database.shown, unwritten)
        elif unwritten:
            log.error("%s: %d requests are not recorded", database.shown, unwritten)
        return True


def _database(folder: Path, settings: rules.LedgerSettings, lock_timeout: float) -> "LedgerDatabase":
    from signalbox.database import ledger_url  # slow to import
    from signalbox.record.database import LedgerDatabase

    return LedgerDatabase(ledger_url(folder, settings), lock_timeout=lock_timeout)


def log_misses(written: Sequence[Entry]) -> None:
    """A console line for each miss that matters."""
    for one in written:
        if one.cache_cause is not None and (one.missed_tokens or 0) > prefixes.WORTH_A_LINE:
            log.info("%s", cache_miss_line(one.missed_tokens or 0, one.cache_cause, one.missed_cost))
