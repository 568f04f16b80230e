"""Dispatch of a request: the plan is made, and each attempt is prepared and put into the flow."""

import logging
import time
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from secrets import token_hex
from typing import NamedTuple, Protocol

import msgspec
from mitmproxy import http
from mitmproxy.net.http.http1.read import connection_close

from signalbox.anthropic.encoding import EncodingError, TooLarge, decode
from signalbox.anthropic.json_edit import Body, BodyError
from signalbox.anthropic.writer import warmed_up
from signalbox.config.fields import Command, Url
from signalbox.config.rules import ANTHROPIC_HOST, Provider, Reject, Rules, unlisted
from signalbox.exchange import Exchange
from signalbox.protocols import api_of, translation_refusal, who_could
from signalbox.proxy import local_responses
from signalbox.proxy.headers import address, to_headers
from signalbox.proxy.reporting import log_dispatch
from signalbox.record import console
from signalbox.routing.attempts import AccountLimits, Attempt, AttemptSequence, Availability
from signalbox.routing.credentials import Caller, bare
from signalbox.routing.facts import Facts
from signalbox.routing.health import HealthEvent, ProviderHealth
from signalbox.routing.match import QuotaUsage
from signalbox.routing.outcome import Outcome
from signalbox.routing.outgoing import Incoming, Outgoing
from signalbox.routing.plan import PERMANENT, UNTRANSLATABLE, Candidate, Plan, plan
from signalbox.routing.repair import Provenance, RequestRepair, UnsupportedFields
from signalbox.routing.sessions import Sessions
from signalbox.routing.threads import ELSEWHERE, Owner, counts_all, for_owner, names_thread
from signalbox.routing.translator import UntranslatableError
from signalbox.routing.work import Work
from signalbox.state.login_files import Login

log = logging.getLogger("signalbox")

NO_COUNT = (
    'Counting tokens is switched off for provider "{}" (count_tokens: reject). '
    "The usage of each answer tells how many tokens a request had."
)


class Meters(AccountLimits, Protocol):
    """What accounts allow and whether logins are there; `quota_tracker.QuotaTracker`."""

    def login(self, provider: Provider) -> Login: ...
    def used(self, rules: Rules, caller: Caller) -> QuotaUsage: ...
    def remember_credential(self, rules: Rules, chosen: Plan, caller: Caller) -> None: ...


class Services(NamedTuple):
    """What outlives a request and is needed to route it."""

    meters: Meters
    sessions: Sessions
    health: ProviderHealth
    provenance: Provenance
    unsupported: UnsupportedFields


class Dispatch:
    """Makes the attempts of one routed request. `AttemptSequence` decides which one is next; this class
    prepares it, and reports its end to health and sessions.

    `first`, `repaired`, `renewed` and `after` give an attempt that is prepared but not sent; `start` puts it
    into the flow.
    """

    def __init__(
        self,
        exchange: Exchange,
        sequence: AttemptSequence,
        incoming: Incoming,
        services: Services,
        *,
        is_long: bool,
    ) -> None:
        """`is_long`: looking into the body takes long, so that nothing of it is left for later."""
        assert exchange.facts is not None
        self._exchange = exchange
        self._sequence = sequence
        self._facts = facts = exchange.facts
        self._incoming = incoming
        self._services = services
        self._is_long = is_long
        self._counts = counts = exchange.kind == "count_tokens"
        self._repair = RequestRepair(
            facts,
            incoming.body,
            exchange.rules,
            services.provenance,
            services.unsupported,
            services.sessions,
            counts=counts,
        )

    # which attempt

    def first(self, now: float) -> Work[Attempt]:
        """Raises UntranslatableError where no candidate can be sent the request."""
        attempt: Attempt | Reject | None = self._sequence.first(now)
        while True:
            assert isinstance(attempt, Attempt)
            try:
                return (yield from self._prepared(attempt))
            except UntranslatableError:
                attempt = self._sequence.instead(now)
                if not isinstance(attempt, Attempt):
                    raise

    def repaired(self, status: int, body: bytes, now: float) -> Work[Attempt | None]:
        """The same target once more, where it refused by this status and body what the request can do
        without."""
        current = self._sequence.current
        if (
            current is None
            or self._facts.continues is not None
            or not (yield from self._repair.repair(current, status, body))
        ):
            return None
        return (yield from self._again(self._sequence.repeat(now), now))

    def renewed(self, now: float) -> Work[Attempt | None]:
        """The same target once more, after the command that prints its key was run again, or its login was
        read again and is another one."""
        current = self._sequence.current
        if current is not None and current.provider.uses_login and not self._has_new_login(current):
            return None
        return (yield from self._again(self._sequence.repeat_renewed(self._exchange.renewed, now), now))

    def after(self, failure: Outcome, now: float) -> Work[Attempt | Reject | None]:
        """What follows the attempt under way, which has failed before its answer began. None: nothing
        takes over, what failed is delivered."""
        self.settle(failure, now)
        attempt = self._sequence.after(failure, now)
        while isinstance(attempt, Attempt):
            try:
                return (yield from self._prepared(attempt))
            except UntranslatableError:
                attempt = self._sequence.instead(now)
        return attempt

    def _again(self, attempt: Attempt | None, now: float) -> Work[Attempt | None]:
        """That the target refused this one says nothing about its health."""
        self.settle(None, now)
        return None if attempt is None else (yield from self._prepared(attempt))

    def _prepared(self, attempt: Attempt) -> Work[Attempt]:
        """The attempt with what is to be sent. Raises UntranslatableError."""
        candidate, key = attempt.candidate, attempt.key
        constraints, seed = self._repair.constraints(candidate), token_hex(8)
        if candidate.provider.uses_login:
            login = self._services.meters.login(candidate.provider)
            key = login.token
            constraints = msgspec.structs.replace(constraints, account=login.account)
        outgoing: Outgoing = yield lambda: api_of(candidate).prepare(
            candidate,
            self._facts,
            self._incoming,
            key=key,
            constraints=constraints,
            is_only_candidate=attempt.is_only_candidate,
            seed=seed,
        )
        attempt.outgoing = outgoing
        if self._is_long and (outgoing.estimates or candidate.count_tokens == "estimate"):
            yield lambda: self._facts.measured
        return attempt

    @property
    def key_command(self) -> Command | None:
        """The command that may print a better key than that of the attempt under way."""
        return self._sequence.key_command

    def may_renew_key(self, failure: Outcome) -> bool:
        """Whether the key of the attempt under way may have expired and a command can print another, or its
        login may have been renewed while it was asked."""
        current = self._sequence.current
        if current is None or self._sequence.is_renewed:
            return False
        is_renewable = self.key_command is not None or current.provider.uses_login
        return is_renewable and failure.status in current.provider.expired_key_statuses

    def _has_new_login(self, attempt: Attempt) -> bool:
        """Whether the login is another one than that which was sent."""
        token = self._services.meters.login(attempt.provider).token
        return token is not None and attempt.outgoing is not None and token != attempt.outgoing.login

    def could_follow(self, now: float) -> bool:
        """Whether anything could still take over from the attempt under way."""
        return self._sequence.could_follow(now)

    def not_asked(self, now: float) -> list[tuple[str, str]]:
        """As `AttemptSequence.not_asked`."""
        return self._sequence.not_asked(now)

    # what becomes of it

    def start(self, attempt: Attempt, flow: http.HTTPFlow, now: float) -> None:
        """The attempt is sent now: the flow becomes its request."""
        assert attempt.outgoing is not None
        self._sequence.start(attempt, now)
        self._exchange.start_attempt(attempt)
        address(flow, self._exchange, attempt.outgoing)

    def answer_began(self, message_id: str | None) -> None:
        """The answer that is delivered has begun, with this id of its message, if it has one."""
        self._report(self._sequence.answer_began())
        attempt = self._sequence.current
        if attempt is not None and message_id and not self._counts and _is_messages(attempt):
            owner = owner_of(attempt, self._exchange.caller, self._services.provenance.key)
            self._services.sessions.answered_by(self._facts.conversation, message_id, owner)

    def settle(self, outcome: Outcome | None, now: float) -> None:
        """The attempt under way has failed, or its answer is over; None where that says nothing of the
        provider, as where the client left."""
        self._report(self._sequence.settle(outcome, now))

    def _report(self, events: list[HealthEvent]) -> None:
        console.log_health(events, counts=self._counts)


def _is_messages(attempt: Attempt) -> bool:
    return attempt.outgoing is not None and attempt.outgoing.translator.is_identity


def owner_of(attempt: Attempt, caller: Caller, key: bytes) -> Owner:
    """The provider that this attempt asks, and its account: a key, or the caller's login."""
    provider, secret = attempt.provider, attempt.provider.account_of(attempt.key)
    if provider.auth == "client":
        secret = bare(caller.login[1]) if caller.login is not None else ""
    told = secret.encode(errors="surrogateescape")
    return Owner(provider.name, blake2b(told, digest_size=16, key=key).digest())


# from the request to its first attempt


def route(flow: http.HTTPFlow, exchange: Exchange, services: Services, *, is_long: bool) -> Work[None]:
    """Decide who answers the request. Sets either `flow.response` or the request of the flow.

    `is_long`: looking into the body takes long, so that nothing of it is left for later.
    """
    wire, caller = flow.request.raw_content or b"", exchange.caller
    coding, limit = flow.request.headers.get("content-encoding", ""), exchange.rules.body_limit
    try:
        body: Body = yield lambda: Body.parse(decode(wire, coding, limit))
    except TooLarge:
        exchange.refuse()
        flow.response = local_responses.too_large(exchange)
        return
    except (BodyError, EncodingError):
        pass_on(flow, exchange, "parse-failed-fail-safe")
        return
    facts = Facts(
        path=flow.request.path.partition("?")[0],
        port=flow.client_conn.sockname[1],
        headers=to_headers(caller.facts),
        body=body,
        client=caller.client,
        received=exchange.ts,
        has_login=caller.has_login or not exchange.rules.clients,
    )
    calibration = services.sessions.calibration(facts.conversation)
    exchange.facts = facts = replace(facts, calibration=calibration)
    incoming = Incoming(exchange.path, caller.headers, wire, body)
    if is_long:
        yield partial(_look_up, exchange.rules, facts, services.meters.used(exchange.rules, caller))
    now, availability = time.monotonic(), Availability(services.health, services.meters, caller)
    chosen = plan(
        exchange.rules,
        facts,
        quota=services.meters.used(exchange.rules, caller),
        refusals=(
            translation_refusal,
            lambda candidate, _: availability.refusal(candidate, now),
        ),
        is_last_resort=lambda candidate: availability.is_last_resort(candidate, now),
    )
    owner = None
    if facts.continues is not None:
        owner = services.sessions.owner(facts.conversation, facts.continues)
        only = for_owner(chosen, owner)
        if only is None:
            exchange.plan(msgspec.structs.replace(chosen, skipped=()))
            flow.response = local_responses.error(400, ELSEWHERE, exchange)
            return
        chosen = only
    services.meters.remember_credential(exchange.rules, chosen, caller)
    exchange.plan(chosen)
    for skip in chosen.skipped:
        log.debug("%s", console.skip_line(skip.provider, skip.model, skip.reason, skip.detail))
    if chosen.rule is None:
        pass_on(flow, exchange, chosen.reason)
    elif not chosen.candidates:
        flow.response = _none_available(chosen, exchange, body)
    else:
        yield from _begin(flow, exchange, chosen, incoming, services, availability, owner, is_long=is_long)


def _look_up(rules: Rules, facts: Facts, quota: QuotaUsage) -> None:
    """What the plan and the record ask of the facts, which keep what is found."""
    plan(rules, facts, quota=quota, refusals=(translation_refusal,))
    if rules.log.prompts:
        _ = facts.snippet


def pass_on(flow: http.HTTPFlow, exchange: Exchange, reason: str) -> None:
    """Leave the request as it came: it goes to the reverse upstream, or to the host that was asked."""
    exchange.pass_on(upstream(flow, exchange.rules), reason, time.monotonic())
    log_dispatch(exchange, is_first=False)


def upstream(flow: http.HTTPFlow, rules: Rules) -> Provider:
    """Who gets the requests that no rule decides about: the provider of the rules that is the same, else one
    whose name no provider of the rules can have, so that what it allows, costs and answers stays apart."""
    request = flow.request
    url = Url("https" if request.scheme == "https" else "http", request.host, request.port)
    known = (p for p in rules.providers.values() if p.auth == "client" and p.url == url)
    name = unlisted("anthropic" if request.host == ANTHROPIC_HOST else "upstream")
    unlisted_one = Provider(name=name, url=url, auth="client", beta="forward", proxy=rules.outbound.to(url))
    return next(known, unlisted_one)


def _begin(
    flow: http.HTTPFlow,
    exchange: Exchange,
    chosen: Plan,
    incoming: Incoming,
    services: Services,
    availability: Availability,
    owner: Owner | None,
    *,
    is_long: bool,
) -> Work[None]:
    """Answer what the router can answer by itself, else prepare the first attempt. `owner` is who alone may
    get a turn of a thread, where that is known."""
    facts = exchange.facts
    assert facts is not None
    assert chosen.rule is not None
    is_thread = facts.continues is not None
    candidates, chain = chosen.candidates, chosen.chain
    exchange.provider = candidates[0].provider
    is_warmup = incoming.body.get("max_tokens", int) == 0
    if exchange.kind == "count_tokens":
        if is_thread and not counts_all(candidates[0]):
            flow.response = local_responses.error(400, ELSEWHERE, exchange)
            return
        if candidates[0].count_tokens != "forward":
            flow.response = yield from _counted_here(candidates[0], facts, exchange)
            return
        candidates = chain = candidates[:1]
    elif is_warmup and not api_of(candidates[0]).fills_cache:  # it would cost a prompt
        tokens: int = yield partial(facts.tokens_at, candidates[0].model)
        said, kind = warmed_up(facts.asked or "", tokens, seed=token_hex(8), stream=facts.stream)
        flow.response = local_responses.answer(200, said, {"content-type": kind})
        return
    elif is_warmup:
        candidates, chain = _with_cache(candidates), _with_cache(chain)

    sequence = AttemptSequence(
        candidates,
        chosen.rule.failover,
        availability,
        facts.conversation,
        chain=chain,
        reject=chosen.reject if exchange.kind == "messages" else None,
        one_key=is_thread,
    )
    dispatch = Dispatch(exchange, sequence, incoming, services, is_long=is_long)
    now = time.monotonic()
    try:
        attempt = yield from dispatch.first(now)
    except UntranslatableError as why:
        flow.response = local_responses.error(400, str(why), exchange)
        return
    if is_thread:
        is_same = owner is None or owner == owner_of(attempt, exchange.caller, services.provenance.key)
        assert attempt.outgoing is not None
        if not (is_same and (yield partial(names_thread, attempt.outgoing, incoming.wire))):
            flow.response = local_responses.error(400, ELSEWHERE, exchange)
            return
    closes = connection_close(flow.request.http_version, flow.request.headers)
    exchange.begin(dispatch, close_after_response=closes)
    dispatch.start(attempt, flow, now)
    log_dispatch(exchange, is_first=chosen.is_first)


def _with_cache(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    return tuple(one for one in candidates if api_of(one).fills_cache)


def _none_available(chosen: Plan, exchange: Exchange, body: Body) -> http.Response:
    """The answer of a rule whose targets are all skipped, or that has none."""
    if chosen.reject is not None:
        return local_responses.error(chosen.reject.status, chosen.reject.message, exchange)
    why = "; ".join(f"{skip.provider}: {skip.why}" for skip in chosen.skipped)
    if any(skip.reason == UNTRANSLATABLE for skip in chosen.skipped):
        why = f"{why}; {who_could(exchange.rules, body)}"
    if all(skip.reason == UNTRANSLATABLE for skip in chosen.skipped):
        return local_responses.error(400, why, exchange)
    is_permanent = all(skip.reason in PERMANENT for skip in chosen.skipped)
    return local_responses.error(
        503,
        f"No target of rule {chosen.label} is available: {why}",
        exchange,
        {"x-should-retry": "false"} if is_permanent else {},
    )


def _counted_here(candidate: Candidate, facts: Facts, exchange: Exchange) -> Work[http.Response]:
    if candidate.count_tokens == "reject":
        return local_responses.error(501, NO_COUNT.format(candidate.provider.name), exchange)
    tokens: int = yield partial(facts.tokens_at, candidate.model)
    return local_responses.answer(200, b'{"input_tokens":%d}' % tokens)
