"""Pages are made on threads of their own, and not without end."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from signalbox.ui.pages import PageResponse, PageThreads

ADDON = Path(__file__).parents[2] / "addon"


def test_more_than_can_be_made_are_refused_at_once_and_later_ones_are_made_again():
    gate = threading.Event()

    def page() -> PageResponse:
        assert gate.wait(10)
        return PageResponse(200, threading.current_thread().name.encode())

    async def ask() -> tuple[list[int], int]:
        threads = PageThreads("test", threads=1, most=2)
        waiting = [asyncio.create_task(threads.make(page)) for _ in range(2)]
        await asyncio.sleep(0)
        refused = await threads.make(page)
        gate.set()
        made = await asyncio.gather(*waiting)
        again = await threads.make(page)
        assert made[0].body.startswith(b"signalbox-test")
        return [one.status for one in (*made, again)], refused.status

    assert asyncio.run(ask()) == ([200, 200, 200], 503)


ENDS = """
import asyncio, threading
from signalbox.ui.pages import PageThreads

begun = threading.Event()

def page():
    begun.set()
    threading.Event().wait(60)

async def main():
    asking = asyncio.create_task(PageThreads("test").make(page))
    while not begun.is_set():
        await asyncio.sleep(0.01)
    asking.cancel()

asyncio.run(main())
"""


def test_a_page_that_is_being_made_does_not_delay_the_end_of_the_process():
    environment = {**os.environ, "PYTHONPATH": str(ADDON)}
    assert subprocess.run([sys.executable, "-c", ENDS], env=environment, timeout=30).returncode == 0


def test_what_a_page_raises_is_raised_to_who_asked_for_it():
    def page() -> PageResponse:
        raise LookupError("no such page")

    with pytest.raises(LookupError, match="no such page"):
        asyncio.run(PageThreads("test").make(page))
