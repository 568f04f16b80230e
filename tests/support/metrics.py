"""Pages of /metrics: one on which no metric is missing, and how tests read them."""

from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from signalbox.record.entry import AttemptRow, Entry
from signalbox.record.metrics import Gauges, Metrics

type Samples = dict[tuple[str, ...], float]


def samples(page: str) -> Samples:
    """By name and the values of the labels, which are sorted by name."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def every_metric() -> str:
    moment = datetime(2026, 11, 19, 12, tzinfo=UTC)
    attempt = AttemptRow(
        provider="zai", model="glm-4.7", started=moment, latency_ms=5, outcome="200", input_tokens=1, cost=0.1
    )
    metrics = Metrics()
    metrics.count(
        Entry(
            ts=moment,
            model="claude-sonnet-4-5",
            backend="zai",
            upstream_model="glm-4.7",
            rule="coding",
            status="success",
            first_byte_ms=60,
            cost=0.1,
            list_cost=0.3,
            attempt_rows=(attempt,),
        )
    )
    now = Gauges(1, {"zai": 1.0}, {("zai", "", "5h"): 0.4}, {"zai": 0.5}, 2, 1.5)
    return metrics.page(now).decode()
