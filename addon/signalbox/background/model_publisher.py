"""Publishes the merged model list: to clients, and in Claude Code's picker file if the rules say so."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from signalbox.anthropic.models import ModelEntry
from signalbox.background import picker
from signalbox.background.model_list import Gathered, ModelLists
from signalbox.background.quota_tracker import QuotaTracker
from signalbox.config import files
from signalbox.config.rules import Provider, Rules
from signalbox.config.watch import Live
from signalbox.errors import log_error
from signalbox.routing.credentials import Caller

log = logging.getLogger("signalbox")

INTERVAL = 3600.0
"""Seconds between two updates of the picker file."""
RETRY = 60.0
"""Seconds until the next update if a list was missing in the last one."""


class ModelPublisher:
    """The list of one router. `state` is the folder in which Anthropic's last list is stored."""

    def __init__(
        self,
        state: Path,
        live: Live,
        quota: QuotaTracker,
        *,
        tls: Callable[[], ssl.SSLContext],
        base_url: Callable[[], str | None],
    ) -> None:
        """`base_url` gives the router's own URL for the picker file; None for a forward proxy."""
        self._lists = ModelLists(state, token_of=quota.token, observe=quota.observe)
        self._live = live
        self._quota = quota
        self._tls = tls
        self._base_url = base_url
        self._changed = asyncio.Event()
        self._logged: list[picker.PickerResult] = []
        self._entries: list[ModelEntry] = []
        """The last list gathered for a client."""
        live.on_change.append(lambda _: self._changed.set())

    async def gather(self, rules: Rules, caller: Caller, upstream: Provider, query: str) -> Gathered:
        """The merged list, or Anthropic's refusal of this caller's credentials."""
        await self._quota.read_logins(rules)
        tls = await asyncio.to_thread(self._tls)
        gathered = await self._lists.gather(rules, caller, upstream=upstream, query=query, tls=tls)
        if not gathered.refusal and not gathered.missing and gathered.entries != self._entries:
            self._entries = gathered.entries
            self._changed.set()
        return gathered

    async def watch(self) -> None:
        """Writes the picker file now and whenever the list may have changed, until cancelled."""
        delay = INTERVAL
        while True:
            self._changed.clear()
            try:
                if self._live.rules.picker:
                    delay = INTERVAL if await self._write() else RETRY
            except Exception as error:  # the next change must still be seen
                log_error("the picker file", error)
            try:
                await asyncio.wait_for(self._changed.wait(), delay)
            except TimeoutError:
                continue

    async def _write(self) -> bool:
        """Writes the picker file. Returns whether no list was missing."""
        rules = self._live.rules
        await self._quota.read_logins(rules)
        gathered = await self._lists.gather(rules, tls=await asyncio.to_thread(self._tls))
        write = partial(picker.write, rules, gathered, self._base_url(), now=time.time())
        written = await files.in_daemon_thread(write)
        for one in written:
            if one not in self._logged:
                log.log(logging.WARNING if one.fault else logging.INFO, "%s", one.line)
        self._logged = written
        return not gathered.missing
