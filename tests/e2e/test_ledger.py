"""The ledger at a router's end, and where its file cannot be written (more in `test_proxy_stream_ledger`)."""

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from signalbox.anthropic.api import TOKEN_FIELDS
from tests.support.answers import USAGE, message_events, message_json, sse, text_block
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller
from tests.support.router import Router

USED = tuple(USAGE[name] for name in TOKEN_FIELDS)
STARTED = {**USAGE, "output_tokens": 1}
EVENTS = message_events("glm-4.7", [text_block("")], ["half", "whole"], STARTED, USAGE)


def rules(zai: Upstream) -> str:
    return f"""
providers: {{zai: {{url: "{zai.url}", key: zai-key-for-tests-0001}}}}
rules: [{{match: "lone*", to: zai/glm-4.7}}]
"""


def rows(router: Router, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{router.state / 'ledger.sqlite'}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def test_at_its_end_it_writes_what_it_has_and_then_the_streams_that_are_cut(
    start_router, upstream, second, never
):
    router: Router = start_router(upstream.url, rules=rules(second))
    second.answer(message_json("glm-4.7"), sse(*EVENTS[:4], never))
    with Caller(router) as one, Caller(router) as other:
        one.ask("lone-one", stream=False)
        one.answer()
        other.ask("lone-two")
        other.until(b"half")
        assert router.stop() == 0
    assert rows(router, "SELECT model, status, attempts FROM requests ORDER BY id") == [
        ("lone-one", "success", "zai:200"),
        ("lone-two", "cancelled", "zai:cancelled"),
    ]
    used = f"SELECT {', '.join(TOKEN_FIELDS)} FROM attempts ORDER BY request"
    assert rows(router, used) == [USED, (USED[0], 1, *USED[2:])]


def _locked(file: Path, stack: ExitStack) -> None:
    holder = stack.enter_context(closing(sqlite3.connect(file)))
    holder.execute("BEGIN IMMEDIATE")


def _damaged(file: Path, _: ExitStack) -> None:
    file.write_bytes(b"no database" * 1000)


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [_locked, _damaged])
def test_a_file_that_cannot_be_written_costs_no_request_and_one_line(tmp_path, upstream, second, spoil):
    (tmp_path / "state").mkdir(mode=0o700)
    with ExitStack() as stack:
        spoil(tmp_path / "state" / "ledger.sqlite", stack)
        router = stack.enter_context(Router(tmp_path, upstream.url, rules=rules(second)))
        with Caller(router) as caller:
            for _ in range(20):
                caller.ask("lone-haiku", stream=False)
                assert caller.answer().status == 200
        router.wait_log(r"ledger.sqlite: .* requests wait to be recorded", 15)
        assert len(router.records(20)) == 20
        assert router.log().count("wait to be recorded") == 1
