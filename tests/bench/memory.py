"""Memory of the router in mitmweb over many requests, beside mitmweb alone.

`python -m tests.bench.memory --alone` sends each 20,000 requests of 150 KB with answers of 1,000 events, and
prints the memory of both processes on the way. mitmweb alone keeps all flows: it is asked no more once it has
`MOST`.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.bodies import body
from tests.bench.client import Line, Target
from tests.bench.processes import PROJECT, RULES, Process, free_port, process, provider

MOST = 3000.0
"""MiB."""
REQUEST = 150_000
EVENTS = 1_000
WARM = 1_000
"""Requests after which memory is compared with that at the end."""


@contextmanager
def mitmweb(folder: Path, name: str, upstream: int, *options: str) -> Iterator[Process]:
    port, page, confdir = free_port(), free_port(), folder / f"{name}-conf"
    confdir.mkdir()
    settings = {
        "confdir": confdir,
        "web_port": page,
        "web_open_browser": "false",
        "web_password": "for-tests",
    }
    command = [
        str(Path(sys.executable).with_name("mitmweb")),
        *("--mode", f"reverse:http://127.0.0.1:{upstream}@127.0.0.1:{port}"),
        *(part for option, value in settings.items() for part in ("--set", f"{option}={value}")),
        *options,
    ]
    with process(command, port, folder / f"{name}.log", "/health") as started:
        yield started


def router_options(folder: Path, upstream: int, *, more: str = "") -> list[str]:
    """`more` is added to the rules."""
    rules = folder / "rules.yaml"
    url = f"http://127.0.0.1:{upstream}"
    rules.write_text(RULES.format(url=url, dead=f"http://127.0.0.1:{free_port()}") + more)
    settings = {"router_rules": rules, "router_state": folder / "state"}
    pairs = (part for option, value in settings.items() for part in ("--set", f"{option}={value}"))
    return ["-s", str(PROJECT / "addon" / "router.py"), *pairs]


def grow(target: Process, requests: int, sample: int) -> Iterator[tuple[int, float]]:
    """Send them one after the other; gives their number and the memory after each `sample`."""
    line = Line(target.port)
    request = Target("memory", target.port, "bench-swap").request(body("bench-swap", REQUEST, events=EVENTS))
    for number in range(1, requests + 1):
        line.ask(request, EVENTS)
        if number % sample == 0:
            yield number, target.rss()
    line.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--sample", type=int, default=1_000)
    parser.add_argument("--alone", action="store_true", help="mitmweb without the router, too")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(provider(folder)).port
        measured = {"signalbox": router_options(folder, port)} | ({"mitmweb": []} if asked.alone else {})
        for name, options in measured.items():
            target = stack.enter_context(mitmweb(folder, name, port, *options))
            warm = 0.0
            for number, used in grow(target, asked.requests, asked.sample):
                warm = used if number <= WARM else warm
                print(f"{name}: {number:,} requests, {used:,.0f} MiB, {used / warm - 1:+.1%}", flush=True)
                if used > MOST:
                    print(f"{name}: asked no more", flush=True)
                    break


if __name__ == "__main__":
    main()
