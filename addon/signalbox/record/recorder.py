"""Records requests on the console, in the request log and in the ledger, as the rules in force say."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from signalbox.config.rules import Rules
from signalbox.errors import log_error
from signalbox.record.console import log_request, set_level
from signalbox.record.entry import Entry
from signalbox.record.ledger import Ledger
from signalbox.record.metrics import Metrics
from signalbox.record.prefixes import Cacheable, PrefixReader
from signalbox.record.request_log import RequestLog
from signalbox.record.retention_clock import RetentionClock, last_use
from signalbox.record.spool import Numbered, Spool

log = logging.getLogger("signalbox")

TICK = 30.0
"""Seconds between two looks at the date."""


class Recorder:
    """Console, request log, ledger and metrics. Only the console is written in the caller's thread.

    `follow` is called with the first rules and whenever they change.
    """

    def __init__(self, folder: Path, metrics: Metrics, *, shows_prompts: bool = True) -> None:
        """`shows_prompts` False: the console is a file, which gets no words of a prompt."""
        self._may_show_prompts = self._prompts = shows_prompts
        self._spool = Spool(folder)
        steady = RetentionClock(last_use(folder))
        self.ledger = Ledger(folder, clock=steady.now, spool=self._spool.name, restored=self._restore)
        self._writer = LogWriter(
            folder, self._spool, self.ledger, metrics, now=datetime.now, kept_by=steady.now
        )

    def follow(self, rules: Rules) -> None:
        set_level(rules.log.level)
        self._prompts = self._may_show_prompts and rules.log.prompts
        self._writer.follow(rules.log.file, rules.log.keep)
        self.ledger.follow(rules.ledger)

    def print_line(self, entry: Entry) -> None:
        """Print the line of a request that is recorded nowhere else."""
        log_request(entry, self._prompts)

    def record(self, entry: Entry, cacheable: Cacheable | None = None) -> None:
        """`cacheable` is what the request asked its provider to cache; None where that is not known."""
        self.print_line(entry)
        self._writer.write(self.ledger.enter(entry), entry, cacheable)

    async def watch(self) -> None:
        """Rotate the request log at midnight, also without requests; until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            self._writer.rotate_if_due()

    def close(self) -> None:
        """Returns when everything is written, or cannot be."""
        self._writer.close()
        self.ledger.close()
        self._writer.end_spool()

    def _restore(self, entries: list[Entry]) -> None:
        self._writer.restore(entries)


MOST = 10_000
"""Entries that may wait for the log's lock; more are not logged."""
GATHER, GATHER_BUSY = 0.02, 0.2
"""Seconds for which more entries are waited for, so that they share a write: the thread works while the next
requests are served, and each turn of it costs as much as several entries. The second where BUSY entries came
within a second."""
BUSY = 10
AGAIN = 0.5
"""Seconds until the log is tried again."""
LAST = 3.0
"""Seconds that `close` waits for the last entries."""


class _Recorded(NamedTuple):
    number: int
    entry: Entry
    cacheable: Cacheable | None


type _Job = Callable[[], None] | _Recorded


class LogWriter:
    """Writes spool and request log in a thread, and counts what it writes.

    Entries that come after `close` are written too, before the process ends.
    """

    def __init__(
        self,
        folder: Path,
        spool: Spool,
        ledger: Ledger,
        metrics: Metrics,
        *,
        now: Callable[[], datetime],
        kept_by: Callable[[], float],
    ) -> None:
        """`now` gives the local time; `kept_by` the Unix seconds by which files are too old."""
        self._folder = folder
        self._spool = spool
        self._ledger = ledger
        self._metrics = metrics
        self._now = now
        self._kept_by = kept_by
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        # For the thread alone:
        self._log: RequestLog | None = None
        self._waiting: deque[Entry] = deque()
        self._number = 0
        """Of the last entry in the spool."""
        self._failing = False
        self._reader: PrefixReader | None = None
        self._latest: deque[float] = deque(maxlen=BUSY)
        """When the last entries were taken, on the monotonic clock."""

    def follow(self, file: str, keep: float) -> None:
        """Write to this file of the folder from now on, and keep rotated ones for `keep` seconds."""
        self._closing.clear()
        self._put(lambda: self._open(file, keep))

    def write(self, number: int, entry: Entry, cacheable: Cacheable | None) -> None:
        """`number` is the ledger's."""
        self._put(_Recorded(number, entry, cacheable))

    def restore(self, entries: Sequence[Entry]) -> None:
        """Append the entries that are missing in the log."""
        self._put(lambda: self._log.restore(entries) if self._log is not None else None)

    def rotate_if_due(self) -> None:
        self._put(lambda: self._log.rotate_if_due() if self._log is not None else None)

    def close(self) -> None:
        """Returns when all is written, or after LAST."""
        self._closing.set()
        self._put(lambda: None)
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(LAST)
            if thread.is_alive():
                log.warning(f"{self._folder}: the last requests are not in the request log yet")

    def end_spool(self) -> None:
        """Close the spool after the ledger; entries that the ledger lacks stay for the next start."""
        with self._lock:
            if self._thread is None:
                try:
                    self._spool.close(remove=self._ledger.written >= self._number)
                except OSError as error:
                    self._log_error(error)

    def _put(self, job: _Job) -> None:
        with self._lock:  # the thread ends under it, when no job is left
            self._jobs.put(job)
            if self._thread is None:
                # Not a daemon after `close`: the process ends once the entry is written.
                is_late = self._closing.is_set()
                self._thread = threading.Thread(target=self._run, name="signalbox-log", daemon=not is_late)
                self._thread.start()

    # in the thread

    def _run(self) -> None:
        while True:
            entries: list[Numbered] = []
            for job in self._present():
                if isinstance(job, _Recorded):
                    self._latest.append(time.monotonic())
                    entries.append((job.number, self._digested(job)))
                else:
                    self._write(entries)
                    entries = []
                    job()
            self._write(entries)
            with self._lock:
                if self._closing.is_set() and self._jobs.empty():
                    self._thread = None
                    break
        if self._log is not None:
            self._log.close(LAST)

    def _present(self) -> list[_Job]:
        """All jobs at hand; waits for one, unless the log is to be tried again."""
        jobs: list[_Job] = []
        with suppress(Empty):
            jobs.append(self._jobs.get(timeout=AGAIN if self._waiting else None))
            if isinstance(jobs[0], tuple):
                self._closing.wait(self._gather_for(time.monotonic()))
            while True:
                jobs.append(self._jobs.get_nowait())
        return jobs

    def _gather_for(self, now: float) -> float:
        is_busy = len(self._latest) == BUSY and now - self._latest[0] < 1
        return GATHER_BUSY if is_busy else GATHER

    def _digested(self, job: _Recorded) -> Entry:
        """The entry with the digests of what it asked its provider to cache."""
        if (cacheable := job.cacheable) is None:
            return job.entry
        if self._reader is None or self._reader.key != cacheable.key:
            self._reader = PrefixReader(cacheable.key)
        try:
            entry = cacheable.noted_in(job.entry, self._reader)
        except Exception as error:  # of any kind: the request must be recorded
            log_error("the digests of a request", error)
            return job.entry
        self._ledger.complete(job.number, entry)
        return entry

    def _open(self, file: str, keep: float) -> None:
        if self._log is None:
            self._log = RequestLog(self._folder, file, keep, now=self._now, kept_by=self._kept_by)
        else:
            self._log.reconfigure(file, keep)

    def _write(self, entries: Sequence[Numbered]) -> None:
        if entries:
            try:
                if self._spool.is_long() and self._ledger.written >= self._number:
                    self._spool.empty()
                self._spool.append(entries)
                self._failing = False
            except OSError as error:
                self._log_error(error)
            self._number = entries[-1][0]
            self._waiting.extend(entry for _, entry in entries)
        if self._log is not None and self._waiting and self._log.write(*self._waiting):
            self._waiting.clear()
        while len(self._waiting) > MOST:
            self._waiting.popleft()
        if entries:
            self._ledger.has_spooled(self._number)
            for _, entry in entries:
                self._metrics.count(entry)

    def _log_error(self, error: OSError) -> None:
        if not self._failing:
            log.warning(f"{self._folder}: a crash would lose requests: {error.strerror or error}")
        self._failing = True
