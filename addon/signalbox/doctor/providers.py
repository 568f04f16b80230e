"""Checks of the rules' keys and of the providers' addresses."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from signalbox import ports
from signalbox.background.model_fetch import fetch_models
from signalbox.background.model_list import FetchError, FetchRefusedError
from signalbox.config.rules import Provider, Rule, Rules
from signalbox.doctor.findings import Address, Finding, Situation, State, is_loopback
from signalbox.routing.credentials import Caller
from signalbox.state.logins import ProviderLogins, logins_of

LIMIT = 10.0
"""Seconds for each provider."""
OFF = 60.0
"""Seconds by which the clock may differ from a provider's."""


def keys(situation: Situation) -> Iterator[Finding]:
    """A provider that cannot be asked is a failure only where some rule has no other target."""
    rules, logins = situation.rules, logins_of(situation.rules)
    refused = {name: why for name, one in rules.providers.items() if (why := _refusal(one, logins))}
    for name, why in refused.items():
        alone = [rule.label for rule in rules.rules if name in _asked(rule) <= refused.keys()]
        message = f"{name} cannot be asked: {why}"
        if alone:
            message += f"; rule {', '.join(alone)} has no other target"
        yield Finding("keys", "fail" if alone else "warn", message, _remedy(rules, name, why))
    for name, provider in rules.providers.items():
        dead = [key.reason for key in provider.keys if key.value is None]
        if dead and name not in refused:
            message = f"{name}: {len(dead)} of {len(provider.keys)} keys cannot be used: {dead[0]}"
            yield Finding("keys", "warn", message, _remedy(rules, name, dead[0]))
    for name, shown in _seen_by_routers(situation):
        if shown.get("key_valid") is False:
            message = f"{name} has refused its key, as the router that runs saw"
            yield Finding("keys", "fail", message, f"get another key for {name}")
    if not refused:
        with_keys = [name for name, one in rules.providers.items() if one.key is not None]
        message = f"every key is there ({', '.join(with_keys)})" if with_keys else "no key is needed"
        yield Finding("keys", "ok", message)


def _refusal(provider: Provider, logins: ProviderLogins) -> str:
    refused = logins.refusal(provider, time.time())
    return provider.unavailable or (refused[1] if refused is not None else "")


def _asked(rule: Rule) -> set[str]:
    """The providers of a rule's targets."""
    return {target.provider for equals in rule.choices for target in equals}


def _remedy(rules: Rules, name: str, why: str) -> str:
    variable, is_unset, _ = why.partition(" is not set")
    if is_unset and variable.replace("_", "").isalnum():
        return f"set {variable} in the environment, or in {rules.file.parent / '.env'}"
    if rules.providers[name].auth not in ("key", "client", "none"):
        return "log in there with the program that the login belongs to"
    return f"look at key of {name} in {rules.file.name}"


def providers(situation: Situation) -> Iterator[Finding]:
    """Where each is, as far as that is known without asking anybody."""
    for name, provider in situation.rules.providers.items():
        url, where = provider.url, f"{name} is at {provider.url.scheme}://{provider.url.authority}"
        if provider.proxy is not None:
            where += f", through the proxy {provider.proxy.address}"
            here = Address(provider.proxy.host, provider.proxy.port)
        else:
            here = Address(url.host, url.port)
        if is_loopback(here.host) and ports.is_free(here.port):
            what = "the proxy" if provider.proxy is not None else "that program"
            yield Finding("providers", "warn", f"{where}, and nothing listens at {here}", f"start {what}")
        else:
            yield Finding("providers", "ok", where)
    for name, shown in _seen_by_routers(situation):
        if (circuit := shown.get("circuit")) in ("open", "half-open"):
            message = f"{name} has failed so often that the router leaves it alone (circuit {circuit})"
            yield Finding("providers", "warn", message, "signalbox logs, or its console, says why")


def _seen_by_routers(situation: Situation) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What the routers that run know of the providers of these rules, by name."""
    for health in situation.running.values():
        for name in situation.rules.providers.keys() & health.providers.keys():
            if isinstance(shown := health.providers[name], dict):
                yield name, shown


class Asked(NamedTuple):
    """What a provider said to a request for its model list."""

    provider: str
    finding: Finding
    ahead: float | None = None
    """Seconds by which this machine's clock is ahead of the provider's."""


def ask(situation: Situation) -> list[Asked]:
    """Ask each provider that has, or needs, a credential of its own for its model list, and the others for an
    answer of any kind. No caller's credential is sent."""
    return asyncio.run(_ask(situation.rules))


async def _ask(rules: Rules) -> list[Asked]:
    logins = logins_of(rules)
    return list(await asyncio.gather(*(_ask_one(one, logins) for one in rules.providers.values())))


async def _ask_one(provider: Provider, logins: ProviderLogins) -> Asked:
    credential: Caller | str | None = provider.key
    if provider.auth == "client":
        credential = Caller(())
    elif provider.uses_login:
        credential = logins.of(provider, time.time()).token
    dates: list[float] = []

    def observe(_: int, headers: Mapping[str, str]) -> None:
        if date := headers.get("date"):
            dates.append(_ahead(date))

    began, name = time.monotonic(), provider.name
    state: State = "ok"
    remedy = ""
    try:
        found = await fetch_models(provider, credential, observe=observe, limit=LIMIT)
        message = f"{name} answers, with {len(found)} models"
    except FetchRefusedError as refused:
        status = refused.answer.status
        message = f"{name} answers ({status})"
        if status in (401, 403) and provider.auth != "client" and credential is not None:
            state, message = "fail", f"{name} refuses its key ({status})"
            remedy = f"get another key for {name}"
        elif status >= 500:
            state, remedy = "warn", "ask again later; its status page may say more"
    except FetchError as error:
        state, message = "fail", f"{name} at {provider.url.authority}: {error}"
        remedy = "look at the network, at url, and at proxy"
        if str(error).startswith("its list cannot be read"):
            state, remedy = "warn", "look at url and api: something else may answer there"
    took = (time.monotonic() - began) * 1000
    return Asked(name, Finding("providers", state, f"{message}, after {took:.0f} ms", remedy), *dates[:1])


def _ahead(date: str) -> float:
    try:
        return time.time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return 0.0


def compared_clock(asked: list[Asked]) -> Iterator[Finding]:
    """This machine's clock beside those of the providers."""
    for one in asked:
        if one.ahead is not None and abs(one.ahead) > OFF:
            side = "ahead of" if one.ahead > 0 else "behind"
            message = f"the clock is {abs(one.ahead):.0f} s {side} that of {one.provider}"
            yield Finding("clock", "fail", message, "set the clock: logins and resets of quota depend on it")
            return
