"""What is not in the ledger's database yet: entries on their way there, and what they add to its sums."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from signalbox.record.entry import Entry, milliseconds


class Waiting(NamedTuple):
    number: int
    since: float
    """On the monotonic clock."""
    entry: Entry


class Gap(NamedTuple):
    """Entries that are in the spool and no longer in memory: those after `after`, up to `upto`."""

    after: int
    upto: int


class Backlog:
    """Entries that wait to be written, in the order of their numbers.

    While the database is away memory holds `most` of them; what comes on top stays in the spool alone, if
    there is one, and is read from there. For one thread at a time.
    """

    def __init__(self, most: int, *, has_spool: bool) -> None:
        self._most = most
        self._has_spool = has_spool
        self._waiting: deque[Waiting] = deque()
        self._gap: Gap | None = None
        """Comes after what waits in memory, or before it, where the gap ends before that begins."""
        self.lost = 0

    def append(self, number: int, entry: Entry) -> None:
        if len(self._waiting) < self._most and not self._is_gap_last:
            self._waiting.append(Waiting(number, time.monotonic(), entry))
        elif not self._has_spool:
            self.lost += 1
        else:
            after = number - 1
            if self._gap is not None:
                after = self._gap.after
                if not self._is_gap_last:  # memory is full again before the gap was read
                    self._waiting.clear()
            self._gap = Gap(after, number)

    def replace(self, number: int, entry: Entry) -> None:
        """Put another entry in the place of that number, if it is in memory."""
        first = self._waiting[0].number if self._waiting else number + 1
        index = number - first
        if 0 <= index < len(self._waiting) and self._waiting[index].number == number:
            self._waiting[index] = self._waiting[index]._replace(entry=entry)

    @property
    def _is_gap_last(self) -> bool:
        """Whether what waits in memory comes before the gap."""
        return self._gap is not None and bool(self._waiting) and self._waiting[0].number <= self._gap.after

    def first(self, most: int) -> list[Waiting]:
        """The oldest that are in memory; none while older ones are to be read from the spool."""
        return [] if self.gap is not None else list(islice(self._waiting, most))

    @property
    def gap(self) -> Gap | None:
        """What is to be read from the spool before anything that is in memory."""
        return None if self._is_gap_last else self._gap

    def written(self, upto: int) -> None:
        """All up to this number are in the database, or cannot be."""
        while self._waiting and self._waiting[0].number <= upto:
            self._waiting.popleft()
        if self._gap is not None and upto > self._gap.after:
            self._gap = Gap(upto, self._gap.upto) if upto < self._gap.upto else None

    @property
    def in_memory(self) -> list[Entry]:
        return [one.entry for one in self._waiting]

    def __len__(self) -> int:
        return len(self._waiting) + (self._gap.upto - self._gap.after if self._gap is not None else 0)

    def clear(self) -> None:
        self._waiting.clear()
        self._gap = None


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
