"""`signalbox explain`: the targets of a request in order, and what is changed in it. Sends nothing."""

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
from rich.console import Console

from signalbox.anthropic.api import COUNT_TOKENS, MESSAGES
from signalbox.anthropic.json_edit import Body
from signalbox.background import picker
from signalbox.cli.options import PORT, loaded, rules_option, state_option
from signalbox.config.rules import Failover, LedgerSettings, Provider, Rules
from signalbox.protocols import api_of, translation_refusal
from signalbox.record.console import skip_line
from signalbox.routing.budget import Budgets, Used
from signalbox.routing.credentials import masked
from signalbox.routing.facts import AGENT_HEADER, Facts
from signalbox.routing.match import why
from signalbox.routing.outgoing import Incoming, ProviderConstraints
from signalbox.routing.plan import Candidate, plan
from signalbox.routing.quota import DEFAULT, Quotas
from signalbox.state.logins import Logins, logins_of
from signalbox.state.quota_files import read_quotas

type Line = tuple[str, str]
"""(text, style)"""


THINKING = {
    "own": "other providers' is dropped from the history",
    "keep": "all of the history's is kept",
    "strip": "all is dropped from the history",
}


def header_pairs(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in given]
    if not all(name and equals for name, equals, _ in pairs):
        raise click.BadParameter("write NAME=VALUE")
    return {name.lower(): value for name, _, value in pairs}


@click.command("explain")
@click.argument("model")
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
@state_option("Folder of the quota state, and of the ledger, by which budgets are counted.")
def explain_command(
    model: str,
    file: Path | None,
    header: dict[str, str],
    port: int,
    path: str,
    stream: bool,
    thinking: bool,
    agent: str,
    client: str | None,
    state: Path,
) -> None:
    """Show the targets of a request for MODEL, in order and with reasons. Sends nothing.

    It uses the rules, the logins on this machine, and the last known quota of the account that Claude Code
    uses here. A running router also skips what is in cooldown or has an open circuit.
    """
    rules = loaded(file)
    if agent == "subagent":
        header = {AGENT_HEADER: "explained", **header}
    body = example_body(model, stream=stream, thinking=thinking)
    facts = Facts(path=path, port=port, headers=header, body=body, client=client)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    budgets = Budgets(used_by(state, rules.ledger))
    known = Known(rules, read_quotas(state), logins_of(rules), budgets, time.time())
    for text, style in account(rules, facts, body, known):
        console.print(text, style=style)


def example_body(model: str, *, stream: bool, thinking: bool) -> Body:
    """A short request as Claude Code would send it."""
    fields = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 32000,
        **({"thinking": {"type": "adaptive"}} if thinking else {}),
        "stream": stream,
    }
    return Body.parse(msgspec.json.encode(fields))


class Known(NamedTuple):
    """State beyond the rules. `now` is in unix seconds."""

    rules: Rules
    quotas: Quotas
    logins: Logins
    budgets: Budgets
    now: float

    def account(self, provider: Provider) -> str:
        """The account that would pay: that of Claude Code's folder here for `auth: client`."""
        folder = provider.login if provider.auth == "claude-login" else picker.own_folder(self.rules)
        return str(folder) if folder in provider.quota.accounts else DEFAULT

    def refusal(self, candidate: Candidate, _: Facts) -> tuple[str, str] | None:
        """Why the candidate is unavailable to Claude Code on this machine, as (reason, detail); else None."""
        provider = candidate.provider
        without = self.logins.refusal(provider, self.now)
        now = datetime.fromtimestamp(self.now, UTC)
        spent = without or self.budgets.refusal(provider, self.rules.week, now)
        return spent or self.quotas.refusal(provider, self.account(provider), candidate.model, self.now)


def used_by(state: Path, settings: LedgerSettings) -> Used:
    """Tokens used by a provider, from the ledger that the rules name; `state` is the state folder."""

    def used(provider: str, since: datetime) -> int:
        from signalbox.database import DatabaseError, address  # slow to import
        from signalbox.record.database import LedgerDatabase, milliseconds

        url = address(state, settings)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
            return 0
        with closing(LedgerDatabase(url)) as database:
            try:
                return database.used({provider: milliseconds(since)})[provider]
            except DatabaseError as fault:
                raise click.ClickException(f"{database.shown}: {fault}") from fault

    return used


def account(rules: Rules, facts: Facts, body: Body, known: Known) -> Iterator[Line]:
    """Rules that do not match, the one that does, its targets in order, and the skipped ones."""
    used = known.quotas.used(rules, known.account, known.now)
    planned = plan(rules, facts, quota=used, refusals=(translation_refusal, known.refusal))
    for rule in rules.rules:
        if rule is planned.rule:
            break
        refusal = why(rule.match, facts, used)
        yield f"{rules.file.name}:{rule.line} {rule.label} does not match: {refusal}", "dim"
    if planned.rule is None:
        yield f"{facts.asked} matches no rule and goes to the reverse upstream as it came", "bold"
        return
    yield f"{rules.file.name}:{planned.rule.line} {planned.label} matches {facts.asked}", "bold"
    incoming = Incoming(path=facts.path, headers=tuple(facts.headers.items()), wire=body.raw, body=body)
    lone = len(planned.candidates) + bool(planned.reject) == 1
    for number, candidate in enumerate(planned.candidates, 1):
        yield from _target(number, candidate, facts, incoming, lone=lone)
    if planned.candidates and not lone:
        yield f"the next one is asked after: {_moves_on(planned.rule.failover)}", "dim"
        yield "a running router also skips what is in cooldown or has an open circuit", "dim"
    for skip in planned.skipped:
        yield skip_line(skip.provider, skip.model, skip.reason, skip.detail), "yellow"
    if planned.reject:
        then = "then " if planned.candidates else ""
        yield f"{then}refused here: {planned.reject.status} {planned.reject.message}", "red"
    elif not planned.candidates:
        yield "no target is available: refused here with 503", "red"


def _moves_on(failover: Failover) -> str:
    again = [f"{failover.retries} retries"] if failover.retries else []
    waits = [f"a retry-after of at most {failover.wait:g} s waited out"] if failover.wait else []
    first = f"; before that {' and '.join((*again, *waits))}" if again or waits else ""
    return (" ".join(sorted(failover.on)) or "nothing") + first


def _target(
    number: int, candidate: Candidate, facts: Facts, incoming: Incoming, *, lone: bool
) -> Iterator[Line]:
    provider = candidate.provider
    protocol = api_of(provider)
    constraints = ProviderConstraints(lambda _: provider.name)
    outgoing = protocol.prepare(
        candidate, facts, incoming, key=provider.key, constraints=constraints, is_only_candidate=lone, seed=""
    )
    yield (
        f"{number}. {provider.name}: POST {provider.url.scheme}://{provider.url.authority}{outgoing.path}",
        "green",
    )
    if facts.path == COUNT_TOKENS and provider.count_tokens != "forward":
        yield f"   not sent, count_tokens: {provider.count_tokens}", ""
    if spelling := protocol.spelling(provider):
        yield f"   {spelling}", ""
    yield f"   model: {outgoing.model}", ""
    yield f"   key: {_credential(provider)}", ""
    yield f"   thinking: {THINKING[provider.thinking]}", ""
    for change in outgoing.changes or ("nothing",):
        yield f"   changed: {change}", ""


def _credential(provider: Provider) -> str:
    match provider.auth:
        case "client":
            return "caller's own"
        case "claude-login":
            return f"login in {provider.login}"
        case "none":
            return "none"
    return f"{masked(provider.key or '')} ({provider.key_header})"
