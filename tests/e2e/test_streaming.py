"""Answers on their way through the real mitmdump: as they arrive, tallied, never harmed."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import anthropic
import pytest

from signalbox.routing.sessions import RATIO_RANGE
from tests.conftest import Shared
from tests.support.answers import (
    USAGE,
    Answer,
    compressed,
    error_json,
    event,
    json_answer,
    message_events,
    message_json,
    message_sse,
    sse,
    text_block,
    zai_sse,
)
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller
from tests.support.router import Router

LOGIN = "sk-ant-oat01-fake-login-of-nobody"


def rules(home: Upstream, zai: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001, prices: {{"glm-*": {{input: 1, output: 2}}}}}}
rules:
  - {{match: "*haiku*", to: zai/glm-4.5-air}}
  - {{match: "*", to: anthropic}}
"""


@pytest.fixture
def upstream(shared: Shared) -> Upstream:
    return shared.upstream


@pytest.fixture
def second(shared: Shared) -> Upstream:
    return shared.second


@pytest.fixture
def record(router: Router, request: pytest.FixtureRequest) -> Callable[[], dict[str, Any]]:
    """What the request log tells of this test's one request."""
    return lambda: router.records(1, session=request.node.name)[0]


@pytest.fixture
def client(router: Router) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=router.url, auth_token=LOGIN, max_retries=0, timeout=10)


ASK = {"max_tokens": 64, "messages": [{"role": "user", "content": "Say hello\nto me"}]}


def asked(model: str, stream: bool = True) -> bytes:
    return json.dumps({"model": model, "stream": stream} | ASK).encode()


@pytest.fixture
def post(router: Router, request: pytest.FixtureRequest) -> Iterator[Callable[..., http.client.HTTPResponse]]:
    """Asks as Claude Code with a login does; gives the answer when its head is there."""
    with ExitStack() as opened:

        def post(body: bytes, **headers: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=10)
            opened.callback(connection.close)
            usual = {"Authorization": f"Bearer {LOGIN}", "X-Claude-Code-Session-Id": request.node.name}
            connection.request("POST", "/v1/messages", body, usual | headers)
            return opened.enter_context(connection.getresponse())

        yield post


def test_the_sdk_gets_a_whole_message(client, router):
    message = client.messages.create(model="claude-haiku-4-5", **ASK)
    assert message.content[0].text == "Hello there"
    assert message.model == "claude-haiku-4-5"
    assert message.usage.input_tokens == USAGE["input_tokens"]


def test_the_sdk_reads_a_stream(client, second):
    second.answer(zai_sse("glm-4.5-air"))
    with client.messages.stream(model="claude-haiku-4-5", **ASK) as stream:
        assert "".join(stream.text_stream) == "Hello there"
        message = stream.get_final_message()
    assert message.model == "claude-haiku-4-5"
    assert message.usage.output_tokens == USAGE["output_tokens"]
    assert message.usage.input_tokens == USAGE["input_tokens"]


def test_the_sdk_counts_tokens(client):
    assert client.messages.count_tokens(model="claude-haiku-4-5", messages=ASK["messages"]).input_tokens == 42


async def read_async(router: Router) -> str:
    async with (
        anthropic.AsyncAnthropic(base_url=router.url, auth_token=LOGIN, max_retries=0, timeout=10) as client,
        client.messages.stream(model="claude-opus-4-5", **ASK) as stream,
    ):
        return "".join([text async for text in stream.text_stream])


def test_the_async_sdk_reads_a_stream(router):
    assert asyncio.run(read_async(router)) == "Hello there"


def test_every_event_leaves_before_the_next_one_is_there(router, second, post):
    gates = [threading.Event() for _ in range(3)]
    events = message_events("glm", [text_block("")], ["one", "two"], USAGE, USAGE)
    second.answer(sse(*events[:4], gates[0], events[4], gates[1], *events[5:-1], gates[2], events[-1]))
    answer = post(asked("claude-haiku-4-5"))
    seen = b""
    for text, gate in ((b'"one"', gates[0]), (b'"two"', gates[1]), (b"message_delta", gates[2])):
        while text not in seen:
            seen += answer.read1()
        gate.set()
    assert answer.read().endswith(b'{"type":"message_stop"}\n\n')


@pytest.mark.parametrize("coding", [None, "gzip", "br", "zstd"])
def test_an_answer_of_the_callers_own_login_passes_as_the_bytes_that_were_sent(
    router, upstream, coding, post, record
):
    sent = message_sse("claude-opus-4-5")
    sent = compressed(sent, coding) if coding else sent
    upstream.answer(sent)
    answer = post(asked("claude-opus-4-5"), **{"Accept-Encoding": "gzip, br, zstd"})
    assert answer.read() == sent.body
    assert upstream.requests[0].header("accept-encoding") == "gzip, br, zstd"
    recorded = record()
    assert recorded["input_tokens"] == USAGE["input_tokens"]
    assert recorded["output_tokens"] == USAGE["output_tokens"]


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_compressed_against_the_request_is_decoded_where_its_model_changes(
    router, second, coding, stream, post
):
    plain = message_sse("glm-4.5-air") if stream else message_json("glm-4.5-air")
    second.answer(compressed(plain, coding))
    answer = post(asked("claude-haiku-4-5", stream))
    assert answer.headers["content-encoding"] is None
    assert answer.read() == plain.body.replace(b"glm-4.5-air", b"claude-haiku-4-5")
    assert second.requests[0].header("accept-encoding") == "identity"


def test_a_stream_that_starts_without_numbers_gets_an_estimate_that_is_not_recorded(
    router, second, post, record
):
    second.answer(zai_sse("glm-4.5-air"))
    body = post(asked("claude-haiku-4-5")).read()
    start = json.loads(body.split(b"data: ")[1].split(b"\n")[0])
    assert 0 < start["message"]["usage"]["input_tokens"] < 40
    recorded = record()
    assert recorded["input_tokens"] == USAGE["input_tokens"]
    assert recorded["cache_read_input_tokens"] == USAGE["cache_read_input_tokens"]


def test_the_next_estimate_of_a_conversation_goes_by_what_its_provider_has_reported(second, post):
    """Two requests of one length; the first was reported to be larger than it looks."""
    second.answer(zai_sse("glm-4.5-air"))
    shown = []
    for _ in range(2):
        body = post(asked("claude-haiku-4-5")).read()
        start = json.loads(body.split(b"data: ")[1].split(b"\n")[0])
        shown.append(start["message"]["usage"]["input_tokens"])
    reported = sum(USAGE[name] for name in USAGE if name != "output_tokens")
    assert shown[1] == min(reported, round(RATIO_RANGE[1] * shown[0])) > shown[0]


def test_a_request_is_recorded_and_told_on_the_console(router, second, post, record):
    second.answer(zai_sse("glm-4.5-air"))
    post(asked("claude-haiku-4-5")).read()
    recorded = record()
    assert list(recorded)[:8] == [
        "ts",
        "model",
        "backend",
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "status",
    ]
    assert recorded["model"] == "claude-haiku-4-5"
    assert recorded["backend"] == "zai"
    assert recorded["status"] == "success"
    assert recorded["upstream_model"] == "glm-4.5-air"
    assert recorded["rule"] == "#1"
    assert recorded["attempts"] == "zai:200"
    assert recorded["session"].startswith("test_a_request_is_recorded")
    assert recorded["cost"] == pytest.approx((120 + 17 * 2) / 1e6)
    assert "hello" not in json.dumps(recorded)
    router.wait_log(r'\[haiku\|zai\] 650→17 \d+ms \$0\.0002 "Say hello to me"')


def test_a_cut_stream_is_cut_for_the_client_and_its_usage_is_kept(router, second, post, record):
    events = message_events("glm", [text_block("")], ["half"], USAGE, USAGE)
    second.answer(sse(*events[:4], cut="close"))
    answer = post(asked("claude-haiku-4-5"))
    with pytest.raises(http.client.IncompleteRead) as cut:
        answer.read()
    assert b"half" in cut.value.partial
    recorded = record()
    assert recorded["status"] == "error"
    assert recorded["attempts"] == "zai:stream_error"
    assert recorded["input_tokens"] == USAGE["input_tokens"]


def test_a_client_that_leaves_is_recorded_with_what_was_used(router, second, post, record):
    never = threading.Event()
    events = message_events("glm", [text_block("")], ["half"], USAGE, USAGE)
    second.answer(sse(*events[:4], never))
    answer = post(asked("claude-haiku-4-5"))
    seen = b""
    while b"half" not in seen:
        seen += answer.read1()
    answer.fp.raw._sock.shutdown(socket.SHUT_RDWR)
    answer.close()
    second.wait_left(1)
    recorded = record()
    assert recorded["status"] == "cancelled"
    assert recorded["input_tokens"] == USAGE["input_tokens"]
    router.wait_log(r"cancelled 650→17 \d+ms")


def test_an_error_inside_a_stream_passes_and_counts_as_one(router, second, post, record):
    events = message_events("glm", [text_block("")], ["x"], USAGE, USAGE)
    failed = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    second.answer(sse(*events[:3], failed))
    assert post(asked("claude-haiku-4-5")).read().endswith(failed)
    assert record()["status"] == "error"
    router.wait_log(r"\[haiku\|zai\] 200 overloaded_error: Overloaded \d+ms")


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-4-5"])
def test_a_providers_own_error_passes_unmodified(router, upstream, second, model, post, record):
    wrong = error_json(429, "rate_limit_error", headers=(("retry-after", "7"),))
    upstream.answer(wrong)
    second.answer(wrong)
    answer = post(asked(model))
    assert answer.status == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.read() == wrong.body
    router.wait_log(r"\] 429 rate_limit_error: scripted \d+ms")
    assert record()["status"] == "error"


GARBAGE = [
    (
        sse(b"\xff\xfe not an event \x00", b"data: {not json}\n\n", b"event: message_start\ndata: []\n\n"),
        "SSE",
    ),
    (Answer(200, (("Content-Type", "text/event-stream"),), (b"<html>oops</html>",)), "a page"),
    (Answer(200, (("Content-Type", "application/json"),), (b"",)), "nothing"),
    (json_answer({"model": 7, "usage": "none"}), "odd JSON"),
]


@pytest.mark.parametrize("garbage", [answer for answer, _ in GARBAGE], ids=[name for _, name in GARBAGE])
@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-4-5"])
def test_an_answer_that_cannot_be_read_still_arrives(router, upstream, second, garbage, model, post):
    upstream.answer(garbage)
    second.answer(garbage)
    body = post(asked(model)).read()
    if garbage.chunks[0].startswith(b'{"model":7'):
        assert json.loads(body)["usage"] == "none"
    else:
        assert body == garbage.body
    assert "Traceback" not in router.log()


def test_an_answer_shorter_than_it_says_is_cut_for_the_client(router, upstream, post, record):
    answer = message_json()
    upstream.answer(Answer(200, answer.headers, answer.chunks, length=len(answer.body) + 10, cut="close"))
    with pytest.raises(http.client.IncompleteRead):
        post(asked("claude-opus-4-5", stream=False)).read()
    assert record()["status"] == "error"


def test_an_answer_longer_than_it_says_ends_where_it_said(router, upstream, post):
    answer = message_json()
    upstream.answer(Answer(200, answer.headers, (*answer.chunks, b"tail of nobody"), length=len(answer.body)))
    assert post(asked("claude-opus-4-5", stream=False)).read() == answer.body
    again = post(asked("claude-opus-4-5", stream=False))
    assert again.read() == answer.body


def test_a_chunk_of_which_nothing_is_passed_on_yet_does_not_end_the_answer(start_router, upstream):
    """The first half of a `message_start` waits for the other: its usage may have to be filled in."""
    go = threading.Event()
    zero = {"input_tokens": 0, "output_tokens": 0}
    first, *rest = message_events("glm", [text_block("")], ["Hello"], zero, USAGE)
    upstream.answer(sse(first[:40], go, first[40:], *rest))
    rules = f'providers: {{zai: {{url: "{upstream.url}", key: k}}}}\nrules: [{{match: "*", to: zai}}]'
    router = start_router(upstream.url, rules=rules)
    with Caller(router) as caller:
        caller.ask("halved")
        caller.until(b"\r\n\r\n")
        quiet = caller.is_quiet(0.3)
        go.set()
        answer = caller.answer()
    assert quiet
    assert answer.body.count(b"event: message_start") == 1
    assert b"event: message_stop" in answer.body
