"""The ledger: a row for each request and each attempt, in `ledger.sqlite`.

A thread of its own writes, several requests at once. Requests never wait for it, and whatever the disk
does harms none of them. It also reads back what providers have used, of which budgets are made.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from itertools import islice, takewhile
from pathlib import Path
from typing import NamedTuple

from signalbox.config import rules
from signalbox.record.database import BUSY, FAULTS, FILE, Database, Fault, milliseconds, reason
from signalbox.record.entry import Entry
from signalbox.record.spool import orphans
from signalbox.record.tally import Tally

log = logging.getLogger("signalbox")

MOST = 10_000
"""Requests that may wait to be written; what comes on top is lost."""
BATCH = 500
"""Requests in one transaction."""
LINGER = 0.25
"""Seconds for which more are waited for, so that they share a transaction."""
EVERY = 3.0
"""Seconds between two looks at what other routers wrote, where there are budgets."""
HOUR = 3600.0
DAY = 24 * HOUR
"""Seconds between two times of forgetting what is too old."""
RETRY = 1.0
"""Seconds until what failed is tried again."""
QUIET = 60.0
"""Seconds between two lines about that."""
LAST = 3.0
"""Seconds for which it is tried at the end."""


PATIENCE = 1.0
"""Seconds for which an entry waits for the spool: what is in the ledger alone is missing in the request log
after a SIGKILL."""


class _Waiting(NamedTuple):
    number: int
    since: float
    """On the monotonic clock."""
    entry: Entry


class Ledger:
    """The ledger of one router. `follow` starts it.

    What is entered after `close` is written too, before the process ends.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        spool: str = "",
        restored: Callable[[list[Entry]], None] = lambda _: None,
    ) -> None:
        """`clock` gives Unix seconds, `spool` is the name of this router's, if it has one; `restored` is told
        of entries that were found in the spool of another whose router is gone."""
        self._folder = folder
        self._file = folder / FILE
        self._spool = spool
        self._restored = restored
        self._adopted = False
        self._clock = clock
        self._keep = rules.Ledger().keep
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._known = threading.Event()
        """Whether all that `used` was asked for has been read."""
        self._known.set()
        self._lock = threading.Lock()
        """Of what follows, which the thread shares with the event loop."""
        self._thread: threading.Thread | None = None
        self._waiting: deque[_Waiting] = deque()
        self._number = 0
        """Of the entry that came last."""
        self.written = 0
        """Up to which number all are on file, or lost."""
        self.spooled = 0
        """Up to which number all are in the spool; set by who writes that."""
        self._lost = 0
        self._tally = Tally()
        self._give_up = 0.0
        """When, on the monotonic clock, the end has been waited for long enough."""
        # For the thread alone:
        self._forgot: tuple[float, float] | None = None
        """When, and beyond which age, rows were last forgotten."""
        self._version = -1
        self._told: float | None = None
        """When a fault was last told, on the monotonic clock; None where all is well."""

    def follow(self, keep: float) -> None:
        """Rows older than `keep` seconds are forgotten from now on."""
        self._keep = keep
        self._closing.clear()
        with self._lock:
            self._start()
        self._wanted.set()

    def enter(self, entry: Entry) -> int:
        """Gives its number, from 1."""
        with self._lock:
            self._number += 1
            if len(self._waiting) < MOST:
                self._waiting.append(_Waiting(self._number, time.monotonic(), entry))
            else:
                self._lost += 1
            self._tally.add(entry)
            self._start()
            number = self._number
        self._wanted.set()
        return number

    def has_spooled(self, number: int) -> None:
        """All up to this number are in the spool, or will never be."""
        self.spooled = number
        self._wanted.set()

    def used(self, provider: str, since: datetime) -> int:
        """Tokens of all four kinds of the attempts that began then or later, in all routers with this file.

        Never waits: where it is asked for the first time, what is on file is known a moment later only.
        """
        moment = milliseconds(since)
        with self._lock:
            if self._tally.since.get(provider) != moment:
                self._tally.ask(provider, moment, self._unwritten())
                self._known.clear()
                self._start()
                self._wanted.set()
            return self._tally.used(provider)

    def ready(self, timeout: float = 2.0) -> None:
        """Wait until all that `used` was asked for has been read."""
        self._known.wait(timeout)

    def close(self, timeout: float = LAST + 2 * BUSY) -> None:
        """Returns when all is written, or cannot be."""
        self._give_up = time.monotonic() + LAST
        self._closing.set()
        self._wanted.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _start(self) -> None:
        if self._thread is None:
            # What is entered after the end holds the process up until it is written.
            is_late = self._closing.is_set()
            self._thread = threading.Thread(target=self._run, name="signalbox-ledger", daemon=not is_late)
            self._thread.start()

    # in the thread

    def _run(self) -> None:
        with closing(Database(self._file)) as database:
            while True:
                self._wanted.wait(PATIENCE if self._waiting else EVERY if self._tally.since else HOUR)
                if self._known.is_set():
                    self._closing.wait(LINGER)
                self._wanted.clear()
                succeeded = self._settle(database)
                if self._is_over(succeeded):
                    break
                if not succeeded:
                    time.sleep(RETRY)
                    self._wanted.set()

    def _settle(self, database: Database) -> bool:
        """Whether all is done that there is to do."""
        try:
            self._adopt(database)
            self._write(database)
            self._forget(database)
            self._look(database)
        except FAULTS as fault:
            database.close()
            self._version = -1
            self._tell(fault)
            return False
        if self._told is not None:
            self._told = None
            log.info("%s: requests are recorded again, %d were lost", self._file, self._lost)
            self._lost = 0
        return True

    def _adopt(self, database: Database) -> None:
        """Write what other routers, which were killed, had no time to write; once."""
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
            except FAULTS:
                raise
            except Exception as fault:  # whatever it is, the others must still be recorded
                log.error("%s cannot be recorded: %s", orphan.path, type(fault).__name__)
            finally:
                orphan.release(remove=remove)
        self._adopted = True

    def _may_be_written(self, one: "_Waiting") -> bool:
        is_spooled = not self._spool or one.number <= self.spooled or self._closing.is_set()
        return is_spooled or time.monotonic() - one.since > PATIENCE

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
            except FAULTS:
                raise
            except Exception as fault:  # whatever it is, what comes after them must still be written
                log.error(
                    "%s: %d requests are not recorded: %s", self._file, len(batch), type(fault).__name__
                )
            with self._lock:
                for _ in batch:
                    self._waiting.popleft()
                self.written = batch[-1].number

    def _forget(self, database: Database) -> None:
        """What a running budget still counts stays in any case."""
        now, keep = self._clock(), self._keep
        if self._forgot is not None and self._forgot[1] == keep and now - self._forgot[0] < DAY:
            return
        with self._lock:
            counted = min(self._tally.since.values(), default=int(now * 1000))
        database.forget(min(int((now - keep) * 1000), counted))
        self._forgot = (now, keep)

    def _look(self, database: Database) -> None:
        """Read what has been used, where that is not known yet or another router has written."""
        with self._lock:
            since = dict(self._tally.since)
        if not since:
            return
        version = database.version()
        if self._known.is_set() and version == self._version:
            return
        read = database.used(since)
        self._version = version
        with self._lock:
            self._tally.refresh(read, self._unwritten())
            if since == self._tally.since:
                self._known.set()

    def _tell(self, fault: Fault) -> None:
        now = time.monotonic()
        if self._told is None or now - self._told >= QUIET:
            self._told = now
            waiting = f"{len(self._waiting)} requests wait to be recorded, {self._lost} are lost"
            log.warning("%s: %s: %s", self._file, reason(fault), waiting)

    def _is_over(self, succeeded: bool) -> bool:
        """Whether the router ends and nothing more is, or can be, written."""
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
