"""The ledger: a row for each request and each attempt, whatever becomes of them."""

import os
import sqlite3
import stat
from contextlib import closing
from typing import Any

import pytest

from signalbox.anthropic.api import TOKEN_FIELDS
from tests.support.answers import USAGE, error_json, event, message_events, message_json, sse, text_block
from tests.support.playbook import Playbook, eventually, played
from tests.support.played_wire import LOGIN, user

ZAI = "zai-key-for-tests-0001"
USED = tuple(USAGE[name] for name in TOKEN_FIELDS)
STARTED = {**USAGE, "output_tokens": 1}
PARTLY_USED = (USED[0], 1, *USED[2:])
EVENTS = message_events("glm-4.7", [text_block("")], ["half", "whole"], STARTED, USAGE)


OVERLOADED = event("error", error={"type": "overloaded_error", "message": "busy"})

# One provider for each kind of failure, so that the cooldown it gets is no other test's.
RULES = f"""
providers:
  zai: &zai {{url: "http://zai.invalid", key: "{ZAI}"}}
  busy: *zai
  full: *zai
  slow: *zai
  held: *zai
  anthropic: {{url: "http://home.invalid", auth: client}}
  dead: {{url: "http://dead.invalid", circuit: {{open_after: 100}}}}
  keyed: {{url: "http://zai.invalid", keys: ["{ZAI}", zai-key-for-tests-0002]}}
  cheap: {{url: "http://zai.invalid", key: "{ZAI}", prices: {{"*": {{input: 1, output: 2}}}}}}
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


def rows(play: Playbook, table: str, n: int = 1) -> list[dict[str, Any]]:
    """The rows of a table for this client, once there are at least `n`."""

    def read() -> list[dict[str, Any]]:
        file = f"file:{play.router.state / 'ledger.sqlite'}?mode=ro"
        try:
            with closing(sqlite3.connect(file, uri=True)) as database:
                database.row_factory = sqlite3.Row
                return [dict(row) for row in database.execute(QUERIES[table], [play.session])]
        except sqlite3.OperationalError:  # it is about to be made
            return []

    eventually(lambda: len(read()) >= n, lambda: f"{n} {table}; there are {read()}")
    return read()


def some(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def test_a_success_is_one_request_and_one_attempt(play, zai):
    headers = {
        "x-claude-code-agent-id": "agent-1",
        "x-claude-code-request-class": "workflow",
        "x-signalbox-project": "/home/j%C3%B6rg/a b",
    }
    assert play.ask("lone-sonnet", stream=True, headers=headers).status == 200
    (request,) = rows(play, "requests")
    (line,) = play.records(1)
    same = [name for name in line if name != "ts"]
    assert some(request, *same) == some(line, *same)
    more = some(request, "tier", "agent", "stream", "http_status", "error_type")
    assert more == ("sonnet", "subagent", 1, 200, None)
    assert some(request, "class", "project", "account") == ("workflow", "/home/jörg/a b", None)
    (attempt,) = rows(play, "attempts")
    assert some(attempt, "request", "number", "provider", "model") == (request["id"], 1, "zai", "glm-4.7")
    assert some(attempt, "outcome", "http_status", "kind", "detail") == ("200", 200, "success", "")
    assert attempt["key"] == 1
    assert some(attempt, *TOKEN_FIELDS) == USED
    assert 0 <= attempt["first_byte_ms"] <= attempt["latency_ms"] <= request["latency_ms"] + 1
    assert 0 <= attempt["started"] - request["ts"] < 10_000


def test_a_failover_has_a_row_for_each_attempt_with_what_it_alone_used(play, zai, home):
    zai.answer(sse(*EVENTS[:2], OVERLOADED))
    play.asks("chain-opus")
    play.refuses()
    play.serve()
    assert play.attempts == "dead:connect busy:stream_error anthropic:200"
    dead, busy, last = rows(play, "attempts", n=3)
    assert [row["number"] for row in (dead, busy, last)] == [1, 2, 3]
    told = ("provider", "model", "key", "outcome", "http_status", "kind")
    assert some(dead, *told) == ("dead", "chain-opus", None, "connect", None, "connect")
    assert some(dead, "first_byte_ms", "detail", *TOKEN_FIELDS) == (None, "Connection refused", 0, 0, 0, 0)
    assert some(busy, *told) == ("busy", "glm-4.7", 1, "stream_error", 200, "overload")
    assert busy["detail"] == "overloaded_error: busy"
    assert some(busy, *TOKEN_FIELDS) == PARTLY_USED
    assert some(last, *told) == ("anthropic", "chain-opus", None, "200", 200, "success")
    assert some(last, *TOKEN_FIELDS) == USED
    assert dead["started"] <= busy["started"] <= last["started"]
    (request,) = rows(play, "requests")
    both = [one + other for one, other in zip(some(busy, *TOKEN_FIELDS), USED, strict=True)]
    assert some(request, "attempts", "backend", *TOKEN_FIELDS) == (
        "dead:connect busy:stream_error anthropic:200",
        "anthropic",
        *both,
    )


@pytest.mark.slow
def test_the_cost_is_what_all_attempts_cost_and_the_list_cost_what_the_asked_model_would_have(
    play, zai, home
):
    zai.answer(sse(*EVENTS[:2], OVERLOADED))
    play.ask("priced-claude-opus-5-5", stream=True)
    assert play.attempts == "cheap:stream_error anthropic:200"
    cheap, last = rows(play, "attempts", n=2)
    assert cheap["cost"] == pytest.approx(((120 + 500 + 30) * 1 + 1 * 2) / 1e6)
    assert last["cost"] == pytest.approx((120 * 2 + 17 * 10 + 30 * 2.5 + 500 * 0.1) / 1e6)
    (request,) = rows(play, "requests")
    assert request["cost"] == pytest.approx(cheap["cost"] + last["cost"])
    assert request["list_cost"] is None
    (line,) = play.records(1)
    assert line["cost"] == request["cost"]
    assert "list_cost" not in line


@pytest.mark.slow
def test_a_request_whose_model_is_claudes_has_its_list_cost(play, zai):
    play.ask("claude-opus-5-5", stream=True)
    (request,) = rows(play, "requests")
    assert request["cost"] == pytest.approx(((120 + 500 + 30) * 1 + 17 * 2) / 1e6)
    assert request["list_cost"] == pytest.approx((120 * 4 + 17 * 20 + 30 * 5 + 500 * 0.2) / 1e6)


@pytest.mark.slow
def test_a_request_at_a_provider_without_prices_has_no_cost(play, zai):
    play.ask("lone-sonnet", stream=True)
    (request,) = rows(play, "requests")
    assert some(request, "cost", "list_cost") == (None, None)


@pytest.mark.slow
def test_of_two_keys_each_attempt_names_its_own(play, zai):
    zai.answer(error_json(401, "authentication_error"), message_json("glm-4.7"))
    assert play.ask("keyed-opus").status == 200
    first, other = rows(play, "attempts", n=2)
    assert {first["key"], other["key"]} == {1, 2}
    assert some(first, "outcome", "kind") == ("401", "auth")


@pytest.mark.slow
def test_an_error_that_is_delivered_has_its_kind(play, zai):
    zai.answer(error_json(529, "overloaded_error", "all lines are busy"))
    assert play.ask("full-haiku", stream=True).status == 529
    (request,) = rows(play, "requests")
    assert some(request, "status", "http_status", "error_type") == ("error", 529, "overloaded_error")
    (attempt,) = rows(play, "attempts")
    assert some(attempt, "outcome", "http_status", "kind", "detail") == (
        "529",
        529,
        "overload",
        "overloaded_error: all lines are busy",
    )


@pytest.mark.slow
def test_the_ledger_has_the_id_that_the_client_was_told(play, zai):
    zai.answer(error_json(529, "overloaded_error", headers=[("request-id", "req_of_the_ledger")]))
    assert play.ask("full-id").headers["request-id"] == "req_of_the_ledger"
    (request,) = rows(play, "requests")
    assert request["request_id"] == "req_of_the_ledger"


@pytest.mark.slow
def test_an_answer_that_is_cut_counts_what_it_had_used(play, zai):
    zai.answer(sse(*EVENTS[:4], cut="reset"))
    assert play.ask("lone-haiku", stream=True).state == "cut"
    (attempt,) = rows(play, "attempts")
    assert some(attempt, "outcome", "http_status", "kind") == ("stream_error", 200, "stream_error")
    assert some(attempt, *TOKEN_FIELDS) == PARTLY_USED


@pytest.mark.slow
@pytest.mark.parametrize(("model", "come"), [("lone-haiku", 4), ("held-haiku", 3)], ids=["answering", "held"])
def test_a_client_that_leaves_cancels_an_attempt_that_counts_what_it_had_used(play, zai, never, model, come):
    zai.answer(sse(*EVENTS[:come], never))
    assert (b"half" in play.ask(model, stream=True).body) == (come == 4)
    play.client_leaves()
    (request,) = rows(play, "requests")
    (attempt,) = rows(play, "attempts")
    assert some(request, "status", *TOKEN_FIELDS) == ("cancelled", *PARTLY_USED)
    assert some(attempt, "outcome", "http_status", *TOKEN_FIELDS) == ("cancelled", 200, *PARTLY_USED)


@pytest.mark.slow
def test_a_client_that_leaves_while_a_wait_is_on_cancels_no_attempt(play, zai):
    zai.answer(error_json(429, "rate_limit_error", headers=[("retry-after", "20")]))
    play.ask("waits", stream=True)
    play.client_leaves()
    assert [row["attempts"] for row in rows(play, "requests")] == ["slow:429"]
    assert [some(row, "outcome", "kind") for row in rows(play, "attempts")] == [("429", "throttle")]


@pytest.mark.slow
def test_what_the_router_answers_itself_after_a_failure_is_no_attempt(play):
    play.asks("refused")
    play.refuses()
    assert play.got.status == 418
    assert [some(row, "provider", "outcome") for row in rows(play, "attempts")] == [("dead", "connect")]
    (request,) = rows(play, "requests")
    assert some(request, "attempts", "http_status", "status") == ("dead:connect", 418, "error")


@pytest.mark.slow
def test_a_request_that_no_rule_matches_has_its_rows_too(play, played_router):
    played_router.provider("upstream")
    assert play.ask("something-else", stream=True).status == 200
    (request,) = rows(play, "requests")
    assert some(request, "rule", "reason", "backend") == ("none", "no-rule", "upstream")
    (attempt,) = rows(play, "attempts")
    told = some(attempt, "provider", "model", "key", "outcome", *TOKEN_FIELDS)
    assert told == ("(upstream)", "something-else", None, "200", *USED)


@pytest.mark.slow
def test_counting_tokens_is_not_in_it(play, zai):
    assert play.ask("lone-opus", path="/v1/messages/count_tokens").status == 200
    assert play.ask("lone-haiku").status == 200
    (request,) = rows(play, "requests")
    assert request["model"] == "lone-haiku"


@pytest.mark.slow
def test_it_is_its_owners_alone_and_holds_neither_credential_nor_prompt(tmp_path):
    with played(tmp_path, RULES) as router:
        router.provider("zai")
        play = router.connect()
        play.ask("lone-opus", messages=[user("a private question")])
        rows(play, "attempts")
        files = list(router.state.glob("ledger.sqlite*"))
        if os.name == "posix":
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    held = (tmp_path / "state" / "ledger.sqlite").read_bytes()
    assert b"lone-opus" in held
    assert not any(secret in held for secret in (b"private question", ZAI.encode(), LOGIN.encode()))
