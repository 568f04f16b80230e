"""mitmproxy's commands of the router: `signalbox.rules`, `.providers`, `.reload`, `.explain` and `.replay`.

They are typed into the command bar of mitmweb or of mitmproxy's console, or called by scripts. Each gives
lines of text, which also go to the log, where mitmweb shows them one by one.
"""

import asyncio
import json
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from mitmproxy import http
from mitmproxy.exceptions import CommandError
from mitmproxy.flow import Flow

from signalbox.anthropic.json_edit import BodyError
from signalbox.config.rules import Rule, Rules
from signalbox.errors import log_error
from signalbox.inspect import recorded
from signalbox.inspect.annotations import METADATA
from signalbox.inspect.compare import answered, side_by_side
from signalbox.inspect.explain import RecordedRequest, explained_request, paragraph
from signalbox.proxy import setup
from signalbox.proxy.headers import show
from signalbox.proxy.replay import NotReplayable, Replay, new_flow, rules_for, send
from signalbox.record.console import escaped
from signalbox.routing.attempts import Availability
from signalbox.routing.credentials import Caller
from signalbox.routing.facts import Facts
from signalbox.routing.match import QuotaUsage, conditions
from signalbox.routing.plan import Candidate

if TYPE_CHECKING:
    from signalbox.app import App, Stores

log = logging.getLogger("signalbox")

NOT_OURS = "This flow is no request to the Messages API."


class ConsoleCommands:
    def __init__(self, app: "App") -> None:
        self._app = app
        self._running: set[asyncio.Task[None]] = set()

    def rules(self) -> list[str]:
        """The rules in force, one a line."""
        live, rules = self._app.stores.live, self._app.rules
        loaded = f"{rules.file}, loaded at {live.loaded_at.astimezone():%H:%M:%S}"
        error = [f"not in force for an error: {live.error}"] if live.error else []
        return _logged([loaded, *error, *(_rule(rules, rule) for rule in rules.rules)])

    def providers(self) -> list[str]:
        """The providers as `/health` shows them, one a line."""
        port = next((listener.port for listener in setup.listeners(self._app.master)), 0)
        page = json.loads(self._app.health_page(port, full=True))
        lines = []
        for name, known in page["providers"].items():
            windows = (known["quota"] or {}).get("windows", {})
            quota = [f"{window} {one['percent']:g}%" for window, one in windows.items()]
            state = "available" if known["available"] else f"unavailable: {known['reason']}"
            lines.append("; ".join((f"{name}: {known['url']}", state, f"circuit {known['circuit']}", *quota)))
        return _logged(lines or ["The rules have no providers."])

    def reload(self) -> list[str]:
        """Load the rules again now. The log says how it went."""
        self._start(self._app.stores.live.reload())
        return [f"{self._app.rules.file} is loaded again; the log says how it went"]

    def explain(self, shown: Flow) -> list[str]:
        """What the rules in force make of the request of a flow now. Raises CommandError."""
        found = self._http(shown)
        request = self._request(found)
        stores, rules = self._app.stores, self._app.rules
        known = _KnownNow(stores, Caller(request.headers, request.client))
        try:
            explanation = explained_request(
                rules, request, known, stores.provenance.issuer_of, port=found.client_conn.sockname[1]
            )
        except BodyError as why:
            raise CommandError(f"The request cannot be read: {why}") from None
        return _logged(text for text, _ in paragraph(request, explanation, recorded.outcome_of(found)))

    def replay(self, shown: Flow, target: str) -> list[str]:
        """Send the request of a flow once more, to another target, as a flow of its own. Both answers are
        compared in the log and in that flow's view. Raises CommandError."""
        found = self._http(shown)
        request = self._request(found)
        try:
            rules = rules_for(self._app.rules, target)
            again = new_flow(found, request)
        except NotReplayable as why:
            raise CommandError(str(why)) from None
        self._start(self._replay(found, again, Replay(rules, request.client)))
        return [f"replay to {escaped(target)} has begun as flow {again.id}; the log compares the answers"]

    async def _replay(self, before: http.HTTPFlow, after: http.HTTPFlow, how: Replay) -> None:
        try:
            await send(self._app, after, how)
        except Exception as error:
            log_error("a replay", error)
            return
        both = answered(before), answered(after)
        noted = {**after.metadata.get(METADATA, {}), "replay_of": before.id, "compared": side_by_side(*both)}
        after.metadata[METADATA] = noted
        show(self._app.master, after)
        _logged(side_by_side(*both, texts=self._app.shows_prompts))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Go on beside the command, whose result mitmweb waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # flows

    def _http(self, found: Flow) -> http.HTTPFlow:
        if not isinstance(found, http.HTTPFlow):
            raise CommandError(NOT_OURS)
        return found

    def _request(self, found: http.HTTPFlow) -> RecordedRequest:
        """The client's request of a flow. Raises CommandError."""
        try:
            request = recorded.request_of(found, is_any_attempt=True)
        except recorded.NotWhole as why:
            raise CommandError(f"The request cannot be used: {why}") from None
        if request is None:
            raise CommandError(NOT_OURS)
        return request


class _KnownNow:
    """What this router knows now of quotas, budgets, logins and health, for one caller."""

    def __init__(self, stores: "Stores", caller: Caller) -> None:
        self._quota = stores.quota
        self._caller = caller
        self._availability = Availability(stores.provider_health, stores.quota, caller)

    def used(self, rules: Rules, _: Caller) -> QuotaUsage:
        return self._quota.used(rules, self._caller)

    def refusal(self, candidate: Candidate, _: Facts) -> tuple[str, str] | None:
        return self._availability.refusal(candidate, time.monotonic())

    def is_last_resort(self, candidate: Candidate) -> bool:
        return self._availability.is_last_resort(candidate, time.monotonic())


def _rule(rules: Rules, rule: Rule) -> str:
    held = ", ".join(conditions(rule.match)) or "always"
    sets = (
        " or ".join(f"{one.provider}/{one.model}" if one.model else one.provider for one in equals)
        for equals in rule.choices
    )
    reject = [f"reject {rule.reject.status}"] if rule.reject is not None else []
    return f"{rules.file.name}:{rule.line} {rule.label}: {held} → {', '.join((*sets, *reject))}"


def _logged(lines: Iterable[str]) -> list[str]:
    written = [escaped(line) for line in lines]
    for line in written:
        log.info("%s", line)
    return written
