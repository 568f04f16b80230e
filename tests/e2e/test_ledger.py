"""The ledger of a running router: a row for each request and each attempt, whatever becomes of them."""

import os
import sqlite3
import stat
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from signalbox.anthropic.api import TOKEN_FIELDS
from tests.support.answers import USAGE, error_json, event, message_events, message_json, sse, text_block
from tests.support.fake_provider import Upstream
from tests.support.raw_client import LOGIN, Caller
from tests.support.router import Router
from tests.support.router_process import wait_until

ZAI = "zai-key-for-tests-0001"
USED = tuple(USAGE[name] for name in TOKEN_FIELDS)
STARTED = {**USAGE, "output_tokens": 1}
EVENTS = message_events("glm-4.7", [text_block("")], ["half", "whole"], STARTED, USAGE)


def rules(home: Upstream, zai: Upstream) -> str:
    """One provider for each kind of failure, so that the rest it is given is no other test's."""
    named = ("zai", "busy", "full", "slow", "held")
    providers = "\n".join(f'  {name}: {{url: "{zai.url}", key: "{ZAI}"}}' for name in named)
    return f"""
providers:
{providers}
  anthropic: {{url: "{home.url}", auth: client}}
  dead: {{url: "http://127.0.0.1:1", circuit: {{open_after: 100}}}}
  keyed: {{url: "{zai.url}", keys: ["{ZAI}", zai-key-for-tests-0002]}}
  cheap: {{url: "{zai.url}", key: "{ZAI}", prices: {{"*": {{input: 1, output: 2}}}}}}
rules:
  - {{match: "priced*", to: [cheap/glm-4.7, anthropic/claude-sonnet-5-5]}}
  - {{match: "claude-opus-5-5", to: cheap/glm-4.7}}
  - {{match: "lone*", to: zai/glm-4.7}}
  - {{match: "chain*", to: [dead, busy/glm-4.7, anthropic]}}
  - {{match: "held*", to: [held/glm-4.7, anthropic]}}
  - {{match: "full*", to: full/glm-4.7}}
  - {{match: "keyed*", to: keyed/glm-4.7}}
  - {{match: "refused", to: [dead, {{reject: 418}}]}}
  - {{match: "waits", to: [slow/glm-4.7, anthropic], failover: {{wait: 30s}}}}
"""


QUERIES = {
    "requests": "SELECT * FROM requests WHERE ifnull(session, '') LIKE ? ORDER BY id",
    "attempts": "SELECT attempts.* FROM attempts JOIN requests ON requests.id = request"
    " WHERE ifnull(session, '') LIKE ? ORDER BY request, number",
}


def rows(router: Router, table: str, session: str = "%", n: int = 1) -> list[dict[str, Any]]:
    """The rows of a table (of this session), once there are at least `n`."""

    def read() -> list[dict[str, Any]]:
        file = f"file:{router.state / 'ledger.sqlite'}?mode=ro"
        try:
            with closing(sqlite3.connect(file, uri=True)) as database:
                database.row_factory = sqlite3.Row
                return [dict(row) for row in database.execute(QUERIES[table], [session])]
        except sqlite3.OperationalError:  # it is about to be made
            return []

    wait_until(lambda: len(read()) >= n, 5, lambda: f"{n} {table}; log:\n{router.log()}")
    return read()


def some(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def test_a_success_is_one_request_and_one_attempt(router, caller):
    caller.ask(
        "lone-sonnet",
        x_claude_code_agent_id="agent-1",
        x_claude_code_request_class="workflow",
        x_signalbox_project="/home/j%C3%B6rg/a b",
    )
    assert caller.answer().status == 200
    (request,) = rows(router, "requests", caller.session)
    (line,) = router.records(1, session=caller.session)
    same = [name for name in line if name != "ts"]
    assert some(request, *same) == some(line, *same)
    more = some(request, "tier", "agent", "stream", "http_status", "error_type")
    assert more == ("sonnet", "subagent", 1, 200, None)
    assert some(request, "class", "project", "account") == ("workflow", "/home/jörg/a b", None)
    (attempt,) = rows(router, "attempts", caller.session)
    assert some(attempt, "request", "number", "provider", "model") == (request["id"], 1, "zai", "glm-4.7")
    assert some(attempt, "outcome", "http_status", "kind", "detail") == ("200", 200, "success", "")
    assert attempt["key"] == 1
    assert some(attempt, *TOKEN_FIELDS) == USED
    assert 0 <= attempt["first_byte_ms"] <= attempt["latency_ms"] <= request["latency_ms"] + 1
    assert 0 <= attempt["started"] - request["ts"] < 10_000


def test_a_failover_has_a_row_for_each_attempt_with_what_it_alone_used(router, caller, shared):
    failed = event("error", error={"type": "overloaded_error", "message": "busy"})
    shared.second.answer(sse(*EVENTS[:2], failed))
    caller.ask("chain-opus")
    assert caller.answer().headers["x-signalbox-attempts"] == "dead:connect busy:stream_error anthropic:200"
    dead, busy, home = rows(router, "attempts", caller.session, n=3)
    assert [row["number"] for row in (dead, busy, home)] == [1, 2, 3]
    told = ("provider", "model", "key", "outcome", "http_status", "kind")
    assert some(dead, *told) == ("dead", "chain-opus", None, "connect", None, "connect")
    assert some(dead, "first_byte_ms", "detail", *TOKEN_FIELDS) == (None, "Connection refused", 0, 0, 0, 0)
    assert some(busy, "provider", "outcome", "http_status", "kind") == (
        "busy",
        "stream_error",
        200,
        "overload",
    )
    assert busy["detail"] == "overloaded_error: busy"
    assert some(busy, *TOKEN_FIELDS) == (USED[0], 1, *USED[2:])
    assert some(home, *told) == ("anthropic", "chain-opus", None, "200", 200, "success")
    assert some(home, *TOKEN_FIELDS) == USED
    assert dead["started"] <= busy["started"] <= home["started"]
    (request,) = rows(router, "requests", caller.session)
    both = [one + other for one, other in zip(some(busy, *TOKEN_FIELDS), USED, strict=True)]
    assert some(request, "attempts", "backend", *TOKEN_FIELDS) == (
        "dead:connect busy:stream_error anthropic:200",
        "anthropic",
        *both,
    )


def test_the_cost_is_what_all_attempts_cost_and_the_list_cost_what_the_asked_model_would_have(
    router, caller, shared
):
    failed = event("error", error={"type": "overloaded_error", "message": "busy"})
    shared.second.answer(sse(*EVENTS[:2], failed))
    caller.ask("priced-claude-opus-5-5")
    assert caller.answer().headers["x-signalbox-attempts"] == "cheap:stream_error anthropic:200"
    cheap, home = rows(router, "attempts", caller.session, n=2)
    assert cheap["cost"] == pytest.approx((120 * 1 + 1 * 2) / 1e6)
    assert home["cost"] == pytest.approx((120 * 2 + 17 * 10 + 30 * 2.5 + 500 * 0.1) / 1e6)
    (request,) = rows(router, "requests", caller.session)
    assert request["cost"] == pytest.approx(cheap["cost"] + home["cost"])
    assert request["list_cost"] is None
    (line,) = router.records(1, session=caller.session)
    assert line["cost"] == request["cost"]
    assert "list_cost" not in line


def test_a_request_whose_model_is_claudes_has_its_list_cost(router, caller):
    caller.ask("claude-opus-5-5")
    assert caller.answer().headers["x-signalbox-provider"] == "cheap"
    (request,) = rows(router, "requests", caller.session)
    assert request["cost"] == pytest.approx((120 * 1 + 17 * 2) / 1e6)
    assert request["list_cost"] == pytest.approx((120 * 4 + 17 * 20 + 30 * 5 + 500 * 0.2) / 1e6)


def test_a_request_at_a_provider_without_prices_has_no_cost(router, caller):
    caller.ask("lone-sonnet")
    assert caller.answer().status == 200
    (request,) = rows(router, "requests", caller.session)
    assert some(request, "cost", "list_cost") == (None, None)


def test_of_two_keys_each_attempt_names_its_own(router, caller, shared):
    shared.second.answer(error_json(401, "authentication_error"), message_json("glm-4.7"))
    caller.ask("keyed-opus", stream=False)
    assert caller.answer().status == 200
    first, other = rows(router, "attempts", caller.session, n=2)
    assert {first["key"], other["key"]} == {1, 2}
    assert some(first, "outcome", "kind") == ("401", "auth")


def test_an_error_that_is_delivered_has_its_kind(router, caller, shared):
    shared.second.answer(error_json(529, "overloaded_error", "all lines are busy"))
    caller.ask("full-haiku")
    assert caller.answer().status == 529
    (request,) = rows(router, "requests", caller.session)
    assert some(request, "status", "http_status", "error_type") == ("error", 529, "overloaded_error")
    (attempt,) = rows(router, "attempts", caller.session)
    assert some(attempt, "outcome", "http_status", "kind", "detail") == (
        "529",
        529,
        "overload",
        "overloaded_error: all lines are busy",
    )


def test_an_answer_that_is_cut_counts_what_it_had_used(router, caller, shared):
    shared.second.answer(sse(*EVENTS[:4], cut="reset"))
    caller.ask("lone-haiku")
    caller.until_closed()
    (attempt,) = rows(router, "attempts", caller.session)
    assert some(attempt, "outcome", "http_status", "kind") == ("stream_error", 200, "stream_error")
    assert some(attempt, *TOKEN_FIELDS) == (USED[0], 1, *USED[2:])


def test_a_client_that_leaves_cancels_an_attempt_that_counts_what_it_had_used(router, caller, shared, never):
    shared.second.answer(sse(*EVENTS[:4], never))
    caller.ask("lone-haiku")
    caller.until(b"half")
    caller.leave()
    (request,) = rows(router, "requests", caller.session)
    assert request["status"] == "cancelled"
    (attempt,) = rows(router, "attempts", caller.session)
    assert some(attempt, "outcome", "http_status") == ("cancelled", 200)
    assert some(attempt, *TOKEN_FIELDS) == (USED[0], 1, *USED[2:])


def test_it_counts_what_was_used_where_nothing_of_the_answer_was_delivered_yet(router, caller, shared, never):
    shared.second.answer(sse(*EVENTS[:3], never))
    caller.ask("held-haiku")
    shared.second.wait_for(1)
    assert caller.is_quiet(0.3)
    caller.leave()
    (request,) = rows(router, "requests", caller.session)
    assert some(request, "status", "attempts", *TOKEN_FIELDS) == (
        "cancelled",
        "held:cancelled",
        USED[0],
        1,
        *USED[2:],
    )
    (attempt,) = rows(router, "attempts", caller.session)
    assert some(attempt, "outcome", "http_status", *TOKEN_FIELDS) == ("cancelled", 200, USED[0], 1, *USED[2:])


def test_a_client_that_leaves_while_a_wait_is_on_cancels_no_attempt(router, caller, shared):
    shared.second.answer(error_json(429, "rate_limit_error", headers=[("retry-after", "20")]))
    caller.ask("waits")
    router.wait_log("↻ slow 429 → slow")
    caller.leave()
    assert [row["attempts"] for row in rows(router, "requests", caller.session)] == ["slow:429"]
    assert [some(row, "outcome", "kind") for row in rows(router, "attempts", caller.session)] == [
        ("429", "throttle")
    ]


def test_what_the_router_answers_itself_after_a_failure_is_no_attempt(router, caller):
    caller.ask("refused")
    assert caller.answer().status == 418
    assert [some(row, "provider", "outcome") for row in rows(router, "attempts", caller.session)] == [
        ("dead", "connect")
    ]
    (request,) = rows(router, "requests", caller.session)
    assert some(request, "attempts", "http_status", "status") == ("dead:connect", 418, "error")


def test_a_request_that_no_rule_matches_has_its_rows_too(router, caller):
    caller.ask("something-else")
    assert caller.answer().status == 200
    (request,) = rows(router, "requests", caller.session)
    assert some(request, "rule", "reason", "backend") == ("none", "no-rule", "anthropic")
    (attempt,) = rows(router, "attempts", caller.session)
    assert some(attempt, "provider", "model", "key", "outcome") == (
        "anthropic",
        "something-else",
        None,
        "200",
    )
    assert some(attempt, *TOKEN_FIELDS) == USED


def test_counting_tokens_is_not_in_it(router, caller):
    body = b'{"model": "lone-opus"}'
    head = caller.head(len(body)).replace(b"/v1/messages", b"/v1/messages/count_tokens")
    caller.socket.sendall(head + body)
    assert caller.answer().status == 200
    caller.ask("lone-haiku")
    caller.answer()
    (request,) = rows(router, "requests", caller.session)
    assert request["model"] == "lone-haiku"


def test_it_is_its_owners_alone_and_holds_neither_credential_nor_prompt(start_router, upstream, second):
    router: Router = start_router(upstream.url, rules=rules(upstream, second))
    body = b'{"model": "lone-opus", "messages": [{"role": "user", "content": "a private question"}]}'
    with Caller(router) as caller:
        caller.socket.sendall(caller.head(len(body)) + body)
        assert caller.answer().status == 200
    rows(router, "attempts")
    files = list(router.state.glob("ledger.sqlite*"))
    if os.name == "posix":
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert router.stop() == 0
    held = (router.state / "ledger.sqlite").read_bytes()
    assert b"lone-opus" in held
    assert not any(secret in held for secret in (b"private question", ZAI.encode(), LOGIN.encode()))


def test_at_its_end_it_writes_what_it_has_and_then_the_streams_that_are_cut(
    start_router, upstream, second, never
):
    router: Router = start_router(upstream.url, rules=rules(upstream, second))
    second.answer(message_json("glm-4.7"), sse(*EVENTS[:4], never))
    with Caller(router) as one, Caller(router) as other:
        one.ask("lone-one", stream=False)
        one.answer()
        other.ask("lone-two")
        other.until(b"half")
        assert router.stop() == 0
    found = [some(row, "model", "status", "attempts") for row in rows(router, "requests", n=2)]
    assert found == [("lone-one", "success", "zai:200"), ("lone-two", "cancelled", "zai:cancelled")]
    assert [some(row, *TOKEN_FIELDS) for row in rows(router, "attempts", n=2)] == [
        USED,
        (USED[0], 1, *USED[2:]),
    ]


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
        router = stack.enter_context(Router(tmp_path, upstream.url, rules=rules(upstream, second)))
        with Caller(router) as caller:
            for _ in range(20):
                caller.ask("lone-haiku", stream=False)
                assert caller.answer().status == 200
        router.wait_log(r"ledger.sqlite: .* requests wait to be recorded", 15)
        assert len(router.records(20)) == 20
        assert router.log().count("wait to be recorded") == 1
