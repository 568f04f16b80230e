"""The dashboard, the alerts and the table of metrics name what /metrics really shows."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.metrics import every_metric
from tests.support.router_process import ROOT

FOLDER = ROOT / "examples" / "monitoring"
NAME = re.compile(r"\bsignalbox_[a-z_]+")

families = list(text_string_to_metric_families(every_metric()))
SAMPLES = {sample.name: set(sample.labels) for family in families for sample in family.samples}
PROMTOOL = shutil.which("promtool")


def expressions() -> list[str]:
    """Of the dashboard's panels and variables, and of the alerts."""
    board = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
    alerts = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))
    return [
        *(target["expr"] for panel in board["panels"] for target in panel.get("targets", ())),
        *(one["definition"] for one in board["templating"]["list"] if "definition" in one),
        *(rule["expr"] for group in alerts["groups"] for rule in group["rules"]),
    ]


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_names_metrics_and_labels_that_exist(expression):
    names = NAME.findall(expression)
    assert names or expression == 'up{job="signalbox"} == 0'
    labels = set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", expression)) - {"job"}
    for by in re.findall(r"by \(([^)]*)\)", expression):
        labels |= {label.strip() for label in by.split(",")} - {"instance"}
    for name in names:
        assert name in SAMPLES
        assert labels <= SAMPLES[name]


def test_panels_have_ids_of_their_own_and_do_not_cover_each_other():
    panels = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_the_table_in_the_docs_has_every_metric_with_its_type_and_labels():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(signalbox_\w+)` \| (counter|gauge|histogram) \| ([^|]*)\|", text, re.MULTILINE)
    suffix = {"counter": "_total"}
    assert {(name, kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == {
        (
            family.name + suffix.get(family.type, ""),
            family.type,
            frozenset(family.samples[-1].labels) - {"le"},
        )
        for family in families
    }


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "command",
    [
        ("check", "rules", str(FOLDER / "alerts.yaml")),
        ("check", "config", "--syntax-only", str(FOLDER / "prometheus.yaml")),
        ("check", "metrics"),
    ],
)
def test_prometheus_own_tool_finds_no_fault(command):
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *command], input=every_metric(), capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")


BAD = {
    'up{job="signalbox", instance="a"}': "0x60",
    'signalbox_requests_total{instance="a", status="error"}': "0+2x60",
    'signalbox_requests_total{instance="a", status="success"}': "0+8x60",
    'signalbox_attempts_total{provider="zai", outcome="429"}': "0+8x60",
    'signalbox_attempts_total{provider="zai", outcome="200"}': "0+2x60",
    'signalbox_circuit_open{provider="zai"}': "1x60",
    'signalbox_quota_used_ratio{provider="zai", account="default", window="5h"}': "0.95x60",
    'signalbox_budget_used_ratio{provider="zai"}': "0.95x60",
    'signalbox_cost_usd_total{provider="zai"}': "0+2x60",
    'signalbox_tokens_total{provider="zai", type="cache_read"}': "0+10000x60",
    'signalbox_tokens_total{provider="zai", type="input"}': "0+90000x60",
    'signalbox_first_byte_seconds_bucket{provider="zai", le="30"}': "0x60",
    'signalbox_first_byte_seconds_bucket{provider="zai", le="60"}': "0+10x60",
    'signalbox_first_byte_seconds_bucket{provider="zai", le="+Inf"}': "0+10x60",
    'signalbox_ledger_waiting{instance="a"}': "200x60",
}
"""An hour in which everything is wrong."""
WELL = {
    **dict.fromkeys(BAD, "0x60"),
    'up{job="signalbox", instance="a"}': "1x60",
    'signalbox_requests_total{instance="a", status="success"}': "0+10x60",
    'signalbox_attempts_total{provider="zai", outcome="200"}': "0+10x60",
    'signalbox_cost_usd_total{provider="zai"}': "0+0.01x60",
    'signalbox_tokens_total{provider="zai", type="cache_read"}': "0+90000x60",
    'signalbox_tokens_total{provider="zai", type="input"}': "0+10000x60",
    'signalbox_first_byte_seconds_bucket{provider="zai", le="30"}': "0+10x60",
    'signalbox_first_byte_seconds_bucket{provider="zai", le="+Inf"}': "0+10x60",
}
ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(("series", "firing"), [(BAD, ALERTS), (WELL, [])], ids=["bad", "well"])
def test_alerts_fire_when_something_is_wrong_and_only_then(tmp_path, series, firing):
    assert PROMTOOL is not None
    expected = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)]
    query = 'count by (alertname) (ALERTS{alertstate="firing"})'
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": query, "eval_time": "1h", "exp_samples": expected}],
    }
    tests = {"rule_files": [str(FOLDER / "alerts.yaml")], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    command = [PROMTOOL, "test", "rules", str(tmp_path / "tests.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
