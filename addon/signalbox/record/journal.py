"""Where requests are recorded, as the rules say at the moment."""

import asyncio
from datetime import datetime
from pathlib import Path

from signalbox.config.rules import Rules
from signalbox.record import log
from signalbox.record.entry import Entry
from signalbox.record.ledger import Ledger
from signalbox.record.requests import RequestLog

TICK = 30.0
"""Seconds between two looks at the date."""


class Journal:
    """The console, the request log and the ledger together.

    `follow` is called with the first rules and each new ones.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prompts = True
        self._requests: RequestLog | None = None
        self.ledger = Ledger(folder)

    def follow(self, rules: Rules) -> None:
        log.set_level(rules.log.level)
        self._prompts = rules.log.prompts
        if self._requests is None:
            self._requests = RequestLog(self._folder, rules.log.file, rules.log.keep, now=datetime.now)
        else:
            self._requests.reconfigure(rules.log.file, rules.log.keep)
        self.ledger.follow(rules.ledger.keep)

    def tell(self, entry: Entry) -> None:
        """On the console alone."""
        log.log_request(entry, self._prompts)

    def enter(self, entry: Entry) -> None:
        self.tell(entry)
        if self._requests is not None:
            self._requests.write(entry)
        self.ledger.enter(entry)

    async def watch(self) -> None:
        """Turns the request log over at midnight though nobody asks for anything; until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            if self._requests is not None:
                self._requests.turn_over()

    def close(self) -> None:
        if self._requests is not None:
            self._requests.close()
        self.ledger.close()
