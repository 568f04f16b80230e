"""`signalbox explain`: shows how the rules route a model, or recorded requests. Sends nothing."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from signalbox.anthropic.api import COUNT_TOKENS, MESSAGES
from signalbox.anthropic.issued import Issuer
from signalbox.anthropic.json_edit import Body, BodyError
from signalbox.background import picker
from signalbox.cli.options import PORT, loaded, rules_option, state_option
from signalbox.config.rules import LedgerSettings, Provider, Rules
from signalbox.database_errors import DatabaseError
from signalbox.inspect.explain import (
    Counted,
    Line,
    Share,
    explained,
    explained_request,
    paragraph,
    shares,
)
from signalbox.record.console import count, escaped
from signalbox.record.entry import milliseconds
from signalbox.record.prices import shipped
from signalbox.routing.budget import Budgets, Used
from signalbox.routing.credentials import Caller
from signalbox.routing.facts import AGENT_HEADER, Facts
from signalbox.routing.match import QuotaUsage
from signalbox.routing.outgoing import Incoming
from signalbox.routing.plan import Candidate
from signalbox.routing.quota import DEFAULT, Quotas
from signalbox.state.learned_db import FILE as LEARNED
from signalbox.state.logins import ProviderLogins, logins_of
from signalbox.state.provenance import ProvenanceStore
from signalbox.state.quota_files import read_quotas

WIDEST = 120
"""Characters that a table may take."""


def header_pairs(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in given]
    if not all(name and equals for name, equals, _ in pairs):
        raise click.BadParameter("write NAME=VALUE")
    return {name.lower(): value for name, _, value in pairs}


@click.command("explain")
@click.argument("model", required=False)
@click.option(
    "--flow",
    "flows",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of flows that mitmproxy saved, or a HAR file: explain the requests in it.",
)
@rules_option
@click.option(
    "--header", multiple=True, metavar="NAME=VALUE", callback=header_pairs, help="A header of the request."
)
@click.option("--port", default=PORT, show_default=True, help="The listener that takes the request.")
@click.option("--path", type=click.Choice([MESSAGES, COUNT_TOKENS]), default=MESSAGES, show_default=True)
@click.option("--stream/--no-stream", default=True, show_default=True, help="Ask for a stream.")
@click.option("--thinking", is_flag=True, help="Ask for thinking.")
@click.option("--agent", type=click.Choice(["main", "subagent"]), default="main", show_default=True)
@click.option("--client", help="The configured client that sends it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@state_option("Folder of the quota state, and of the ledger, by which budgets are counted.")
def explain_command(
    model: str | None,
    flows: Path | None,
    file: Path | None,
    header: dict[str, str],
    port: int,
    path: str,
    stream: bool,
    thinking: bool,
    agent: str,
    client: str | None,
    as_json: bool,
    state: Path,
) -> None:
    """Show the targets of a request for MODEL, in order and with reasons. Sends nothing.

    With --flow it explains each request to the Messages API in a file of flows, also one that was not written
    by Signalbox. With --flow and --rules, a table compares the requests, tokens and cost of each provider
    under the rules in force and under those of this file.

    It uses the rules, the logins on this machine, and the last known quota of the account that Claude Code
    uses here. A running router also skips what is in cooldown or has an open circuit.
    """
    if (model is None) == (flows is None):
        raise click.UsageError("Give a model, or --flow FILE.")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if flows is not None:
        explain_flows(console, flows, file, state, port=port, as_json=as_json)
        return
    rules = loaded(file)
    if agent == "subagent":
        header = {AGENT_HEADER: "explained", **header}
    body = example_body(model or "", stream=stream, thinking=thinking)
    facts = Facts(path=path, port=port, headers=header, body=body, client=client)
    caller = Caller.of(tuple(header.items()), {}, client)
    incoming = Incoming(path=path, headers=caller.headers, wire=body.raw, body=body)
    explanation = explained(rules, facts, incoming, KnownHere(rules, state))
    if as_json:
        click.echo(json.dumps(explanation.as_dict(), indent=2, ensure_ascii=False))
    else:
        print_lines(console, explanation.lines())


def print_lines(console: Console, lines: Iterable[Line]) -> None:
    for text, style in lines:
        console.print(escaped(text), style=style)


def example_body(model: str, *, stream: bool, thinking: bool) -> Body:
    """A short request like Claude Code's."""
    fields = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 32000,
        **({"thinking": {"type": "adaptive"}} if thinking else {}),
        "stream": stream,
    }
    return Body.parse(msgspec.json.encode(fields))


class KnownHere:
    """The state on this machine that the plan depends on: quotas, logins and budgets."""

    def __init__(self, rules: Rules, state: Path) -> None:
        self._rules = rules
        self._quotas: Quotas = read_quotas(state)
        self._logins: ProviderLogins = logins_of(rules)
        self._budgets = Budgets(used_by(state, rules.ledger))
        self._now = time.time()

    def account(self, provider: Provider) -> str:
        """The account whose quota would be used. For `auth: client` that of Claude Code's folder here."""
        folder = provider.login if provider.auth == "claude-login" else picker.own_folder(self._rules)
        return str(folder) if folder in provider.quota.accounts else DEFAULT

    def used(self, rules: Rules, _: Caller) -> QuotaUsage:
        return self._quotas.used(rules, self.account, self._now)

    def refusal(self, candidate: Candidate, _: Facts) -> tuple[str, str] | None:
        """Why the candidate is unavailable to Claude Code on this machine, as (reason, detail); else None."""
        provider = candidate.provider
        without = self._logins.refusal(provider, self._now)
        now = datetime.fromtimestamp(self._now, UTC)
        spent = without or self._budgets.refusal(provider, self._rules.week, now)
        return spent or self._quotas.refusal(provider, self.account(provider), candidate.model, self._now)

    def is_last_resort(self, _: Candidate) -> bool:
        """Never: nothing is known here of circuits and cooldowns."""
        return False


def used_by(state: Path, settings: LedgerSettings) -> Used:
    """Gives the tokens used by a provider, from the ledger in the rules. `state` is the state folder. Each
    sum is read once. A ledger that cannot be read is reported once, and then all sums are 0."""
    known: dict[tuple[str, datetime], int] = {}
    is_readable = True

    def used(provider: str, since: datetime) -> int:
        nonlocal is_readable
        if (provider, since) not in known:
            found = _used(state, settings, provider, since) if is_readable else None
            is_readable = found is not None
            known[provider, since] = found or 0
        return known[provider, since]

    return used


def _used(state: Path, settings: LedgerSettings, provider: str, since: datetime) -> int | None:
    """None if the ledger cannot be read, after a line that says so."""
    from signalbox.database import ledger_url  # slow to import
    from signalbox.record.database import LedgerDatabase

    url = ledger_url(state, settings)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return 0
    with closing(LedgerDatabase(url)) as database:
        try:
            return database.used({provider: milliseconds(since)})[provider]
        except DatabaseError as fault:
            click.echo(f"{database.shown}: {fault}: budgets count as unused here", err=True)
            return None


# requests in a file of flows


def explain_flows(
    console: Console, file: Path, other: Path | None, state: Path, *, port: int, as_json: bool
) -> None:
    """Explains each request in the file. With `other` rules it prints a table that compares providers."""
    from signalbox.inspect import recorded  # which imports mitmproxy

    rules = loaded(None)
    sets = [rules] if other is None else [rules, loaded(other)]
    known = [KnownHere(one, state) for one in sets]
    counted: list[list[Counted]] = [[] for _ in sets]
    explained_requests: list[dict[str, Any]] = []
    left_out: list[str] = []
    with issuer_in(state) as issuer:
        try:
            for flow in recorded.read_flows(file):
                try:
                    request = recorded.request_of(flow)
                    if request is None:
                        continue
                    explanations = [
                        explained_request(one, request, here, issuer, port=port)
                        for one, here in zip(sets, known, strict=True)
                    ]
                except (recorded.NotWhole, BodyError) as why:
                    left_out.append(str(why))
                    continue
                if other is not None:
                    usage = recorded.usage_of(flow)
                    for mine, one in zip(counted, explanations, strict=True):
                        mine.append(Counted(one, usage))
                elif as_json:
                    explained_requests.append(explanations[0].as_dict())
                else:
                    print_lines(console, paragraph(request, explanations[0], recorded.outcome_of(flow)))
                    console.print()
        except recorded.Unreadable as why:
            raise click.ClickException(f"{file}: {why}") from None
    for reason, times in Counter(left_out).items():
        click.echo(f"{times} left out: {escaped(reason)}", err=True)
    if other is not None:
        before, after = (shares(mine, shipped()) for mine in counted)
        if as_json:
            compared = {"before": before, "after": after}
            result = {
                when: {name: one.as_dict() for name, one in those.items()} for when, those in compared.items()
            }
            click.echo(json.dumps(result, indent=2))
        else:
            print_comparison(console, before, after)
    elif as_json:
        click.echo(json.dumps(explained_requests, indent=2, ensure_ascii=False))


@contextmanager
def issuer_in(state: Path) -> Iterator[Issuer]:
    """The issuers of thinking blocks that are stored in this state folder; none if there is no such
    folder."""
    if not (state / LEARNED).exists():
        yield lambda _: None
        return
    store = ProvenanceStore(state)
    try:
        yield store.issuer_of
    finally:
        store.close()


def print_comparison(console: Console, before: dict[str, Share], after: dict[str, Share]) -> None:
    """Prints requests, tokens and cost by provider, under the rules in force and under the others."""
    table = Table(box=SIMPLE)
    table.add_column("provider", no_wrap=True)
    for when in ("before", "after"):
        for heading in ("requests", "tokens", "cost"):
            table.add_column(f"{heading}\n{when}", justify="right", no_wrap=True)
    for name in sorted({*before, *after}):
        table.add_row(escaped(name), *_cells(before.get(name)), *_cells(after.get(name)))
    table.add_section()
    table.add_row("all", *_cells(total(before.values())), *_cells(total(after.values())))
    console.width = max(console.width, WIDEST)  # a narrow terminal wraps lines; rich would cut them
    console.print(table)
    unpriced = max(total(before.values()).unpriced, total(after.values()).unpriced)
    if unpriced:
        console.print(
            f"Of {count(unpriced)} requests the price is not known under at least one of the rules."
        )


def _cells(share: Share | None) -> tuple[str, str, str]:
    if share is None:
        return "0", "", ""
    cost = "?" if share.cost is None and share.unpriced else f"${share.cost or 0:.4f}"
    return f"{share.requests:,}", share.tokens, cost


def total(those: Iterable[Share]) -> Share:
    whole = Share()
    for share in those:
        whole += share
    return whole
