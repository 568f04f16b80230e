"""`/ui/requests` and `/ui/requests.csv`: the rows of the ledger, newest first."""

import csv
import io
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from signalbox.record.queries import Filter, LedgerReader
from signalbox.record.tables import REQUESTS
from signalbox.ui import format
from signalbox.ui.charts import bar_parts

if TYPE_CHECKING:
    from signalbox.ui.state import State

ROWS = 100
MOST = 100_000
"""Rows of a CSV file without `page`."""
PAUSE = 0.001
"""Seconds after each ROWS rows of such a file in which the threads of streams have their turn."""
CHOICES = 200
"""Values that a filter offers; others can be typed."""
PARTS = (
    ("read", "cache_read_input_tokens"),
    ("write", "cache_creation_input_tokens"),
    ("fresh", "input_tokens"),
    ("output", "output_tokens"),
)
"""The colours of the four kinds of tokens, in the order of a bar."""


def page(reader: LedgerReader, which: Filter, number: int, state: "State") -> dict[str, Any]:
    """What requests.html shows."""
    count = reader.count(which)
    rows = [dict(row) for row in reader.requests(which, limit=ROWS, offset=(number - 1) * ROWS)]
    most = max((_tokens(row) for row in rows), default=0)
    return {
        "rows": [row_view(row, most, state) for row in rows],
        "count": count,
        "number": number,
        "pages": max(-(-count // ROWS), 1),
        "choices": reader.choices(CHOICES),
        "has_flows": bool(state.flows),
    }


def row_view(row: Mapping[str, Any], most: int, state: "State") -> dict[str, Any]:
    """A row with what is made of it; `most` tokens fill its bar."""
    saved = None if row["cost"] is None or row["list_cost"] is None else row["list_cost"] - row["cost"]
    project = row["project"]
    return {
        **row,
        "style": row["tier"] or "other",
        "spans": bar_parts([(style, row[name]) for style, name in PARTS], most),
        "tooltip": "\n".join(f"{style} {format.whole(row[name])}" for style, name in PARTS),
        "tokens_in": _tokens(row) - row["output_tokens"],
        "hit": hit(row),
        "saved": saved,
        "count": len(row["attempts"].split()),
        "folder": PurePath(project).name if project else None,
        "flow": state.flows.get((row["request_id"], row["ts"])),
    }


def hit(row: Mapping[str, Any]) -> float | None:
    """Percent of the input that was read from a cache."""
    seen = _tokens(row) - row["output_tokens"]
    return 100 * row["cache_read_input_tokens"] / seen if seen else None


def _tokens(row: Mapping[str, Any]) -> int:
    return sum(row[name] for _, name in PARTS)


def csv_of(reader: LedgerReader, which: Filter, page: int | None) -> bytes:
    """The rows of that page, or MOST of all rows where none is asked for. The first line names the columns of
    the ledger; `ts` is UTC."""
    limit, offset = (MOST, 0) if page is None else (ROWS, (page - 1) * ROWS)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow(column.name for column in REQUESTS.c)
    for number, row in enumerate(reader.each_request(which, limit=limit, offset=offset), 1):
        writer.writerow(_cells(row))
        if number % ROWS == 0:
            time.sleep(PAUSE)
    return text.getvalue().encode(errors="replace")


def _cells(values: Iterable[Any]) -> Iterator[Any]:
    for column, value in zip(REQUESTS.c, values, strict=True):
        if column.name == "ts":
            yield format.of_ms(value).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        elif isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
            yield f"'{value}"  # callers name models: no spreadsheet may take that for a formula
        else:
            yield value
