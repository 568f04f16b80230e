"""What tokens cost: by the prices that the user gives a provider, else by the shipped table.

The shipped table, `prices.yaml`, holds the hosts of each provider and the prices of its models, with the page
that tells them and the latest day on which it is known to have told them. Every error in it names line and
path, as in rules.yaml.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from signalbox.anthropic.api import Usage
from signalbox.anthropic.models import LISTED, LONG_CONTEXT_SUFFIX
from signalbox.config import document
from signalbox.config.decode import Decoder
from signalbox.config.document import ConflictError, DocumentError
from signalbox.config.fields import Count, Dollars, HostName, NewName, Text, UrlPath, string_schema
from signalbox.config.rules import ANTHROPIC_HOST, Price, Provider
from signalbox.config.typespec import OneOrMore, Reads

SHIPPED = Path(__file__).with_name("prices.yaml")

_PREFIXES = (LISTED, "anthropic/", "anthropic.", "models/")
"""What stands before a model's name: in the merged model list, at other routers, at Bedrock, in Gemini's own
SDK."""
_SNAPSHOT = re.compile(r"[-@](\d{8}|\d{4}-\d{2}-\d{2})$")
"""The date of a model's version: `-20251001`, `@20251001`, `-2026-03-05`. All versions of a model have one
price unless the table names one of them."""


class PriceTableError(ValueError):
    """The table cannot be used. Its text has a line for each error: `prices.yaml:LINE: MESSAGE (at PATH)`."""


def _address(written: str) -> str:
    if not re.fullmatch(r"https://[!-~]+", written):
        raise ValueError
    return written


class Hours(NamedTuple):
    """A part of the day, `end` excluded."""

    start: int
    end: int


def _hours(written: str) -> Hours:
    found = re.fullmatch(r"(\d\d)-(\d\d)", written)
    if found is None or not 0 <= int(found[1]) < int(found[2]) <= 24:
        raise ValueError
    return Hours(int(found[1]), int(found[2]))


type Day = Annotated[date, Reads("a day such as 2026-11-29", date.fromisoformat, string_schema())]
type Address = Annotated[str, Reads("an address that begins with https://", _address, string_schema())]
type HoursText = Annotated[Hours, Reads("hours of the day such as 06-10", _hours, string_schema())]


class Rates(msgspec.Struct, frozen=True):
    """US dollars per million tokens of each kind."""

    input: Dollars
    output: Dollars
    cache_read: Dollars | None = None
    """None: the provider has no discount, a cached token costs what any other of the prompt does."""
    cache_write: Dollars | None = None
    """None: the provider takes no surcharge for what it writes to its cache."""
    cache_write_1h: Dollars | None = None
    """For entries that live for an hour; None: they cost what others do."""

    def cost(self, usage: Usage) -> float:
        """US dollars."""
        read = self.input if self.cache_read is None else self.cache_read
        write = self.input if self.cache_write is None else self.cache_write
        write_1h = write if self.cache_write_1h is None else self.cache_write_1h
        written = usage.cache_creation_input_tokens
        written_1h = min(usage.cache_creation_1h_input_tokens, written)
        millionths = (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_read_input_tokens * read
            + (written - written_1h) * write
            + written_1h * write_1h
        )
        return millionths / 1_000_000


class ModelPrice(msgspec.Struct, frozen=True):
    """What some models of one provider cost, from a day on."""

    models: OneOrMore[Text]
    """Names as sent, without the date of a version."""
    rates: Rates
    valid_from: Day | None = msgspec.field(default=None, name="from")
    """The first day (UTC) of this price; None where no earlier one is known."""
    above: tuple[tuple[Count, Rates], ...] = ()
    """(tokens, rates): a request whose prompt has more tokens, cached ones included, is charged by these."""
    source: Address | None = None
    """The page, where it is not the provider's."""
    as_of: Day | None = None

    def rates_for(self, usage: Usage) -> Rates:
        """Those for a prompt of this length."""
        levels = [tokens for tokens, _ in self.above if usage.total_input > tokens]
        return dict(self.above)[max(levels)] if levels else self.rates


class Peak(msgspec.Struct, frozen=True):
    """When all prices of a provider are higher: Monday to Friday, in hours of UTC."""

    times: Dollars
    hours: OneOrMore[HoursText]

    def holds(self, at: datetime) -> bool:
        return at.weekday() < 5 and any(start <= at.hour < end for start, end in self.hours)


class ProviderPrices(msgspec.Struct, frozen=True):
    hosts: OneOrMore[HostName]
    source: Address
    """The page that tells these prices."""
    as_of: Day
    """The latest day on which it is known to have told them."""
    prices: OneOrMore[ModelPrice]
    peak: Peak | None = None

    def __post_init__(self) -> None:
        seen: set[tuple[str, date | None]] = set()
        for i, price in enumerate(self.prices):
            for name in price.models:
                key = (name.lower(), price.valid_from)
                if key in seen:
                    raise ConflictError(f'"{name}" has a price already', "prices", i, "models")
                seen.add(key)


class Subscription(msgspec.Struct, frozen=True):
    """A host, or a path on it, that only subscriptions use: no token is charged there."""

    host: HostName
    source: Address
    as_of: Day
    path: UrlPath = ""
    """With which the path of the provider's URL begins; empty where the host is for subscriptions alone."""

    def covers(self, provider: Provider) -> bool:
        return provider.url.host == self.host and f"{provider.url.path}/".startswith(f"{self.path}/")


class PriceFile(msgspec.Struct, frozen=True):
    providers: Mapping[NewName, ProviderPrices]
    plans: tuple[Subscription, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for name, provider in self.providers.items():
            for host in provider.hosts:
                if seen.setdefault(host, name) != name:
                    raise ConflictError(f"{host} belongs to {seen[host]} already", "providers", name, "hosts")


def read(text: str, file: str = SHIPPED.name) -> PriceFile:
    """The table that `text` holds. Raises PriceTableError."""
    try:
        root, findings = document.read_yaml(text)
    except DocumentError as broken:
        raise PriceTableError(broken.finding.within(file)) from None
    decoder = Decoder(root, {})
    found: PriceFile = decoder.decode(PriceFile, root)
    if findings := sorted({*findings, *decoder.findings}):
        raise PriceTableError("\n".join(finding.within(file) for finding in findings))
    return found


@cache
def shipped() -> "PriceTable":
    """The table that comes with the router, which is read once. Raises PriceTableError."""
    return PriceTable(read(SHIPPED.read_text(encoding="utf-8")))


class _Priced(NamedTuple):
    """One provider's prices as they are looked up."""

    by_name: Mapping[str, Sequence[ModelPrice]]
    """By name in lower case; of several prices the latest comes first."""
    peak: Peak | None

    def find(self, model: str, day: date) -> ModelPrice | None:
        name = _plain(model)
        prices = self.by_name.get(name) or self.by_name.get(_SNAPSHOT.sub("", name), ())
        return next((price for price in prices if price.valid_from is None or price.valid_from <= day), None)


class PriceTable:
    """Prices by host and model, made once and then only asked: a lookup takes some microseconds."""

    def __init__(self, file: PriceFile) -> None:
        self._plans = file.plans
        self._priced: dict[str, _Priced] = {}
        for provider in file.providers.values():
            self._priced.update(dict.fromkeys(provider.hosts, _compiled(provider)))

    def cost(self, provider: Provider, model: str, usage: Usage, at: datetime) -> float | None:
        """US dollars for what `model`, as sent, used at this provider; None where no price is known.

        The provider's own `prices` come first, then plans, where it is 0, then the table by the URL's host.
        Anthropic itself costs its list prices whatever the host, and so does Claude in a cloud.
        """
        own = next((price for glob, price in provider.prices if glob.matches(model)), None)
        if own is not None:
            return _dollars(_as_rates(own).cost(usage))
        if any(plan.covers(provider) for plan in self._plans):
            return 0.0
        is_in_cloud = provider.cloud is not None and provider.claude and "claude" in model.lower()
        at_list_price = provider.is_anthropic or is_in_cloud
        return self._listed(ANTHROPIC_HOST if at_list_price else provider.url.host, model, usage, at)

    def per_million(self, provider: Provider, model: str, at: datetime) -> tuple[float, float] | None:
        """US dollars per million tokens read and written, in a short request without a cache; None where no
        price is known."""
        tokens = 100_000
        costs = [
            self.cost(provider, model, usage, at)
            for usage in (Usage(input_tokens=tokens), Usage(output_tokens=tokens))
        ]
        return None if costs[0] is None or costs[1] is None else (costs[0] * 10, costs[1] * 10)

    def list_cost(self, asked: str, usage: Usage, at: datetime) -> float | None:
        """US dollars for the same tokens of the model that was asked for, at Anthropic's list prices; None
        where that model is not Claude's."""
        return self._listed(ANTHROPIC_HOST, asked, usage, at)

    def _listed(self, host: str, model: str, usage: Usage, at: datetime) -> float | None:
        priced = self._priced.get(host)
        if priced is None:
            return None
        utc = at.astimezone(UTC)
        price = priced.find(model, utc.date())
        if price is None:
            return None
        times = priced.peak.times if priced.peak is not None and priced.peak.holds(utc) else 1.0
        return _dollars(price.rates_for(usage).cost(usage) * times)


def _compiled(provider: ProviderPrices) -> _Priced:
    by_name: dict[str, list[ModelPrice]] = {}
    for price in sorted(provider.prices, key=lambda price: price.valid_from or date.min, reverse=True):
        for name in price.models:
            by_name.setdefault(name.lower(), []).append(price)
    return _Priced(by_name, provider.peak)


def _plain(model: str) -> str:
    """The name in lower case, without what clients put around it."""
    name = model.lower()
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name.removesuffix(LONG_CONTEXT_SUFFIX)


def _as_rates(price: Price) -> Rates:
    return Rates(price.input, price.output, price.cache_read, price.cache_write)


def _dollars(cost: float) -> float:
    """To 6 decimals, as it is recorded."""
    return round(cost, 6)
