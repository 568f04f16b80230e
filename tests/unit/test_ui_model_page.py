"""GET /v1/models, page by page."""

import json
from typing import Any

import pytest

from signalbox.ui.model_page import less_paging, page

ENTRIES = [{"id": id} for id in "abcde"]


def asked(query: str, entries: list[dict[str, Any]] = ENTRIES) -> tuple[str, bool, str | None, str | None]:
    answer = json.loads(page(entries, query))
    ids = "".join(entry["id"] for entry in answer["data"])
    return ids, answer["has_more"], answer["first_id"], answer["last_id"]


@pytest.mark.parametrize("query", ["", "limit=1000", "limit=5", "beta=true", "limit", "limit=", "after_id="])
def test_list_without_limit_is_one_page(query):
    assert asked(query) == ("abcde", False, "a", "e")


def test_empty_list_has_neither_first_nor_last_id():
    assert asked("", []) == ("", False, None, None)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("limit=2", ("ab", True, "a", "b")),
        ("limit=2&after_id=b", ("cd", True, "c", "d")),
        ("after_id=d&limit=2", ("e", False, "e", "e")),
        ("after_id=b", ("cde", False, "c", "e")),
        ("after_id=e", ("", False, None, None)),
    ],
)
def test_list_is_paged_by_limit_and_after_id(query, expected):
    assert asked(query) == expected


def test_page_after_an_unknown_model_is_empty():
    assert asked("after_id=gone") == ("", False, None, None)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "two", "1e3", "9" * 5000, "²", "1 000"])
def test_invalid_limit_is_ignored(limit):
    assert asked(f"limit={limit}")[0] == "abcde"


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("limit=1000", ""),
        ("limit=1&lifecycle[]=active&after_id=x&beta=true&before_id=y", "lifecycle[]=active&beta=true"),
    ],
)
def test_query_for_anthropic_lacks_the_paging(query, left):
    assert less_paging(query) == left
