"""Decisions with slow parts: the same wherever these run."""

import asyncio
import gc
import sys
import threading
from collections.abc import Callable

import pytest

from signalbox.routing.work import Work, in_place, in_short_turns, in_thread


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


def test_short_turns_end_with_the_last_who_asked_for_them():
    usual = sys.getswitchinterval()
    with in_short_turns():
        with in_short_turns():
            assert sys.getswitchinterval() < usual
        assert sys.getswitchinterval() < usual
    assert sys.getswitchinterval() == usual
