"""`python -m tests.bench.workers`: requests a second of one router, and of several behind HAProxy.

Load, provider and HAProxy share the processors with the routers, so that on two cores the second router gains
little.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from tests.bench import processes
from tests.bench.bodies import body
from tests.bench.client import Target, crowd
from tests.bench.processes import Process, free_port

SECONDS = 4.0
"""Of one round."""
ROUNDS = 5
CONFIG = """
global
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 10m
    timeout server 10m
frontend routers
    bind 127.0.0.1:{port}
    default_backend routers
backend routers
    balance leastconn
    option httpchk GET /health
{servers}
"""


@contextmanager
def balanced(folder: Path, name: str, routers: list[Process]) -> Iterator[Process]:
    """HAProxy before these routers."""
    port, config = free_port(), folder / f"{name}.cfg"
    servers = [f"    server r{number} 127.0.0.1:{one.port}" for number, one in enumerate(routers)]
    config.write_text(CONFIG.format(port=port, servers="\n".join(servers)))
    with processes.process(["haproxy", "-f", str(config)], port, folder / f"{name}.log", "/health") as one:
        yield one


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.workers", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", default="bench-swap")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        upstream = running.enter_context(processes.provider(folder))
        routers = [
            running.enter_context(processes.router(folder, upstream.port, name=f"router{number}"))
            for number in range(given.workers)
        ]
        alone = running.enter_context(balanced(folder, "one", routers[:1]))
        together = running.enter_context(balanced(folder, "all", routers))
        ports = {"1 router": routers[0].port, "1 behind HAProxy": alone.port}
        ports[f"{given.workers} behind HAProxy"] = together.port
        request = Target(given.model, 0, given.model).request(
            body(given.model, 2_048, events=1, stream=False)
        )
        rates: dict[str, list[float]] = {place: [] for place in ports}
        for _ in range(ROUNDS):
            for place, port in ports.items():
                seen = crowd(port, request, 16, seconds=SECONDS)
                if seen.failures:
                    raise RuntimeError(f"{place}: {seen.failures} requests failed")
                rates[place].append(seen.answers / SECONDS)
    first = median(rates["1 router"])
    print("| place | requests a second | |\n|---|---|---|")
    for place, values in rates.items():
        print(f"| {place} | {median(values):,.0f} | {median(values) / first:.2f}x |")


if __name__ == "__main__":
    sys.exit(main())
