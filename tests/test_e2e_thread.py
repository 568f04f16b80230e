"""Requests that hold only the new turn of a thread reach who holds the turns before, and nobody else."""

import http.client
import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.answers import error_json, message_json
from tests.callers import LOGIN
from tests.chat import completion
from tests.running import Router

ROUTER = Router

BETA = "message-threads-2026-08-12"
REJECTED = f"capability_rejected: beta_header:{BETA}"

type Ask = Callable[..., tuple[int, Any]]


def rules(upstream, second):
    one = f"url: '{second.url}', key: fake-key-of"
    return f"""
providers:
  anthropic: {{url: '{upstream.url}', auth: client}}
  zai: {{{one}-zai, circuit: {{open_after: 1000}}}}
  two: {{url: '{second.url}', keys: [fake-key-one, fake-key-two]}}
  pair: {{url: '{second.url}', keys: [fake-key-three, fake-key-four]}}
  estimates: {{{one}-estimates, count_tokens: estimate}}
  drops: {{{one}-drops, beta: drop}}
  chat: {{{one}-chat, api: openai}}
rules:
  - {{match: 'home-*', to: anthropic}}
  - {{match: 'chain-*', to: [zai, anthropic]}}
  - {{match: 'zai-*', to: zai}}
  - {{match: 'two-*', to: two}}
  - {{match: 'pair-*', to: pair}}
  - {{match: 'estimates-*', to: estimates}}
  - {{match: 'drops-*', to: drops}}
  - {{match: 'chat-*', to: chat}}
"""


@pytest.fixture
def ask(router, request) -> Ask:
    """Sends a turn; `after` continues the thread after the answer of that id."""

    def send(model: str, after: str | None = None, *, path: str = "/v1/messages", login: str = LOGIN):
        thread = {"type": "create"} if after is None else {"type": "continue", "previous_message_id": after}
        turn = {"role": "user", "content": "and now?"}
        body = {"model": model, "max_tokens": 9, "thread": thread, "messages": [turn]}
        headers = {
            "authorization": login,
            "anthropic-beta": BETA,
            "x-claude-code-session-id": request.node.name,
            "content-type": "application/json",
        }
        with closing(http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=15)) as connection:
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    return send


def is_rejected(told: tuple[int, Any]) -> bool:
    status, body = told
    return (status, body["error"]["type"]) == (400, "invalid_request_error") and REJECTED in body["error"][
        "message"
    ]


def test_a_thread_goes_on_where_it_was_answered_though_another_would_come_first(ask, home, up, named):
    model = named("chain")
    up.answer(error_json(500, "api_error"))
    home.answer(message_json())
    assert ask(model)[0] == 200
    up.answer(message_json())
    assert ask(model, "msg_fake")[0] == 200
    assert len(up.requests) == 1
    assert home.requests[1].json["thread"] == {"type": "continue", "previous_message_id": "msg_fake"}
    assert home.requests[1].json["model"] == model
    assert home.requests[1].header("anthropic-beta") == BETA


def test_a_thread_that_the_rules_send_elsewhere_is_to_be_sent_whole(ask, router, home, up, request):
    home.answer(message_json())
    assert ask("home-x")[0] == 200
    assert is_rejected(ask("zai-x", "msg_fake"))
    assert up.requests == []
    assert router.records(2, session=request.node.name)[1]["status"] == "error"
    up.answer(message_json())
    assert ask("zai-x")[0] == 200
    assert ask("zai-x", "msg_fake")[0] == 200
    assert is_rejected(ask("home-x", "msg_fake"))


@pytest.mark.parametrize("status", [400, 500, 529])
def test_a_failure_of_who_holds_the_thread_is_the_clients(ask, home, up, named, status):
    model = named("chain")
    up.answer(message_json())
    assert ask(model)[0] == 200
    failure = error_json(status, "api_error", "context_management: Extra inputs are not permitted")
    up.answer(failure)
    assert ask(model, "msg_fake")[0] == status
    assert home.requests == []
    assert len(up.requests) == 2


def test_a_thread_that_nobody_here_began_reaches_anthropic_alone(ask, home, up):
    home.answer(message_json())
    assert ask("home-x", "msg_of_before")[0] == 200
    assert is_rejected(ask("zai-x", "msg_of_before"))
    assert up.requests == []


def test_another_account_does_not_hold_the_thread(ask, home):
    home.answer(message_json())
    assert ask("home-x")[0] == 200
    assert is_rejected(ask("home-x", "msg_fake", login="Bearer sk-ant-oat01-fake-login-of-another"))
    assert ask("home-x", "msg_fake")[0] == 200


def test_another_key_does_not_hold_the_thread(ask, up, named):
    model = named("two")
    up.answer(message_json())
    assert ask(model)[0] == 200
    assert ask(model, "msg_fake")[0] == 200
    up.answer(error_json(429, "rate_limit_error"), message_json())
    assert ask(model)[0] == 200
    first, again, refused, other = (one.header("x-api-key") for one in up.requests)
    assert first == again == refused != other
    assert ask(model, "msg_fake")[0] == 200
    assert up.requests[-1].header("x-api-key") == other


def test_a_key_that_rests_is_not_replaced_for_a_thread(ask, up, named):
    model = named("pair")
    up.answer(message_json())
    assert ask(model)[0] == 200
    up.answer(error_json(429, "rate_limit_error", headers=[("retry-after", "30")]))
    assert ask(model, "msg_fake")[0] == 429
    assert len(up.requests) == 2
    assert is_rejected(ask(model, "msg_fake"))
    assert len(up.requests) == 2


@pytest.mark.parametrize("model", ["chat-x", "drops-x"])
def test_who_cannot_hold_a_thread_is_not_asked(ask, up, model):
    up.answer(completion("Hello") if model == "chat-x" else message_json())
    status, told = ask(model)
    assert status == 200
    assert is_rejected(ask(model, told["id"]))
    assert len(up.requests) == 1


def test_tokens_of_a_thread_are_counted_where_it_was_answered(ask, home, up):
    count = "/v1/messages/count_tokens"
    up.answer(message_json())
    assert ask("zai-x")[0] == 200
    assert ask("zai-x", "msg_fake", path=count)[0] == 200
    assert is_rejected(ask("home-x", "msg_fake", path=count))
    assert home.requests == []
    assert ask("estimates-x")[0] == 200
    assert is_rejected(ask("estimates-x", "msg_fake", path=count))
