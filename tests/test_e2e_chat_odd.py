"""Odd answers of chat completions, and odd requests, with the real router between."""

import json

import pytest

from tests import chat
from tests.answers import USAGE, Answer, json_answer, message_events, message_sse, sse, text_block
from tests.callers import Caller, Whole, both
from tests.running import Router
from tests.upstream import Upstream

STREAM = (("Content-Type", "text/event-stream"),)
FAULT = b'data: {"error": {"message": "out of memory", "code": 503}}\n\n'
SOON = 5.0
"""Seconds within which an answer is over, where the limit on silence is 300."""


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  up: {{url: "{up.url}/v1", api: openai, circuit: {{open_after: 1000}}}}
  keyed: {{url: "{up.url}/v1", api: openai, key: key-for-tests-0001}}
  mislabelled: {{url: "{up.url}", key: key-for-tests-0002, circuit: {{open_after: 1000}}}}
rules:
  - {{match: "mislabelled-then-home-*", to: [mislabelled, anthropic]}}
  - {{match: "mislabelled-*", to: mislabelled}}
  - {{match: "keyed-*", to: keyed}}
  - {{match: "up-then-home-*", to: [up, anthropic]}}
  - {{match: "home-then-up-*", to: [anthropic, up]}}
  - {{match: "*", to: up}}
log: {{level: debug}}
"""


def ask(router: Router, model: str, *, stream: bool = True) -> Whole:
    with Caller(router, model) as caller:
        caller.socket.settimeout(SOON)
        caller.ask(model, stream)
        return caller.answer()


def error(answer: Whole) -> dict[str, str]:
    return json.loads(answer.body)["error"]


@both
@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        (chat.text_stream(), 17),
        (chat.text_stream()[:-1], 17),
        ([*chat.text_stream()[:-2], 1.0, *chat.text_stream()[-2:-1]], 17),
        (chat.text_stream()[:-2], 3),
    ],
    ids=["done", "usage", "late-usage", "finish"],
)
def test_an_answer_that_has_said_all_is_over_though_its_connection_stays_open(
    router, up, never, said, tokens, stream
):
    up.answer(chat.stream([*said, never]), chat.completion())
    session = f"open-{len(said)}-{stream}"
    with Caller(router, session) as caller:
        caller.socket.settimeout(SOON)
        caller.ask("open", stream)
        assert b"end_turn" in caller.answer().body
        up.wait_left()
        caller.ask("next", stream)
        assert caller.answer().status == 200
    record, _ = router.records(2, session=session)
    assert (record["status"], record["attempts"], record["output_tokens"]) == ("success", "up:200", tokens)


@both
@pytest.mark.parametrize("said", [chat.text_stream(), chat.text_stream()[:-2]], ids=["done", "finish"])
def test_an_answer_that_has_said_all_is_whole_though_its_connection_breaks(router, up, said, stream):
    up.answer(Answer(200, STREAM, tuple(said), "chunked", cut="close"))
    session = f"breaks-{len(said)}-{stream}"
    assert b"end_turn" in ask(router, session, stream=stream).body
    assert router.records(1, session=session)[0]["status"] == "success"


@both
def test_an_answer_that_goes_on_after_its_end_was_told_is_not_cut_short(router, up, stream):
    more = [chat.chunk({"content": " then"}), 2.5, chat.chunk({"content": " and on"})]
    up.answer(chat.stream([*chat.text_stream()[:-1], *more, *chat.text_stream()]))
    assert b" and on" in ask(router, f"more-{stream}", stream=stream).body


EMPTY = [chat.chunk({"content": "", "reasoning_content": "Hm."}), *chat.text_stream()[-3:]]
"""Thinking that the client did not ask for counts for nothing."""


@both
def test_an_empty_answer_is_one_of_the_next_target(router, up, home, stream):
    up.answer(chat.stream(EMPTY), chat.completion(content=""))
    answer = ask(router, f"up-then-home-empty-{stream}", stream=stream)
    assert answer.headers["x-signalbox-attempts"] == "up:stream_error anthropic:200"


def test_an_empty_answer_of_the_last_target_is_an_overload(router, up):
    up.answer(chat.completion(content=""))
    answer = ask(router, "empty-whole", stream=False)
    assert (answer.status, error(answer)["type"]) == (529, "overloaded_error")
    assert error(answer)["message"] == "up: the answer is empty"


def test_an_empty_stream_of_the_last_target_ends_with_an_overload(router, up):
    up.answer(chat.stream(EMPTY))
    said = ask(router, "empty-stream").body.rstrip().splitlines()
    assert said[-2] == b"event: error"
    assert b'"overloaded_error","message":"up: the answer is empty"' in said[-1]


def test_an_answer_that_ends_soon_keeps_its_connection(router, up):
    up.answer(chat.stream([*chat.text_stream(), 0.2]))
    with Caller(router) as caller:
        for _ in range(2):
            caller.ask("kept")
            assert b"message_stop" in caller.answer().body
    assert [one.connection for one in up.wait_for(2)] == [up.requests[0].connection] * 2


def test_an_error_within_an_answer_is_its_end_though_its_connection_stays_open(router, up, never):
    up.answer(chat.stream([chat.chunk({"content": "Hel"}), FAULT, never]))
    *_, event, data = ask(router, "fault-open").body.rstrip().splitlines()
    assert event == b"event: error"
    assert b"out of memory" in data
    assert router.records(1, session="fault-open")[0]["status"] == "error"


def test_an_error_before_an_answer_fails_over_though_its_connection_stays_open(router, up, never):
    up.answer(chat.stream([FAULT, never]))
    answer = ask(router, "up-then-home-open")
    assert answer.headers["x-signalbox-attempts"] == "up:stream_error anthropic:200"


UNREADABLE = {
    "page": Answer(200, (("Content-Type", "text/html"),), (b"<!doctype html><title>Log in</title>",)),
    "text": Answer(200, (("Content-Type", "text/plain"),), (b"Unexpected endpoint. Returning 200 anyway",)),
    "nothing": Answer(200, (("Content-Type", "application/json"),)),
    "no-content": Answer(204, framing="raw", chunks=(b"HTTP/1.1 204 No Content\r\n\r\n",)),
    "coding": Answer(200, (("Content-Encoding", "x-made-up"),), chat.completion().chunks),
}


@both
@pytest.mark.parametrize("how", UNREADABLE)
def test_what_is_no_answer_at_all_is_an_error_that_says_so(router, up, how, stream):
    up.answer(UNREADABLE[how])
    answer = ask(router, f"none-{how}", stream=stream)
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (502, "up:stream_error")
    assert error(answer)["message"].startswith("up gave no whole answer: ")


def test_the_debug_log_says_where_a_request_went_and_why_it_failed(router, up):
    up.answer(chat.error(404, "no such model"))
    ask(router, "gone")
    router.wait_log(r"→ up POST /v1/chat/completions\n")
    router.wait_log(r"✗ up 404: no such model\n")


def test_the_debug_log_says_why_a_stream_was_cut(router, up):
    up.answer(chat.stream([chat.chunk({"content": "Hel"}), b"data: {]\n\n"]))
    with Caller(router) as caller:
        caller.ask("cut")
        caller.until_closed()
    router.wait_log(r"✗ up stream_error: a chunk is not JSON\n")


OTHER_JSON = {
    "object": {},
    "message": {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
}


@both
@pytest.mark.parametrize("what", OTHER_JSON)
def test_json_that_is_no_chat_completion_is_an_error_that_says_so(router, up, what, stream):
    up.answer(json_answer(OTHER_JSON[what]))
    answer = ask(router, f"none-{what}", stream=stream)
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (500, "up:stream_error")
    assert error(answer)["message"].startswith("up: the answer is no chat completion; ")
    assert "fault" not in router.log()


@both
def test_json_that_is_no_chat_completion_fails_over(router, up, stream):
    up.answer(json_answer({}))
    answer = ask(router, "up-then-home-none", stream=stream)
    assert answer.headers["x-signalbox-attempts"] == "up:stream_error anthropic:200"


SHAPES = {
    "choices-null": {"choices": None, "error_message": "out of memory"},
    "flat": {"code": 1234, "msg": "out of memory", "success": False},
    "list": {"errors": [{"message": "out of memory"}]},
}


@both
@pytest.mark.parametrize("provider", ["up", "mislabelled"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_error_of_any_shape_with_status_200_fails_over(router, up, provider, shape, stream):
    up.answer(json_answer(SHAPES[shape]))
    answer = ask(router, f"{provider}-then-home-{shape}-{stream}", stream=stream)
    assert answer.headers["x-signalbox-attempts"] == f"{provider}:stream_error anthropic:200"


@both
@pytest.mark.parametrize(("provider", "status"), [("up", 500), ("mislabelled", 502)])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_error_of_any_shape_with_status_200_is_told(router, up, provider, status, shape, stream):
    up.answer(json_answer(SHAPES[shape]))
    answer = ask(router, f"{provider}-told-{shape}-{stream}", stream=stream)
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (status, f"{provider}:stream_error")
    assert error(answer)["type"] == "api_error"
    assert "out of memory" in error(answer)["message"]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_error_of_any_shape_ends_an_answer_that_has_begun(router, up, shape):
    fault = b"data: " + json.dumps(SHAPES[shape]).encode() + b"\n\n"
    up.answer(chat.stream([chat.chunk({"content": "Hel"}), fault, chat.DONE]))
    *_, event, data = ask(router, f"begun-{shape}").body.rstrip().splitlines()
    assert event == b"event: error"
    assert b'"up: out of memory"' in data
    assert router.records(1, session=f"begun-{shape}")[0]["status"] == "error"


@both
def test_a_context_error_of_another_shape_is_told_in_anthropics_words(router, up, stream):
    said = {
        "code": 400,
        "msg": "This model's maximum context length is 1000 tokens, you requested 2000 tokens.",
    }
    raw = b"data: " + json.dumps(said).encode() + b"\n\n"
    up.answer(chat.stream([raw]) if stream else json_answer(said))
    answer = ask(router, f"mislabelled-long-{stream}", stream=stream)
    assert answer.status == (200 if stream else 400)
    assert b"prompt is too long: 2000 tokens > 1000 maximum" in answer.body


def test_a_stream_of_messages_is_no_chat_completion_and_says_so(router, up):
    up.answer(message_sse())
    answer = ask(router, "messages-stream")
    *_, event, data = answer.body.rstrip().splitlines()
    assert (answer.status, event) == (200, b"event: error")
    assert b"up: the answer is no chat completion; look at the provider's url and api" in data
    assert router.records(1, session="messages-stream")[0]["status"] == "error"


def test_a_stream_of_messages_fails_over_before_it_ends(router, up, never):
    up.answer(sse(*message_events("m", [text_block("Hi")], [], USAGE, USAGE)[:2], never))
    answer = ask(router, "up-then-home-messages")
    assert answer.headers["x-signalbox-attempts"] == "up:stream_error anthropic:200"


@both
def test_a_chat_completion_is_no_message_and_fails_over(router, up, stream):
    up.answer(chat.stream(chat.text_stream()) if stream else chat.completion())
    answer = ask(router, f"mislabelled-then-home-chat-{stream}", stream=stream)
    assert answer.headers["x-signalbox-attempts"] == "mislabelled:stream_error anthropic:200"


@pytest.mark.parametrize(("streamed", "stream"), [(True, True), (False, True), (False, False)])
def test_a_chat_completion_is_no_message_and_says_so(router, up, streamed, stream):
    up.answer(chat.stream(chat.text_stream()) if streamed else chat.completion())
    session = f"mislabelled-chat-{streamed}-{stream}"
    answer = ask(router, session, stream=stream)
    said = answer.body if answer.status == 502 else answer.body.rstrip().splitlines()[-1]
    assert answer.status == (200 if streamed else 502)
    assert b"mislabelled gave no answer: " in said
    assert b"the answer is a chat completion and no message; look at the provider's api" in said
    assert b"Hello" not in answer.body
    assert router.records(1, session=session)[0]["status"] == "error"


@both
@pytest.mark.parametrize("status", [302, 304])
def test_a_redirect_is_an_error(router, up, status, stream):
    head = b"HTTP/1.1 %d Scripted\r\nLocation: http://127.0.0.1:1/\r\n" % status
    up.answer(
        Answer(
            status,
            framing="raw",
            chunks=(head + (b"\r\n" if status == 304 else b"Content-Length: 0\r\n\r\n"),),
        )
    )
    answer = ask(router, f"moved-{status}", stream=stream)
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (502, f"up:{status}")
    assert "location" not in answer.headers


@both
def test_an_error_instead_of_an_answer_has_its_status(router, up, stream):
    up.answer(json_answer({"error": {"message": "overloaded", "code": 503}}))
    answer = ask(router, "said-503", stream=stream)
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (529, "up:stream_error")
    assert error(answer)["message"] == "up: overloaded"


@both
def test_a_long_error_is_told_before_it_is_all_in(router, up, never, stream):
    page = b"<html><title>Bad gateway</title>" + b"x" * 50_000
    up.answer(
        Answer(502, (("Content-Type", "text/html"),), (page, 0.1, page, never), "chunked"), chat.completion()
    )
    with Caller(router, f"long-{stream}") as caller:
        caller.socket.settimeout(SOON)
        caller.ask(f"long-{stream}", stream)
        answer = caller.answer()
        assert (answer.status, error(answer)["message"]) == (502, "up: Bad gateway")
        up.wait_left()
        caller.ask(f"after-{stream}", stream)
        assert caller.answer().status == 200


@both
def test_attempts_tell_what_the_provider_said_and_not_what_became_of_it(router, up, stream):
    up.answer(chat.error(401, "no such key"))
    answer = ask(router, f"keyed-{stream}", stream=stream)
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (403, "keyed:401")
    assert router.records(1, session=f"keyed-{stream}")[0]["attempts"] == "keyed:401"


@pytest.mark.parametrize(
    ("header", "value", "told"),
    [
        ("Retry-After", "7", "7"),
        ("Retry-After-Ms", "1500", "2"),
        ("X-RateLimit-Reset-Requests", "6m0s", "360"),
    ],
)
def test_when_to_come_back_is_told_in_seconds(router, up, header, value, told):
    up.answer(json_answer({"error": {"message": "slow down"}}, 429, [(header, value)]))
    answer = ask(router, f"slow-{header}")
    assert (answer.status, answer.headers["retry-after"]) == (429, told)


DEEP = (
    b'{"model":"%s","max_tokens":9,"messages":[{"role":"user","content":' + b"[" * 900 + b"]" * 900 + b"}]}"
)


@pytest.mark.parametrize("model", [b"up-then-home-deep", b"home-then-up-deep"])
def test_what_cannot_be_translated_after_all_goes_to_those_who_need_no_translation(router, home, up, model):
    if model.startswith(b"home"):
        home.answer(json_answer({"type": "error", "error": {"type": "api_error", "message": "busy"}}, 500))
    raw = DEEP % model
    with Caller(router) as caller:
        caller.socket.sendall(caller.head(len(raw)) + raw)
        answer = caller.answer()
    assert answer.status == (500 if model.startswith(b"home") else 200)
    assert home.requests[0].body == raw
    assert up.requests == []
