"""Chat completions of a provider that thinks for long, and of one that speaks HTTP/2."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests import chat
from tests.answers import Answer, error_json
from tests.chatstreams import events_of
from tests.conftest import Shared
from tests.http2 import Caller2, Upstream2
from tests.running import Router, with_scripts
from tests.tls import certify
from tests.upstream import Upstream
from tests.wellformed import check_events

ROUTER = Router

OPTIONS = (*with_scripts("haste.py"), "--set", "ssl_insecure=true")
PING = b"event: ping\n"
SILENT = [part for _ in range(26) for part in (b": keep-alive\n\n", 0.05)]
"""More than a second, which is twice as long as the router is silent here."""


@pytest.fixture(scope="module")
def multiplexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream2]:
    with Upstream2(certify(tmp_path_factory.mktemp("certificate") / "server.pem")) as one:
        yield one


def rules(home: Upstream, up: Upstream, multiplexed: Upstream2) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  up: {{url: "{up.url}/v1", api: openai}}
  multi: {{url: "{multiplexed.url}/v1", api: openai}}
rules:
  - {{match: "multi-*", to: multi}}
  - {{match: "up-then-home", to: [up, anthropic]}}
  - {{match: "*", to: up}}
"""


def check(body: bytes) -> list[dict[str, Any]]:
    events = events_of(body)
    check_events([event for event in events if event["type"] != "ping"])
    return events


@pytest.mark.parametrize("model", ["alone", "up-then-home"])
@pytest.mark.parametrize(
    "silent",
    [SILENT, [chat.chunk({"reasoning_content": "Hm."}), *SILENT], [*chat.text_stream()[:2], *SILENT]],
)
def test_while_only_comments_or_hidden_thinking_come_the_client_gets_pings(shared, caller, model, silent):
    shared.second.answer(chat.stream([*silent, *chat.text_stream()]))
    caller.ask(model)
    answer = caller.answer()
    assert answer.headers["x-signalbox-provider"] == "up"
    assert answer.body.count(PING) >= 2
    assert check(answer.body)[-1]["type"] == "message_stop"


@pytest.mark.parametrize("model", ["alone", "up-then-home"])
def test_an_answer_in_one_piece_is_waited_for_with_pings_where_a_stream_was_asked_for(shared, caller, model):
    """Some send white space meanwhile (openai-chat.md, 2)."""
    whole = chat.completion()
    spaces = tuple(part for _ in range(13) for part in (b"\n", 0.1))
    shared.second.answer(Answer(200, whole.headers, (*spaces, *whole.chunks), "chunked"))
    caller.ask(model)
    answer = caller.answer()
    assert answer.body.count(PING) >= 2
    assert check(answer.body)[-1]["type"] == "message_stop"


@pytest.mark.parametrize("end", [[chat.DONE], []], ids=["done", "not-done"])
def test_an_answer_that_begins_after_pings_comes_to_its_end(shared, caller, end):
    said = [chat.chunk({"content": "Late"}), chat.chunk({}, "stop"), *end]
    shared.second.answer(chat.stream([*SILENT, *said]))
    caller.ask("up-then-home")
    body = caller.answer().body
    assert body.startswith(PING)
    assert check(body)[-1]["type"] == "message_stop"


def test_an_error_after_pings_has_the_id_that_its_head_told(shared, caller):
    fault = b'data: {"error": {"message": "out of memory"}}\n\n'
    shared.second.answer(chat.stream([*SILENT, fault], [("x-request-id", "req_of_up")]))
    busy = error_json(500, "api_error")
    shared.upstream.answer(Answer(500, (*busy.headers, ("request-id", "req_of_home")), busy.chunks))
    caller.ask("up-then-home")
    answer = caller.answer()
    assert answer.headers["request-id"].startswith("req_")
    assert check(answer.body)[-1]["request_id"] == answer.headers["request-id"]


@pytest.fixture
def client(shared: Shared, request: pytest.FixtureRequest) -> Iterator[Caller2]:
    with Caller2(shared.router, request.node.name) as one:
        yield one


def test_streams_over_http2_share_a_connection_though_one_never_ends(client, multiplexed):
    said = chat.stream(chat.text_stream())
    endless = Answer(said.status, said.headers, said.chunks, cut="close")
    multiplexed.script = lambda number, _: endless if number == 1 else said
    for n in range(4):
        answer = client.answer(client.ask(f"multi-{n}"))
        assert answer.state == "ended"
        assert check(answer.body)[-1]["type"] == "message_stop"
    multiplexed.wait_reset(1)
    assert {connection for connection, _ in multiplexed.asked} == {0}
