"""Shares quota windows, cooldowns and open circuits between routers on many machines, through the PostgreSQL
of their ledger (the contract, section 11).

The event loop collects new state and merges that of other routers; a thread talks to the database. While the
database is unavailable, each router uses the state that it has.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from signalbox.background.quota_tracker import QuotaTracker
from signalbox.config.rules import Provider, Rules
from signalbox.database_errors import DatabaseError
from signalbox.record import console
from signalbox.routing.health import ProviderHealth, SharedBlock
from signalbox.routing.quota import SharedWindow
from signalbox.state.limits import BlockRow, Limits
from signalbox.state.worker import Worker

if TYPE_CHECKING:
    from signalbox.state.shared import SharedLimits

log = logging.getLogger("signalbox")

EVERY = 1.0
"""Seconds between two exchanges."""
RETRY = 2.0
"""Seconds until an unavailable database is tried again."""
SAME = 1.0
"""Seconds by which the end of a block must change to be written again, since clocks differ."""
CLOSE_TIMEOUT = 2.0
"""Seconds that `close` waits for the last exchange."""

type _WindowPlace = tuple[str, str, str]
type _BlockPlace = tuple[str, str, str, str]


class LimitsSharing:
    """For the event loop. `follow` sets the database."""

    def __init__(
        self,
        quota: QuotaTracker,
        health: Mapping[str, ProviderHealth],
        rules: Callable[[], Rules],
    ) -> None:
        """`health` is by kind of request; `rules` gives the rules in force."""
        self._quota = quota
        self._health = health
        self._rules = rules
        self._windows: dict[_WindowPlace, float] = {}
        """By place, when the state that other routers have was observed."""
        self._blocks: dict[_BlockPlace, SharedBlock] = {}
        """By kind and place, the blocks that other routers have."""
        self._taken: dict[_BlockPlace, float] = {}
        """By kind and place, when the row that was merged last was written."""
        self._lock = threading.Lock()
        """Guards the next four, which the thread shares with the event loop."""
        self._url: str | None = None
        self._new_windows: dict[_WindowPlace, SharedWindow] = {}
        self._new_blocks: dict[_BlockPlace, BlockRow] = {}
        self._received: Limits | None = None
        """State of other routers that is not merged yet."""
        # For the thread alone:
        self._database: SharedLimits | None = None
        self._in_force: str | None = None
        self._is_away = False
        self._worker = Worker("signalbox-shared-limits", self._exchange)

    def follow(self, url: str | None) -> None:
        """Uses this database from now on; None: shares nothing."""
        if url == self._url:
            return
        with self._lock:
            self._url = url
            self._new_windows, self._new_blocks, self._received = {}, {}, None
        self._windows, self._blocks, self._taken = {}, {}, {}

    async def run(self) -> None:
        """Exchanges state until cancelled."""
        while True:
            if self._url is not None:
                self.collect()
                await self._worker.ran(EVERY)
                self.take_in()
            await asyncio.sleep(EVERY)

    def close(self) -> None:
        """Writes new state for the last time; gives up after CLOSE_TIMEOUT."""
        if self._url is not None:
            self.collect()
            self._worker.close(CLOSE_TIMEOUT)

    def collect(self) -> None:
        """Collects state that other routers do not have yet."""
        windows = {window.place: window for window in self._quota.quotas.shared(self._windows)}
        self._windows |= {place: window.heard for place, window in windows.items()}
        blocks: dict[_BlockPlace, BlockRow] = {}
        now = time.monotonic()
        for kind, health in self._health.items():
            blocks |= self._changed(kind, health.blocks(now), now)
        with self._lock:
            self._new_windows |= windows
            self._new_blocks |= blocks

    def _changed(self, kind: str, running: Iterable[SharedBlock], now: float) -> dict[_BlockPlace, BlockRow]:
        found: dict[_BlockPlace, BlockRow] = {}
        present = {(kind, *block.place): block for block in running}
        for place, block in present.items():
            known = self._blocks.get(place)
            if known is None or abs(known.until - block.until) > SAME:
                found[place] = _row(kind, block, now)
        for place, block in list(self._blocks.items()):
            if place[0] == kind and place not in present:
                del self._blocks[place]
                if block.until - now > SAME:  # it recovered before its time
                    found[place] = _row(kind, block._replace(until=0.0), now)
        self._blocks |= present
        return found

    def take_in(self) -> None:
        """Merges the state of other routers."""
        with self._lock:
            received, self._received = self._received, None
            database = self._database
        if received is None or database is None:
            return
        for window in received.windows:
            if window.heard > self._windows.get(window.place, 0.0):
                self._windows[window.place] = window.heard
        self._quota.merge(received.windows)
        providers, now = self._rules().providers, time.monotonic()
        for row in received.blocks:
            place = (row.kind, row.provider, row.scope, row.name)
            provider, is_first = providers.get(row.provider), place not in self._taken
            if provider is None or row.at <= self._taken.get(place, 0.0):
                continue
            self._taken[place] = row.at
            if row.remaining or not is_first:
                self._merge(row, provider, database, now)

    def _merge(self, row: BlockRow, provider: Provider, database: "SharedLimits", now: float) -> None:
        name: str | None = row.name
        if row.scope == "key":
            values = [secret.value for secret in provider.keys if secret.value] or [""]
            name = next((value for value in values if database.digest(value) == row.name), None)
        if name is None or row.kind not in self._health:
            return
        until = now + row.remaining if row.remaining else 0.0
        block = SharedBlock(row.provider, row.scope, name, until, row.reason, row.cause)
        place = (row.kind, *block.place)
        if row.remaining:
            self._blocks[place] = block
        else:
            self._blocks.pop(place, None)
        events = self._health[row.kind].merge(block, provider, now)
        console.log_health(events, counts=row.kind == "count_tokens")

    # in the thread

    def _exchange(self, is_last: bool) -> float | None:
        with self._lock:
            url = self._url
            new = Limits(list(self._new_windows.values()), list(self._new_blocks.values()))
        if self._database is not None and url != self._in_force:
            self._database.close()
            self._database = None
        if url is None:
            return None
        if self._database is None:
            from signalbox.state.shared import SharedLimits  # slow to import

            self._database, self._in_force = SharedLimits(url), url
        try:
            received = self._database.exchange(new)
        except DatabaseError as error:
            if not self._is_away:
                log.warning(
                    "%s: %s: quota and cooldowns are not shared meanwhile", self._database.shown, error
                )
            self._is_away = True
            return None if is_last else RETRY
        if self._is_away:
            log.info("%s: quota and cooldowns are shared again", self._database.shown)
        self._is_away = False
        with self._lock:
            for window in new.windows:
                if self._new_windows.get(window.place) == window:
                    del self._new_windows[window.place]
            for block in new.blocks:
                if self._new_blocks.get(block[:4]) == block:
                    del self._new_blocks[block[:4]]
            self._received = received if url == self._url else None
        if is_last:
            self._database.close()
            self._database = None
        return None


def _row(kind: str, block: SharedBlock, now: float) -> BlockRow:
    remaining = max(0.0, block.until - now)
    return BlockRow(kind, block.provider, block.scope, block.name, remaining, block.reason, block.cause)
