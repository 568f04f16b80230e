"""The model list: a client asks for it, and Claude Code's picker file follows it where the rules say so."""

import asyncio
import logging
import time
from functools import partial
from pathlib import Path

from mitmproxy import ctx, http
from mitmproxy.proxy.mode_specs import ProxyMode, ReverseMode

from signalbox.background import picker
from signalbox.background.model_list import ModelLists
from signalbox.config import files
from signalbox.config.watch import Live
from signalbox.exchange import Exchange
from signalbox.gateway import arrival
from signalbox.gateway.metering import Metering
from signalbox.gateway.trust import trusted
from signalbox.messages.models import Entry
from signalbox.pages import models
from signalbox.proxy import answers, dispatch
from signalbox.proxy.faults import place
from signalbox.proxy.requests import to_headers

log = logging.getLogger("signalbox")

EVERY = 3600.0
"""Seconds between two looks at the lists for the picker file."""
AGAIN = 60.0
"""Seconds until the next look after one at which a list was missing."""


class Listing:
    """The lists of one router. `state` is the folder in which the last one is kept."""

    def __init__(self, state: Path, live: Live, metering: Metering) -> None:
        self._lists = ModelLists(state, token_of=metering.token, hear=metering.hear_list)
        self._live = live
        self._news = asyncio.Event()
        self._told: list[picker.Written] = []
        self._entries: list[Entry] = []
        """As last gathered for anybody."""
        live.on_change.append(lambda _: self._news.set())

    async def answer(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Answer with the merged list, or with what Anthropic says of this caller's credentials."""
        _, _, query = exchange.path.partition("?")
        gathered = await self._lists.gather(
            exchange.rules,
            exchange.caller,
            upstream=dispatch.upstream(flow, exchange.rules),
            query=models.less_paging(query),
            tls=trusted(),
        )
        if refusal := gathered.refusal:
            flow.response = http.Response.make(refusal.status, refusal.body, to_headers(refusal.headers))
            return
        flow.response = answers.answer(200, models.page(gathered.entries, query))
        if gathered.entries != self._entries and not gathered.missing:
            self._entries = gathered.entries
            self._news.set()

    async def watch(self) -> None:
        """Write the picker file now and whenever the list may have changed, until cancelled."""
        rest = EVERY
        while True:
            self._news.clear()
            try:
                if self._live.rules.picker:
                    rest = EVERY if await self._write() else AGAIN
            except Exception as fault:  # the next change must still be seen
                log.error("fault when the picker file was written: %s", place(fault))
            try:
                await asyncio.wait_for(self._news.wait(), rest)
            except TimeoutError:
                continue

    async def _write(self) -> bool:
        """Whether nothing was missing."""
        rules = self._live.rules
        gathered = await self._lists.gather(rules, tls=trusted())
        write = partial(picker.write, rules, gathered, base_url(), now=time.time())
        written = await files.apart(write)
        for one in written:
            if one not in self._told:
                log.log(logging.WARNING if one.fault else logging.INFO, "%s", one.line)
        self._told = written
        return not gathered.missing


def base_url() -> str | None:
    """Of the first listener that stands for Anthropic; None where this is a forward proxy."""
    bound = {listener.mode: listener for listener in reversed(arrival.listeners())}
    modes = (mode for mode in map(ProxyMode.parse, ctx.options.mode) if isinstance(mode, ReverseMode))
    listener = next((bound[mode.full_spec] for mode in modes if mode.full_spec in bound), None)
    return picker.url_of(listener.host, listener.port) if listener else None
