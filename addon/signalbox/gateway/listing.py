"""The model list: a client asks for it, and Claude Code's picker file follows it where the rules say so."""

import asyncio
import logging
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mitmproxy import http

from signalbox.background import picker
from signalbox.background.model_list import ModelLists
from signalbox.config import files
from signalbox.config.watch import Live
from signalbox.errors import log_error
from signalbox.exchange import Exchange
from signalbox.gateway.metering import Metering
from signalbox.messages.models import Entry
from signalbox.proxy import dispatch, local_responses, setup
from signalbox.proxy.headers import to_headers
from signalbox.ui import model_page

if TYPE_CHECKING:
    from signalbox.app import App

log = logging.getLogger("signalbox")

EVERY = 3600.0
"""Seconds between two looks at the lists for the picker file."""
AGAIN = 60.0
"""Seconds until the next look after one at which a list was missing."""


class Listing:
    """The lists of one router. `state` is the folder in which the last one is kept."""

    def __init__(self, app: "App", state: Path, live: Live, metering: Metering) -> None:
        self._app = app
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
            query=model_page.less_paging(query),
            tls=self._app.client_ssl_context(),
        )
        if refusal := gathered.refusal:
            flow.response = http.Response.make(refusal.status, refusal.body, to_headers(refusal.headers))
            return
        flow.response = local_responses.answer(200, model_page.page(gathered.entries, query))
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
            except Exception as error:  # the next change must still be seen
                log_error("the picker file", error)
            try:
                await asyncio.wait_for(self._news.wait(), rest)
            except TimeoutError:
                continue

    async def _write(self) -> bool:
        """Whether nothing was missing."""
        rules = self._live.rules
        gathered = await self._lists.gather(rules, tls=self._app.client_ssl_context())
        write = partial(picker.write, rules, gathered, setup.base_url(self._app.master), now=time.time())
        written = await files.apart(write)
        for one in written:
            if one not in self._told:
                log.log(logging.WARNING if one.fault else logging.INFO, "%s", one.line)
        self._told = written
        return not gathered.missing
