"""Pages are made on threads of their own, and not without end."""

import asyncio
import threading

from signalbox.ui.pages import PageResponse, PageThreads


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
