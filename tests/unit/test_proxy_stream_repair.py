"""A refusal that names what a request can do without: the same provider is asked once more without it."""

import json
import threading

import pytest

from tests.support.answers import (
    USAGE,
    Answer,
    error_json,
    event,
    json_answer,
    message_events,
    message_json,
    sse,
    text_block,
    thinking_block,
    tool_block,
)
from tests.support.playbook import Playbook
from tests.support.played_wire import Got, request

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client, circuit: &never {degraded_after: 100000, open_after: 100000}}
  zai: &other {url: "http://zai.invalid", key: zai-key, circuit: *never}
  fields: *other
  counted: *other
  tools: *other
  efforts: *other
  both: *other
  lone: *other
rules:
  - {match: "anthropic-*", to: anthropic}
  - {match: "zai-*", to: zai}
  - {match: "fields", to: fields}
  - {match: "counted", to: counted}
  - {match: "tools", to: tools}
  - {match: "efforts", to: efforts}
  - {match: "both", to: both}
  - {match: "held", to: [lone, anthropic], failover: {on: [connect]}}
"""  # noqa: E501  as rules are written
NEVER = threading.Event()
SIGNATURE = "messages.1.content.0: Invalid `signature` in `thinking` block"


def invalid(message: str) -> Answer:
    return error_json(400, "invalid_request_error", message)


def history(signature: str) -> list[dict[str, object]]:
    thinking = {"type": "thinking", "thinking": "hm", "signature": signature}
    return [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [thinking, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "c"},
    ]


def ask(play: Playbook, model: str, signature: str = "dW5rbm93bg", **fields: object) -> Got:
    return play.ask(model, **{"messages": history(signature)} | fields)


def test_a_signature_that_anthropic_refuses_is_repaired_by_one_more_try(play, home):
    home.answer(invalid(SIGNATURE), message_json())
    assert ask(play, "anthropic-x").status == 200
    refused, repaired = home.requests
    assert b"dW5rbm93bg" in refused.body
    assert b"thinking" not in repaired.body
    assert repaired.header("x-api-key") == refused.header("x-api-key")
    ask(play, "anthropic-x")
    assert b"thinking" not in home.requests[2].body
    assert play.records(1)[0]["attempts"] == "anthropic:400 anthropic:200"


def test_a_signature_that_is_refused_twice_is_reported_as_it_was_said(play, home):
    home.answer(refusal := invalid(SIGNATURE))
    got = ask(play, "anthropic-x")
    assert (got.status, got.body) == (400, refusal.body)
    assert len(home.requests) == 2


def test_another_400_passes_unmodified_at_once(play, home):
    home.answer(refusal := invalid("max_tokens: 99 > 64"))
    got = ask(play, "anthropic-x")
    assert (got.status, got.body) == (400, refusal.body)
    assert len(home.requests) == 1


def test_what_a_provider_rejects_is_left_out_from_then_on(play, zai, caplog):
    caplog.set_level("INFO", "signalbox")
    zai.answer(invalid("context_management: Extra inputs are not permitted"), message_json())
    headers = {"anthropic-beta": "context-management-2025-06-27,effort-2025-11-24"}
    for _ in range(2):
        assert play.ask("fields", context_management={"edits": []}, headers=headers).status == 200
    assert ["context_management" in one.json for one in zai.requests] == [True, False, False]
    assert [one.header("anthropic-beta") for one in zai.requests[1:]] == ["effort-2025-11-24"] * 2
    assert "fields does not take context_management: left out from now on" in caplog.text
    assert play.router.health("fields")["rejects"] == {"fields": ["context_management"]}


def test_what_is_refused_where_tokens_are_counted_is_not_left_out_of_messages(play, zai):
    """Counting takes less than the messages path does."""
    said = invalid("temperature: Extra inputs are not permitted")
    zai.answer(said, message_json())
    got = play.ask("counted", temperature=1, path="/v1/messages/count_tokens")
    assert (got.status, got.body) == (400, said.body)
    assert play.ask("counted", temperature=1).status == 200
    assert [one.json["temperature"] for one in zai.requests] == [1, 1]


def test_a_tools_input_is_never_taken_for_a_field(play, zai):
    said = invalid("messages.1.content.0.tool_use.input.path: Extra inputs are not permitted")
    zai.answer(said)
    called = {"role": "assistant", "content": [tool_block(path="kept", mode="kept")]}
    got = play.ask("tools", messages=[{"role": "user", "content": "a"}, called])
    assert (got.status, got.body) == (400, said.body)
    assert len(zai.requests) == 1


def test_an_effort_that_a_messages_provider_refuses_is_left_out(play, zai):
    zai.answer(invalid("output_config.effort: Extra inputs are not permitted"), message_json())
    assert play.ask("efforts", output_config={"effort": "max"}).status == 200
    refused, repaired = (one.json for one in zai.requests)
    assert refused["output_config"] == {"effort": "max"}
    assert "effort" not in repaired.get("output_config", {})


@pytest.mark.parametrize("status", [400, 500])
def test_an_image_that_a_model_does_not_take_is_replaced_by_text_from_then_on(play, zai, status):
    """Ollama refuses them so at its Messages API, and every later turn holds the image."""
    refused = error_json(status, "invalid_request_error", "this model does not support image input (ref: 1)")
    zai.answer(lambda asked: refused if "'image'" in str(asked.json) else message_json())
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    for _ in range(2):
        messages = [{"role": "user", "content": [image, text_block("what is it?")]}]
        assert play.ask(f"zai-blind-{status}", messages=messages).status == 200
    assert [one["attempts"] for one in play.records(2)] == [f"zai:{status} zai:200", "zai:200"]
    assert zai.requests[-1].json["messages"][0]["content"] == [
        text_block("[image omitted]"),
        text_block("what is it?"),
    ]


def test_anthropic_itself_gets_every_image(play, home):
    home.answer(said := invalid("this model does not support image input"))
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    got = play.ask("anthropic-x", messages=[{"role": "user", "content": [image]}])
    assert (got.status, got.body, len(home.requests)) == (400, said.body, 1)


@pytest.mark.parametrize(
    ("model", "said", "what"),
    [
        ("anthropic-x", SIGNATURE, b"thinking"),
        ("both", "temperature: Extra inputs are not permitted", b"temperature"),
    ],
)
def test_what_is_refused_to_two_at_once_is_repaired_for_both(play, model, said, what):
    clients = [play, play.router.connect()]
    for client in clients:
        client.session = play.session
        client.asks(model, stream=False, messages=history("dW5rbm93bg"), temperature=1)
        client.connects()
    for client in clients:
        client.answers(invalid(said))
        assert what not in client.asked[-1].body
        client.answers(message_json())
        assert client.got.status == 200


def test_thinking_issued_after_a_refusal_goes_back_and_thinking_is_not_switched_off(play, home):
    issued = message_json("anthropic-x", before=[thinking_block(signature="aXNzdWVkIGxhdGVy")])
    home.answer(invalid(SIGNATURE), issued)
    assert ask(play, "anthropic-x").status == 200
    ask(play, "anthropic-x", "aXNzdWVkIGxhdGVy", thinking={"type": "enabled", "budget_tokens": 2000})
    sent = home.requests[2].json
    assert sent["thinking"]["type"] == "enabled"
    assert sent["messages"][1]["content"][0]["signature"] == "aXNzdWVkIGxhdGVy"


def test_where_thinking_is_missing_what_there_is_of_it_is_sent_again_next_time(play, home):
    missing = "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`."
    home.answer(invalid(missing), message_json())
    assert ask(play, "anthropic-x").status == 200
    ask(play, "anthropic-x")
    _, repaired, later = home.requests
    assert b"dW5rbm93bg" not in repaired.body
    assert b"dW5rbm93bg" in later.body


def test_half_a_character_is_routed_and_stays_as_it_came(play, home, zai):
    """JavaScript sends these where a text was cut in the middle of an emoji."""
    for model, provider in (("zai-x", zai), ("anthropic-x", home)):
        body = json.dumps({"model": model, "messages": history("c2ln")}).encode()
        half = body.replace(b'"content": "c"', rb'"content": "\ud83d c"')
        play.client_sends(request(half))
        assert rb'"content": "\ud83d c"' in provider.requests[0].body
    assert home.requests[0].body == half
    assert b"thinking" not in zai.requests[0].body


# a prompt that is too long, in the words on which Claude Code compacts

TOO_LONG = {"error": {"code": "1261", "message": "The model has reached its context window limit."}}
TOO_LONG_EVENT = event("error", error={"type": "1261", "message": "Input tokens 250000 exceed limit 200000"})
START = message_events("glm", [text_block("")], ["never"], USAGE, USAGE)[:2]


@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_a_context_error_of_others_is_said_in_the_words_that_claude_code_compacts_on(play, zai, status):
    zai.answer(json_answer(TOO_LONG, status))
    got = play.ask("zai-x")
    assert (got.status, got.error["type"]) == (400, "invalid_request_error")
    assert got.error["message"].startswith("prompt is too long")


@pytest.mark.parametrize("before", [[], START], ids=["at once", "after message_start"])
def test_a_context_error_in_a_stream_is_said_in_those_words_before_anything_of_an_answer(play, zai, before):
    zai.answer(sse(*before, TOO_LONG_EVENT))
    got = play.ask("zai-x", stream=True)
    assert got.status == 200
    assert got.error == {
        "type": "invalid_request_error",
        "message": "prompt is too long: 250000 tokens > 200000 maximum",
    }


@pytest.mark.parametrize("ends", [True, False])
def test_a_context_error_in_a_stream_that_was_held_is_a_400(play, home, zai, ends):
    """Nothing of that stream had gone to the client, and no other target takes over."""
    zai.answer(sse(*START, TOO_LONG_EVENT, *([] if ends else [NEVER])), message_json())
    got = play.ask("held", stream=True)
    assert got.status == 400
    assert got.error["message"].startswith("prompt is too long: 250000 tokens > 200000")
    assert not home.requests
    assert play.ask("held").status == 200


def test_an_error_after_the_beginning_of_an_answer_passes_as_it_was_said(play, zai):
    begun = message_events("glm", [text_block("")], ["begun"], USAGE, USAGE)[:4]
    zai.answer(sse(*begun, TOO_LONG_EVENT))
    assert play.ask("zai-x", stream=True).body.endswith(TOO_LONG_EVENT)


def test_a_context_error_in_a_stream_of_anthropic_passes_unmodified(play, home):
    home.answer(said := sse(*START, TOO_LONG_EVENT))
    got = play.ask("anthropic-x", stream=True)
    assert (got.status, got.body) == (200, said.body)


def test_a_context_error_of_anthropic_passes_unmodified(play, home):
    home.answer(said := invalid("prompt is too long: 250000 tokens > 200000 maximum"))
    got = play.ask("anthropic-x")
    assert (got.status, got.body) == (400, said.body)


def test_an_error_of_others_that_is_none_of_these_passes_unmodified(play, zai):
    zai.answer(said := Answer(418, (("Content-Type", "text/html"),), (b"<html>teapot</html>",)))
    got = play.ask("zai-x")
    assert (got.status, got.body) == (418, said.body)


def test_a_rate_limit_of_others_is_not_a_prompt_too_long(play, zai):
    said = error_json(429, "rate_limit_error", "input token limit exceeded: 100000 tokens per minute")
    zai.answer(said)
    got = play.ask("zai-limit")
    assert (got.status, got.body) == (429, said.body)


def test_a_lone_stream_that_does_not_say_that_it_is_one_is_not_held(play, zai):
    start, ping, *_ = message_events("zai-x", [text_block("")], ["late"], USAGE, USAGE)
    zai.answer(Answer(200, (), (start, ping, NEVER), "chunked"))
    assert b"message_start" in play.ask("zai-x", stream=True).body
