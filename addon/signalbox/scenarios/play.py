"""Plays scenarios through rules: who answered each request, after what, and what the client saw."""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec

from signalbox.anthropic.api import MESSAGES
from signalbox.anthropic.json_edit import Body
from signalbox.config.document import unknown
from signalbox.config.rules import DEFAULT_MODELS, Rules
from signalbox.exchange import Exchange
from signalbox.ports import free_port
from signalbox.routing.facts import Facts
from signalbox.routing.match import first_match
from signalbox.scenarios import clock
from signalbox.scenarios.client import ask, new_client
from signalbox.scenarios.fakes import Cast
from signalbox.scenarios.format import PLACES, Ask, Named, ScenarioError
from signalbox.scenarios.results import Passed, Played, Tried
from signalbox.scenarios.sandbox import Sandbox, listener_ports

REPEATS = 2
"""How often a client asks again after a stream that broke off, as Claude Code does."""


def play(rules: Rules, scenarios: Sequence[Named], port: int) -> list[Played]:
    """All scenarios, each with nothing known from those before. `port` is the listener's where the rules name
    none. The clock of this process jumps over all waits."""
    return clock.run(_play(rules, scenarios, port))


async def _play(rules: Rules, scenarios: Sequence[Named], port: int) -> list[Played]:
    _check(rules, scenarios)
    asked = [one.port for named in scenarios for one in named.scenario.asks]
    ports = {listener: free_port() for listener in listener_ports(rules, asked, port)}
    with tempfile.TemporaryDirectory(prefix="signalbox-test-", ignore_cleanup_errors=True) as folder:
        async with new_client() as client, Sandbox(rules, Path(folder), ports) as sandbox:
            player = _Player(rules, sandbox, client, port)
            return [
                played
                for named in scenarios
                for model in models_of(rules, named.scenario.asks)
                for played in await player.play(named, model)
            ]


def _check(rules: Rules, scenarios: Sequence[Named]) -> None:
    """Raises ScenarioError where a scenario names what the rules do not have."""
    faults: list[str] = []
    for name, scenario in scenarios:
        providers = scenario.providers.keys() - rules.providers.keys() - set(PLACES)
        clients = {one.client for one in scenario.asks if one.client is not None} - rules.clients.keys()
        faults += (f"{name}: {unknown('provider', one, rules.providers)}" for one in providers)
        faults += (f"{name}: {unknown('client', one, rules.clients)}" for one in clients)
    if faults:
        raise ScenarioError("\n".join(sorted(faults)))


def models_of(rules: Rules, asks: Sequence[Ask]) -> list[str]:
    """The models to ask for where a scenario names none: of each tier that another rule decides about."""
    if all(one.model is not None for one in asks):
        return [""]
    by_rule: dict[str, str] = {}
    for model in DEFAULT_MODELS.values():
        body = Body.parse(msgspec.json.encode({"model": model, "messages": []}))
        rule = first_match(rules, Facts(path=MESSAGES, port=0, headers={}, body=body))
        by_rule.setdefault(rule.label if rule is not None else "none", model)
    return list(by_rule.values())


class _Player(NamedTuple):
    rules: Rules
    sandbox: Sandbox
    client: httpx.AsyncClient
    port: int

    async def play(self, named: Named, model: str) -> list[Played]:
        """A scenario from its beginning. `model` is asked for where it names none."""
        self.sandbox.forget()
        self.sandbox.fakes.cast = Cast(named.scenario.providers)
        found = []
        for wanted in named.scenario.asks:
            await asyncio.sleep(wanted.after)
            found.append(await self._ask(named, wanted, wanted.model or model))
        return found

    async def _ask(self, named: Named, wanted: Ask, model: str) -> Played:
        (listener,) = listener_ports(self.rules, [wanted.port], self.port)
        port, began = self.sandbox.ports[listener], time.monotonic()
        tried, repeats = list[Tried](), 0
        while True:
            seen = await ask(self.client, port, wanted, model, self.sandbox.secrets)
            exchange = await self.sandbox.last_exchange()
            tried += _attempts(exchange, began)
            if not seen.is_cut or repeats == REPEATS:
                break
            repeats += 1
        came = seen.status == 200 and not seen.error
        return Played(
            scenario=named.name,
            about=named.scenario.about,
            model=model,
            rule=seen.headers.get("x-signalbox-rule", ""),
            is_well=came if named.scenario.wants == "answer" else not came and not seen.is_cut,
            answered_by=_answering(tried) if came else None,
            attempts=tried,
            skipped=[Passed(*one) for one in _skipped(exchange)],
            seen=seen,
            repeats=repeats,
        )


def _answering(tried: Sequence[Tried]) -> str:
    """Without rules nothing is tried: all passes to the upstream."""
    if not tried:
        return "the upstream"
    last = tried[-1]
    return f"{last.provider}/{last.model}" if last.model else last.provider


def _attempts(exchange: Exchange | None, began: float) -> Iterator[Tried]:
    for one in exchange.attempts if exchange is not None else ():
        ended = one.ended or one.started
        yield Tried(
            one.provider.shown,
            one.model,
            one.label,
            one.detail,
            round(one.started - began, 3),
            round(ended - one.started, 3),
        )


def _skipped(exchange: Exchange | None) -> Iterator[tuple[Any, ...]]:
    for skip in exchange.skipped if exchange is not None else ():
        yield skip.provider, skip.model, skip.reason, skip.detail
