"""A conversation changes providers at any turn, and nobody is sent what it would refuse."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import cycle

import pytest

from tests.answers import (
    USAGE,
    Answer,
    error_json,
    event,
    json_answer,
    message_events,
    message_json,
    sse,
    text_block,
    thinking_block,
    tool_block,
)
from tests.conversation import SESSION, Conversation
from tests.running import Router
from tests.strict import (
    CarelessProvider,
    DefaultThinker,
    LaxProvider,
    StrictAnthropic,
    UnsignedProvider,
    uncached,
)
from tests.upstream import Received, Upstream

ROUTER = Router

LOGIN = "Bearer sk-ant-oat01-fake-login-of-nobody"
PROVIDERS = ("anthropic", "zai", "kimi", "deepseek")


@pytest.fixture
def upstreams() -> Iterator[dict[str, Upstream]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(Upstream()) for name in PROVIDERS}


def rules(upstreams: dict[str, Upstream]) -> str:
    auth = {name: f"key: {name}-key" for name in PROVIDERS} | {"anthropic": "auth: client"}
    lines = [f"  {name}: {{url: '{one.url}', {auth[name]}}}\n" for name, one in upstreams.items()]
    providers = "".join(lines)
    matches = "".join(f"  - {{match: '{name}-*', to: {name}}}\n" for name in PROVIDERS)
    return f"providers:\n{providers}rules:\n{matches}"


def sender(
    router: Router, path: str = "/v1/messages?beta=true"
) -> Callable[[bytes, dict[str, str]], tuple[int, bytes]]:
    def send(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=15)) as connection:
            connection.request("POST", path, body, {"Authorization": LOGIN} | headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    return send


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("thinking", ["adaptive", "enabled"])
def test_thirty_turns_switch_provider_at_every_turn_without_one_error(
    start_router, upstreams, thinking, stream
):
    modes = ("adaptive", "enabled")
    upstreams["anthropic"].answer(StrictAnthropic("anthropic", modes=modes, bound=True, redacts=True))
    upstreams["zai"].answer(LaxProvider("zai"))
    upstreams["kimi"].answer(LaxProvider("kimi", rejects=("context_management",)))
    upstreams["deepseek"].answer(UnsignedProvider("deepseek"))
    router = start_router(upstreams["anthropic"].url, rules=rules(upstreams))
    conversation = Conversation(sender(router), thinking=thinking, stream=stream)
    for turn in range(30):
        conversation.turn(f"{PROVIDERS[(turn * 3 + turn // 4) % 4]}-model")
    assert {name for name, one in upstreams.items() if one.requests} == set(PROVIDERS)
    attempts = [record["attempts"] for record in router.records(30)]
    assert {*attempts} == {f"{name}:200" for name in PROVIDERS} | {"kimi:400 kimi:200"}
    for name, one in upstreams.items():
        assert any(SESSION.encode() in each.body for each in one.requests) is (name == "anthropic")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_what_anthropic_refuses_of_the_answers_of_others_is_made_valid_for_forty_turns(
    start_router, upstreams, stream
):
    """And the same each time: its thinking is bound to every block before it."""
    upstreams["anthropic"].answer(StrictAnthropic(bound=True))
    upstreams["kimi"].answer(CarelessProvider("kimi"))
    router = start_router(upstreams["anthropic"].url, rules=rules(upstreams))
    conversation = Conversation(sender(router), stream=stream)
    for turn in range(40):
        conversation.turn("kimi-model" if turn % 5 < 2 else "anthropic-model")
    assert {record["attempts"] for record in router.records(40)} == {"kimi:200", "anthropic:200"}
    earlier, later = (one.json["messages"] for one in upstreams["anthropic"].requests[-2:])
    assert uncached(later[: len(earlier)]) == uncached(earlier)


WANTED = "The `content[].thinking` in the thinking mode must be passed back to the API."


@pytest.mark.parametrize("thinking", ["adaptive", "enabled", None])
def test_thinking_that_a_provider_wants_back_of_the_answers_of_others_has_placeholders(
    router, upstreams, thinking
):
    upstreams["anthropic"].answer(StrictAnthropic())
    upstreams["deepseek"].answer(DefaultThinker("deepseek", WANTED))
    conversation = Conversation(sender(router), thinking=thinking)
    for model in ("anthropic", "anthropic", "deepseek", "deepseek", "anthropic", "deepseek"):
        conversation.turn(f"{model}-model")
    attempts = [record["attempts"] for record in router.records(6)]
    assert attempts[2] == "deepseek:400 deepseek:200"
    assert set(attempts[3:]) == {"deepseek:200", "anthropic:200"}
    assert [one.json.get("thinking", {}).get("type") for one in upstreams["deepseek"].requests] == [
        None if thinking == "enabled" else thinking,
        *[thinking] * 3,
    ]


def test_a_provider_that_takes_no_placeholders_is_told_not_to_think_where_it_says_so(router, upstreams):
    """Each kind of refusal is mended once."""
    missing = "Expected `thinking` or `redacted_thinking`. To avoid this requirement, disable `thinking`."
    for words, again, statuses in [
        (WANTED, missing, "deepseek:400 deepseek:400 deepseek:200"),
        (missing, "", "deepseek:400 deepseek:200"),
        (WANTED, WANTED, "deepseek:400 deepseek:400"),
    ]:
        upstreams["deepseek"].reset()
        upstreams["deepseek"].answer(DefaultThinker("deepseek", words, again=again))
        body = json.loads(history("deepseek-x", "Zm9yZWlnbg"))
        sender(router)(json.dumps(body | {"thinking": {"type": "adaptive"}}).encode(), {})
        assert router.records(1)[-1]["attempts"] == statuses
        router.forget()
        last = upstreams["deepseek"].requests[-1].json
        assert last["thinking"] == {"type": "adaptive" if again == WANTED else "disabled"}


def test_two_routers_that_share_their_state_take_turns_in_one_conversation(start_router, upstreams, tmp_path):
    """What one has just delivered the other knows: foreign thinking is refused, and missing thinking too."""
    upstreams["anthropic"].answer(StrictAnthropic("anthropic"))
    upstreams["zai"].answer(LaxProvider("zai"))
    upstreams["deepseek"].answer(UnsignedProvider("deepseek"))
    routers = [
        start_router(upstreams["anthropic"].url, rules=rules(upstreams), state=tmp_path / "state")
        for _ in range(2)
    ]
    senders = cycle(map(sender, routers))
    conversation = Conversation(lambda body, headers: next(senders)(body, headers))
    for turn in range(30):
        conversation.turn(f"{('deepseek', 'zai', 'anthropic', 'deepseek')[turn % 4]}-model")
    for router in routers:
        assert {record["attempts"] for record in router.records(15)} == {
            "deepseek:200",
            "zai:200",
            "anthropic:200",
        }


@pytest.mark.parametrize("thinking", ["adaptive", "enabled"])
def test_thinking_that_is_bound_to_another_conversation_is_mended_by_one_more_try(
    router, upstreams, thinking
):
    """As after a client has changed what was said before: also within a running tool loop."""
    upstreams["anthropic"].answer(StrictAnthropic(bound=True))
    conversation = Conversation(sender(router), thinking=thinking)
    conversation.turn("anthropic-model")
    conversation.history[0]["content"][-1]["text"] += " (edited)"
    for _ in range(3):
        conversation.turn("anthropic-model")
    attempts = [record["attempts"] for record in router.records(4)]
    assert attempts == ["anthropic:200", "anthropic:400 anthropic:200", "anthropic:200", "anthropic:200"]


@pytest.fixture
def router(start_router: Callable[..., Router], upstreams: dict[str, Upstream]) -> Router:
    return start_router(upstreams["anthropic"].url, rules=rules(upstreams))


def history(model: str, signature: str, *, stream: bool = False) -> bytes:
    thinking = {"type": "thinking", "thinking": "hm", "signature": signature}
    return json.dumps(
        {
            "model": model,
            "max_tokens": 64,
            "stream": stream,
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": [thinking, {"type": "text", "text": "b"}]},
                {"role": "user", "content": "c"},
            ],
        }
    ).encode()


SIGNATURE = "messages.1.content.0: Invalid `signature` in `thinking` block"


def test_a_signature_that_anthropic_refuses_is_mended_by_one_more_try(router, upstreams):
    home = upstreams["anthropic"]
    home.answer(error_json(400, "invalid_request_error", SIGNATURE), message_json("anthropic-x"))
    status, _ = sender(router)(history("anthropic-x", "dW5rbm93bg"), {"X-Claude-Code-Session-Id": "s1"})
    assert status == 200
    refused, mended = home.wait_for(2)
    assert b"dW5rbm93bg" in refused.body
    assert b"thinking" not in mended.body
    assert mended.header("authorization") == LOGIN
    sender(router)(history("anthropic-x", "dW5rbm93bg"), {"X-Claude-Code-Session-Id": "s1"})
    assert b"thinking" not in home.wait_for(3)[2].body
    assert router.records(1)[0]["attempts"] == "anthropic:400 anthropic:200"


def test_a_signature_that_is_refused_twice_is_told_as_it_was_said(router, upstreams):
    refusal = error_json(400, "invalid_request_error", SIGNATURE)
    upstreams["anthropic"].answer(refusal)
    status, body = sender(router)(history("anthropic-x", "dW5rbm93bg"), {})
    assert (status, body) == (400, refusal.body)
    assert len(upstreams["anthropic"].requests) == 2


def test_another_400_passes_unmodified_at_once(router, upstreams):
    refusal = error_json(400, "invalid_request_error", "max_tokens: 99 > 64")
    upstreams["anthropic"].answer(refusal)
    assert sender(router)(history("anthropic-x", "dW5rbm93bg"), {}) == (400, refusal.body)
    assert len(upstreams["anthropic"].requests) == 1


def test_what_a_provider_rejects_is_left_out_from_then_on(router, upstreams):
    said = error_json(400, "invalid_request_error", "context_management: Extra inputs are not permitted")
    upstreams["zai"].answer(said, message_json("zai-x"))
    body = json.dumps({"model": "zai-x", "messages": [], "context_management": {"edits": []}}).encode()
    headers = {"anthropic-beta": "context-management-2025-06-27,effort-2025-11-24"}
    for _ in range(2):
        assert sender(router)(body, headers)[0] == 200
    sent = upstreams["zai"].wait_for(3)
    assert ["context_management" in one.json for one in sent] == [True, False, False]
    assert [one.header("anthropic-beta") for one in sent[1:]] == ["effort-2025-11-24"] * 2
    router.wait_log("zai does not take context_management: left out from now on")
    assert router.health()["providers"]["zai"]["rejects"] == {"zai-x": ["context_management"]}


def test_what_is_refused_where_tokens_are_counted_is_not_left_out_of_messages(router, upstreams):
    """Counting takes less than the messages path does."""
    said = error_json(400, "invalid_request_error", "temperature: Extra inputs are not permitted")
    upstreams["zai"].answer(said, message_json("zai-x"))
    body = history("zai-x", "c2ln").replace(b'"max_tokens"', b'"temperature": 1, "max_tokens"')
    assert sender(router, "/v1/messages/count_tokens")(body, {}) == (400, said.body)
    assert sender(router)(body, {})[0] == 200
    assert [one.json["temperature"] for one in upstreams["zai"].requests] == [1, 1]


TOO_LONG = {"error": {"code": "1261", "message": "The model has reached its context window limit."}}


@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_a_context_error_of_others_is_said_in_the_words_that_claude_code_compacts_on(
    router, upstreams, status
):
    upstreams["zai"].answer(json_answer(TOO_LONG, status))
    answered, body = sender(router)(history("zai-x", "c2ln"), {})
    assert answered == 400
    error = json.loads(body)["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("prompt is too long")


TOO_LONG_EVENT = event("error", error={"type": "1261", "message": "Input tokens 250000 exceed limit 200000"})
START = message_events("glm", [text_block("")], ["never"], USAGE, USAGE)[:2]


@pytest.mark.parametrize("before", [[], START], ids=["at once", "after message_start"])
def test_a_context_error_in_a_stream_is_said_in_those_words_before_anything_of_an_answer(
    router, upstreams, before
):
    upstreams["zai"].answer(sse(*before, TOO_LONG_EVENT))
    status, body = sender(router)(history("zai-x", "c2ln", stream=True), {})
    *_, last = body.strip().split(b"\n\n")
    name, data = last.split(b"\n")
    assert (status, name) == (200, b"event: error")
    assert json.loads(data.removeprefix(b"data: "))["error"] == {
        "type": "invalid_request_error",
        "message": "prompt is too long: 250000 tokens > 200000 maximum",
    }


@pytest.mark.parametrize("ends", [True, False])
def test_a_context_error_in_a_stream_that_was_held_is_a_400(start_router, upstreams, ends):
    """Nothing of that stream had gone to the client, and nobody takes over."""
    text = rules(upstreams).replace(
        "'zai-*', to: zai}", "'zai-*', to: [zai, kimi], failover: {on: [connect]}}"
    )
    router = start_router(upstreams["anthropic"].url, rules=text)
    never = threading.Event()
    upstreams["zai"].answer(sse(*START, TOO_LONG_EVENT, *([] if ends else [never])), message_json("zai-x"))
    status, body = sender(router)(history("zai-x", "c2ln", stream=True), {})
    assert status == 400
    assert json.loads(body)["error"]["message"].startswith("prompt is too long: 250000 tokens > 200000")
    assert not upstreams["kimi"].requests
    never.set()
    assert sender(router)(history("zai-x", "c2ln"), {})[0] == 200


def test_an_error_after_the_beginning_of_an_answer_passes_as_it_was_said(router, upstreams):
    begun = message_events("glm", [text_block("")], ["begun"], USAGE, USAGE)[:4]
    upstreams["zai"].answer(sse(*begun, TOO_LONG_EVENT))
    _, body = sender(router)(history("zai-x", "c2ln", stream=True), {})
    assert body.endswith(TOO_LONG_EVENT)


def test_a_context_error_in_a_stream_of_anthropic_passes_unmodified(router, upstreams):
    said = sse(*START, TOO_LONG_EVENT)
    upstreams["anthropic"].answer(said)
    assert sender(router)(history("anthropic-x", "c2ln", stream=True), {}) == (200, said.body)


def test_a_lone_stream_that_does_not_say_that_it_is_one_is_not_held(router, upstreams):
    go_on = threading.Event()
    start, ping, *rest = message_events("zai-x", [text_block("")], ["late"], USAGE, USAGE)
    upstreams["zai"].answer(Answer(200, (), (start, ping, go_on, *rest), "chunked"))
    with closing(http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=15)) as connection:
        connection.request("POST", "/v1/messages", history("zai-x", "c2ln", stream=True))
        answer = connection.getresponse()
        assert b"message_start" in answer.read1()
        go_on.set()
        assert b"late" in answer.read()


def test_a_context_error_of_anthropic_passes_unmodified(router, upstreams):
    said = error_json(400, "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum")
    upstreams["anthropic"].answer(said)
    assert sender(router)(history("anthropic-x", "c2ln"), {}) == (400, said.body)


def test_an_error_of_others_that_is_none_of_these_passes_unmodified(router, upstreams):
    said = Answer(418, (("Content-Type", "text/html"),), (b"<html>teapot</html>",))
    upstreams["zai"].answer(said)
    assert sender(router)(history("zai-x", "c2ln"), {}) == (418, said.body)


def together(router: Router, body: bytes, headers: dict[str, str]) -> list[int]:
    """The statuses of two requests at once."""
    with ThreadPoolExecutor(2) as pool:
        return [status for status, _ in pool.map(lambda _: sender(router)(body, headers), range(2))]


@pytest.mark.parametrize(
    ("model", "said"), [("anthropic-x", SIGNATURE), ("zai-x", "temperature: Extra inputs are not permitted")]
)
def test_what_is_refused_to_two_at_once_is_mended_for_both(router, upstreams, model, said):
    both, refused = threading.Event(), []

    def answer(received: Received) -> Answer:
        if (b"thinking" if model == "anthropic-x" else b"temperature") not in received.body:
            return message_json(model)
        refused.append(received)
        if len(refused) == 2:
            both.set()
        return replace(error_json(400, "invalid_request_error", said), wait=both)

    upstreams[model.partition("-")[0]].answer(answer)
    body = history(model, "dW5rbm93bg").replace(b'"max_tokens"', b'"temperature": 1, "max_tokens"')
    assert together(router, body, {"X-Claude-Code-Session-Id": "both"}) == [200, 200]


def test_thinking_issued_after_a_refusal_goes_back_and_thinking_is_not_switched_off(router, upstreams):
    home, session = upstreams["anthropic"], {"X-Claude-Code-Session-Id": "later"}
    issued = message_json("anthropic-x", before=[thinking_block(signature="aXNzdWVkIGxhdGVy")])
    home.answer(error_json(400, "invalid_request_error", SIGNATURE), issued)
    assert sender(router)(history("anthropic-x", "dW5rbm93bg"), session)[0] == 200
    later = json.loads(history("anthropic-x", "aXNzdWVkIGxhdGVy"))
    later["thinking"] = {"type": "enabled", "budget_tokens": 2000}
    sender(router)(json.dumps(later).encode(), session)
    sent = home.wait_for(3)[2].json
    assert sent["thinking"]["type"] == "enabled"
    assert sent["messages"][1]["content"][0]["signature"] == "aXNzdWVkIGxhdGVy"


def test_where_thinking_is_missing_what_there_is_of_it_is_sent_again_next_time(router, upstreams):
    missing = "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`."
    home, session = upstreams["anthropic"], {"X-Claude-Code-Session-Id": "missing"}
    home.answer(error_json(400, "invalid_request_error", missing), message_json("anthropic-x"))
    assert sender(router)(history("anthropic-x", "dW5rbm93bg"), session)[0] == 200
    sender(router)(history("anthropic-x", "dW5rbm93bg"), session)
    _, mended, later = home.wait_for(3)
    assert b"dW5rbm93bg" not in mended.body
    assert b"dW5rbm93bg" in later.body


def test_a_login_keeps_its_beta_where_it_goes_itself(start_router, upstreams):
    text = rules(upstreams).replace("auth: client", "auth: client, beta: learn")
    router = start_router(upstreams["anthropic"].url, rules=text)
    sender(router)(history("anthropic-x", "c2ln"), {"anthropic-beta": "oauth-2025-04-20"})
    assert upstreams["anthropic"].wait_for(1)[0].header("anthropic-beta") == "oauth-2025-04-20"


def test_a_rate_limit_of_others_is_not_a_prompt_too_long(router, upstreams):
    said = error_json(429, "rate_limit_error", "input token limit exceeded: 100000 tokens per minute")
    upstreams["zai"].answer(said)
    assert sender(router)(history("zai-x", "c2ln"), {}) == (429, said.body)


def test_a_tools_input_is_never_taken_for_a_field(router, upstreams):
    said = error_json(
        400,
        "invalid_request_error",
        "messages.1.content.0.tool_use.input.path: Extra inputs are not permitted",
    )
    upstreams["zai"].answer(said)
    body = json.dumps(
        {
            "model": "zai-x",
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": [tool_block(path="kept", mode="kept")]},
            ],
        }
    ).encode()
    assert sender(router)(body, {}) == (400, said.body)
    assert len(upstreams["zai"].requests) == 1


def test_half_a_character_is_routed_and_stays_as_it_came(router, upstreams):
    """JavaScript sends these where a text was cut in the middle of an emoji."""
    half = history("zai-x", "c2ln").replace(b'"content": "c"', rb'"content": "\ud83d c"')
    assert sender(router)(half, {})[0] == 200
    sent = upstreams["zai"].wait_for(1)[0].body
    assert rb'"content": "\ud83d c"' in sent
    assert b"thinking" not in sent
    home = half.replace(b"zai-x", b"anthropic-x")
    sender(router)(home, {})
    assert upstreams["anthropic"].wait_for(1)[0].body == home


def test_a_session_has_one_name_at_all_other_providers_and_keeps_it(start_router, upstreams, tmp_path):
    state, body = tmp_path / "state", json.loads(history("zai-x", "c2ln"))
    for model in ("zai-x", "kimi-x", "anthropic-x"):
        router = start_router(upstreams["anthropic"].url, rules=rules(upstreams), state=state)
        sender(router)(json.dumps(body | {"model": model, "metadata": {"user_id": SESSION}}).encode(), {})
        router.stop()
    zai, kimi, home = (
        upstreams[name].wait_for(1)[0].json["metadata"]["user_id"] for name in ("zai", "kimi", "anthropic")
    )
    assert home == SESSION
    assert zai == kimi
    assert zai.startswith("user_")
