"""How two texts differ: complete, short to read, and found in bounded time."""

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.ui import difference
from signalbox.ui.difference import AROUND, MOST, MOST_LINES, Line, runs, words

LINES = st.lists(st.sampled_from(["a", "b", "c", "{", "}", "x" * 500, "x" * 499 + "y"]), max_size=40)


def told(before: list[str], after: list[str]) -> list[Line]:
    return list(difference.difference(before, after))


def of(kind: str, lines: list[Line]) -> list[str]:
    return [line.text for line in lines if line.kind == kind]


@given(LINES, LINES)
def test_runs_are_equal_and_in_the_order_of_both(old, new):
    before = (0, 0)
    for run in runs(old, new):
        assert run.old >= before[0]
        assert run.new >= before[1]
        before = run.old + run.length, run.new + run.length
        assert old[run.old : before[0]] == new[run.new : before[1]]


@given(LINES, LINES)
def test_what_is_shown_and_left_out_adds_up_to_both(before, after):
    lines = told(before, after)
    left_out = sum(int(line.text.split()[0].replace(",", "")) for line in lines if line.kind == "gap")
    same, gone, new = (len(of(kind, lines)) for kind in ("same", "del", "ins"))
    if before == after:
        assert lines == []
    else:
        assert (same + gone + left_out, same + new + left_out) == (len(before), len(after))


@given(st.text("ab \n", max_size=60), st.text("ab \n", max_size=60))
def test_short_parts_of_a_line_are_shown_whole(old, new):
    assert words(old, new) == (old, new)


def test_equal_lines_are_left_out_with_their_number():
    before = [f"line {number}" for number in range(50_000)]
    after = [*before[:20_000], "new", *before[20_000:40_000], "other", *before[40_001:]]
    lines = told(before, after)
    assert of("ins", lines) == ["new", "other"]
    assert of("del", lines) == ["line 40000"]
    assert of("gap", lines) == ["19,997 equal lines", "19,994 equal lines", "9,996 equal lines"]
    assert len(of("same", lines)) == 4 * AROUND


def test_each_change_of_a_long_line_is_shown():
    parts = [f"{number} {'equal ' * 100}" for number in range(20)]
    changed = [part.replace("equal", "other", 1) for part in parts]
    old, new = words("".join(parts), "".join(changed))
    assert new.count("other") == 20
    assert old.count("equal characters ...]") == new.count("equal characters ...]")
    assert len(new) < 6_000


def test_a_change_in_a_text_without_spaces_is_shown():
    old, new = words("A" * 500_000 + "B" + "A" * 500_000, "A" * 1_000_001)
    assert "B" in old
    assert "B" not in new
    assert len(old) < 500


def test_very_much_that_differs_is_shown_by_its_ends_and_counted():
    lines = told([], [f"line {number}" for number in range(50_000)])
    assert len(of("ins", lines)) == MOST_LINES
    assert of("ins", lines)[-1] == "line 49999"
    assert of("gap", lines) == ["49,000 more of 50,000 lines that differ"]
    ((_, long),) = told([], ["x" * 1_000_000])
    assert long.endswith("x")
    assert "996,000 characters that differ" in long
    many = told([], ["y" * 3_000 + str(number) for number in range(1_000)])
    assert sum(len(line.text) for line in many) < MOST + 5_000
    assert many[-1].text.endswith("more lines that differ")


def numbered() -> list[str]:
    return [f"line {number}" for number in range(300_000)]


def by_chance(text: str, count: int, kinds: int) -> list[str]:
    chance = random.Random(kinds)
    return [text % (number, chance.randrange(kinds)) for number in range(count)]


PAIRS: dict[str, Callable[[], tuple[list[str], list[str]]]] = {
    "shuffled": lambda: (numbered(), random.Random(1).sample(numbered(), 300_000)),
    "reversed": lambda: (numbered(), numbered()[::-1]),
    "of two kinds": lambda: (by_chance("%.0s%d", 300_000, 2), by_chance("%.0s%d", 299_999, 2)[::-1]),
    "of a few kinds": lambda: (by_chance("%.0s%d", 100_000, 2_000), by_chance("%.0s%d", 100_000, 2_001)),
    "partly equal": lambda: (by_chance("%d of %d", 200_000, 3), by_chance("%d of %d", 200_000, 4)),
    "a line of words": lambda: (
        [" ".join(by_chance("%.0s%d", 200_000, 50_000))],
        [" ".join(by_chance("%.0s%d", 200_000, 50_001))],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("made", PAIRS.values(), ids=PAIRS)
def test_two_megabytes_are_compared_in_bounded_time(made):
    """Seconds of processor time of a thread of its own; most of these take one or two on a quiet machine."""
    before, after = made()
    began = time.process_time()
    lines = told(before, after)
    assert time.process_time() - began < 20
    assert sum(len(line.text) for line in lines) < MOST + 50_000
