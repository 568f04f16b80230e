"""Requests that hold only the new turn of a thread reach the provider with the turns before, and no other."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.answers import error_json, message_json
from tests.support.chat import completion
from tests.support.playbook import Playbook
from tests.support.played_wire import LOGIN

BETA = "message-threads-2026-08-12"
REJECTED = f"capability_rejected: beta_header:{BETA}"
RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client}
  zai: {url: "http://up.invalid", key: fake-key-of-zai, circuit: {open_after: 1000}}
  two: {url: "http://up.invalid", keys: [fake-key-one, fake-key-two]}
  pair: {url: "http://up.invalid", keys: [fake-key-three, fake-key-four]}
  estimates: {url: "http://up.invalid", key: fake-key-of-estimates, count_tokens: estimate}
  drops: {url: "http://up.invalid", key: fake-key-of-drops, beta: drop}
  chat: {url: "http://up.invalid", key: fake-key-of-chat, api: openai}
rules:
  - {match: 'home-*', to: anthropic}
  - {match: 'chain-*', to: [zai, anthropic]}
  - {match: 'zai-*', to: zai}
  - {match: 'two-*', to: two}
  - {match: 'pair-*', to: pair}
  - {match: 'estimates-*', to: estimates}
  - {match: 'drops-*', to: drops}
  - {match: 'chat-*', to: chat}
"""

type Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def ask(play: Playbook) -> Ask:
    """Sends a turn; `after` continues the thread after the answer of that id."""

    def send(model: str, after: str | None = None, *, path: str = "/v1/messages", login: str = LOGIN):
        thread = {"type": "create"} if after is None else {"type": "continue", "previous_message_id": after}
        headers = {"x-api-key": login, "anthropic-beta": BETA}
        got = play.ask(model, thread=thread, path=path, headers=headers)
        return got.status, json.loads(got.body)

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


def test_a_thread_that_the_rules_send_elsewhere_must_be_sent_whole(ask, play, home, up):
    home.answer(message_json())
    assert ask("home-x")[0] == 200
    assert is_rejected(ask("zai-x", "msg_fake"))
    assert up.requests == []
    assert play.records(2)[1]["status"] == "error"
    up.answer(message_json())
    assert ask("zai-x")[0] == 200
    assert ask("zai-x", "msg_fake")[0] == 200
    assert is_rejected(ask("home-x", "msg_fake"))


@pytest.mark.parametrize("status", [400, 500, 529])
def test_a_failure_of_the_provider_with_the_thread_is_reported_to_the_client(ask, home, up, named, status):
    model = named("chain")
    up.answer(message_json())
    assert ask(model)[0] == 200
    failure = error_json(status, "api_error", "context_management: Extra inputs are not permitted")
    up.answer(failure)
    assert ask(model, "msg_fake")[0] == status
    assert home.requests == []
    assert len(up.requests) == 2


def test_a_thread_that_began_elsewhere_reaches_anthropic_alone(ask, home, up):
    home.answer(message_json())
    assert ask("home-x", "msg_of_before")[0] == 200
    assert is_rejected(ask("zai-x", "msg_of_before"))
    assert up.requests == []


def test_another_account_does_not_hold_the_thread(ask, home):
    home.answer(message_json())
    assert ask("home-x")[0] == 200
    assert is_rejected(ask("home-x", "msg_fake", login="sk-ant-fake-other"))
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


def test_a_key_in_cooldown_is_not_replaced_for_a_thread(ask, up, named):
    model = named("pair")
    up.answer(message_json())
    assert ask(model)[0] == 200
    up.answer(error_json(429, "rate_limit_error", headers=[("retry-after", "30")]))
    assert ask(model, "msg_fake")[0] == 429
    assert len(up.requests) == 2
    assert is_rejected(ask(model, "msg_fake"))
    assert len(up.requests) == 2


@pytest.mark.parametrize("model", ["chat-x", "drops-x"])
def test_a_provider_that_holds_no_threads_is_not_asked(ask, up, model):
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
