"""A real Prometheus that asks a running router, with the configuration of the examples."""

import json
import shutil
import subprocess
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller
from tests.support.router import Router
from tests.support.router_process import OPENER, ROOT, free_ports, wait_until

pytestmark = pytest.mark.slow

PROMETHEUS = shutil.which("prometheus")
SECRET = "secret-of-prometheus-for-tests"


def rules(up: Upstream) -> str:
    return f"""
providers: {{zai: {{url: "{up.url}", key: zai-key-for-tests-0001}}}}
rules: [{{match: "*", to: zai/glm-4.7}}]
clients: {{prometheus: {SECRET}}}
"""


@pytest.fixture
def router(start_router, upstream) -> Router:
    started: Router = start_router(upstream.url, rules=rules(upstream))
    return started


@pytest.fixture
def prometheus(router: Router, tmp_path: Path) -> Iterator[str]:
    """Its address."""
    if PROMETHEUS is None:
        pytest.skip("prometheus is not installed")
    text = (ROOT / "examples" / "monitoring" / "prometheus.yaml").read_text(encoding="utf-8")
    text = text.replace("127.0.0.1:8082", f"127.0.0.1:{router.ports[0]}").replace("15s", "1s")
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    text = text.replace(
        "    static_configs:", f"    authorization: {{credentials_file: {secret}}}\n    static_configs:"
    )
    (tmp_path / "prometheus.yaml").write_text(text)
    shutil.copy(ROOT / "examples" / "monitoring" / "alerts.yaml", tmp_path)
    port = free_ports(1)[0]
    process = subprocess.Popen(
        [
            PROMETHEUS,
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def value(prometheus: str, query: str) -> float | None:
    """Of the only series that the query gives, if there is one yet."""
    try:
        with OPENER.open(f"{prometheus}/api/v1/query?query={quote(query)}", timeout=5) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
    except (urllib.error.URLError, ConnectionError):
        return None
    return float(found[0]["value"][1]) if found else None


def test_prometheus_reads_what_the_router_counts(router, prometheus):
    with Caller(router) as caller:
        caller.ask("claude-sonnet-4-5", stream=False, x_api_key=SECRET)
        assert caller.answer().status == 200
    wait_until(lambda: value(prometheus, 'up{job="signalbox"}') == 1, 30, lambda: "Prometheus to ask")
    query = 'sum(signalbox_requests_total{provider="zai", model="glm-4.7", status="success"})'
    wait_until(lambda: value(prometheus, query) == 1, 20, lambda: "the request to be counted")
    assert value(prometheus, "count(ALERTS) or vector(0)") == 0
