"""What a page of the router's own is answered with."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"


class PageResponse(NamedTuple):
    status: int
    body: bytes
    content_type: str = PLAIN
    headers: Mapping[str, str] = {}
    """Beside those that keep every page from being stored, framed or read as something else."""


def json_page(value: Any, status: int = 200) -> PageResponse:
    return PageResponse(status, msgspec.json.encode(value), JSON)


def not_found(what: str) -> PageResponse:
    """`what` is ours: a path is not repeated."""
    return PageResponse(404, f"{what}\n".encode())
