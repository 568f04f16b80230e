"""Answers as the official SDK reads them, and event by event (more in `test_proxy_stream_streaming`)."""

import asyncio
import threading

import anthropic

from tests.support.answers import USAGE, message_events, sse, text_block, zai_sse
from tests.support.fake_provider import Upstream
from tests.support.router import Router

LOGIN = "sk-ant-oat01-fake-login-of-nobody"
ASK = {"max_tokens": 64, "messages": [{"role": "user", "content": "Say hello\nto me"}]}


def rules(home: Upstream, zai: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001}}
rules:
  - {{match: "*haiku*", to: zai/glm-4.5-air}}
  - {{match: "*", to: anthropic}}
"""


async def read_async(router: Router) -> str:
    async with (
        anthropic.AsyncAnthropic(base_url=router.url, auth_token=LOGIN, max_retries=0, timeout=10) as client,
        client.messages.stream(model="claude-opus-4-5", **ASK) as stream,
    ):
        return "".join([text async for text in stream.text_stream])


def test_the_sdk_gets_whole_messages_streams_and_counts(router, up):
    model = "claude-haiku-4-5"
    with anthropic.Anthropic(base_url=router.url, auth_token=LOGIN, max_retries=0, timeout=10) as client:
        whole = client.messages.create(model=model, **ASK)
        up.answer(zai_sse("glm-4.5-air"))
        with client.messages.stream(model=model, **ASK) as stream:
            assert "".join(stream.text_stream) == "Hello there"
            streamed = stream.get_final_message()
        assert whole.content[0].text == "Hello there"
        for message in (whole, streamed):
            assert message.model == model
            assert message.usage.input_tokens == USAGE["input_tokens"]
            assert message.usage.output_tokens == USAGE["output_tokens"]
        counted = client.messages.count_tokens(model="claude-opus-4-5", messages=ASK["messages"])
        assert counted.input_tokens == 42
    assert asyncio.run(read_async(router)) == "Hello there"


def test_every_event_leaves_before_the_next_one_is_there(caller, up):
    gates = [threading.Event() for _ in range(3)]
    events = message_events("glm", [text_block("")], ["one", "two"], USAGE, USAGE)
    up.answer(sse(*events[:4], gates[0], events[4], gates[1], *events[5:-1], gates[2], events[-1]))
    caller.ask("claude-haiku-4-5")
    for text, gate in ((b'"one"', gates[0]), (b'"two"', gates[1]), (b"message_delta", gates[2])):
        caller.until(text)
        gate.set()
    caller.until(b'{"type":"message_stop"}\n\n')
