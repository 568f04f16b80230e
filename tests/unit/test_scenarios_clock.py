"""A clock that jumps over waits."""

import asyncio
import time

from signalbox.scenarios import clock


def test_waits_take_no_time_and_end_in_order():
    async def story() -> list[str]:
        said: list[str] = []

        async def say(what: str, after: float) -> None:
            await asyncio.sleep(after)
            said.append(f"{what} after {round(time.monotonic() - began)}")

        began = time.monotonic()
        await asyncio.gather(say("third", 3600), say("first", 10), say("second", 120))
        return said

    began = time.monotonic()
    assert clock.run(story()) == ["first after 10", "second after 120", "third after 3600"]
    assert time.monotonic() - began < 10


def test_the_wall_clock_jumps_with_it_and_both_are_put_back():
    real, wall = time.monotonic, time.time

    async def story() -> float:
        began = time.time()
        await asyncio.sleep(1000)
        return time.time() - began

    assert 1000 <= clock.run(story()) < 1010
    assert (time.monotonic, time.time) == (real, wall)


def test_what_a_thread_does_is_waited_for():
    async def story() -> str:
        return await asyncio.to_thread(lambda: "done")

    assert clock.run(story()) == "done"


def test_connections_are_served_before_the_clock_jumps():
    async def story() -> bytes:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(500)
            writer.write((await reader.readexactly(4)).upper())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"text")
        async with asyncio.timeout(600):
            answer = await reader.read()
        writer.close()
        server.close()
        return answer

    assert clock.run(story()) == b"TEXT"
