"""A conversation moves between providers of Messages and of chat completions, and none of them refuses it."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, repeat

import pytest

from tests.e2e.test_crossing import sender
from tests.support.conversation import Conversation
from tests.support.fake_provider import Upstream
from tests.support.strict_chat import ChatProvider
from tests.support.strict_providers import LaxProvider, StrictAnthropic

MODELS = {
    "anthropic": "claude-opus-4-6",
    "zai": "glm-5",
    "moonshot": "kimi-k2.6",
    "google": "gemini-3.5-flash",
}
DIALECTS = {"moonshot": "kimi", "google": "gemini"}


@pytest.fixture
def upstreams() -> Iterator[dict[str, Upstream]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(Upstream()) for name in MODELS}


def rules(upstreams: dict[str, Upstream]) -> str:
    lines = ["providers:"]
    for name, one in upstreams.items():
        auth = "auth: client" if name == "anthropic" else f"key: {name}-key"
        api = f", api: openai, dialect: {DIALECTS[name]}" if name in DIALECTS else ""
        lines.append(f"  {name}: {{url: '{one.url}', {auth}{api}}}")
    lines += ["rules:", *(f"  - {{match: '{model}', to: {name}}}" for name, model in MODELS.items())]
    return "\n".join(lines)


def scripted(upstreams: dict[str, Upstream], **anthropic: bool) -> None:
    upstreams["anthropic"].answer(StrictAnthropic(**anthropic))
    upstreams["zai"].answer(LaxProvider("zai"))
    for name, dialect in DIALECTS.items():
        upstreams[name].answer(ChatProvider(name, dialect))


@pytest.mark.parametrize(("thinking", "stream"), [("adaptive", True)])
def test_thirty_turns_between_messages_and_chat_completions_without_one_error(
    start_router, upstreams, thinking, stream
):
    """Each follows each. In manual mode a tool loop that goes on after a call without thinking, which is no
    fault of the history, is refused by Anthropic and mended; nothing else is refused."""
    scripted(upstreams, bound=True, redacts=True)
    router = start_router(upstreams["anthropic"].url, rules=rules(upstreams))
    conversation = Conversation(sender(router), thinking=thinking, stream=stream)
    names = list(MODELS)
    for turn in range(30):
        conversation.turn(MODELS[names[(turn * (1 + turn // 10) + turn // 15) % 4]])
    attempts = {record["attempts"] for record in router.records(30)}
    mended = {"anthropic:400 anthropic:200"} if thinking == "enabled" else set()
    assert attempts == {f"{name}:200" for name in MODELS} | mended


def test_a_conversation_goes_on_where_the_state_folder_was_lost(start_router, upstreams):
    """Nothing tells the second router who issued a block but the block itself."""
    scripted(upstreams)
    text = rules(upstreams)
    first, second = (start_router(upstreams["anthropic"].url, rules=text) for _ in range(2))
    senders = chain(repeat(sender(first), 3), repeat(sender(second)))
    conversation = Conversation(lambda body, headers: next(senders)(body, headers))
    turns = ["moonshot", "google", "moonshot", "anthropic", "moonshot", "anthropic", "google", "zai"]
    for name in turns:
        conversation.turn(MODELS[name])
    attempts = [record["attempts"] for record in (*first.records(3), *second.records(5))]
    assert attempts == [f"{name}:200" for name in turns]
