"""Probes of accounts that are skipped: with what, whom, how often."""

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from signalbox.background.quota_probe import FAILURES, TIMEOUT, ProbeSchedule, QuotaProber, probe_request
from signalbox.config.fields import Secret, Url
from signalbox.config.rules import Failover, Match, Provider, Quota, Rule, Rules, Target
from signalbox.routing import rate_limit_headers
from signalbox.routing.quota import Quotas
from signalbox.routing.rate_limit_headers import RateLimitHeaders
from signalbox.tls import default_ssl_context
from tests.support.answers import Answer, error_json, json_answer
from tests.support.fake_provider import Upstream

LOGIN = ("Authorization", "Bearer sk-ant-oat01-fake-login-of-nobody")
KEY = "sk-ant-api03-fake-key-of-nobody"
MARKS: dict[str, Any] = {"redirect_at": {"5h": 90}, "probe": 0.02, "status_file": Path("status.md")}


def provider(url: str, *, auth: Any = "client", quota: Quota | None = None, **options: Any) -> Provider:
    host, _, port = url.removeprefix("http://").partition(":")
    return Provider(
        name="anthropic",
        url=Url("http", host, int(port)),
        auth=auth,
        quota=quota or Quota(**MARKS),
        **options,
    )


def rules_of(home: Provider) -> Rules:
    rule = Rule("#1", Match(), ((Target(home.name),),), None, Failover(), 1)
    return Rules(providers={home.name: home}, rules=(rule,))


class Router:
    """A prober with an account that is skipped, and what it hears."""

    def __init__(
        self,
        home: Provider,
        *,
        token: str | None = None,
        rules: Rules | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.home = home
        self.rules = rules or rules_of(home)
        self.quotas = Quotas()
        self.heard: list[tuple[str, int]] = []
        self._token = token
        self.prober = QuotaProber(self, timeout=timeout)

    def account_of(self, provider: Provider, secret: str | None) -> str:
        return "/work" if (secret or "").endswith("work") else ""

    def token(self, provider: Provider) -> str | None:
        return self._token

    async def read_logins(self, rules: Rules) -> None:
        pass

    def refresh(self) -> None:
        pass

    def client_ssl_context(self) -> ssl.SSLContext:
        return default_ssl_context()

    def goes_over(self, account: str = "", percent: float = 95.0, refused: str | None = None) -> None:
        status = {} if refused is None else {"5h": "rejected"}
        told = RateLimitHeaders(status, {"5h": percent}, {"5h": time.time() + 3600})
        self.quotas.observe(self.home.name, account, told, time.time(), refused)
        self.quotas.settle(self.rules, time.time())

    def observe_probe(
        self, provider: Provider, account: str, status: int, headers: Mapping[str, str]
    ) -> bool:
        self.heard.append((account, status))
        return rate_limit_headers.parse_rate_limits(headers, time.time()) is not None

    def run(self, until: Callable[[], object], limit: float = 5.0) -> None:
        """Let it probe until something holds."""

        async def both() -> None:
            task = asyncio.create_task(self.prober.run())
            try:
                async with asyncio.timeout(limit):
                    while not until():  # noqa: ASYNC110 (a server in a thread is what is waited for)
                        await asyncio.sleep(0.005)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        asyncio.run(both())


TELLS = json_answer({"input_tokens": 8}, headers=[("anthropic-ratelimit-unified-5h-utilization", "0.95")])
SILENT = json_answer({"input_tokens": 8})


def test_an_account_is_probed_again_and_again_with_the_credential_it_was_seen_with(upstream):
    upstream.answer(TELLS)
    router = Router(provider(upstream.url))
    router.goes_over()
    router.prober.remember_credential(router.home, "", LOGIN)
    router.run(lambda: len(router.heard) >= 3)
    probe = upstream.requests[0]
    assert (probe.method, probe.path) == ("POST", "/v1/messages/count_tokens")
    assert probe.header("authorization") == LOGIN[1]
    assert probe.header("anthropic-beta") == "oauth-2025-04-20"
    assert set(router.heard) == {("", 200)}


@pytest.mark.parametrize(
    ("options", "token", "expected"),
    [
        ({"auth": "key", "keys": (Secret(KEY),)}, None, ("x-api-key", KEY)),
        (
            {"auth": "claude-login"},
            "sk-ant-oat01-fake-own",
            ("authorization", "Bearer sk-ant-oat01-fake-own"),
        ),
        ({"quota": Quota(**MARKS, probe_key=Secret(KEY))}, None, ("x-api-key", KEY)),
        (
            {"quota": Quota(**MARKS, probe_key=Secret("sk-ant-oat01-fake"))},
            None,
            ("authorization", "Bearer sk-ant-oat01-fake"),
        ),
    ],
    ids=["key", "login", "key for probes", "token for probes"],
)
def test_it_is_probed_with_a_credential_of_its_own_where_it_has_one(upstream, options, token, expected):
    upstream.answer(TELLS)
    router = Router(provider(upstream.url, **options), token=token)
    router.goes_over()
    router.run(lambda: router.heard)
    name, value = expected
    assert upstream.requests[0].header(name) == value
    is_login = value.startswith("Bearer")
    assert upstream.requests[0].header("anthropic-beta") == ("oauth-2025-04-20" if is_login else None)


def test_a_key_for_probes_is_of_the_account_whose_quota_it_reports(upstream):
    upstream.answer(TELLS)
    key = Secret("sk-ant-oat01-fake-for-work")
    router = Router(provider(upstream.url, quota=Quota(**MARKS, probe_key=key, accounts=(Path("/work"),))))
    router.goes_over("")
    router.goes_over("/work")
    router.run(lambda: len(router.heard) >= 3)
    assert {account for account, _ in router.heard} == {"/work"}


def never(router: Router) -> bool:
    """Whether nobody is to be probed, now or later."""
    return router.prober.update_schedules(time.monotonic()) == {}


def test_without_a_credential_nothing_is_sent(upstream):
    router = Router(provider(upstream.url))
    router.goes_over()
    assert never(router)
    router.prober.remember_credential(router.home, "", LOGIN)
    assert not never(router)


def test_what_is_not_passed_over_is_not_probed(upstream):
    router = Router(provider(upstream.url, auth="none"))
    router.goes_over(percent=89.0)
    assert never(router)


def test_without_rules_or_with_the_probe_off_nothing_is_probed(upstream):
    home = provider(upstream.url, auth="none")
    without = Router(home, rules=Rules(providers={home.name: home}))
    off = Router(provider(upstream.url, auth="none", quota=Quota(**MARKS | {"probe": 0.0})))
    for router in (without, off):
        router.goes_over()
        assert never(router)


def test_who_is_not_anthropic_is_probed_only_where_quota_is_given(upstream):
    gateway = provider(upstream.url, auth="none", quota=Quota())
    router = Router(gateway)
    router.goes_over(refused="glm-4.7")
    assert never(router)
    router.rules = rules_of(provider(upstream.url, auth="none"))
    assert not never(router)


def test_a_credential_goes_to_no_other_host(upstream, second):
    router = Router(provider(upstream.url))
    router.prober.remember_credential(router.home, "", LOGIN)
    router.home = provider(second.url)
    router.rules = rules_of(router.home)
    router.goes_over()
    assert never(router)
    router.prober.remember_credential(router.home, "", LOGIN)
    assert not never(router)


def test_a_redirection_is_not_followed(upstream, second):
    upstream.answer(error_json(307, "api_error", headers=[("Location", f"{second.url}/v1/messages")]))
    router = Router(provider(upstream.url))
    router.goes_over()
    router.prober.remember_credential(router.home, "", LOGIN)
    router.run(lambda: len(router.heard) >= 2)
    assert second.requests == []


@pytest.mark.slow
def test_after_failures_it_asks_half_as_often_each_time(upstream: Upstream):
    upstream.answer(SILENT)
    router = Router(provider(upstream.url, auth="none", quota=Quota(**MARKS | {"probe": 0.05})))
    router.goes_over()
    router.run(lambda: len(upstream.requests) >= FAILURES + 3)
    times = [request.time for request in upstream.requests]
    gaps = [later - before for before, later in pairwise(times)]
    # Of 0.1, 0.2 and 0.4 s, less what the question before was late in coming.
    assert gaps[FAILURES - 1] >= 0.05
    assert gaps[FAILURES] >= 0.1
    assert gaps[FAILURES + 1] >= 0.2


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 300), (2, 300), (3, 600), (4, 1200), (6, 3600), (10_000, 3600)]
)
def test_it_waits_an_hour_at_most(failures, seconds):
    assert ProbeSchedule(1000.0, failures).due(300.0) == 1000 + seconds


def test_an_interval_longer_than_an_hour_stays_as_it_is():
    assert ProbeSchedule(0.0, 50).due(7200.0) == 7200


def test_a_new_credential_ends_the_waiting(upstream):
    upstream.answer(SILENT)
    router = Router(provider(upstream.url))
    router.goes_over()
    router.prober.remember_credential(router.home, "", LOGIN)
    router.prober.update_schedules(time.monotonic())
    (schedule,) = router.prober.schedules.values()
    schedule.failures = 10_000
    router.prober.remember_credential(router.home, "", LOGIN)
    assert schedule.failures == 10_000
    renewed = "Bearer sk-ant-oat01-fake-renewed"
    router.prober.remember_credential(router.home, "", ("Authorization", renewed))
    router.run(lambda: upstream.requests)
    assert upstream.requests[0].header("authorization") == renewed


def test_a_provider_that_cannot_be_reached_is_a_failure_and_no_more():
    router = Router(provider("http://127.0.0.1:1", auth="none"))
    router.goes_over()
    router.run(lambda: any(schedule.failures for schedule in router.prober.schedules.values()))


@pytest.mark.slow
def test_an_answer_that_trickles_in_is_given_up(upstream):
    upstream.answer(Answer(framing="raw", chunks=(b"HTTP/1.1 200 OK\r\n", *(0.05, b"x: y\r\n") * 200)))
    router = Router(provider(upstream.url, auth="none", quota=Quota(**MARKS | {"probe": 0.3})), timeout=0.1)
    router.goes_over()
    router.run(lambda: any(schedule.failures for schedule in router.prober.schedules.values()))


def test_it_ends_when_it_is_cancelled_in_mid_probe(upstream):
    hangs = threading.Event()
    upstream.answer(Answer(wait=hangs))
    router = Router(provider(upstream.url, auth="none"))
    router.goes_over()
    began = time.monotonic()
    router.run(lambda: upstream.requests)
    assert time.monotonic() - began < 5
    hangs.set()


def test_a_prefix_and_further_headers_of_the_provider_are_kept():
    home = provider("http://127.0.0.1:1", auth="key", keys=(Secret(KEY),), headers={"X-Title": "signalbox"})
    url = Url("http", "127.0.0.1", 1, "/api/anthropic")
    outgoing = probe_request(Provider(name="a", url=url, auth="none", headers=home.headers), (), None)
    assert outgoing.path == "/api/anthropic/v1/messages/count_tokens"
    assert dict(outgoing.headers)["X-Title"] == "signalbox"
