"""What /metrics shows: names, labels and types are the contract's (section 11)."""

from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from signalbox import __version__
from signalbox.record.entry import AttemptRow, Entry
from signalbox.record.metrics import MOST_MODELS, Gauges, Metrics
from tests.support.metrics import Samples, every_metric, samples

NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)
NOTHING = Gauges(0, {}, {}, {}, 0, 0.0)


def attempt(provider: str = "zai", outcome: str = "200", model: str = "glm-4.7", **used: Any) -> AttemptRow:
    return AttemptRow(provider=provider, model=model, started=NOON, latency_ms=5, outcome=outcome, **used)


def entry(*attempts: AttemptRow, **fields: Any) -> Entry:
    usual: dict[str, Any] = {
        "ts": NOON,
        "model": "claude-sonnet-4-5",
        "backend": "zai",
        "upstream_model": "glm-4.7",
        "rule": "coding",
        "status": "success",
        "latency_ms": 700,
        "first_byte_ms": 60,
    }
    return Entry(attempt_rows=attempts, **usual | fields)


def shown(metrics: Metrics, now: Gauges = NOTHING) -> Samples:
    return samples(metrics.page(now).decode())


def counted(*entries: Entry) -> Samples:
    metrics = Metrics()
    for one in entries:
        metrics.count(one)
    return shown(metrics)


def test_names_labels_and_types_are_those_of_the_contract():
    assert {
        (family.type, sample.name, *sorted(sample.labels))
        for family in text_string_to_metric_families(every_metric())
        for sample in family.samples
    } == {
        ("counter", "signalbox_requests_total", "model", "provider", "rule", "status"),
        ("counter", "signalbox_attempts_total", "outcome", "provider"),
        ("counter", "signalbox_tokens_total", "model", "provider", "type"),
        ("counter", "signalbox_cost_usd_total", "model", "provider"),
        ("counter", "signalbox_saved_usd_total"),
        *(
            ("histogram", f"signalbox_{what}_seconds_{suffix}", *labels)
            for what in ("request", "first_byte")
            for suffix, labels in (
                ("bucket", ("le", "provider")),
                ("count", ("provider",)),
                ("sum", ("provider",)),
            )
        ),
        ("gauge", "signalbox_requests_in_flight"),
        ("gauge", "signalbox_circuit_open", "provider"),
        ("gauge", "signalbox_quota_used_ratio", "account", "provider", "window"),
        ("gauge", "signalbox_budget_used_ratio", "provider"),
        ("gauge", "signalbox_ledger_waiting"),
        ("gauge", "signalbox_rules_loaded_timestamp_seconds"),
        ("gauge", "signalbox_build_info", "version"),
    }


def test_a_failover_counts_as_one_request_and_as_an_attempt_at_each_provider():
    seen = counted(
        entry(
            attempt("zai", "429", input_tokens=3),
            attempt(
                "anthropic",
                "200",
                "claude-sonnet-4-5",
                input_tokens=10,
                output_tokens=20,
                cache_creation_input_tokens=30,
                cache_read_input_tokens=40,
                cost=0.5,
            ),
            backend="anthropic",
            upstream_model="claude-sonnet-4-5",
        )
    )
    assert seen["signalbox_requests_total", "claude-sonnet-4-5", "anthropic", "coding", "success"] == 1
    assert seen["signalbox_attempts_total", "429", "zai"] == 1
    assert seen["signalbox_attempts_total", "200", "anthropic"] == 1
    assert seen["signalbox_tokens_total", "glm-4.7", "zai", "input"] == 3
    used = {"input": 10, "output": 20, "cache_creation": 30, "cache_read": 40}
    for kind, tokens in used.items():
        assert seen["signalbox_tokens_total", "claude-sonnet-4-5", "anthropic", kind] == tokens
    assert seen["signalbox_cost_usd_total", "claude-sonnet-4-5", "anthropic"] == 0.5
    assert seen["signalbox_request_seconds_sum", "anthropic"] == pytest.approx(0.7)
    assert seen["signalbox_request_seconds_bucket", "0.5", "anthropic"] == 0
    assert seen["signalbox_request_seconds_bucket", "1.0", "anthropic"] == 1
    assert seen["signalbox_first_byte_seconds_sum", "anthropic"] == pytest.approx(0.06)


def test_what_nobody_was_asked_for_has_no_provider_and_no_first_byte():
    seen = counted(entry(backend="", upstream_model="", rule="", status="error", first_byte_ms=None))
    assert seen["signalbox_requests_total", "none", "none", "none", "error"] == 1
    assert not [key for key in seen if key[0] == "signalbox_first_byte_seconds_count"]


def test_savings_never_fall_and_count_no_request_twice():
    metrics = Metrics()
    told = []
    for cost, list_cost in ((1.0, 3.0), (4.0, 1.0), (0.0, 2.0), (0.0, 5.0), (9.0, None), (None, 9.0)):
        metrics.count(entry(cost=cost, list_cost=list_cost))
        told.append(shown(metrics)["signalbox_saved_usd_total",])
    assert told == [2.0, 2.0, 2.0, 6.0, 6.0, 6.0]  # 2, 2 - 3, + 2, + 5


@pytest.mark.slow
def test_models_that_callers_name_are_bounded():
    metrics = Metrics()
    for number in range(MOST_MODELS + 50):
        name = f"model-{number}"
        metrics.count(entry(attempt(model=name, input_tokens=1), upstream_model=name))
    metrics.count(entry(attempt(model="model-0", input_tokens=1), upstream_model="model-0"))
    models = {key[1] for key in shown(metrics) if key[0] == "signalbox_requests_total"}
    assert len(models) == MOST_MODELS + 1
    seen = shown(metrics)
    assert seen["signalbox_requests_total", "other", "zai", "coding", "success"] == 50
    assert seen["signalbox_requests_total", "model-0", "zai", "coding", "success"] == 2


@pytest.mark.parametrize(
    "name", ['x"} 1\nsignalbox_cost_usd_total{model="y', "\\", "\ud800", "a\r\nb", "m" * 999]
)
def test_no_name_breaks_out_of_its_label(name):
    metrics = Metrics()
    metrics.count(entry(upstream_model=name))
    text = metrics.page(NOTHING).decode()
    (line,) = [line for line in text.split("\n") if line.startswith("signalbox_requests_total{")]
    assert line.endswith('status="success"} 1.0')
    assert len(line) < 300
    assert not [line for line in text.split("\n") if line.startswith("signalbox_cost_usd_total{")]


def test_counts_that_would_fall_are_left_out():
    seen = counted(entry(attempt(input_tokens=-5, cost=-1.0)))
    assert not [key for key in seen if key[0] in ("signalbox_tokens_total", "signalbox_cost_usd_total")]


def test_gauges_show_what_holds_when_they_are_asked_for():
    now = Gauges(
        in_flight=3,
        circuits={"zai": 0.5, "anthropic": 0.0},
        quota={("anthropic", "", "5h"): 0.42, ("anthropic", "/home/x/.claude-work", "7d"): 1.02},
        budgets={"zai": 0.9},
        ledger_waiting=7,
        rules_loaded=1.5e9,
    )
    seen = shown(Metrics(), now)
    assert seen["signalbox_requests_in_flight",] == 3
    assert seen["signalbox_circuit_open", "zai"] == 0.5
    assert seen["signalbox_quota_used_ratio", "default", "anthropic", "5h"] == 0.42
    assert seen["signalbox_quota_used_ratio", "/home/x/.claude-work", "anthropic", "7d"] == 1.02
    assert seen["signalbox_budget_used_ratio", "zai"] == 0.9
    assert seen["signalbox_ledger_waiting",] == 7
    assert seen["signalbox_rules_loaded_timestamp_seconds",] == 1.5e9
    assert seen["signalbox_build_info", __version__] == 1


def test_two_routers_in_one_process_count_for_themselves():
    first, second = Metrics(), Metrics()
    first.count(entry())
    assert "signalbox_requests_total{" in first.page(NOTHING).decode()
    assert "signalbox_requests_total{" not in second.page(NOTHING).decode()
