"""How two long texts differ, line by line, and within long lines word by word.

Everything is compared. What is shown leaves out what is equal, and the middle of very long parts, each with
its length. Time grows with the length of the texts: what each of them has once holds them together (the
"patience diff"), and only short stretches in between are compared pair by pair.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import chain
from typing import Literal, NamedTuple

AROUND = 3
"""Equal lines that are shown before and after a difference."""
WIDE = 300
"""Characters of a line above which its equal parts are left out."""
NEAR = 80
"""Characters of an equal part that are shown beside a difference."""
MOST_OF_PART = 4_000
"""Characters shown of a part that differs."""
MOST_OF_LINE = 20_000
"""Characters of a line after which no more of its differences are shown."""
MOST_LINES = 1_000
"""Lines shown of each side of one difference."""
MOST = 400_000
"""Characters shown in all."""
PAIRS = 250_000
"""Pairs of lines or words of one stretch that are compared at the most."""
ALL_PAIRS = 2_000_000
"""The same of all stretches."""
DEEPEST = 6
"""Stretches within stretches."""

_WORD = re.compile(r"\w+|\s+|[^\w\s]")
_COARSE = re.compile(r"\S+\s*|\s+")
COARSE = 50_000
"""Characters of a part above which its words are not told from what stands between them."""

type Kind = Literal["same", "ins", "del", "gap"]


class Line(NamedTuple):
    kind: Kind
    text: str


class Run(NamedTuple):
    """What both have: `length` elements from these indices on."""

    old: int
    new: int
    length: int


def difference(before: Sequence[str], after: Sequence[str]) -> Iterator[Line]:
    """Lines that one has and the other has not, with some around them; nothing where they are equal."""
    shown = 0
    lines = _difference(before, after) if before != after else iter(())
    for line in lines:
        if shown > MOST:
            more = sum(one.kind in ("ins", "del") for one in chain([line], lines))
            yield Line("gap", f"{more:,} more lines that differ")
            return
        shown += len(line.text) + 1
        yield line


def _difference(before: Sequence[str], after: Sequence[str]) -> Iterator[Line]:
    old = new = 0
    end = Run(len(before), len(after), 0)
    for run in (*runs(before, after), end):
        yield from _changed(before[old : run.old], after[new : run.new])
        equal = before[run.old : run.old + run.length]
        old, new = run.old + run.length, run.new + run.length
        is_first, is_last = run.old == run.new == 0, (old, new) == end[:2]
        yield from _equal(equal, 0 if is_first else AROUND, 0 if is_last else AROUND)


def _equal(lines: Sequence[str], first: int, last: int) -> Iterator[Line]:
    """Those beside a difference, around how many are left out."""
    left_out = len(lines) - first - last
    if left_out <= 0:
        first, last, left_out = len(lines), 0, 0
    yield from (Line("same", _folded_equal(line)) for line in lines[:first])
    if left_out:
        yield Line("gap", f"{left_out:,} equal lines")
    yield from (Line("same", _folded_equal(line)) for line in lines[first + left_out :])


def _changed(old: Sequence[str], new: Sequence[str]) -> Iterator[Line]:
    """Long lines are compared with one another in their order."""
    pairs = list(zip(_long(old), _long(new), strict=False))
    told = [words(old[left], new[right]) for left, right in pairs]
    yield from _side("del", old, {left: text for (left, _), (text, _) in zip(pairs, told, strict=True)})
    yield from _side("ins", new, {right: text for (_, right), (_, text) in zip(pairs, told, strict=True)})


def _long(lines: Sequence[str]) -> Iterator[int]:
    return (number for number, line in enumerate(lines) if len(line) > WIDE)


def _side(kind: Kind, lines: Sequence[str], instead: dict[int, str]) -> Iterator[Line]:
    left_out = max(len(lines) - MOST_LINES, 0)
    first = MOST_LINES * 2 // 3 if left_out else len(lines)
    for number, line in enumerate(lines):
        if number == first and left_out:
            yield Line("gap", f"{left_out:,} more of {len(lines):,} lines that differ")
        if not first <= number < first + left_out:
            yield Line(kind, instead.get(number) or _folded_part(line))


# within a line


def words(old: str, new: str) -> tuple[str, str]:
    """The two lines with their equal parts left out, but for what stands beside a difference."""
    told: tuple[list[str], list[str]] = ([], [])
    parts = _parts(old, new)
    for number, part in enumerate(parts):
        is_first, is_last = number == 0, number == len(parts) - 1
        for side in (0, 1):
            if part[0] == part[1]:
                shown = _left_out(part[side], 0 if is_first else NEAR, 0 if is_last else NEAR)
            else:
                shown = _folded_part(part[side])
            told[side].append(shown)
    return _bounded("".join(told[0])), _bounded("".join(told[1]))


def _parts(old: str, new: str) -> list[tuple[str, str]]:
    """What stands in one where the other has something else, or the same."""
    before = _common(old, new)
    after = _common(old[before:][::-1], new[before:][::-1])
    left, right = (one[before : len(one) - after] for one in (old, new))
    word = _COARSE if max(len(left), len(right)) > COARSE else _WORD
    old_words, new_words = word.findall(left), word.findall(right)
    parts = [(old[:before], old[:before])]
    at, end = (0, 0), Run(len(old_words), len(new_words), 0)
    for run in (*runs(old_words, new_words), end):
        parts.append(("".join(old_words[at[0] : run.old]), "".join(new_words[at[1] : run.new])))
        at = run.old + run.length, run.new + run.length
        equal = "".join(old_words[run.old : at[0]])
        parts.append((equal, equal))
    parts.append((old[len(old) - after :], old[len(old) - after :]))
    return [part for part in parts if any(part)]


def _common(one: str, other: str) -> int:
    """Characters that both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _left_out(equal: str, first: int, last: int) -> str:
    """The characters beside a difference, around how many are left out."""
    left_out = len(equal) - first - last
    if left_out <= NEAR:
        return equal
    return f"{equal[:first]}[... {left_out:,} equal characters ...]{equal[first + left_out :]}"


def _folded_equal(line: str) -> str:
    return line if len(line) <= WIDE else _left_out(line, NEAR, NEAR)


def _folded_part(part: str) -> str:
    """What differs; of very much its beginning and end."""
    left_out = len(part) - MOST_OF_PART
    if left_out <= 0:
        return part
    first = MOST_OF_PART * 2 // 3
    return f"{part[:first]}[... {left_out:,} characters that differ ...]{part[first + left_out :]}"


def _bounded(line: str) -> str:
    more = len(line) - MOST_OF_LINE
    return line if more <= 0 else f"{line[:MOST_OF_LINE]}[... {more:,} characters more ...]"


# what both have


def runs(old: Sequence[str], new: Sequence[str]) -> list[Run]:
    """What both have, in the order of both; as much of it as can be found in bounded time."""
    found: list[Run] = []
    compared = 0
    todo = [(0, len(old), 0, len(new), 0)]
    while todo:
        begin, end, other, other_end, depth = todo.pop()
        first = _beginning(old, new, begin, end, other, other_end)
        last = _ending(old, new, begin + first, end, other + first, other_end)
        found += (Run(begin, other, first), Run(end - last, other_end - last, last))
        begin, end, other, other_end = begin + first, end - last, other + first, other_end - last
        pairs = (end - begin) * (other_end - other)
        if not pairs:
            continue
        left, right = old[begin:end], new[other:other_end]
        if pairs <= PAIRS and compared + pairs <= ALL_PAIRS:
            compared += pairs
            blocks = SequenceMatcher(None, left, right).get_matching_blocks()
            found += (Run(begin + i, other + k, length) for i, k, length in blocks)
        elif depth < DEEPEST and (anchors := _anchors(left, right)):
            ends = [*((begin + i, other + k) for i, k in anchors), (end, other_end)]
            for i, k in ends:
                todo.append((begin, i, other, k, depth + 1))
                begin, other = i, k
    return _merged(sorted(run for run in found if run.length))


def _beginning(
    old: Sequence[str], new: Sequence[str], begin: int, end: int, other: int, other_end: int
) -> int:
    """How many elements both stretches begin with."""
    most = min(end - begin, other_end - other)
    return next((at for at in range(most) if old[begin + at] != new[other + at]), most)


def _ending(old: Sequence[str], new: Sequence[str], begin: int, end: int, other: int, other_end: int) -> int:
    """How many elements both stretches end with."""
    most = min(end - begin, other_end - other)
    return next((at for at in range(most) if old[end - 1 - at] != new[other_end - 1 - at]), most)


def _anchors(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Indices of elements that both have exactly once: the most of them that are in the same order."""
    there = _once(new)
    candidates = [(at, there[one]) for one, at in _once(old).items() if one in there]
    ends: list[int] = []
    """By length of an ordered selection the least index in `new` at which one ends."""
    last: list[int] = []
    """The candidate there."""
    before: list[int] = []
    for number, (_, at) in enumerate(candidates):
        place = bisect_left(ends, at)
        before.append(last[place - 1] if place else -1)
        ends[place : place + 1], last[place : place + 1] = [at], [number]
    chosen = []
    number = last[-1] if last else -1
    while number >= 0:
        chosen.append(candidates[number])
        number = before[number]
    return chosen[::-1]


def _once(elements: Sequence[str]) -> dict[str, int]:
    counts = Counter(elements)
    return {one: at for at, one in enumerate(elements) if counts[one] == 1}


def _merged(ordered: list[Run]) -> list[Run]:
    merged: list[Run] = []
    for run in ordered:
        last = merged[-1] if merged else Run(-1, -1, 0)
        if (last.old + last.length, last.new + last.length) == run[:2]:
            merged[-1] = last._replace(length=last.length + run.length)
        else:
            merged.append(run)
    return merged
