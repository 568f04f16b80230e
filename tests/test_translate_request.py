"""Messages bodies as chat completions."""

import json
import re
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import pytest

from signalbox.routing.translator import UntranslatableError
from signalbox.translate.dialects import DIALECTS
from signalbox.translate.request import ChatRequest, to_chat, untranslatable
from tests.chatform import check_order, check_types, plain

GOLDEN = sorted((Path(__file__).parent / "golden/chat-requests").glob("*.txt"))
"""`DIALECT-CASE.txt`: a Messages body, what is sent for it, and what its answer is read with."""
READ = {"name": "Read", "input_schema": {"type": "object", "properties": {}}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def _chat(body: dict[str, Any] | str, dialect: str = "generic", **fields: Any) -> ChatRequest:
    raw = (
        body if isinstance(body, str) else json.dumps({"messages": [{"role": "user", "content": "x"}]} | body)
    )
    given = {"model": "some-model", "provider": "provider", "session": None, **fields}
    return to_chat(raw.encode(), dialect=DIALECTS[dialect], **given)


def _told(sent: ChatRequest) -> dict[str, Any]:
    told = {
        "stream": sent.stream,
        "shows_thinking": sent.shows_thinking,
        "names": sent.names,
        "notes": list(sent.notes),
    }
    return {name: value for name, value in told.items() if value}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(path):
    body, expected, told = path.read_text().split("\n-----\n")
    dialect = path.stem.partition("-")[0]
    sent = _chat(body, dialect, model=json.loads(body)["model"], session="session-fake")
    chat = json.loads(sent.body)
    assert chat == json.loads(expected)
    assert _told(sent) == json.loads(told)
    check_order(chat, DIALECTS[dialect])
    check_types(plain(chat), strict=dialect == "openai")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_dialect_is_shown_whole(dialect):
    assert f"{dialect}-everything" in {path.stem for path in GOLDEN}


def test_the_body_is_compact_utf8():
    assert b'"content":"Gr\xc3\xbc\xc3\x9fe"' in _chat({"system": "Grüße"}).body


def test_arguments_and_schemas_keep_their_bytes():
    schema = '{"type":"object","properties":{"n":{"type":"number","minimum":1.00,"maximum":1e3}}}'
    given = '{"z":1.00,"a":1e5,"b":12345678901234567890123,"c":"ü"}'
    messages = (
        f'[{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"Read","input":{given}}}]}}]'
    )
    sent = _chat(f'{{"messages":{messages},"tools":[{{"name":"Read","input_schema":{schema}}}]}}').body
    assert json.loads(sent)["messages"][0]["tool_calls"][0]["function"]["arguments"] == given
    assert schema.encode() in sent


def test_a_session_is_the_key_of_the_cache_where_there_is_such_a_field():
    assert json.loads(_chat({}, "openai", session="s").body)["prompt_cache_key"] == "s"
    assert "prompt_cache_key" not in json.loads(_chat({}, "openai").body)
    assert "prompt_cache_key" not in json.loads(_chat({}, "gemini", session="s").body)


UNTRANSLATABLE = [
    ({"tools": [SEARCH]}, "the request offers only tools that Anthropic itself defines (web_search)"),
    (
        {"tools": [READ, SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}},
        "the request's tool_choice names web_search, a tool that Anthropic itself defines",
    ),
    (
        {"thread": {"type": "continue", "previous_message_id": "msg_fake"}},
        "the request continues a thread that Anthropic",
    ),
    ({"compaction": {"type": "summarize"}}, "the request asks for a compaction"),
]


@pytest.mark.parametrize(("body", "why"), UNTRANSLATABLE, ids=lambda value: str(value)[:40])
def test_some_requests_only_anthropic_can_serve(body, why):
    raw = json.dumps({"messages": [], **body}).encode()
    assert untranslatable(raw).startswith(why)
    with pytest.raises(UntranslatableError, match=re.escape(why)):
        _chat(body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tools": []},
        {"tools": [READ, SEARCH]},
        {"tools": [{"type": "future_20300101", "name": "x", "input_schema": {"type": "object"}}]},
        {"tools": [READ], "tool_choice": {"type": "tool", "name": "Write"}},
        {"thread": {"type": "create"}},
    ],
    ids=str,
)
def test_all_others_can_be_translated(body):
    assert untranslatable(json.dumps(body).encode()) == ""


@pytest.mark.parametrize(
    "raw",
    ["", "[]", "5", "{", '{"messages":[{"role":"user","content":[1e999]}]}', '{"system":"\\ud800"}']
    + [
        '{"messages":[{"role":"user","content":' + "[" * depth + "]" * depth + "}]}"
        for depth in (900, 90_000)
    ],
    ids=lambda raw: raw[:50],
)
def test_what_cannot_be_read_is_untranslatable(raw):
    try:
        chat = json.loads(_chat(raw).body)
    except UntranslatableError as error:
        assert str(error)  # noqa: PT017  either is right: how deep is too deep depends on the stack
    else:
        check_order(chat, DIALECTS["generic"])


def test_a_long_conversation_takes_no_time():
    """About 10 ms where it was written; the bound is for slow machines."""
    text = "def f(x):\n    return 'ü'  # comment\n" * 40
    history: list[dict[str, Any]] = [{"role": "user", "content": "Go"}]
    for turn in range(500):
        call = {"type": "tool_use", "id": f"toolu_{turn}", "name": "Read", "input": {"text": text}}
        history.append({"role": "assistant", "content": [{"type": "text", "text": "Reading."}, call]})
        result = {"type": "tool_result", "tool_use_id": f"toolu_{turn}", "content": text}
        history.append({"role": "user", "content": [result]})
    raw = msgspec.json.encode({"messages": history, "tools": [READ]})
    assert len(raw) > 1_400_000
    took = min(_time(raw) for _ in range(5))
    assert took < 0.25


def _time(raw: bytes) -> float:
    start = perf_counter()
    to_chat(raw, model="m", dialect=DIALECTS["gemini"], provider="p", session=None)
    return perf_counter() - start
