"""Decisions with slow parts: the same wherever these run."""

import asyncio
import gc
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest

from signalbox.routing.work import LoopTurns, Work, in_place, in_thread


def in_a_thread[T](work: Work[T]) -> T:
    return asyncio.run(in_thread(work))


anywhere = pytest.mark.parametrize("drive", [in_place, in_a_thread])


def fails() -> int:
    raise ValueError("no number")


def doubled(job: Callable[[], int]) -> Work[int]:
    """Twice what the function returns; 0 where it fails."""
    try:
        number: int = yield job
    except ValueError:
        return 0
    again: int = yield lambda: number
    return number + again


@anywhere
def test_a_decision_gets_what_its_functions_return(drive):
    assert drive(doubled(lambda: 21)) == 42


@anywhere
def test_a_decision_gets_what_its_functions_raise(drive):
    assert drive(doubled(fails)) == 0


@anywhere
def test_what_a_decision_does_not_catch_is_raised(drive):
    with pytest.raises(ZeroDivisionError):
        drive(doubled(lambda: 1 // 0))


def test_functions_run_in_another_thread_while_the_decision_stays_in_its_own():
    def threads() -> Work[tuple[int, int]]:
        other: int = yield threading.get_ident
        return threading.get_ident(), other

    own, other = in_a_thread(threads())
    assert own == threading.get_ident() != other


def test_the_collector_pauses_only_while_a_function_runs_in_a_thread():
    def collects() -> Work[bool]:
        collecting: bool = yield gc.isenabled
        return collecting

    assert not in_a_thread(collects())
    assert gc.isenabled()


def _pieces(pieces: int) -> list[int | str]:
    """So many pieces of work that come at once, and a callback that wants to run again and again beside
    them: what ran, in order."""
    ran: list[int | str] = []

    async def work(turns: LoopTurns, number: int) -> None:
        await turns.come()
        ran.append(number)

    async def all_of_them() -> None:
        loop, turns = asyncio.get_running_loop(), LoopTurns()

        def other() -> None:
            ran.append("other")
            if len(ran) < 4 * pieces:
                loop.call_soon(other)

        loop.call_soon(other)
        await asyncio.gather(*(work(turns, number) for number in range(pieces)))

    asyncio.run(all_of_them())
    return ran


def test_what_else_is_ready_runs_between_two_pieces_of_work():
    ran = _pieces(5)
    assert [one for one in ran if one != "other"] == [0, 1, 2, 3, 4]
    assert all(isinstance(one, str) or isinstance(other, str) for one, other in pairwise(ran))


def test_a_piece_of_work_that_comes_alone_has_its_turn_at_once():
    async def takes() -> list[bool]:
        turns = LoopTurns()
        first = [turns.take(), turns.take()]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [*first, turns.take()]

    assert asyncio.run(takes()) == [True, False, True]


def test_work_that_was_given_up_takes_no_turn():
    async def waits() -> bool:
        turns = LoopTurns()
        first, given_up, last = (asyncio.create_task(turns.come()) for _ in range(3))
        await asyncio.sleep(0)  # now two of them wait
        given_up.cancel()
        async with asyncio.timeout(5):
            await first
            await last
        return given_up.cancelled()

    assert asyncio.run(waits())
