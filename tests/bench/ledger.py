"""`python -m tests.bench.ledger`: processor time of a request with and without the ledger.

Three routers, one without a ledger, get the same requests of 2 KB in turn, so many a second. All threads of a
process count, and what is written after the last answer.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from tests.bench.bodies import body
from tests.bench.client import Line, Target
from tests.bench.processes import PROJECT, Process, mitmdump, provider
from tests.support.postgres import Postgres, programs

RULES = """
providers:
  swap: {{url: "{url}", key: fake-key-of-the-benchmark}}
rules:
  - {{match: "*", to: swap/glm-4.7}}
ledger: {ledger}
"""
MODEL = "claude-sonnet-4-5"
ALLOWED = {"sqlite": 1.05, "postgresql": 1.08}
"""Most that a router may take beside the one without a ledger."""


@contextmanager
def router(folder: Path, name: str, upstream: int, ledger: str) -> Iterator[Process]:
    rules = folder / f"{name}.yaml"
    rules.write_text(RULES.format(url=f"http://127.0.0.1:{upstream}", ledger=ledger))
    script = "tests/bench/without_ledger.py" if name == "none" else "addon/router.py"
    settings = {"router_rules": rules, "router_state": folder / f"{name}-state"}
    options = [part for option, value in settings.items() for part in ("--set", f"{option}={value}")]
    with mitmdump(folder, name, upstream, "-s", str(PROJECT / script), *options) as started:
        yield started


def round_of(process: Process, requests: int, rate: float, session: str) -> float:
    """Milliseconds of processor time a request."""
    headers = {"x-claude-code-session-id": session}
    request = Target("ledger", process.port, MODEL, headers).request(body(MODEL, 2_048, events=3))
    line = Line(process.port)
    before, began = process.settled_cpu(), time.monotonic()
    for number in range(requests):
        line.ask(request, 3)
        time.sleep(max(began + (number + 1) / rate - time.monotonic(), 0))
    spent = process.settled_cpu() - before
    line.close()
    return spent / requests * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ledger", description=__doc__)
    parser.add_argument("--requests", type=int, default=300, help="in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rate", type=float, default=30.0, help="requests a second")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        upstream = running.enter_context(provider(folder)).port
        ledgers = {"none": "sqlite", "sqlite": "sqlite"}
        if programs() is not None:
            ledgers["postgresql"] = running.enter_context(Postgres()).new_database()
        started = {
            one: running.enter_context(router(folder, one, upstream, url)) for one, url in ledgers.items()
        }
        spent: dict[str, list[float]] = {one: [] for one in started}
        for one in started.values():
            round_of(one, 100, 100.0, "warm")
        for number in range(given.rounds):
            for one, process in started.items():
                spent[one].append(round_of(process, given.requests, given.rate, f"session-{number}"))
                print(f"{one}: {spent[one][-1]:.2f} ms", flush=True)
    print("| ledger | processor time a request | beside none | allowed |\n|---|---|---|---|")
    for one, values in spent.items():
        ratios = [value / base for value, base in zip(values, spent["none"], strict=True)]
        allowed = f"{ALLOWED[one]:.2f}x" if one in ALLOWED else ""
        print(f"| {one} | {median(values):.2f} ms | {median(ratios):.3f}x | {allowed} |")


if __name__ == "__main__":
    main()
