"""Where requests are recorded, as the rules say at the moment."""

import asyncio
from datetime import datetime
from pathlib import Path

from signalbox.config.rules import Rules
from signalbox.record import log
from signalbox.record.entry import Entry
from signalbox.record.ledger import Ledger
from signalbox.record.spool import Spool
from signalbox.record.steady import SteadyClock, last_use
from signalbox.record.writer import Writer

TICK = 30.0
"""Seconds between two looks at the date."""


class Journal:
    """The console, the request log and the ledger together.

    Only the console is written by the caller's thread. `follow` is called with the first rules and each
    new ones.
    """

    def __init__(self, folder: Path) -> None:
        self._prompts = True
        self._spool = Spool(folder)
        steady = SteadyClock(last_use(folder))
        self.ledger = Ledger(folder, clock=steady.now, spool=self._spool.name, restored=self._restore)
        self._writer = Writer(folder, self._spool, self.ledger, now=datetime.now, kept_by=steady.now)

    def follow(self, rules: Rules) -> None:
        log.set_level(rules.log.level)
        self._prompts = rules.log.prompts
        self._writer.follow(rules.log.file, rules.log.keep)
        self.ledger.follow(rules.ledger.keep)

    def tell(self, entry: Entry) -> None:
        """On the console alone."""
        log.log_request(entry, self._prompts)

    def enter(self, entry: Entry) -> None:
        self.tell(entry)
        self._writer.write(self.ledger.enter(entry), entry)

    async def watch(self) -> None:
        """Turns the request log over at midnight though nobody asks for anything; until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            self._writer.turn_over()

    def close(self) -> None:
        """Returns when all is written, or cannot be."""
        self._writer.close()
        self.ledger.close()
        self._writer.end_spool()

    def _restore(self, entries: list[Entry]) -> None:
        self._writer.restore(entries)
