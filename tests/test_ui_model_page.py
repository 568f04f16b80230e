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
def test_all_of_it_is_one_page(query):
    assert asked(query) == ("abcde", False, "a", "e")


def test_nothing_has_neither_first_nor_last():
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
def test_whoever_asks_for_pages_gets_them(query, expected):
    assert asked(query) == expected


def test_after_a_model_that_is_not_there_any_more_comes_nothing():
    assert asked("after_id=gone") == ("", False, None, None)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "two", "1e3", "9" * 5000, "²", "1 000"])
def test_a_limit_that_anthropic_would_not_take_is_none(limit):
    assert asked(f"limit={limit}")[0] == "abcde"


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("limit=1000", ""),
        ("limit=1&lifecycle[]=active&after_id=x&beta=true&before_id=y", "lifecycle[]=active&beta=true"),
    ],
)
def test_anthropic_is_told_all_but_the_paging(query, left):
    assert less_paging(query) == left
