"""Readable text of protocol values, for content views.

The functions take any value that JSON can hold where a protocol has a text, a list or an object, because what
is looked at may be broken: a value of another type is shown as JSON in its place. A text is made of pieces of
one or more lines.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from signalbox.anthropic.json_edit import whole_characters
from signalbox.inspect import lenient

INDENT = "    "
DEEPEST = 8
"""Indents of a line at the most."""
PIECES = 20_000
"""Of a whole text."""
CHARACTERS = 4_000_000
"""Of a whole text, about."""


class Fold(NamedTuple):
    """What is left out of what is shown, in the middle."""

    text: int
    """Characters of one text above which its middle is left out."""
    values: int = 4_000
    """Values of one list above which its middle is left out."""


SHORT = Fold(1_200)
LONG = Fold(250_000)
"""More than an answer has."""
NOTHING = Fold(sys.maxsize, sys.maxsize)
"""For what is compared: then tools are whole, and data that is not shown has a digest."""


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else as_json(value)


def as_json(value: Any) -> str:
    """One line of JSON; what JSON cannot hold, as Python shows it."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # a lone half of a surrogate pair
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError):
        return repr(value)
    except RecursionError:
        return "(nested too deeply)"


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def folded(text: str, fold: Fold = SHORT) -> str:
    """The text, or its beginning and end around how many characters are left out."""
    if len(text) <= fold.text:
        return text
    head, tail = fold.text * 2 // 3, fold.text // 6
    return f"{text[:head]}\n[... {len(text) - head - tail:,} of {len(text):,} characters ...]\n{text[-tail:]}"


def each[T](
    values: Sequence[T],
    pieces: Callable[[T], Iterable[str]],
    names: str,
    *,
    fold: Fold = SHORT,
    depth: int = 1,
) -> Iterator[str]:
    """The pieces of each value; of very many, those of the first and last ones around how many are left
    out."""
    left_out = max(len(values) - fold.values, 0)
    first = fold.values // 4 if left_out else len(values)
    for value in values[:first]:
        yield from pieces(value)
    if left_out:
        yield heading(f"[... {left_out:,} of {len(values):,} {names} ...]", depth)
    for value in values[first + left_out :]:
        yield from pieces(value)


def heading(text: str, depth: int = 1) -> str:
    """One line."""
    return f"{INDENT * min(depth, DEEPEST)}{text}".rstrip()


def indented(text: str, depth: int = 1) -> str:
    """A text of any number of lines, unchanged but for their ends."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, before = text.removesuffix("\n"), INDENT * min(depth, DEEPEST)
    if not before or not text:
        return text
    if "\n" in text:
        text = text.replace("\n", f"\n{before}")
        if f"\n{before}\n" in text:  # twice, since what is replaced overlaps
            text = text.replace(f"\n{before}\n", "\n\n").replace(f"\n{before}\n", "\n\n")
    return f"{before}{text}"


def section(title: str, pieces: Iterable[str]) -> Iterator[str]:
    """A heading with its pieces below it; nothing where there are none."""
    for number, piece in enumerate(pieces):
        if not number:
            yield ""
            yield title
        yield piece


def joined(pieces: Iterable[str]) -> str:
    """One text that can be encoded, of a bounded length. The pieces are made one by one, so that the bound
    is one of time too."""
    taken: list[str] = []
    length = 0
    for piece in pieces:
        if len(taken) >= PIECES or length >= CHARACTERS:
            taken.append("[... more, which is too much to show ...]")
            break
        taken.append(piece)
        length += len(piece)
    return whole(taken)


def whole(pieces: Iterable[str]) -> str:
    """One text that can be encoded, of any length."""
    return whole_characters("\n".join(pieces))


def size(encoded: str) -> str:
    """How large the data is of which this is the base64."""
    octets = len(encoded) * 3 // 4
    if octets < 1024:
        return f"{octets} bytes"
    return f"{octets / 1024:,.1f} KB" if octets < 1024 * 1024 else f"{octets / 1024 / 1024:,.1f} MB"


def data_url(url: str) -> str:
    """An address as it is; of one that holds its data, the media type and size."""
    if not url.startswith("data:"):
        return url
    kind, _, encoded = url.removeprefix("data:").partition(",")
    return f"{kind.partition(';')[0]}, {size(encoded)}"


def arguments(value: Any, depth: int, fold: Fold = SHORT) -> Iterator[str]:
    """A tool's arguments, one a line; a text that is no JSON object is shown as it is."""
    if isinstance(value, str):
        try:
            decoded = lenient.decode(whole_characters(value).encode()) if value else {}
        except lenient.UNREADABLE:
            yield indented(folded(value, fold), depth)
            return
        value = decoded
    if not isinstance(value, dict):
        yield indented(folded(as_json(value), fold), depth)
        return

    def argument(member: tuple[str, Any]) -> Iterator[str]:
        name, given = member
        shown = folded(given if isinstance(given, str) else as_json(given), fold)
        if "\n" in shown:
            yield heading(f"{name}:", depth)
            yield indented(shown, depth + 1)
        else:
            yield heading(f"{name}: {shown}", depth)

    yield from each(list(value.items()), argument, "arguments", fold=fold, depth=depth)
