"""What holds for every conversation, whatever is in it."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.routing.translator import UntranslatableError
from signalbox.translate.dialects import DIALECTS, Dialect
from signalbox.translate.request import to_chat, untranslatable
from tests.chatbodies import BODIES, CALL, FIELDS, MESSAGES, SAID, SYSTEM, USER
from tests.chatform import check_order, check_types, plain

ROWS = st.sampled_from(list(DIALECTS.values()))
MODELS = st.sampled_from(
    ["some-model", "gemini-3.8-flash", "anthropic/claude-x", "gpt-5.6", "devstral-2", "kimi-k3"]
)
TURNS = st.tuples(
    st.lists(USER | SYSTEM, min_size=1, max_size=3),
    st.builds(
        lambda said, calls: {
            "role": "assistant",
            "content": [{"type": "text", "text": "Yes."}, *said, *calls],
        },
        st.lists(SAID, max_size=2),
        st.lists(CALL, max_size=3),
    ),
)


def _body(body: dict[str, Any], dialect: Dialect, model: str) -> bytes:
    raw = json.dumps(body).encode()
    return to_chat(raw, model=model, dialect=dialect, provider="provider", session=None).body


@settings(max_examples=300, deadline=None)
@given(BODIES, ROWS, MODELS)
def test_any_body_becomes_one_that_the_provider_takes(body, dialect, model):
    try:
        sent = _body(body, dialect, model)
    except UntranslatableError:
        assert untranslatable(json.dumps(body).encode())
        return
    chat = json.loads(sent)
    check_order(chat, dialect)
    check_types(plain(chat), strict=dialect.name == "openai")


@settings(max_examples=300, deadline=None)
@given(MESSAGES, ROWS, MODELS)
def test_any_history_can_be_translated(messages, dialect, model):
    """Where no tools are offered nothing can be refused."""
    chat = json.loads(_body({"messages": messages}, dialect, model))
    check_order(chat, dialect)
    check_types(plain(chat), strict=dialect.name == "openai")


@given(
    st.lists(TURNS, min_size=1, max_size=5),
    ROWS,
    MODELS,
    st.fixed_dictionaries({}, optional={"system": FIELDS["system"]}),
)
def test_a_conversation_that_grows_keeps_its_beginning(turns, dialect, model, others):
    """Byte by byte, since providers keep their caches by it."""
    messages: list[dict[str, Any]] = []
    before = b""
    for asked, answer in turns:
        messages += asked
        sent = _body({"messages": _uncached(messages), **others}, dialect, model)
        assert sent.startswith(before)
        before = _up_to_the_last_message(sent)
        messages.append(answer)


def _up_to_the_last_message(sent: bytes) -> bytes:
    chat = json.loads(sent)
    head = msgspec.json.encode({"model": chat["model"], "messages": chat["messages"]})[:-2]
    assert sent.startswith(head)
    return head


def _uncached(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without `cache_control`, which moves on with every request."""
    text = json.dumps(messages).replace('"cache_control"', '"was_cached"')
    found: list[dict[str, Any]] = json.loads(text)
    return found


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda row: row.name)
def test_many_calls_at_once_take_no_time(dialect):
    calls = [{"type": "tool_use", "id": f"toolu_{n}", "name": "Read", "input": {}} for n in range(2000)]
    results = [
        {"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": "ok"} for n in reversed(range(2000))
    ]
    messages = [{"role": "assistant", "content": calls}, {"role": "user", "content": results}]
    chat = json.loads(_body({"messages": messages}, dialect, "m"))
    assert sum(message.get("content") == "ok" for message in chat["messages"]) == 2000


def test_a_system_message_after_what_the_user_said_needs_nothing_after_it():
    messages = [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Tools have changed."}]
    sent = json.loads(_body({"messages": messages}, DIALECTS["openai"], "m"))
    assert sent["messages"] == messages
