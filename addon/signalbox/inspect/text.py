"""Readable text of protocol values, for content views.

The functions take any value that JSON can hold where a protocol has a text, a list or an object, because what
is looked at may be broken: a value of another type is shown as JSON in its place.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

FOLD = 1_200
"""Characters of a text above which its middle is folded."""
HEAD, TAIL = 800, 200
"""Characters shown before and after a fold."""
INDENT = "    "


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else as_json(value)


def as_json(value: Any) -> str:
    """One line of JSON; what JSON cannot hold, as Python shows it."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        return repr(value)


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def folded(text: str) -> str:
    """The text, or its beginning and end around how many characters are left out."""
    if len(text) <= FOLD:
        return text
    left_out = len(text) - HEAD - TAIL
    return f"{text[:HEAD]}\n[... {left_out:,} of {len(text):,} characters ...]\n{text[-TAIL:]}"


def indented(text: str, depth: int = 1) -> Iterator[str]:
    for line in text.splitlines() or [""]:
        yield f"{INDENT * depth}{line}".rstrip()


def section(title: str, lines: Iterable[str]) -> Iterator[str]:
    """A heading with its lines below it; nothing where there are none."""
    below = list(lines)
    if below:
        yield ""
        yield title
        yield from below


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


def arguments(value: Any, depth: int) -> Iterator[str]:
    """A tool's arguments, one a line; a text that is no JSON object is shown as it is."""
    if isinstance(value, str):
        try:
            decoded = msgspec.json.decode(value) if value else {}
        except msgspec.DecodeError:
            yield from indented(folded(value), depth)
            return
        value = decoded
    if not isinstance(value, dict):
        yield from indented(folded(as_json(value)), depth)
        return
    for name, argument in value.items():
        shown = folded(argument if isinstance(argument, str) else as_json(argument))
        if "\n" in shown:
            yield f"{INDENT * depth}{name}:"
            yield from indented(shown, depth + 1)
        else:
            yield f"{INDENT * depth}{name}: {shown}"
