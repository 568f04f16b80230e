"""How many tokens providers have used since a moment: what was read back, and what came after that."""

from collections.abc import Iterable, Mapping

from signalbox.record.database import milliseconds
from signalbox.record.entry import Entry


class Tally:
    """Of those providers only that are asked for. Moments are Unix milliseconds."""

    def __init__(self) -> None:
        self.since: dict[str, int] = {}
        """By provider, the moment from which on it is added up."""
        self._read: dict[str, int] = {}
        self._own: dict[str, int] = {}

    def ask(self, provider: str, moment: int, unwritten: Iterable[Entry]) -> None:
        """From now on the tokens of this provider since that moment."""
        self.since[provider] = moment
        self._read[provider] = 0
        self._own[provider] = sum(self._used(entry, provider) for entry in unwritten)

    def used(self, provider: str) -> int:
        return self._read.get(provider, 0) + self._own.get(provider, 0)

    def add(self, entry: Entry) -> None:
        """What is entered counts at once."""
        for provider in {attempt.provider for attempt in entry.tried} & self.since.keys():
            self._own[provider] += self._used(entry, provider)

    def refresh(self, read: Mapping[str, int], unwritten: Iterable[Entry]) -> None:
        """`read` is what the file says; only `unwritten` is not in it."""
        self._read = dict(read)
        self._own = dict.fromkeys(self.since, 0)
        for entry in unwritten:
            self.add(entry)

    def _used(self, entry: Entry, provider: str) -> int:
        since = self.since[provider]
        return sum(
            attempt.tokens
            for attempt in entry.tried
            if attempt.provider == provider and milliseconds(attempt.started) >= since
        )
