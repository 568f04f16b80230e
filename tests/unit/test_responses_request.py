"""A Messages body as a request of the Responses API."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from signalbox.anthropic.json_edit import Body
from signalbox.responses.dialects import DIALECTS
from signalbox.responses.reasoning import ReasoningOwner, reasoning_owner
from signalbox.responses.request import ResponsesRequest, to_responses, untranslatable
from signalbox.routing.translator import UntranslatableError
from tests.support.responses_validator import check_request, check_types

GOLDEN = sorted((Path(__file__).parents[1] / "golden/responses-requests").glob("*.txt"))
"""`DIALECT-CASE.txt`: a Messages body, what is sent for it, and what its answer is read with. In `counts` of
the last part: that the request only counts tokens."""
READ = {"name": "Read", "input_schema": {"type": "object", "properties": {}}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def owner_of(model: str, account: str = "key-fake") -> ReasoningOwner:
    return reasoning_owner("provider", account=account, model=model, key=b"state")


def sent_for(body: dict[str, Any] | str, dialect: str = "openai", **fields: Any) -> ResponsesRequest:
    raw = (
        body if isinstance(body, str) else json.dumps({"messages": [{"role": "user", "content": "x"}]} | body)
    )
    model = fields.pop("model", "gpt-5.6-sol")
    given = {"model": model, "owner": owner_of(model), "session": None, **fields}
    return to_responses(Body.parse(raw.encode()), dialect=DIALECTS[dialect], **given)


def _told(sent: ResponsesRequest) -> dict[str, Any]:
    told = {
        "stream": sent.stream,
        "streams": sent.streams,
        "shows_thinking": sent.shows_thinking,
        "only_searches": sent.only_searches,
        "names": sent.names,
        "notes": list(sent.notes),
    }
    return {name: value for name, value in told.items() if value}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(path):
    body, expected, told = path.read_text().split("\n-----\n")
    dialect, read = DIALECTS[path.stem.partition("-")[0]], json.loads(told)
    counts = read.pop("counts", False)
    sent = sent_for(
        body, dialect.name, model=json.loads(body)["model"], session="session-fake", counts=counts
    )
    asked = json.loads(sent.body)
    assert asked == json.loads(expected)
    assert _told(sent) == read
    check_types(asked, counts=counts)
    if not counts:
        check_request(asked, dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_has_a_golden_file_with_everything(dialect):
    assert f"{dialect}-everything" in {path.stem for path in GOLDEN}


def test_the_body_is_compact_utf8():
    assert b'"instructions":"Gr\xc3\xbc\xc3\x9fe"' in sent_for({"system": "Grüße"}).body


def test_arguments_schemas_and_results_keep_their_bytes():
    schema = '{"type":"object","properties":{"n":{"type":"number","minimum":1.00,"maximum":1e3}}}'
    given = '{"z":1.00,"a":1e5,"b":12345678901234567890123,"c":"ü"}'
    call = f'{{"type":"tool_use","id":"t","name":"Read","input":{given}}}'
    result = r'{"type":"tool_result","tool_use_id":"t","content":"\u2713 a\/b"}'
    messages = f'[{{"role":"assistant","content":[{call}]}},{{"role":"user","content":[{result}]}}]'
    sent = sent_for(f'{{"messages":{messages},"tools":[{{"name":"Read","input_schema":{schema}}}]}}').body
    assert json.loads(sent)["input"][0]["arguments"] == given
    assert schema.encode() in sent
    assert rb'"output":"\u2713 a\/b"' in sent


def test_a_session_is_the_key_of_the_cache_where_there_is_such_a_field():
    assert json.loads(sent_for({}, session="s").body)["prompt_cache_key"] == "s"
    assert "prompt_cache_key" not in json.loads(sent_for({}).body)
    assert "prompt_cache_key" not in json.loads(sent_for({}, "generic", session="s").body)


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("gpt-5-mini", "max", "high"),
        ("gpt-5.1", "xhigh", "high"),
        ("gpt-5.6-sol", "max", "xhigh"),
        ("gpt-5.3-codex", "max", "xhigh"),
        ("gpt-6-sol", "max", "max"),
        ("gpt-6-astra", "low", "low"),
        ("o4-mini", "xhigh", "high"),
        ("gpt-5-pro", "low", "high"),
        ("gpt-4.1", "high", None),
    ],
)
def test_an_effort_that_the_model_lacks_becomes_the_nearest(model, effort, sent):
    body = {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}
    asked = json.loads(sent_for(body, model=model).body)
    assert asked.get("reasoning", {}).get("effort") == sent
    assert ("reasoning" in asked) is (sent is not None)


@pytest.mark.parametrize(
    ("thinking", "sent"),
    [
        (None, None),
        ({"type": "adaptive"}, {"summary": "auto"}),
        ({"type": "adaptive", "display": "omitted"}, None),
        ({"type": "enabled", "budget_tokens": 3999}, {"effort": "low", "summary": "auto"}),
        ({"type": "enabled", "budget_tokens": 4000}, {"effort": "medium", "summary": "auto"}),
        ({"type": "enabled", "budget_tokens": 16000}, {"effort": "high", "summary": "auto"}),
        ({"type": "disabled"}, {"effort": "none"}),
    ],
    ids=str,
)
def test_thinking_is_asked_for_as_the_client_asks(thinking, sent):
    body = {"thinking": thinking} if thinking else {"output_config": {"effort": "high"}}
    assert json.loads(sent_for(body).body).get("reasoning") == sent


def test_models_that_cannot_be_switched_off_think_as_little_as_they_can():
    asked = json.loads(sent_for({"thinking": {"type": "disabled"}}, model="gpt-6-astra").body)
    assert asked["reasoning"] == {"effort": "low"}


UNTRANSLATABLE = [
    (
        {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]},
        "the request offers only tools that Anthropic itself defines (web_fetch)",
    ),
    ({"thread": {"type": "continue", "previous_message_id": "msg_fake"}}, "the request continues a thread"),
    ({"compaction": {"type": "summarize"}}, "the request asks for a compaction"),
]


@pytest.mark.parametrize(("body", "why"), UNTRANSLATABLE, ids=lambda value: str(value)[:40])
def test_some_requests_only_anthropic_can_serve(body, why):
    raw = json.dumps({"messages": [], **body}).encode()
    assert untranslatable(Body.parse(raw), DIALECTS["openai"]).startswith(why)
    with pytest.raises(UntranslatableError, match=re.escape(why)):
        sent_for(body)


def test_a_search_is_served_where_the_provider_has_one():
    raw = Body.parse(json.dumps({"messages": [], "tools": [SEARCH]}).encode())
    served = {name for name, row in DIALECTS.items() if not untranslatable(raw, row)}
    assert served == {"openai", "azure", "openrouter", "xai", "codex"}


def test_text_of_ours_names_tools_as_they_are_sent():
    """A name that is too long is shortened; the model knows no other."""
    name = "mcp__server__" + "tool." * 15
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    messages = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": name, "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [image]}]},
    ]
    tools, choice = [READ | {"name": name}], {"type": "tool", "name": name}
    sent = sent_for({"messages": messages, "tools": tools, "tool_choice": choice}, "ollama").body.decode()
    assert name not in sent
    assert sent.count(json.loads(sent)["tools"][0]["name"]) == 4, "offered, called, shown, asked for"
