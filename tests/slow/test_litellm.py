"""A real LiteLLM gateway as provider: what it says itself, and what comes of it through the router."""

import json
import time
from collections.abc import Callable, Iterator

import anthropic
import openai
import pytest

from tests.support.answers import Answer, error_json, json_answer, message_json
from tests.support.fake_provider import Received, Upstream
from tests.support.litellm import LiteLLM
from tests.support.router_process import Router

pytestmark = [
    pytest.mark.slow,
    pytest.mark.litellm,
    pytest.mark.timeout(420),
]  # the first one may have to install it

LOGIN = "sk-ant-oat01-fake-login-of-nobody"
OPUS = "claude-opus-4-5"
TEXT = "The train leaves at ten past five."
RIVERSIDE, HARBOUR = {"station": "Riverside"}, {"station": "Harbour", "platforms": [1, 2]}
QUESTION = {"role": "user", "content": "When does the train leave?"}
SCHEMA = {"type": "object", "properties": {"station": {"type": "string"}}, "required": ["station"]}
TOOL = {"name": "get_time", "description": "When a train leaves", "input_schema": SCHEMA}


@pytest.fixture
def chat(litellm: LiteLLM) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{litellm.url}/v1", api_key=litellm.key, max_retries=0, timeout=30) as one:
        yield one


def rules(litellm: LiteLLM, first: Upstream) -> str:
    """Over which protocol LiteLLM is asked, a header says."""
    return f"""
providers:
  first-messages: {{url: "{first.url}", key: first-key-for-tests-01}}
  first-chat: {{url: "{first.url}", key: first-key-for-tests-01}}
  messages: {{url: "{litellm.url}", key: {litellm.key}, key_header: authorization}}
  chat: {{url: "{litellm.url}/v1", api: openai, key: {litellm.key}}}
rules:
  - {{match: {{model: claude, header: {{x-over: messages}}}}, to: [first-messages, messages/text]}}
  - {{match: {{model: claude, header: {{x-over: chat}}}}, to: [first-chat, chat/text]}}
  - {{match: {{header: {{x-over: chat}}}}, to: chat}}
  - {{match: "*", to: messages}}
"""


@pytest.fixture(scope="module")
def through(
    litellm: LiteLLM, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[anthropic.Anthropic, Upstream]]:
    """A client of a router before LiteLLM, and the scripted upstream that it may ask first."""
    folder = tmp_path_factory.mktemp("through")
    with (
        Upstream() as first,
        Router(folder, first.url, rules=rules(litellm, first)) as router,
        anthropic.Anthropic(base_url=router.url, auth_token=LOGIN, max_retries=0, timeout=30) as client,
    ):
        yield client, first


@pytest.fixture(params=["messages", "chat"])
def over(request: pytest.FixtureRequest) -> str:
    """The protocol between the router and LiteLLM."""
    protocol: str = request.param
    return protocol


@pytest.fixture
def claude(through: tuple[anthropic.Anthropic, Upstream], over: str) -> anthropic.Anthropic:
    return through[0].with_options(default_headers={"x-over": over})


def test_it_speaks_chat_completions(chat):
    answer = chat.chat.completions.create(model="text", messages=[QUESTION])
    assert answer.choices[0].message.content == TEXT
    chunks = list(chat.chat.completions.create(model="text", messages=[QUESTION], stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT


def test_it_calls_tools_in_chat_completions(chat):
    function = {"name": "get_time", "parameters": SCHEMA}
    asked = {"messages": [QUESTION], "tools": [{"type": "function", "function": function}]}
    calls = chat.chat.completions.create(model="tools", **asked).choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [RIVERSIDE, HARBOUR]
    with chat.chat.completions.stream(model="tools", **asked) as stream:
        final = stream.get_final_completion().choices[0]
    assert [json.loads(call.function.arguments) for call in final.message.tool_calls] == [RIVERSIDE, HARBOUR]
    assert final.finish_reason == "tool_calls"


def test_its_text_comes_through(claude):
    answer = claude.messages.create(model="text", max_tokens=100, messages=[QUESTION])
    assert [block.text for block in answer.content] == [TEXT]
    assert answer.stop_reason == "end_turn"


def test_its_streamed_text_comes_through(claude):
    with claude.messages.stream(model="text", max_tokens=100, messages=[QUESTION]) as stream:
        assert "".join(stream.text_stream) == TEXT
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 17)


@pytest.mark.parametrize("streamed", [False, True])
def test_its_tool_calls_come_through(claude, streamed):
    asked = {"model": "tools", "max_tokens": 100, "messages": [QUESTION], "tools": [TOOL]}
    if streamed:
        with claude.messages.stream(**asked) as stream:
            answer = stream.get_final_message()
    else:
        answer = claude.messages.create(**asked)
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert [(call.name, call.input) for call in calls] == [("get_time", RIVERSIDE), ("get_time", HARBOUR)]
    assert answer.stop_reason == "tool_use"


def test_system_tools_and_results_reach_it(claude):
    call = {"type": "tool_use", "id": "toolu_fake", "name": "get_time", "input": RIVERSIDE}
    result = {"type": "tool_result", "tool_use_id": "toolu_fake", "content": "05:10"}
    messages = [QUESTION, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    answer = claude.messages.create(
        model="echo", max_tokens=100, system="Be brief.", messages=messages, tools=[TOOL]
    )
    told = json.loads(answer.content[0].text)
    assert [message["role"] for message in told["messages"]] == ["system", "user", "assistant", "tool"]
    assert told["messages"][3]["content"] == "05:10"
    assert told["tools"][0]["function"]["name"] == "get_time"


def test_it_answers_where_the_first_target_is_used_up(claude, through, over):
    first = through[1]
    first.reset()
    first.answer(error_json(429, "rate_limit_error"))
    answer = claude.messages.with_raw_response.create(
        model="claude", max_tokens=100, messages=[QUESTION], stream=True
    )
    assert answer.headers["x-signalbox-attempts"] == f"first-{over}:429 {over}:200"
    assert answer.headers["x-signalbox-model"] == "text"
    events = list(answer.parse())
    assert "".join(event.delta.text for event in events if event.type == "content_block_delta") == TEXT
    assert events[0].message.model == "claude"
    assert len(first.requests) == 1


def test_a_model_that_it_does_not_know_is_its_own_error(claude):
    with pytest.raises(anthropic.APIStatusError) as refused:
        claude.messages.create(model="nobody", max_tokens=100, messages=[QUESTION])
    assert 400 <= refused.value.status_code < 500
    assert "nobody" in refused.value.message


def anthropic_over_its_mark(request: Received) -> Answer:
    """Lists one model, answers all else, and tells that nine tenths of the five hours are used."""
    listed = request.path.startswith("/v1/models")
    answer = json_answer({"data": [{"id": OPUS, "display_name": "Opus"}]}) if listed else message_json(OPUS)
    used = {"utilization": "0.91", "status": "allowed_warning", "reset": str(int(time.time()) + 3600)}
    headers = ((f"anthropic-ratelimit-unified-5h-{name}", value) for name, value in used.items())
    return Answer(answer.status, (*answer.headers, *headers), answer.chunks)


def test_it_takes_over_from_a_plan_that_is_over_its_mark_and_its_models_are_listed(
    start_router: Callable[..., Router], litellm: LiteLLM, upstream: Upstream
):
    upstream.answer(anthropic_over_its_mark)
    router = start_router(
        upstream.url,
        rules=f"""
providers:
  anthropic:
    url: "{upstream.url}"
    auth: client
    quota: {{redirect_at: {{5h: 90, 7d: 90, overage: 80}}, probe: 0s}}
  litellm: {{url: "{litellm.url}", key: {litellm.key}, key_header: authorization, models: list}}
rules:
  - {{match: "claude-*", to: [anthropic, litellm/text]}}
  - {{match: "*", to: litellm}}
""",
    )
    with anthropic.Anthropic(base_url=router.url, auth_token=LOGIN, max_retries=0, timeout=30) as client:
        asked = {"model": OPUS, "max_tokens": 100, "messages": [QUESTION]}
        answers = [client.messages.with_raw_response.create(**asked) for _ in range(2)]
        listed = [model.id for model in client.models.list()]
        picked = client.messages.create(**asked | {"model": "claude-router-text"})
    told = [answer.headers["x-signalbox-attempts"] for answer in answers]
    assert told == ["anthropic:200", "litellm:200"]
    assert answers[1].parse().content[0].text == picked.content[0].text == TEXT
    assert not any("ratelimit-unified" in name for name in answers[1].headers)
    assert listed == [OPUS, *(f"claude-router-{model}" for model in litellm.models)]
    router.wait_log(r"mode transition: anthropic -> litellm \(5h=91%, 7d=0%, overage=0%\)")
