"""`python -m tests.bench`: the router beside bare mitmdump and going there directly.

Every figure is taken in rounds that go through all targets in turn, so that what else the machine does meets
them alike. Told are medians, and their ratio to bare mitmdump's of the same run.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from threading import Timer

from tests.bench import processes
from tests.bench.bodies import body
from tests.bench.client import Line, Target, crowd
from tests.bench.processes import Process

BUDGET = Path(__file__).with_name("budget.json")
SIZES = {"2 KB": 2_048, "150 KB": 150_000, "1.5 MB": 1_500_000}
BURST = 5_000
"""Events that come at once."""
BASE = "bare mitmdump"
ROUTED = ("pass", "swap", "chat", "responses")
WARMING = 100
"""Requests to each target before anything is measured."""
TRIES = 5
"""Times that a run over its budget is made again: a machine may be busy for a minute."""


@dataclass(frozen=True)
class Figure:
    """One line of the table. `better` says whether more of it or less of it is wanted."""

    name: str
    unit: str
    better: str = "less"


@dataclass
class Place:
    target: Target
    process: Process | None
    """None for going there directly: the provider's own time is not the router's."""


type Values = dict[str, list[float]]
"""What was measured, by target."""


class Bench:
    def __init__(self, places: list[Place], scale: float) -> None:
        """`scale` is the share of the full number of rounds."""
        self.places = places
        self.scale = scale
        self.values: dict[str, Values] = {}
        self.figures: dict[str, Figure] = {}
        self.added: float | None = None
        """Milliseconds that a failover takes."""

    def rounds(self, count: int, *, least: int = 2) -> Iterator[Place]:
        """Each target once a round, from another one on each time."""
        for number in range(max(least, round(count * self.scale))):
            for index in range(len(self.places)):
                yield self.places[(index + number) % len(self.places)]

    def note(self, figure: Figure, place: Place, value: float) -> None:
        self.figures[figure.name] = figure
        self.values.setdefault(figure.name, {}).setdefault(place.target.name, []).append(value)

    def warm_up(self) -> None:
        """What is done once in a process, such as the first writes to the ledger, is not what is measured."""
        for place in self.places:
            line = Line(place.target.port)
            try:
                for _ in range(WARMING):
                    line.ask(place.target.request(body(place.target.model, 2_048, events=3)), 3)
                if place.process:
                    place.process.settled_cpu()
            finally:
                line.close()

    def first_token(self) -> None:
        """A kept connection, one request after the other, three events each."""
        for size, repeats in (("2 KB", 40), ("150 KB", 15), ("1.5 MB", 6)):
            requests = {
                place.target.name: place.target.request(body(place.target.model, SIZES[size], events=3))
                for place in self.places
            }
            for place in self.rounds(6):
                line = Line(place.target.port)
                try:
                    for _ in range(3):
                        line.ask(requests[place.target.name], 3)
                    before = place.process.cpu() if place.process else 0.0
                    for _ in range(repeats):
                        answer = line.ask(requests[place.target.name], 3)
                        self.note(Figure(f"first token, {size}", "ms"), place, answer.first * 1e3)
                    if place.process and size == "2 KB":
                        spent = (place.process.settled_cpu() - before) / repeats
                        self.note(Figure("processor time per 2 KB request", "ms"), place, spent * 1e3)
                finally:
                    line.close()

    def burst(self) -> None:
        for place in self.rounds(8):
            request = place.target.request(body(place.target.model, 2_048, events=BURST))
            line = Line(place.target.port)
            try:
                line.ask(place.target.request(body(place.target.model, 2_048, events=3)), 3)
                answer = line.ask(request, BURST)
                self.note(Figure("burst", "events/s", "more"), place, BURST / answer.total)
            finally:
                line.close()

    def whole(self) -> None:
        """16 connections, answers that are not streamed."""
        for place in self.rounds(3, least=5):  # a second of it varies by a third
            made = body(place.target.model, 2_048, events=1, stream=False)
            seconds = max(1.0, 4.0 * self.scale)
            seen = crowd(place.target.port, place.target.request(made), 16, seconds=seconds)
            if seen.failures:
                raise RuntimeError(f"{place.target.name}: {seen.failures} requests failed")
            self.note(Figure("requests, not streamed", "1/s", "more"), place, seen.answers / seconds)

    def paced(self) -> None:
        """One stream with an event every 10 ms."""
        for place in self.rounds(3):
            made = body(place.target.model, 2_048, events=round(300 * self.scale) or 1, gap=0.01)
            seen = crowd(place.target.port, place.target.request(made), 1)
            self.note(Figure("paced stream, delay", "ms"), place, median(seen.delays) * 1e3)

    def many(self) -> None:
        """300 streams at a time, each with 20 events a second."""
        events = 20 * round(10 * self.scale)
        for place in self.places:
            made = body(place.target.model, 2_048, events=events, gap=0.05)
            seen = crowd(place.target.port, place.target.request(made), 300, spread=1.0)
            delays = sorted(seen.delays)
            self.note(Figure("300 streams, lost events", ""), place, 300 * events - seen.events)
            self.note(
                Figure("300 streams, delay p99", "ms"), place, delays[int(len(delays) * 0.99) - 1] * 1e3
            )

    def growth(self) -> None:
        """One request of each size, to see that time grows as the body does."""
        for size in (10_000, 100_000, 1_000_000, 10_000_000, 30_000_000):
            figure = Figure(f"first token, {size:,} bytes", "ms")
            for place in self.rounds(3):
                request = place.target.request(body(place.target.model, size, events=3))
                line = Line(place.target.port)
                try:
                    line.ask(place.target.request(body(place.target.model, 2_048, events=3)), 3)
                    self.note(figure, place, line.ask(request, 3).first * 1e3)
                finally:
                    line.close()

    def uploads(self) -> None:
        """One stream with an event every 10 ms, while 50 requests of 1.5 MB come at once."""
        for place in self.rounds(3):
            target = place.target
            upload = target.request(body(target.model, 1_500_000, events=3))
            others = get_context("spawn").Process(target=crowd, args=(target.port, upload, 50))
            made = body(target.model, 2_048, events=400, gap=0.01)
            start = Timer(1.0, others.start)
            start.start()
            seen = crowd(target.port, target.request(made), 1)
            start.join()
            others.join()
            delays = sorted(seen.delays)
            figure = Figure("beside 50 uploads of 1.5 MB, delay p99", "ms")
            self.note(figure, place, delays[int(len(delays) * 0.99) - 1] * 1e3)

    def memory(self) -> None:
        """After 8,000 requests of 150 KB, four at a time."""
        for place in self.places:
            if place.process is None:
                continue
            self.note(Figure("memory, idle", "MiB"), place, place.process.rss())
            request = place.target.request(body(place.target.model, 150_000, events=3))
            crowd(place.target.port, request, 4, seconds=2)
            before, count = place.process.rss(), 0
            while count < 8_000 * self.scale:
                count += crowd(place.target.port, request, 4, seconds=5).answers
            self.note(Figure("memory, growth", "MiB"), place, place.process.rss() - before)

    def failover(self) -> None:
        """To a second target, the first refusing the connection, beside going to the second at once."""
        port = next(place.target.port for place in self.places if place.target.name == "swap")
        swap, over = (Target(name, port, f"bench-{name}") for name in ("swap", "failover"))
        times: Values = {swap.name: [], over.name: []}
        for _ in range(max(3, round(40 * self.scale))):
            for target in (swap, over):
                line = Line(port)
                try:
                    line.ask(target.request(body("bench-swap", 2_048, events=3)), 3)
                    answer = line.ask(target.request(body(target.model, 2_048, events=3)), 3)
                    times[target.name].append(answer.first * 1e3)
                finally:
                    line.close()
        self.added = median(times[over.name]) - median(times[swap.name])


@contextmanager
def places(folder: Path) -> Iterator[list[Place]]:
    """Everything that is compared, ready. Each target has a router of its own: what one records after its
    answers must not be measured as another's."""
    with ExitStack() as running:
        upstream = running.enter_context(processes.provider(folder))
        bare = running.enter_context(processes.bare(folder, upstream.port))
        routers = {
            name: running.enter_context(processes.router(folder, upstream.port, name=name)) for name in ROUTED
        }
        yield [
            Place(Target("direct", upstream.port, "bench-direct"), None),
            Place(Target(BASE, bare.port, "bench-bare"), bare),
            *(Place(Target(name, one.port, f"bench-{name}"), one) for name, one in routers.items()),
        ]


def starts(bench: Bench, folder: Path, count: int) -> None:
    """Seconds until a process answers."""
    figure = Figure("start", "s")
    upstream = next(place.target.port for place in bench.places if place.target.name == "direct")
    for number in range(count):
        for name, start in ((BASE, processes.bare), ("pass", processes.router)):
            place = next(place for place in bench.places if place.target.name == name)
            inner = folder / f"start-{name.split()[0]}-{number}"
            inner.mkdir()
            with start(inner, upstream) as process:
                bench.note(figure, place, process.started)


def table(bench: Bench) -> str:
    """Markdown: a line a figure, medians for direct and bare, ratios to bare for the router's targets."""
    lines = [
        f"| figure | direct | {BASE} | " + " | ".join(ROUTED) + " |",
        "|---|" + "---|" * (2 + len(ROUTED)),
    ]
    for name, values in bench.values.items():
        figure, base = bench.figures[name], values.get(BASE)
        cells = [f"{name}{f', {figure.unit}' if figure.unit else ''}"]
        cells += [f"{median(values[one]):,.4g}" if one in values else "" for one in ("direct", BASE)]
        for target in ROUTED:
            ratio = ratio_of(values, target)
            shown = f"{median(values[target]):,.4g}" if target in values else ""
            cells.append(f"{shown} ({ratio:.2f}x)" if ratio is not None and base else shown)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio_of(values: Values, target: str) -> float | None:
    """The median beside bare mitmdump's."""
    if target not in values or BASE not in values or not (base := median(values[BASE])):
        return None
    return median(values[target]) / base


def over_budget(bench: Bench) -> list[str]:
    """A line for each ratio that is worse than its budget by more than the margin of noise."""
    budget = json.loads(BUDGET.read_text())
    margin: float = budget["margin"]
    lines = []
    for name, limits in budget["ratios"].items():
        better = bench.figures[name].better if name in bench.figures else "less"
        for target, limit in limits.items():
            ratio = ratio_of(bench.values.get(name, {}), target)
            if ratio is None:
                lines.append(f"{name}, {target}: was not measured")
            elif ratio > limit * (1 + margin) if better == "less" else ratio < limit / (1 + margin):
                lines.append(f"{name}, {target}: {ratio:.2f}x of {BASE}, budget {limit:.2f}x")
    return lines


def measure(only: Sequence[str], *, short: bool) -> Bench:
    """Start all that is compared, and take these steps; all of them where none is named."""
    with tempfile.TemporaryDirectory() as name, places(Path(name)) as found:
        bench = Bench(found, 0.25 if short else 1.0)
        bench.warm_up()
        steps: list[Callable[[], None]] = [bench.first_token, bench.burst, bench.whole]
        if not short:
            steps += [bench.paced, bench.many, bench.growth, bench.uploads]
            steps += [partial(starts, bench, Path(name), 5), bench.memory]
        steps.append(bench.failover)
        for step in steps:
            if not only or getattr(step, "__name__", "start") in only:
                step()
    return bench


def main() -> int:
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="about a minute: what the budget is made of")
    parser.add_argument("--check", action="store_true", help="fail where a ratio is over its budget")
    parser.add_argument("--only", nargs="*", help="names of the steps to take, such as burst or growth")
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    given = parser.parse_args()
    for _ in range(TRIES):
        began = time.monotonic()
        bench = measure(given.only or (), short=given.short)
        print(table(bench))
        if bench.added is not None:
            print(f"\nA failover to the second target adds {bench.added:.2f} ms.")
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
        print(f"{datetime.now(UTC):%Y-%m-%d}, {time.monotonic() - began:.0f} s.", flush=True)
        if given.json:
            measured = {"values": bench.values, "failover adds": bench.added}
            given.json.write_text(json.dumps(measured, indent=1))
        lines = over_budget(bench) if given.check else []
        if not lines:
            return 0
        for line in lines:
            print(f"over budget: {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
