"""The scripted providers against a conversation, without any router between them."""

import json
from collections.abc import Callable

import pytest

from signalbox.anthropic.json_edit import Body
from tests.support.answers import Answer
from tests.support.conversation import BETAS, HEADERS, Conversation, Send
from tests.support.fake_provider import Received
from tests.support.request_validator import content, running
from tests.support.strict_providers import THINKING, LaxProvider, Provider, StrictAnthropic, UnsignedProvider

TURNS = 30


def direct(provider: Callable[[], Provider], change: Callable[[dict], None] = lambda body: None) -> Send:
    """Sends to whom `provider` names at the moment, after a change of the body."""

    def send(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        asked = json.loads(body)
        change(asked)
        answer = ask(provider(), asked, headers)
        return answer.status, answer.body

    return send


def ask(provider: Provider, body: dict, headers: dict[str, str] = HEADERS) -> Answer:
    received = Received(
        "POST", "/v1/messages?beta=true", list(headers.items()), json.dumps(body).encode(), 0, 0
    )
    return provider(received)


def refusal(provider: Provider, body: dict, headers: dict[str, str] = HEADERS) -> str:
    answer = ask(provider, body, headers)
    assert answer.status == 400
    return json.loads(answer.body)["error"]["message"]


def held(provider: Provider, turns: int, **settings) -> dict:
    """The next request of a conversation that had so many turns with one provider."""
    conversation = Conversation(direct(lambda: provider), **settings)
    for _ in range(turns):
        conversation.turn("claude-opus-5")
    return json.loads(conversation.body("claude-opus-5"))


def without_thinking(body: dict) -> None:
    for message in body["messages"]:
        blocks = [
            block for block in content(message) if block["type"] not in ("thinking", "redacted_thinking")
        ]
        message["content"] = blocks


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("provider", "settings"),
    [
        (StrictAnthropic(), {}),
        (StrictAnthropic(bound=True, redacts=True), {"display": "omitted"}),
        (StrictAnthropic(redacts=True), {"thinking": "enabled"}),
        (StrictAnthropic(), {"thinking": "disabled"}),
        (LaxProvider("zai"), {}),
        (UnsignedProvider("deepseek"), {}),
    ],
)
def test_a_conversation_with_one_provider_goes_on_for_thirty_turns(provider, settings, stream):
    conversation = Conversation(direct(lambda: provider), stream=stream, **settings)
    kinds = {block["type"] for _ in range(TURNS) for block in conversation.turn("claude-opus-5")}
    assert kinds >= {"text", "tool_use"}
    assert ("thinking" in kinds) is (settings.get("thinking") != "disabled")
    assert ("redacted_thinking" in kinds) is provider.redacts


@pytest.mark.parametrize("bound", [True, False])
def test_a_switch_of_providers_is_refused_unless_thinking_is_dropped(bound):
    providers = [StrictAnthropic(bound=bound), LaxProvider("zai"), UnsignedProvider("deepseek")]
    turn = iter(range(TURNS))
    conversation = Conversation(direct(lambda: providers[next(turn) % 3]))
    conversation.turn("claude-opus-5")
    conversation.turn("claude-opus-5")
    with pytest.raises(AssertionError, match="not of this provider"):
        conversation.turn("claude-opus-5")
    with pytest.raises(AssertionError, match=r"Invalid `signature`|Field required"):
        conversation.turn("claude-opus-5")


@pytest.mark.parametrize("thinking", ["adaptive", "enabled"])
@pytest.mark.parametrize("bound", [True, False])
def test_a_conversation_may_switch_at_every_turn_if_each_gets_its_own_thinking_alone(bound, thinking):
    providers = [
        StrictAnthropic(bound=bound, redacts=True),
        LaxProvider("zai"),
        UnsignedProvider("deepseek"),
        LaxProvider("kimi"),
    ]
    issued: dict[str, str] = {}
    now = providers[0]

    def own_alone(body: dict) -> None:
        loop = running(body["messages"])
        for n, message in enumerate(body["messages"]):
            kept = [block for block in content(message) if issued.get(identity(block), now.name) == now.name]
            if n in loop and len(kept) < len(content(message)) and thinking == "enabled":
                body.pop("thinking", None)
            message["content"] = kept

    conversation = Conversation(direct(lambda: now, own_alone), thinking=thinking)
    for n in range(TURNS):
        now = providers[n % len(providers)]
        for block in conversation.turn("claude-opus-5"):
            if block["type"] in THINKING:
                issued[identity(block)] = now.name
    assert set(issued.values()) == {provider.name for provider in providers}


def identity(block: dict) -> str:
    """What tells a thinking block from others; empty for other blocks."""
    return block.get("signature") or block.get("data") or block.get("thinking") or ""


def test_thinking_dropped_altogether_is_accepted_by_the_strict_and_the_lax():
    providers = [StrictAnthropic(bound=True), LaxProvider("zai")]
    turn = iter(range(TURNS))
    conversation = Conversation(direct(lambda: providers[next(turn) % 2], without_thinking))
    for _ in range(TURNS):
        conversation.turn("claude-opus-5")


def test_a_signature_of_another_is_invalid():
    body = held(LaxProvider("zai"), 1)
    assert refusal(StrictAnthropic(), body) == "messages.1.content.0: Invalid `signature` in `thinking` block"


def test_a_block_without_signature_is_named():
    body = held(UnsignedProvider("deepseek"), 1)
    told = refusal(StrictAnthropic(), body)
    assert told == "messages.1.content.0.thinking.signature: Field required"


def test_a_bound_block_refuses_another_system_prompt():
    provider = StrictAnthropic(bound=True)
    body = held(provider, 1)
    body["system"][1]["text"] = "You are another."
    assert "bound to a different conversation" in refusal(provider, body)
    body["system"][1]["text"] = "You are a test."
    body["system"][0]["text"] = "x-anthropic-billing-header: cc_version=9;"
    assert ask(provider, body).status == 200


@pytest.mark.parametrize("lost", [0, 1])
def test_half_of_the_thinking_of_the_running_loop_is_modified_thinking(lost):
    provider = StrictAnthropic(redacts=True)
    body = held(provider, 1)
    del body["messages"][1]["content"][lost]
    assert "cannot be modified" in refusal(provider, body)


def test_edited_thinking_of_the_running_loop_is_modified_thinking():
    provider = StrictAnthropic()
    body = held(provider, 1)
    body["messages"][1]["content"][0]["thinking"] += "!"
    assert "cannot be modified" in refusal(provider, body)


def test_manual_thinking_wants_thinking_first_in_the_running_loop():
    provider = StrictAnthropic()
    body = held(provider, 1, thinking="enabled")
    without_thinking(body)
    assert "Expected `thinking` or `redacted_thinking`, but found `tool_use`" in refusal(provider, body)
    body["thinking"] = {"type": "adaptive"}
    assert ask(provider, body).status == 200


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("adaptive", "adaptive thinking is not supported on this model"),
        ("disabled", '"thinking.type.disabled" is not supported'),
    ],
)
def test_a_model_names_the_thinking_that_it_does_not_take(asked, told):
    body = {"model": "m", "max_tokens": 1, "messages": [user("a")]}
    provider = StrictAnthropic(modes=["enabled"])
    assert told in refusal(provider, body | {"thinking": {"type": asked}})
    assert ask(provider, body).status == 200


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def call(id: str) -> dict:
    return {"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "Read", "input": {}}]}


def result(id: str, *after: dict) -> dict:
    return {"role": "user", "content": [*after, {"type": "tool_result", "tool_use_id": id}]}


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([call("t")], "first message"),
        ([user("a"), {"role": "tool", "content": "a"}], "Unexpected role"),
        ([user("a"), {"role": "system", "content": "a"}, user("b")], "system message cannot"),
        ([user("a"), call("t"), user("b")], "without `tool_result` blocks immediately after: t"),
        ([user("a"), call("t"), result("u")], "without `tool_result`"),
        ([user("a"), call("t"), result("t"), user("b"), result("u")], "unexpected `tool_use_id`"),
        ([result("t")], "unexpected `tool_use_id`"),
        ([user("a"), call("t"), result("t", {"type": "text", "text": "x"})], "must come first"),
        ([user("a"), {"role": "assistant", "content": []}, user("b")], "non-empty content"),
        (
            [user("a"), {"role": "assistant", "content": [{"type": "text", "text": ""}]}, user("b")],
            "non-empty",
        ),
    ],
)
@pytest.mark.parametrize("provider", [StrictAnthropic(), LaxProvider("zai"), UnsignedProvider("deepseek")])
def test_nobody_takes_a_broken_history(provider, messages, told):
    assert told in refusal(provider, {"model": "m", "max_tokens": 1, "messages": messages})


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"diagnostic": {}}, "diagnostic: Extra inputs are not permitted"),
        ({"speed": "fast"}, "speed: Extra inputs are not permitted"),
        ({"tools": [{"name": "a", "allowed_caller": []}]}, "tools.0.custom.allowed_caller: Extra inputs"),
        ({"messages": [user("a") | {"id": 1}]}, "messages.0.id: Extra inputs"),
    ],
)
def test_the_strict_one_refuses_fields_that_it_does_not_know(changed, told):
    body = {"model": "m", "max_tokens": 1, "messages": [user("a")]}
    assert told in refusal(StrictAnthropic(), body | changed)


def test_a_field_needs_its_beta():
    body = held(StrictAnthropic(), 1)
    told = refusal(StrictAnthropic(), body, HEADERS | {"anthropic-beta": "claude-code-20250219"})
    assert told == "context_management: Extra inputs are not permitted"
    assert "context-management-2025-06-27" in BETAS


def test_cache_marks_are_counted_and_stand_on_no_thinking():
    provider = StrictAnthropic()
    body = held(provider, 1)
    mark = {"cache_control": {"type": "ephemeral"}}
    body["messages"][1]["content"][0] |= mark
    assert "thinking.cache_control: Extra inputs are not permitted" in refusal(provider, body)
    del body["messages"][1]["content"][0]["cache_control"]
    body["tools"] = [tool | mark for tool in body["tools"] * 2]
    assert "A maximum of 4 blocks with cache_control" in refusal(provider, body)


def test_the_unsigned_one_wants_its_own_thinking_back_and_no_other():
    provider = UnsignedProvider("deepseek")
    body = held(provider, 1)
    without_thinking(body)
    assert "must be passed back" in refusal(provider, body)
    assert "not of this provider" in refusal(provider, held(LaxProvider("zai"), 1))
    assert "not of this provider" in refusal(provider, held(UnsignedProvider("other"), 1))


def test_the_lax_one_takes_any_signature_but_not_every_field():
    body = held(StrictAnthropic(), 1)
    assert ask(LaxProvider("zai"), body).status == 200
    told = refusal(LaxProvider("zai", rejects=["context_management"]), body)
    assert told == "context_management: Extra inputs are not permitted"


def test_what_the_driver_sends_is_compact_json_with_the_model_first():
    conversation = Conversation(direct(lambda: LaxProvider("zai")))
    conversation.turn("claude-opus-5")
    raw = conversation.body("claude-opus-5")
    assert raw.startswith(b'{"model":"claude-opus-5","messages":[')
    assert Body.parse(raw).names()[-1] == "stream"
