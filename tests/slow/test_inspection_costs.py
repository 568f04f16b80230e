"""What inspection costs: memory over many requests in mitmweb, and time for a day's flows."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from mitmproxy import http
from mitmproxy.io import FlowWriter
from mitmproxy.test import tflow

from tests.bench.bodies import body
from tests.bench.memory import grow, mitmweb, router_options
from tests.bench.processes import provider
from tests.support.answers import message_sse
from tests.support.router_process import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

KEEP = 40
RULES = """
providers:
  anthropic: {url: "https://api.anthropic.com", auth: client}
  zai: {url: "https://api.z.ai/api/anthropic", key: zai-key-for-tests}
rules:
  - {match: "*haiku*", to: zai/glm-4.5-air}
  - {match: "*sonnet*", to: [zai/glm-4.7, anthropic]}
"""


def test_memory_stays_flat_once_the_flows_that_are_kept_are_there(tmp_path):
    """`python -m tests.bench.memory` is the whole measurement. Without `keep` 300 requests more are 90 MB."""
    with provider(tmp_path) as upstream:
        options = router_options(tmp_path, upstream.port, more=f"inspect: {{keep: {KEEP}}}\n")
        with mitmweb(tmp_path, "router", upstream.port, *options) as router:
            used = [used for _, used in grow(router, 450, 150)]
    assert used[-1] < 1.1 * used[0], used


def test_500_flows_are_compared_under_other_rules_in_five_seconds(tmp_path):
    models = ("claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5")
    with (tmp_path / "yesterday.flows").open("wb") as out:
        writer = FlowWriter(out)
        for number in range(500):
            model = models[number % len(models)]
            asked = body(model, 100_000, events=3)
            request = http.Request.make("POST", "https://api.anthropic.com/v1/messages", asked)
            response = http.Response.make(200, message_sse(model).body, {"content-type": "text/event-stream"})
            writer.add(tflow.tflow(req=request, resp=response))
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "other.yaml").write_text(RULES.replace("to: zai/glm-4.5-air", "to: anthropic"))
    command = [str(Path(sys.executable).with_name("signalbox")), "explain", "--flow", "yesterday.flows"]
    before = _processor_time()
    told = subprocess.run(
        [*command, "--rules", "other.yaml", "--state", "state"],
        cwd=tmp_path,
        env=clean_environment(tmp_path, {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert _processor_time() - before < 5  # of the processor: others may be busy on this machine
    (total,) = [line for line in told.stdout.splitlines() if line.split()[:1] == ["all"]]
    assert total.split()[1] == "500"


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
