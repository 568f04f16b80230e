"""The figures of `/metrics` (the contract, section 11): counts of finished requests, and what holds now.

Requests are counted on the thread that records them, after the client has its answer. What holds now is read
when somebody asks.
"""

import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from signalbox import __version__
from signalbox.config.rules import display_name
from signalbox.record.entry import Entry

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

MOST_MODELS = 200
"""Models that have label values of their own: callers name them."""
OTHER = "other"
"""The label value of all models that came later."""
NONE = "none"
"""The label value where there is none, such as the provider of a request that no target was asked for."""
LONGEST = 120
"""Characters of a label value."""

REQUEST_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
FIRST_BYTE_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)

_KINDS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_creation": "cache_creation_input_tokens",
    "cache_read": "cache_read_input_tokens",
}


class Gauges(NamedTuple):
    """What holds at one moment."""

    in_flight: int
    """Requests for messages that have no end yet."""
    circuits: Mapping[str, float]
    """By provider: 0 closed, 0.5 half-open, 1 open."""
    quota: Mapping[tuple[str, str, str], float]
    """By provider, account and window: the part that is used."""
    budgets: Mapping[str, float]
    """By provider: the part that is used."""
    ledger_waiting: int
    """Requests that are not in the ledger yet."""
    rules_loaded: float
    """Unix seconds."""


class Metrics:
    """Counts of one router since its start."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "signalbox_requests_total",
            "Requests by how they ended.",
            ("provider", "model", "rule", "status"),
            registry=registry,
        )
        self._attempts = Counter(
            "signalbox_attempts_total",
            "Attempts at a provider by outcome.",
            ("provider", "outcome"),
            registry=registry,
        )
        self._tokens = Counter(
            "signalbox_tokens_total",
            "Tokens used, of failed attempts too.",
            ("provider", "model", "type"),
            registry=registry,
        )
        self._cost = Counter(
            "signalbox_cost_usd_total",
            "US dollars, of the attempts whose price is known.",
            ("provider", "model"),
            registry=registry,
        )
        self._seconds = Histogram(
            "signalbox_request_seconds",
            "From a request to the end of its answer.",
            ("provider",),
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self._first_byte = Histogram(
            "signalbox_first_byte_seconds",
            "From a request to the first byte of its answer.",
            ("provider",),
            buckets=FIRST_BYTE_SECONDS,
            registry=registry,
        )
        self._saved = Savings()
        self._models: set[str] = set()
        self._found: dict[tuple[object, ...], Any] = {}
        """By family and labels what counts them: the library takes longer to look that up than to count."""
        self._lock = threading.Lock()

    def count(self, entry: Entry) -> None:
        """Count a finished request."""
        with self._lock:
            provider = _label(entry.backend)
            model, rule = self._model(entry.upstream_model), _label(entry.rule)
            self._of(self._requests, provider, model, rule, entry.status).inc()
            self._of(self._seconds, provider).observe(entry.latency_ms / 1000)
            if entry.first_byte_ms is not None:
                self._of(self._first_byte, provider).observe(entry.first_byte_ms / 1000)
            for attempt in entry.attempt_rows:
                asked, model = _label(display_name(attempt.provider)), self._model(attempt.model)
                self._of(self._attempts, asked, _label(attempt.outcome)).inc()
                for kind, field in _KINDS.items():
                    if (tokens := getattr(attempt, field)) > 0:
                        self._of(self._tokens, asked, model, kind).inc(tokens)
                if attempt.cost is not None and attempt.cost > 0:
                    self._of(self._cost, asked, model).inc(attempt.cost)
            if entry.cost is not None and entry.list_cost is not None:
                self._saved.add(entry.list_cost - entry.cost)

    def _of[M: (Counter, Histogram)](self, family: M, *labels: str) -> M:
        key = (family, *labels)
        found: M | None = self._found.get(key)
        if found is None:
            found = self._found[key] = family.labels(*labels)
        return found

    def page(self, now: Gauges) -> bytes:
        """Everything in the text format of Prometheus."""
        return generate_latest(_Snapshot(self._registry, self._saved, now))

    def _model(self, name: str) -> str:
        model = _label(name)
        if model in self._models:
            return model
        if len(self._models) >= MOST_MODELS:
            return OTHER
        self._models.add(model)
        return model


class Savings:
    """What was saved, as a counter. A request may cost more than at list price, and a counter that falls is
    taken for one that began anew: it stands still until the sum is above it again."""

    def __init__(self) -> None:
        self._sum = 0.0
        self.shown = 0.0

    def add(self, dollars: float) -> None:
        self._sum += dollars
        self.shown = max(self.shown, self._sum)


class _Snapshot(Collector):
    """The counts with the gauges of one moment. Without the time at which each count began, which the library
    adds as series of their own."""

    def __init__(self, counts: CollectorRegistry, saved: Savings, now: Gauges) -> None:
        self._counts, self._saved, self._now = counts, saved, now

    def collect(self) -> Iterator[Metric]:
        for family in self._counts.collect():
            family.samples = [one for one in family.samples if not one.name.endswith("_created")]
            yield family
        yield CounterMetricFamily(
            "signalbox_saved_usd",
            "US dollars below the list price of the models asked for, where both prices are known.",
            value=self._saved.shown,
        )
        yield from _gauges(self._now)


def _gauges(now: Gauges) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "signalbox_requests_in_flight", "Requests for messages that have not ended.", value=now.in_flight
    )
    circuits = GaugeMetricFamily(
        "signalbox_circuit_open", "0 closed, 0.5 half-open, 1 open.", labels=("provider",)
    )
    for provider, state in now.circuits.items():
        circuits.add_metric((_label(provider),), state)
    yield circuits
    quota = GaugeMetricFamily(
        "signalbox_quota_used_ratio",
        "Part of a provider's quota window that is used.",
        labels=("provider", "account", "window"),
    )
    for (provider, account, window), used in now.quota.items():
        quota.add_metric((_label(provider), _label(account or "default"), _label(window)), used)
    yield quota
    budgets = GaugeMetricFamily(
        "signalbox_budget_used_ratio",
        "Part of a provider's budget that is used in the running period.",
        labels=("provider",),
    )
    for provider, used in now.budgets.items():
        budgets.add_metric((_label(provider),), used)
    yield budgets
    yield GaugeMetricFamily(
        "signalbox_ledger_waiting", "Requests that are not in the ledger yet.", value=now.ledger_waiting
    )
    yield GaugeMetricFamily(
        "signalbox_rules_loaded_timestamp_seconds",
        "When the rules in force were loaded.",
        value=now.rules_loaded,
    )
    build = GaugeMetricFamily("signalbox_build_info", "The version that runs.", labels=("version",))
    build.add_metric((__version__,), 1)
    yield build


def _label(text: str) -> str:
    """A label's value; lone surrogates, which come from bytes that are no UTF-8, cannot be written."""
    return text[:LONGEST].encode(errors="replace").decode() or NONE
