"""A request is routed: the plan is made, and the flow becomes the request for its target."""

import logging
import time
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from secrets import token_hex

from mitmproxy import http
from mitmproxy.net.http.http1.read import connection_close

from signalbox.config.fields import Url
from signalbox.config.rules import ANTHROPIC_HOST, Provider, Rules, unlisted
from signalbox.gateway import reporting
from signalbox.gateway.arrival import path
from signalbox.gateway.known import Known
from signalbox.gateway.mending import Mending
from signalbox.messages.body import Body, BodyError
from signalbox.messages.encoding import EncodingError, TooLarge, decode
from signalbox.proxy import answers
from signalbox.proxy.requests import address, to_headers
from signalbox.record import console
from signalbox.routing.course import Attempt, Course
from signalbox.routing.credentials import Caller, bare
from signalbox.routing.exchange import Exchange
from signalbox.routing.facts import Facts
from signalbox.routing.match import Quota
from signalbox.routing.outgoing import Incoming, Outgoing
from signalbox.routing.plan import PERMANENT, UNTRANSLATABLE, Candidate, Plan, plan
from signalbox.routing.prepare import prepare
from signalbox.routing.threads import ELSEWHERE, Owner, counts_all, for_owner, names_thread
from signalbox.routing.work import Work
from signalbox.translate.translation import UntranslatableError
from signalbox.translate.warmup import warmed_up

log = logging.getLogger("signalbox")

NO_COUNT = (
    'Counting tokens is switched off for provider "{}" (count_tokens: reject). '
    "The usage of each answer tells how many tokens a request had."
)


def route(flow: http.HTTPFlow, exchange: Exchange, known: Known, *, is_long: bool) -> Work[None]:
    """Decide who answers. Either sets `flow.response` or leaves in the flow the request to send.

    `is_long`: looking into the body takes long, so that nothing of it is left for later.
    """
    wire, caller = flow.request.raw_content or b"", exchange.caller
    coding, limit = flow.request.headers.get("content-encoding", ""), exchange.rules.body_limit
    try:
        body: Body = yield lambda: Body.parse(decode(wire, coding, limit))
    except TooLarge:
        exchange.kind = "refused"
        flow.response = answers.too_large(exchange)
        return
    except (BodyError, EncodingError):
        pass_on(flow, exchange, "parse-failed-fail-safe")
        return
    facts = Facts(
        path=path(flow),
        port=flow.client_conn.sockname[1],
        headers=to_headers(caller.headers),
        body=body,
        client=caller.client,
        has_login=caller.has_login or not exchange.rules.clients,
    )
    exchange.facts = facts = replace(facts, calibration=known.sessions.calibration(facts.conversation))
    incoming = Incoming(exchange.path, caller.headers, wire, body)
    if is_long:
        yield partial(_look_up, exchange.rules, facts, known.meters.used(exchange.rules, caller))
    now = time.monotonic()
    chosen = plan(
        exchange.rules,
        facts,
        quota=known.meters.used(exchange.rules, caller),
        refusals=(
            lambda candidate, _: known.meters.refusal(candidate.provider, candidate.model, caller),
            lambda candidate, _: known.health.refusal(candidate.provider, candidate.model, now),
        ),
    )
    owner = None
    if facts.continues is not None:
        owner = known.sessions.owner(facts.conversation, facts.continues)
        only = for_owner(chosen, owner)
        if only is None:
            exchange.label, exchange.reason = chosen.label, chosen.reason
            flow.response = answers.error(400, ELSEWHERE, exchange)
            return
        chosen = only
    known.meters.saw(exchange.rules, chosen, caller)
    exchange.label, exchange.reason, exchange.skipped = chosen.label, chosen.reason, chosen.skipped
    for skip in chosen.skipped:
        log.debug("%s", console.skip_line(skip.provider, skip.model, skip.reason, skip.detail))
    if chosen.rule is None:
        pass_on(flow, exchange, chosen.reason)
    elif not chosen.candidates:
        flow.response = _nobody(chosen, exchange)
    else:
        yield from _go(flow, exchange, chosen, incoming, known, owner, is_long=is_long)


def _look_up(rules: Rules, facts: Facts, quota: Quota) -> None:
    """What the plan and the record ask of the facts, which keep what is found."""
    plan(rules, facts, quota=quota)
    if rules.log.prompts:
        _ = facts.snippet


def pass_on(flow: http.HTTPFlow, exchange: Exchange, reason: str) -> None:
    """Leave the request as it came: it goes to the reverse upstream, or to the host that was asked."""
    exchange.pass_to(upstream(flow, exchange.rules), time.monotonic())
    exchange.reason = reason
    _tell(exchange, is_first=False)


def upstream(flow: http.HTTPFlow, rules: Rules) -> Provider:
    """Who gets the requests that no rule decides about: the provider of the rules that is the same, else one
    whose name no provider of the rules can have, so that what it allows, costs and answers stays apart."""
    request = flow.request
    url = Url("https" if request.scheme == "https" else "http", request.host, request.port)
    known = (p for p in rules.providers.values() if p.auth == "client" and p.url == url)
    name = unlisted("anthropic" if request.host == ANTHROPIC_HOST else "upstream")
    return next(known, Provider(name=name, url=url, auth="client", beta="forward"))


def _go(
    flow: http.HTTPFlow,
    exchange: Exchange,
    chosen: Plan,
    incoming: Incoming,
    known: Known,
    owner: Owner | None,
    *,
    is_long: bool,
) -> Work[None]:
    """`owner` is who alone may get a turn of a thread, where that is known."""
    facts = exchange.facts
    assert facts is not None
    is_thread = facts.continues is not None
    exchange.provider = provider = chosen.candidates[0].provider
    candidates, chain = chosen.candidates, chosen.chain
    warms_up = incoming.body.get("max_tokens", int) == 0
    if exchange.kind == "count_tokens":
        if is_thread and not counts_all(provider):
            flow.response = answers.error(400, ELSEWHERE, exchange)
            return
        if provider.count_tokens != "forward":
            flow.response = yield from _counted_here(candidates[0], facts, exchange)
            return
        candidates = chain = candidates[:1]
    elif (
        warms_up and provider.api != "openai"
    ):  # elsewhere there is no such cache, and it would cost a prompt
        candidates, chain = (
            tuple(c for c in all if c.provider.api != "openai") for all in (candidates, chain)
        )
    elif warms_up:
        tokens: int = yield partial(facts.tokens_at, candidates[0].model)
        said, kind = warmed_up(facts.asked or "", tokens, seed=token_hex(8), stream=facts.stream)
        flow.response = answers.answer(200, said, {"content-type": kind})
        return

    caller = exchange.caller
    mending = Mending(known, facts, incoming.body, counts=exchange.kind == "count_tokens")

    def prepared(candidate: Candidate, key: str | None, lone: bool) -> Work[Outgoing]:
        if candidate.provider.auth == "claude-login":
            key = known.meters.token(candidate.provider)
        lessons, seed = mending.lessons(candidate), token_hex(8)
        outgoing: Outgoing = yield lambda: prepare(
            candidate, facts, incoming, key=key, lessons=lessons, lone=lone, seed=seed
        )
        if is_long and (outgoing.estimates or candidate.provider.count_tokens == "estimate"):
            yield lambda: facts.measured
        return outgoing

    assert chosen.rule is not None
    failover = chosen.rule.failover
    exchange.course = course = Course(
        candidates,
        failover,
        known.health,
        prepared,
        facts.conversation,
        partial(reporting.changed, counts=exchange.kind == "count_tokens"),
        chosen.reject if exchange.kind == "messages" else None,
        mending.mend if not is_thread else None,
        lambda candidate: known.meters.refusal(candidate.provider, candidate.model, caller),
        chain,
        one_key=is_thread,
    )
    now = time.monotonic()
    try:
        attempt = yield from course.start(now)
    except UntranslatableError as why:
        flow.response = answers.error(400, str(why), exchange)
        return
    if is_thread:
        is_same = owner is None or owner == owner_of(attempt, caller, known.issued.key)
        if not (is_same and (yield partial(names_thread, attempt.outgoing, incoming.wire))):
            course.ended(None, now)
            exchange.course = None
            flow.response = answers.error(400, ELSEWHERE, exchange)
            return
    exchange.take(attempt, now)

    def answered(message: str) -> None:
        if course.current is not None and course.current.provider.api == "anthropic":
            owner = owner_of(course.current, caller, known.issued.key)
            known.sessions.answered_by(facts.conversation, message, owner)

    exchange.answered = answered if exchange.kind == "messages" else None
    exchange.closes = connection_close(flow.request.http_version, flow.request.headers)
    assert exchange.outgoing is not None
    address(flow, exchange, exchange.outgoing)
    _tell(exchange, is_first=chosen.is_first)


def owner_of(attempt: Attempt, caller: Caller, key: bytes) -> Owner:
    """The provider that this attempt asks, and its account: a key, or the caller's login."""
    provider, index = attempt.provider, attempt.ticket.key_index
    secret = ""
    if provider.auth == "client":
        secret = bare(caller.login[1]) if caller.login is not None else ""
    elif index is not None:
        secret = provider.keys[index].value or ""
    told = secret.encode(errors="surrogateescape")
    return Owner(provider.name, blake2b(told, digest_size=16, key=key).digest())


def _nobody(chosen: Plan, exchange: Exchange) -> http.Response:
    """What a rule says whose targets are all passed over, or that has none."""
    if chosen.reject is not None:
        return answers.error(chosen.reject.status, chosen.reject.message, exchange)
    why = "; ".join(f"{skip.provider}: {skip.why}" for skip in chosen.skipped)
    if all(skip.reason == UNTRANSLATABLE for skip in chosen.skipped):
        return answers.error(400, why, exchange)
    lasting = all(skip.reason in PERMANENT for skip in chosen.skipped)
    return answers.error(
        503,
        f"No target of rule {chosen.label} is available: {why}",
        exchange,
        {"x-should-retry": "false"} if lasting else {},
    )


def _counted_here(candidate: Candidate, facts: Facts, exchange: Exchange) -> Work[http.Response]:
    if candidate.provider.count_tokens == "reject":
        return answers.error(501, NO_COUNT.format(candidate.provider.name), exchange)
    tokens: int = yield partial(facts.tokens_at, candidate.model)
    return answers.answer(200, b'{"input_tokens":%d}' % tokens)


def _tell(exchange: Exchange, *, is_first: bool) -> None:
    """The line `dispatch:`, and at `debug` what was changed (the contract, section 8)."""
    level = logging.DEBUG if is_first else logging.INFO
    provider, outgoing = exchange.provider, exchange.outgoing
    if provider is None or not log.isEnabledFor(level):
        return
    asked = exchange.facts.asked if exchange.facts is not None else None
    rewrite = outgoing.model if outgoing is not None and outgoing.model != asked else None
    log.log(level, "%s", console.dispatch_line(provider.shown, exchange.reason, asked or "-", rewrite))
    reporting.sent(exchange, provider, outgoing)
