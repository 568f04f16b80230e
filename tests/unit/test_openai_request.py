"""A Messages body as a body of chat completions."""

import json
import re
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import pytest

from signalbox.anthropic.json_edit import Body
from signalbox.openai.dialects import DIALECTS
from signalbox.openai.request import ChatRequest, thinking_of, to_chat, untranslatable
from signalbox.routing.translator import UntranslatableError
from tests.support.chat_validator import check_order, check_types, plain

GOLDEN = sorted((Path(__file__).parents[1] / "golden/chat-requests").glob("*.txt"))
"""`DIALECT-CASE.txt`: a Messages body, what is sent for it, and what its answer is read with."""
READ = {"name": "Read", "input_schema": {"type": "object", "properties": {}}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def _chat(body: dict[str, Any] | str, dialect: str = "generic", **fields: Any) -> ChatRequest:
    raw = (
        body if isinstance(body, str) else json.dumps({"messages": [{"role": "user", "content": "x"}]} | body)
    )
    given = {"model": "some-model", "provider": "provider", "session": None, **fields}
    return to_chat(Body.parse(raw.encode()), dialect=DIALECTS[dialect], **given)


def _told(sent: ChatRequest) -> dict[str, Any]:
    told = {
        "stream": sent.stream,
        "shows_thinking": sent.shows_thinking,
        "names": sent.names,
        "searched": sent.searched,
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
def test_every_dialect_has_a_golden_file_with_everything(dialect):
    assert f"{dialect}-everything" in {path.stem for path in GOLDEN}


@pytest.mark.parametrize("others", [[], [READ]])
def test_a_search_that_may_not_be_used_is_left_out(others):
    asked = {"tools": [SEARCH, *others], "tool_choice": {"type": "none"}}
    sent = _chat(asked, "openrouter")
    tools = json.loads(sent.body).get("tools", [])
    assert [tool["type"] for tool in tools] == ["function"] * len(others)
    assert not sent.searched
    assert "dropped: tools.web_search" in sent.notes


def test_half_a_character_is_one_that_cannot_be_read():
    said = r'{"messages":[{"role":"user","content":"a\ud83d b\ud83d\ude00"}]}'
    assert json.loads(_chat(said).body)["messages"][-1]["content"] == "a\ufffd b\U0001f600"


def test_the_body_is_compact_utf8():
    assert b'"content":"Gr\xc3\xbc\xc3\x9fe"' in _chat({"system": "Grüße"}).body


LINE = "x-anthropic-billing-header: cc_version=1;"


@pytest.mark.parametrize(
    "system",
    [
        f"{LINE}\nBe brief.",
        [{"type": "text", "text": "Be brief."}, {"type": "text", "text": LINE}],
        [{"type": "text", "text": f"{LINE}\n\nBe brief."}],
    ],
)
def test_claude_codes_billing_line_is_left_out_wherever_it_stands(system):
    sent = json.loads(_chat({"system": system}).body)
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}


def test_arguments_and_schemas_keep_their_bytes():
    schema = '{"type":"object","properties":{"n":{"type":"number","minimum":1.00,"maximum":1e3}}}'
    given = '{"z":1.00,"a":1e5,"b":12345678901234567890123,"c":"ü"}'
    messages = (
        f'[{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"Read","input":{given}}}]}}]'
    )
    sent = _chat(f'{{"messages":{messages},"tools":[{{"name":"Read","input_schema":{schema}}}]}}').body
    assert json.loads(sent)["messages"][0]["tool_calls"][0]["function"]["arguments"] == given
    assert schema.encode() in sent


def _of_result(told: str) -> bytes:
    """The content of a tool's result, as JSON that is sent."""
    call = '{"type":"tool_use","id":"t","name":"Read","input":{}}'
    result = f'{{"type":"tool_result","tool_use_id":"t",{told}}}'
    messages = f'[{{"role":"assistant","content":[{call}]}},{{"role":"user","content":[{result}]}}]'
    sent = msgspec.json.decode(_chat(f'{{"messages":{messages}}}').body, type=_Sent)
    return bytes(sent.messages[1].content)


class _SentMessage(msgspec.Struct):
    content: msgspec.Raw


class _Sent(msgspec.Struct):
    messages: list[_SentMessage]


@pytest.mark.parametrize(
    ("told", "sent"),
    [
        (r'"content":"\u2713 a\/b"', rb'"\u2713 a\/b"'),
        (r'"content":"\u2713 a","is_error":true', rb'"Error: \u2713 a"'),
        (r'"content":" \n\u00a0"', b'"(no output)"'),
        ('"content":""', b'"(no output)"'),
        ('"content":null', b'"(no output)"'),
        ('"content":["a",{"type":"text","text":"b"}]', rb'"a\nb"'),
    ],
)
def test_a_result_that_is_one_text_keeps_its_json(told, sent):
    assert _of_result(told) == sent


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
    assert untranslatable(Body.parse(raw), DIALECTS["generic"]).startswith(why)
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
    assert untranslatable(Body.parse(json.dumps(body).encode()), DIALECTS["generic"]) == ""


@pytest.mark.parametrize(
    "raw",
    [
        '{"messages":[{"role":"user","content":[1e999]}]}',
        '{"system":"\\ud800"}',
        '{"messages":[{"role":"user","content":' + "[" * 900 + "]" * 900 + "}]}",
    ],
    ids=lambda raw: raw[:50],
)
def test_an_unreadable_body_is_untranslatable(raw):
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
    to_chat(Body.parse(raw), model="m", dialect=DIALECTS["gemini"], provider="p", session=None)
    return perf_counter() - start


ON, OFF = {"type": "adaptive"}, {"type": "disabled"}


def _fields(
    dialect: str, model: str, thinking: object, effort: object = None, *, tools: bool = False
) -> object:
    config = {"effort": effort} if effort else None
    return thinking_of(thinking, config, DIALECTS[dialect], model, tools=tools).fields


@pytest.mark.parametrize(
    ("thinking", "effort", "sent"),
    [
        (None, None, {}),
        (None, "low", {"reasoning_effort": "low"}),
        (ON, None, {"reasoning_effort": "high"}),
        (ON, "medium", {"reasoning_effort": "medium"}),
        (ON, "max", {"reasoning_effort": "xhigh"}),
        ({"type": "enabled", "budget_tokens": 1024}, None, {"reasoning_effort": "low"}),
        ({"type": "enabled", "budget_tokens": 8000}, None, {"reasoning_effort": "medium"}),
        ({"type": "enabled", "budget_tokens": 31999}, None, {"reasoning_effort": "high"}),
        ({"type": "enabled", "budget_tokens": 31999}, "low", {"reasoning_effort": "low"}),
        ({"type": "enabled", "budget_tokens": "much"}, None, {"reasoning_effort": "high"}),
        (OFF, "max", {"reasoning_effort": "none"}),
        ({"type": "between_tools"}, "max", {"reasoning_effort": "none"}),
        ("adaptive", None, {}),
        (ON, ["high"], {"reasoning_effort": "high"}),
        (ON, "none", {"reasoning_effort": "none"}),
        (ON, "extreme", {"reasoning_effort": "high"}),
    ],
    ids=str,
)
def test_the_effort_counts_before_the_budget(thinking, effort, sent):
    assert _fields("openai", "gpt-5.2", thinking, effort) == sent


@pytest.mark.parametrize(
    ("dialect", "model", "effort", "sent", "off"),
    [
        ("openai", "gpt-5", "max", {"reasoning_effort": "high"}, {"reasoning_effort": "minimal"}),
        ("openai", "gpt-5.1-codex", "max", {"reasoning_effort": "high"}, {"reasoning_effort": "none"}),
        ("openai", "o3", "xhigh", {"reasoning_effort": "high"}, {"reasoning_effort": "low"}),
        ("openai", "gpt-4.1", "high", {}, {}),
        (
            "generic",
            "openai/gpt-oss-120b",
            "minimal",
            {"reasoning_effort": "low"},
            {"reasoning_effort": "low"},
        ),
        ("generic", "llama", "high", {}, {}),
        (
            "openrouter",
            "anthropic/claude-opus-4.6",
            "max",
            {"reasoning": {"effort": "max"}},
            {"reasoning": {"effort": "none"}},
        ),
        (
            "openrouter",
            "openai/gpt-5",
            "max",
            {"reasoning": {"effort": "xhigh"}},
            {"reasoning": {"effort": "minimal"}},
        ),
        (
            "openrouter",
            "openai/gpt-5.2",
            "low",
            {"reasoning": {"effort": "low"}},
            {"reasoning": {"effort": "none"}},
        ),
        ("openrouter", "x/y", "max", {"reasoning": {"effort": "xhigh"}}, {"reasoning": {"effort": "none"}}),
        (
            "gemini",
            "gemini-3.1-pro-preview",
            "max",
            {"reasoning_effort": "high"},
            {"reasoning_effort": "low"},
        ),
        ("gemini", "gemini-3.8-flash", "low", {"reasoning_effort": "low"}, {"reasoning_effort": "minimal"}),
        ("gemini", "gemini-2.5-flash", "low", {"reasoning_effort": "low"}, {"reasoning_effort": "none"}),
        ("gemini", "gemma-3", "low", {}, {}),
        ("kimi", "kimi-k3", "medium", {"thinking": {"type": "enabled", "effort": "low"}}, {}),
        ("kimi", "kimi-k3", "max", {"thinking": {"type": "enabled", "effort": "max"}}, {}),
        ("kimi", "kimi-k2.6", "high", {"thinking": {"type": "enabled"}}, {"thinking": {"type": "disabled"}}),
        ("kimi", "moonshot-v1-8k", "high", {}, {}),
        ("glm", "glm-5.3", "high", {"thinking": {"type": "enabled"}}, {"thinking": {"type": "disabled"}}),
        (
            "minimax",
            "MiniMax-M3",
            "high",
            {"thinking": {"type": "adaptive"}},
            {"thinking": {"type": "disabled"}},
        ),
        (
            "deepseek",
            "deepseek-flash",
            "low",
            {"thinking": {"type": "enabled"}},
            {"thinking": {"type": "disabled"}},
        ),
        ("ollama", "qwen3", "high", {}, {"reasoning_effort": "none"}),
        ("ollama", "gpt-oss:20b", "max", {"reasoning_effort": "high"}, {"reasoning_effort": "low"}),
        ("vllm", "qwen3", "xhigh", {"reasoning_effort": "high"}, {"reasoning_effort": "low"}),
        ("mistral", "magistral", "high", {}, {}),
        ("composer", "gpt-5.3-codex", "high", {}, {}),
    ],
)
def test_each_dialect_has_its_spelling(dialect, model, effort, sent, off):
    assert _fields(dialect, model, ON, effort) == sent
    assert _fields(dialect, model, OFF, effort) == off


@pytest.mark.parametrize("model", ["gpt-5.4", "gpt-5.6-sol", "gpt-6-astra"])
def test_newest_models_of_openai_take_tools_only_without_thinking(model):
    for thinking in (None, ON, OFF):
        assert _fields("openai", model, thinking, "high", tools=True) == {"reasoning_effort": "none"}
    assert _fields("openai", model, ON, "high") == {"reasoning_effort": "high"}
    assert _fields("openai", "gpt-5.3", ON, "high", tools=True) == {"reasoning_effort": "high"}


@pytest.mark.parametrize(
    ("thinking", "shown"),
    [(ON, True), ({"type": "enabled"}, True), (OFF, False), (None, False), ([], False)],
    ids=str,
)
def test_thinking_is_shown_if_the_client_asked_for_it(thinking, shown):
    assert thinking_of(thinking, {"effort": "high"}, DIALECTS["generic"], "m", tools=False).is_shown is shown


def test_a_model_that_cannot_stop_is_not_off():
    assert thinking_of(OFF, None, DIALECTS["kimi"], "kimi-k2.6", tools=False).is_off
    assert not thinking_of(OFF, None, DIALECTS["kimi"], "kimi-k3", tools=False).is_off


READ_DROPPED = {"name": "Read", "input_schema": {"type": "object"}}
SEARCH_DROPPED = {"type": "web_search_20250305", "name": "web_search"}


def _dropped(dialect: str = "generic", model: str = "some-model", **fields: Any) -> str:
    raw = json.dumps({"messages": [{"role": "user", "content": "Hello"}], **fields}).encode()
    sent = to_chat(Body.parse(raw), model=model, dialect=DIALECTS[dialect], provider="provider", session=None)
    return next((note for note in sent.notes if note.startswith("dropped: ")), "").removeprefix("dropped: ")


def test_fields_without_a_counterpart_are_named_in_their_order():
    fields = {"top_k": 3, "context_management": {"edits": []}, "mcp_servers": [{}], "future_field": 1}
    assert _dropped(**fields) == ", ".join(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 9, "temperature": 1, "top_p": 0.5, "stop_sequences": ["x"], "stream": True},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        {"metadata": {"user_id": "fake"}, "diagnostics": {"previous_message_id": None}},
        {"cache_control": {"type": "ephemeral"}},
        {"mcp_servers": [], "container": None, "stop_sequences": []},
        {"tools": [READ_DROPPED], "tool_choice": {"type": "auto", "disable_parallel_tool_use": False}},
    ],
    ids=str,
)
def test_translated_and_empty_fields_are_not_listed(fields):
    assert _dropped(**fields) == ""


@pytest.mark.parametrize(
    ("dialect", "model", "named"),
    [
        ("vllm", "qwen3", ""),
        ("ollama", "qwen3", "top_k"),
        ("kimi", "kimi-k3", "temperature, top_p, top_k"),
        ("openai", "gpt-4.1", "top_k"),
        ("openai", "gpt-5.2", "temperature, top_p, top_k, stop_sequences"),
        ("composer", "composer-2.5", "max_tokens, top_k, stop_sequences"),
    ],
)
def test_the_dropped_fields_depend_on_the_provider(dialect, model, named):
    fields = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.5, "top_k": 3, "stop_sequences": ["x"]}
    assert _dropped(dialect, model, **fields) == named


def test_stop_sequences_are_named_when_some_of_them_are_too_many():
    assert _dropped(stop_sequences=["a", "b", "c", "d"]) == ""
    assert _dropped(stop_sequences=["a", "b", "c", "d", "e"]) == "stop_sequences"
    assert _dropped(stop_sequences="a") == "stop_sequences"


def test_tools_that_anthropic_itself_defines_are_named():
    toolset = {"type": "mcp_toolset", "mcp_server_name": "docs"}
    assert _dropped(tools=[READ_DROPPED, SEARCH_DROPPED, toolset]) == "tools.web_search, tools.mcp_toolset"


def test_one_call_at_a_time_is_named_where_it_cannot_be_asked():
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert _dropped(tools=[READ_DROPPED], tool_choice=choice) == "disable_parallel_tool_use"
    assert _dropped("openai", tools=[READ_DROPPED], tool_choice=choice) == ""
    assert _dropped(tool_choice=choice) == ""


def test_names_are_few_and_fit_for_a_log():
    assert _dropped(**{"\x1b[31m\n": 1, "x" * 41: 1, "": 1}) == "(odd name), (odd name), (odd name)"
    assert _dropped(**{f"f{n}": 1 for n in range(20)}) == "f0, f1, f2, f3, f4, f5, f6, f7, 12 more"
