"""Content views of requests and answers: what a person reads in mitmweb."""

import json
from typing import Any

import pytest
from mitmproxy import contentviews
from mitmproxy.test import taddons, tflow, tutils

from signalbox.inspect import views
from signalbox.inspect.annotations import METADATA
from tests.support import chat, responses
from tests.support.answers import message_json, message_sse, thinking_block, tool_block

MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "Look at it."},
    {
        "role": "assistant",
        "content": [
            thinking_block("Two files."),
            {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "/a.py"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "toolu_1",
                "is_error": True,
                "content": [{"type": "text", "text": "no such file"}],
            },
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "A" * 8192},
                "cache_control": {"type": "ephemeral"},
            },
        ],
    },
]
REQUEST = {
    "model": "glm-4.7",
    "max_tokens": 32000,
    "stream": True,
    "thinking": {"type": "adaptive"},
    "tools": [
        {
            "name": "Read",
            "input_schema": {
                "type": "object",
                "properties": {"path": {}, "limit": {}},
                "required": ["path"],
            },
        },
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    ],
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": MESSAGES,
}
CHAT = {
    "model": "gpt-5.5",
    "stream": True,
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Look at it."}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "Read", "arguments": '{"path": "/a.py"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "no such file"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {"name": "Read", "parameters": {"type": "object", "properties": {"path": {}}}},
        }
    ],
}
RESPONSES = {
    "model": "gpt-5.5",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Look at it."}]},
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Two files."}],
            "encrypted_content": "gAAA",
        },
        {"type": "function_call", "call_id": "call_1", "name": "Read", "arguments": '{"path": "/a.py"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "no such file"},
    ],
    "tools": [{"type": "function", "name": "Read", "parameters": {"properties": {"path": {}}}}],
}


def shown(
    *, path: str = "/v1/messages", request: bytes = b"", response: bytes | None = None, **told: Any
) -> Any:
    """What mitmproxy shows of a flow's request, or of its answer where one is given."""
    views.register()
    flow = tflow.tflow(req=tutils.treq(path=path.encode(), content=request), resp=tutils.tresp())
    flow.metadata[METADATA] = told
    message = flow.request
    if response is not None:
        message = flow.response
        message.content = response
    with taddons.context():
        return contentviews.prettify_message(message, flow)


def test_a_messages_request_is_readable():
    seen = shown(request=json.dumps(REQUEST).encode())
    assert seen.view_name == "Messages request"
    assert (
        seen.text
        == """\
Model: glm-4.7
max_tokens: 32000
stream: true
thinking: {"type":"adaptive"}

Tools (2)
    Read(path, limit?)
    web_search_20250305 {"max_uses":3}

System
    text [cache mark 1h]
        Be brief.

Messages (3)
  1 user
    Look at it.
  2 assistant
    thinking, signed
        Two files.
    call Read toolu_1
        path: /a.py
  3 user
    result toolu_1 (error)
        no such file
    image image/png, 6.0 KB [cache mark 5m]"""
    )


def test_a_request_begins_with_what_was_changed():
    changes = ["model claude-sonnet-4-5 → glm-4.7", "2 thinking blocks dropped"]
    lines = shown(request=json.dumps(REQUEST).encode(), changes=changes).text.splitlines()
    assert lines[:5] == ["Changes", *(f"    {change}" for change in changes), "", "Model: glm-4.7"]


def test_a_chat_request_is_readable():
    seen = shown(path="/v1/chat/completions", request=json.dumps(CHAT).encode())
    assert seen.view_name == "Chat request"
    assert (
        seen.text
        == """\
Model: gpt-5.5
stream: true

Tools (1)
    Read(path?)

Messages (4)
  1 system
    Be brief.
  2 user
    Look at it.
  3 assistant
    call Read call_1
        path: /a.py
  4 tool
    result call_1
    no such file"""
    )


def test_cache_marks_of_a_chat_request_are_where_they_are_set():
    """As providers take them that pass them to Anthropic (providers.md)."""
    mark = {"cache_control": {"type": "ephemeral"}}
    long = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    parts = [{"type": "text", "text": "Look."} | mark, {"type": "text", "text": "And here."}]
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}} | mark
    tool = {"type": "function", "function": {"name": "Read"}} | long
    body = {"messages": [{"role": "user", "content": [*parts, image]}], "tools": [tool]}
    text = shown(path="/v1/chat/completions", request=json.dumps(body).encode()).text
    assert "    Read() [cache mark 1h]\n" in text
    assert "    text [cache mark 5m]\n        Look.\n    And here.\n" in text
    assert "image https://x.example/a.png [cache mark 5m]" in text


def test_a_responses_request_is_readable():
    seen = shown(path="/v1/responses", request=json.dumps(RESPONSES).encode())
    assert seen.view_name == "Responses request"
    assert (
        seen.text
        == """\
Model: gpt-5.5

Tools (1)
    Read(path?)

Instructions
    Be brief.

Input (4)
  1 user
    Look at it.
  2 reasoning
    thinking, 4 characters encrypted
        Two files.
  3 function_call
    call Read call_1
        path: /a.py
  4 function_call_output
    result call_1
    no such file"""
    )


def test_a_streamed_answer_is_put_together():
    tools = [{**tool_block("Read", path="/a.py"), "id": "toolu_1"}]
    stream = message_sse("glm-4.7", ["Two", " files"], before=[thinking_block("Let me see.")], tools=tools)
    seen = shown(response=stream.body, cost=0.0123)
    assert seen.view_name == "Messages answer"
    text = seen.text
    for line in ("model: glm-4.7", "Two files", "thinking, signed", "    Let me see.", "    path: /a.py"):
        assert line in text.splitlines()
    assert "call Read toolu_1" in text
    assert "usage: input 120, cache write 30, cache read 500, output 17" in text.splitlines()
    assert "$0.0123" in text
    assert "Odd events" not in text


def test_a_stream_in_progress_shows_what_has_come():
    whole = message_sse("glm-4.7", ["Two", " files"]).body
    cut = whole[: whole.index(b" files") - 20]
    lines = shown(response=cut).text.splitlines()
    assert "Two" in lines
    assert "(not over)" in lines


def test_a_whole_answer_is_shown_as_a_streamed_one_is():
    seen = shown(response=message_json("glm-4.7", "Two files").body)
    assert seen.view_name == "Messages answer"
    assert "Two files" in seen.text.splitlines()


def test_a_chat_stream_is_put_together():
    calls = [
        chat.call("Read", '{"path": ', id="call_1", index=0),
        chat.call("", '"/a.py"}', id="", index=0),
        chat.call("Read", '{"path": "/b.py"}', id="call_2", index=1),
    ]
    chunks = [
        chat.chunk({"role": "assistant", "reasoning_content": "Let me see."}),
        chat.chunk({"content": "Two"}),
        chat.chunk({"content": " files"}),
        *(chat.chunk({"tool_calls": [call]}) for call in calls),
        chat.chunk({}, "tool_calls", usage={"prompt_tokens": 9, "completion_tokens": 3}),
        chat.DONE,
    ]
    seen = shown(path="/v1/chat/completions", response=b"".join(chunks))
    assert seen.view_name == "Chat answer"
    for line in (
        "stop reason: tool_calls",
        "Two files",
        "call Read call_1",
        "    path: /a.py",
        "    path: /b.py",
    ):
        assert line in seen.text.splitlines()


ANSWERED = [
    responses.reasoning("Two files.", "Then one.", blob="gAAA"),
    responses.web_search("foo bar", "https://a.example/one"),
    responses.message("Reading."),
    responses.function_call("Read", '{"path": "/a.py"}', call_id="call_1"),
]
ANSWER = """\
model: up-1
id: resp_fake
stop reason: completed
usage: input 620, output 17, total 637, cached 500, reasoning 5

thinking, 4 characters encrypted
    Two files.
    Then one.

web search foo bar
    https://a.example/one

Reading.

call Read call_1
    path: /a.py"""


def test_a_responses_stream_is_put_together():
    seen = shown(path="/v1/responses", response=b"".join(responses.item_stream(*ANSWERED)))
    assert seen.view_name == "Responses answer"
    assert seen.text == ANSWER


def test_a_whole_response_is_shown_as_a_streamed_one_is():
    seen = shown(path="/v1/responses", response=responses.whole(*ANSWERED).body)
    assert (seen.view_name, seen.text) == ("Responses answer", ANSWER)


def test_items_of_a_response_that_are_in_progress_show_what_has_come():
    call = responses.function_call("Read", call_id="call_1")
    stream = [
        responses.created(),
        responses.event("response.reasoning_summary_text.delta", output_index=0, delta="Two"),
        responses.item_added(call, 1),
        responses.text_delta("Read", 2),
        responses.arguments('{"path": ', 1),
        responses.event("keepalive"),
        responses.text_delta("ing.", 2),
    ]
    text = shown(path="/v1/responses", response=b"".join(stream)).text
    assert text.endswith('(not over)\n\nthinking\n    Two\n\ncall Read call_1\n    {"path": \n\nReading.')


def test_a_response_that_ended_early_says_why():
    stream = [*responses.text_stream()[:-1]]
    for last, line in (
        (
            responses.ended("incomplete", incomplete_details={"reason": "max_output_tokens"}),
            "stop reason: incomplete: max_output_tokens",
        ),
        (
            responses.ended("failed", error={"code": "server_error", "message": "it broke"}),
            "Error: server_error: it broke",
        ),
        (
            responses.event("error", code="server_error", message="it broke"),
            "Error: server_error: it broke",
        ),
    ):
        text = shown(path="/v1/responses", response=b"".join([*stream, last])).text
        assert line in text.splitlines()


def test_the_clients_answer_is_shown_by_its_own_protocol():
    seen = shown(path="/v1/chat/completions", response=message_sse("glm-4.7").body)
    assert seen.view_name == "Messages answer"


def test_an_error_comes_first():
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "come back later"}}
    assert shown(response=json.dumps(error).encode()).text == "Error: overloaded_error: come back later"


def test_odd_events_stand_below_with_their_number():
    stream = message_sse("glm-4.7").body + b'event: new\ndata: {"type": "new_kind"}\n\ndata: {broken\n\n'
    text = shown(response=stream).text
    below = text[text.index("Odd events") :]
    assert "new: unknown" in below
    assert "{broken" in below


def test_a_long_text_is_folded_with_its_length():
    body = {**REQUEST, "system": "a" * 50_000}
    text = shown(request=json.dumps(body).encode()).text
    assert "[... 49,000 of 50,000 characters ...]" in text
    assert len(text) < 5_000


def test_what_was_said_last_is_shown_whole():
    long = "a line of code\n" * 1_000
    asked = {"type": "tool_result", "tool_use_id": "toolu_1", "content": long}
    called = {"role": "assistant", "content": [tool_block("Read", path="/a.py")]}
    messages = [{"role": "user", "content": long}, called, {"role": "user", "content": [asked]}]
    text = shown(request=json.dumps({"model": "m", "messages": messages}).encode()).text
    assert text.count("characters ...]") == 1
    assert text.count("a line of code") > 1_000
    chat_messages = [{"role": "system", "content": long}, {"role": "user", "content": long}]
    text = shown(path="/v1/chat/completions", request=json.dumps({"messages": chat_messages}).encode()).text
    assert text.count("characters ...]") == 1
    given = [{"type": "function_call_output", "call_id": "c", "output": long}]
    text = shown(path="/v1/responses", request=json.dumps({"input": given}).encode()).text
    assert text.count("a line of code") == 1_000


LONG = "\n".join(f"line {number} of a long answer" for number in range(3_000))


@pytest.mark.parametrize(
    "answer",
    [
        message_sse("glm-4.7", [LONG]).body,
        message_sse("glm-4.7", before=[thinking_block(LONG)]).body,
        message_sse("glm-4.7", tools=[tool_block("Write", text=LONG)]).body,
        chat.stream([chat.chunk({"content": LONG})]).body,
        b"".join(responses.item_stream(responses.message(LONG))),
    ],
    ids=["text", "thinking", "arguments", "chat", "responses"],
)
def test_an_answer_is_shown_whole(answer):
    text = shown(response=answer).text
    assert "characters ...]" not in text
    assert [line.strip() for line in text.splitlines() if "of a long answer" in line] == LONG.splitlines()


def test_an_answer_beyond_all_bounds_is_folded_with_its_length():
    text = shown(response=message_json("glm-4.7", "x" * 1_000_000).body).text
    assert "of 1,000,000 characters ...]" in text
    assert len(text) < 300_000


@pytest.mark.parametrize(
    ("api", "path", "request_body", "view"),
    [
        ("vertex", "/v1/projects/p/models/claude-x:streamRawPredict", REQUEST, "Messages request"),
        ("anthropic", "/custom/endpoint", REQUEST, "Messages request"),
        ("openai", "/custom/endpoint", CHAT, "Chat request"),
        ("responses", "/v1/messages", RESPONSES, "Responses request"),
    ],
)
def test_a_routed_request_is_shown_by_the_api_that_was_asked(api, path, request_body, view):
    body = json.dumps(request_body).encode()
    seen = shown(path=path, request=body, api=api, rule="all", reason="rule:all", changes=["key swapped"])
    assert seen.view_name == view
    assert seen.text.startswith("Changes\n    key swapped\n\nWhy\n    rule all\n")


def test_a_model_in_the_path_is_shown():
    body = {name: value for name, value in REQUEST.items() if name != "model"}
    path = "/v1/projects/p/models/claude-x:rawPredict"
    text = shown(path=path, request=json.dumps(body).encode(), api="vertex", model="claude-x").text
    assert text.startswith("Model: claude-x\n")


def test_half_a_character_does_not_keep_a_request_from_being_read():
    """JavaScript writes a lone half of a surrogate pair where it cut a text."""
    body = rb'{"model": "m", "messages": [{"role": "user", "content": "lone \ud83d here"}]}'
    text = shown(request=body).text
    assert "lone \ufffd here" in text
    assert "  1 user" in text


def test_halves_of_a_character_in_two_events_are_put_together():
    stream = message_sse("glm-4.7", ["first", "second"]).body
    stream = stream.replace(b'"first"', rb'"half \ud83d"').replace(b'"second"', rb'"\ude00 whole"')
    text = shown(response=stream).text
    assert "half \U0001f600 whole" in text.splitlines()
    assert "Odd events" not in text


def test_no_byte_that_is_no_text_keeps_a_body_from_being_read():
    body = b'{"model": "m", "messages": [{"role": "user", "content": "caf\xe9 \x01"}]}'
    assert "caf\ufffd" in shown(request=body).text


ENTIRE = json.dumps(REQUEST | {"messages": MESSAGES[:2], "temperature": 0.25}).encode()


@pytest.mark.parametrize("stored", range(1, len(ENTIRE) - 1, 13))
def test_of_a_request_that_was_cut_the_beginning_is_readable(stored):
    told = {"request_length": len(ENTIRE), "rule": "all", "changes": ["key swapped"], "api": "anthropic"}
    text = shown(request=ENTIRE[:stored], **told).text
    cut = f"Cut: the first {stored:,} of {len(ENTIRE):,} bytes are stored."
    assert text.startswith(f"{cut}\n\nChanges\n    key swapped\n\nWhy\n    rule all\n")
    assert "cannot be read" not in text
    assert text.count("Look at it.") == (stored > ENTIRE.index(b"Look at it.") + len(b"Look at it."))


@pytest.mark.parametrize("said", [r"a\\\\", r"\"\\\"", r"\u00e9\\", "[{,:"])
def test_a_text_that_was_cut_at_an_escape_is_readable(said):
    body = b'{"model": "m", "messages": [{"role": "user", "content": "' + said.encode() + b"\\u12"
    for stored in range(len(body) - len(said) - 4, len(body) + 1):
        text = shown(request=body[:stored], request_length=5_000, api="anthropic").text
        assert "  1 user" in text, stored


def test_of_a_request_of_which_nothing_is_stored_the_changes_are_shown():
    seen = shown(request=b"", request_length=5_000, changes=["key swapped"], api="vertex")
    assert seen.view_name == "Messages request"
    assert seen.text == "Cut: nothing of it is stored.\n\nChanges\n    key swapped"


def test_a_cut_body_that_is_no_json_is_shown_as_it_is():
    text = shown(request=b'{"a": ]} the rest', request_length=5_000, api="anthropic").text
    assert text.startswith("Cut: the first 17 of 5,000 bytes are stored.")
    assert "the rest" in text


def test_a_whole_answer_that_is_still_coming_shows_what_has_come():
    body = message_json("glm-4.7", "Two files").body
    text = shown(response=body[: body.index(b"files")]).text
    assert "Two" in text
    assert "(not over)" in text


def test_an_answer_is_told_by_what_it_is_and_not_by_what_it_says():
    said = 'await fetch("response.created"); "choices": [], "chat.completion"'
    for body in (message_sse("glm-4.7", [said]).body, message_json("glm-4.7", said).body):
        seen = shown(response=body)
        assert seen.view_name == "Messages answer"
        assert said in seen.text


def test_a_routed_answer_is_known_whatever_the_order_of_its_members():
    body = b'{"content": [{"type": "text", "text": "%b"}], "type": "message", "model": "m"}' % (b"a" * 9_000)
    assert shown(response=body, api="anthropic").view_name == "Messages answer"
    assert shown(response=b'{"input_tokens": 5}', api="anthropic").view_name != "Messages answer"


def test_of_very_many_messages_the_first_and_last_are_shown():
    messages = [{"role": "user", "content": f"said {number}"} for number in range(60_000)]
    lines = shown(request=json.dumps({"messages": messages}).encode()).text.splitlines()
    assert "Messages (60000)" in lines
    assert "    [... 56,000 of 60,000 messages ...]" in lines
    assert {"    said 0", "    said 999", "    said 57000", "    said 59999"} <= set(lines)
    assert not {"    said 1000", "    said 56999"} & set(lines)


def test_of_very_many_odd_events_some_are_shown_and_the_rest_counted():
    text = shown(response=message_sse("glm-4.7").body + b"data: x\n\n" * 1_000).text
    assert text.count("JSON is malformed") == 20
    assert "980 more odd events" in text
    text = shown(response=message_sse("glm-4.7").body + b"data: x\n\n" * 100_000).text
    assert "more, which are not looked at" in text


@pytest.mark.parametrize(
    ("path", "content"),
    [("/v1/models", b'{"data": []}'), ("/v1/messages", b"not JSON"), ("/v1/messages", b"")],
)
def test_other_bodies_are_left_to_mitmproxys_own_views(path, content):
    assert shown(path=path, request=content).view_name not in {view.name for view in views.VIEWS}
