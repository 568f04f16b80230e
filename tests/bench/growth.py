"""`python -m tests.bench.growth`: how the cost of a request grows with its body, from 10 KB to 30 MB.

It prints the processor time of a request, the median of the rounds, and in brackets the same in ms for each
megabyte of the body: where that does not rise from line to line, nothing grows with the square of the size.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests.bench import processes
from tests.bench.bodies import body
from tests.bench.client import Line, Target
from tests.bench.processes import Process

SIZES = {"10 KB": 10_000, "100 KB": 100_000, "1 MB": 1_000_000, "10 MB": 10_000_000, "30 MB": 30_000_000}
ROUTED = ("pass", "swap", "chat", "responses")
ROUNDS = 5
EVENTS = 3


def cost(place: Process, model: str, size: int) -> float:
    """Processor time of one request, in seconds: the mean of as many as take about half a second."""
    target = Target(model, place.port, model)
    request = target.request(body(model, size, events=EVENTS))
    repeats = max(1, min(40, 3_000_000 // size))
    line = Line(place.port)
    try:
        line.ask(request, EVENTS)
        before = place.settled_cpu()
        for _ in range(repeats):
            line.ask(request, EVENTS)
        return (place.settled_cpu() - before) / repeats
    finally:
        line.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        upstream = running.enter_context(processes.provider(folder))
        places = {"bare mitmdump": running.enter_context(processes.bare(folder, upstream.port))}
        for way in ROUTED:
            places[way] = running.enter_context(processes.router(folder, upstream.port, name=way))
        print(f"| body | {' | '.join(places)} |\n|---{'|---' * len(places)}|")
        for label, size in SIZES.items():
            cells = []
            for way, place in places.items():
                model = f"bench-{way}" if way in ROUTED else "bench-pass"
                spent = median(cost(place, model, size) for _ in range(ROUNDS))
                cells.append(f"{spent * 1e3:.1f} ms ({spent * 1e9 / size:.1f})")
            print(f"| {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
