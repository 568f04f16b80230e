"""A session on its time axis: what is left out of it, and whose lane a request is in."""

from datetime import UTC
from itertools import pairwise
from typing import Any

import pytest

from signalbox.ui.session_page import PAUSE, TimeAxis, agent_names

MINUTE = 60_000


def test_the_axis_goes_from_the_first_beginning_to_the_last_end():
    axis = TimeAxis([(0, 10_000), (20_000, 40_000)])
    assert (axis.place(0), axis.place(20_000), axis.place(40_000)) == (0, 50, 100)
    assert axis.pauses == 0


def test_a_long_pause_is_left_out():
    later = 10_000 + PAUSE + 1
    axis = TimeAxis([(0, 10_000), (later, later + 10_000)])
    assert axis.pauses == 1
    assert axis.place(10_000) < 50 < axis.place(later)
    assert axis.place(later) - axis.place(10_000) < 2
    assert axis.place(later + 10_000) == pytest.approx(100)


def test_many_pauses_leave_room_for_the_requests():
    axis = TimeAxis([(hour * 60 * MINUTE, hour * 60 * MINUTE + 5000) for hour in range(300)])
    assert axis.pauses == 299
    assert axis.place(299 * 60 * MINUTE + 5000) == pytest.approx(100)
    assert axis.place(5000) > 0.1


def test_a_request_that_takes_no_time_has_a_place():
    assert TimeAxis([(5, 5)]).place(5) == 0


def test_labels_stand_apart():
    axis = TimeAxis([(part * 10 * MINUTE, part * 10 * MINUTE + 1000) for part in range(60)])
    labels = axis.labels(UTC)
    assert labels[0].text == "00:00"
    assert all(after.x - before.x >= 7 for before, after in pairwise(labels))


def row(id: int, agent: str | None, begin: int = 0, took: int = 10) -> dict[str, Any]:
    return {"id": id, "agent": agent, "ts": begin, "latency_ms": took}


def test_subagents_are_numbered_in_the_order_of_their_first_requests():
    rows = [row(1, "main"), row(2, "subagent"), row(3, "subagent"), row(4, "subagent"), row(5, None)]
    names = agent_names(rows, {2: "b", 3: "a", 4: "b"})
    assert [names[number] for number in range(1, 6)] == [
        "main",
        "subagent 1",
        "subagent 2",
        "subagent 1",
        "main",
    ]


def test_subagents_whose_ids_are_forgotten_are_distinguished_by_what_overlaps():
    rows = [row(1, "subagent", 0, 100), row(2, "subagent", 50, 100), row(3, "subagent", 100, 10)]
    names = agent_names(rows, {})
    assert [names[number] for number in (1, 2, 3)] == ["subagent 1", "subagent 2", "subagent 1"]
