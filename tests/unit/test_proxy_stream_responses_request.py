"""Requests to a provider of the Responses API: what it is sent, what it never sees, and what is repaired."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.answers import Answer, json_answer
from tests.support.chat import error
from tests.support.conversation import SESSION, Conversation, Send
from tests.support.playbook import Playbook, Provider, played
from tests.support.played_wire import Asked, Got, request
from tests.support.raw_client import both
from tests.support.strict_responses import ResponsesProvider, event, events, message, reasoning, response

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client}
  up: {url: "http://up.invalid/v1", api: responses, dialect: openai, key: up-key-for-tests-0001}
  openai:
    url: "http://api.openai.com/v1"
    api: responses
    key: up-key-for-tests-0002
    count_tokens: forward
  set:
    url: "http://up.invalid/v1"
    api: responses
    dialect: openai
    body: {set: {text: {verbosity: low}, reasoning: {effort: minimal}, seed: 7}, drop: [include]}
  local: {url: "http://up.invalid/v1", api: responses}
  bare: {url: "http://up.invalid/v1", api: responses, dialect: openai, beta: drop}
  mixed:
    url: "http://up.invalid"
    api: {"claude-*": anthropic, "gpt-*": responses, "*": openai}
    key: up-key-for-tests-0003
rules:
  - {match: "set-*", to: set/gpt-5.6-sol}
  - {match: "count-*", to: openai/gpt-5.6-sol}
  - {match: "local-*", to: [local/some-model, anthropic]}
  - {match: "bare-*", to: bare/gpt-5.6-terra}
  - {match: "alone-*", to: [local/some-model, local/another]}
  - {match: "then-home", to: [up/gpt-5.6-sol, anthropic]}
  - {match: "gpt-5.6-*", to: up}
  - {match: ["claude-opus-*", "gpt-*", "glm-*"], to: mixed}
  - {match: "*", to: up/gpt-5.6-sol}
"""
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
ADAPTIVE = {"type": "adaptive"}


def usual(asked: Asked) -> Answer:
    output = [message("Hello there.")]
    model = asked.json["model"]
    if not asked.json.get("stream"):
        return json_answer(response(model, output))
    return Answer(200, (("Content-Type", "text/event-stream"),), tuple(events(model, output)), "chunked")


@pytest.fixture
def up(played_router) -> Provider:
    provider = played_router.provider("up")
    provider.answer(usual)
    return provider


def ask(play: Playbook, model: str = "claude-sonnet-4-6", **more: Any) -> Got:
    got = play.ask(model, stream=True, **more)
    assert got.status == 200, got.body
    return got


def send_in(play: Playbook) -> Send:
    def send(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        play.hears_anew()
        play.client_sends(request(body, "/v1/messages?beta=true", **headers))
        return play.got.status, play.got.body

    return send


def test_a_request_arrives_with_the_providers_own_key_and_nothing_of_the_callers(play, up):
    ask(
        play,
        system="Be brief.",
        metadata={"user_id": "user_x_session_y"},
        headers={
            "user-agent": "claude-cli/2",
            "anthropic-beta": "x-1",
            "cookie": "a=b",
            "x-stainless-lang": "js",
        },
    )
    (sent,) = up.requests
    assert (sent.method, sent.path) == ("POST", "/v1/responses")
    assert sent.header("authorization") == "Bearer up-key-for-tests-0001"
    assert sent.header("user-agent") == "claude-cli/2"
    prefixes = ("anthropic-", "x-claude", "x-stainless", "cookie", "x-api")
    assert not [name for name in sent.headers if name.startswith(prefixes)]
    asked = sent.json
    assert (asked["instructions"], asked["store"], asked["stream"]) == ("Be brief.", False, True)
    assert len(asked["prompt_cache_key"]) == 32
    assert play.session not in str(asked)


def test_objects_that_the_rules_give_for_text_and_reasoning_are_merged(play, up):
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    ask(
        play,
        "set-1",
        thinking=ADAPTIVE,
        output_config={"format": {"type": "json_schema", "schema": schema}, "effort": "high"},
    )
    (sent,) = up.requests
    assert sent.json["text"] == {
        "format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True},
        "verbosity": "low",
    }
    assert sent.json["reasoning"] == {"effort": "minimal", "summary": "auto"}
    assert (sent.json["seed"], "include" in sent.json) == (7, False)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("claude-opus-4-6", "/v1/messages?beta=true"),
        ("gpt-6-sol", "/responses"),
        ("glm-5", "/chat/completions"),
    ],
)
def test_one_provider_is_asked_in_the_api_of_the_model(play, up, model, path):
    up.answer(json_answer({}, 500))
    play.ask(model, path="/v1/messages?beta=true")
    (sent,) = up.requests
    assert sent.path == path
    assert (sent.header("x-api-key") is None) is (path != "/v1/messages?beta=true")


def test_health_shows_the_api_of_each_model(play):
    shown = json.loads(play.fetch("GET /health").body)["providers"]
    assert shown["up"]["api"] == "responses"
    assert shown["mixed"]["api"] == {"claude-*": "anthropic", "gpt-*": "responses", "*": "openai"}


def test_tokens_are_counted_by_openais_own_counter(play, played_router):
    counter = played_router.provider("api.openai.com")
    counter.answer(json_answer({"object": "response.input_tokens", "input_tokens": 4711}))
    got = play.ask("count-1", path="/v1/messages/count_tokens", system="Be brief.")
    assert (got.status, json.loads(got.body)) == (200, {"input_tokens": 4711})
    (sent,) = counter.requests
    assert sent.path == "/v1/responses/input_tokens"
    assert sorted(sent.json) == ["input", "instructions", "model"]


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        (error(400, "Invalid input", type="invalid_request_error"), 400, "Invalid input"),
        (json_answer({"object": "response.input_tokens"}), 502, "no count of tokens"),
        (error(401, "Incorrect API key", code="invalid_api_key"), 403, "Incorrect API key"),
    ],
    ids=["an error", "no count", "a bad key"],
)
def test_errors_of_the_counter_have_anthropics_shape(play, played_router, answer, status, told):
    played_router.provider("api.openai.com").answer(answer)
    got = play.ask("count-1", path="/v1/messages/count_tokens")
    assert got.status == status
    said = json.loads(got.body)
    assert said["type"] == "error"
    assert told in said["error"]["message"]


def test_where_there_is_no_counter_tokens_are_estimated(play, up):
    got = play.ask("x", path="/v1/messages/count_tokens")
    assert (got.status, b'"input_tokens":' in got.body) == (200, True)
    assert up.requests == []


def test_a_warm_up_is_answered_here(play, up):
    got = play.ask("x", max_tokens=0)
    assert (got.status, b'"content":[]' in got.body) == (200, True)
    assert up.requests == []


# what is refused and repaired


def test_reasoning_that_the_provider_refuses_is_dropped_once_and_for_all(play, up):
    """As after its key was replaced by one of another organization that has the same text."""
    play.session = SESSION
    conversation = Conversation(send_in(play))
    up.answer(ResponsesProvider("up"))
    conversation.turn("one-1")
    up.answer(ResponsesProvider("another"))
    for _ in range(3):
        conversation.turn("one-1")
    attempts = [record["attempts"] for record in play.records(4)]
    assert attempts == ["up:200", "up:400 up:200", "up:200", "up:200"]
    last = [
        item["encrypted_content"] for item in up.requests[-1].json["input"] if item["type"] == "reasoning"
    ]
    assert last, "what it made itself since goes back"


def blobs(asked: Asked) -> list[str]:
    """The encrypted reasoning that it was sent."""
    return [item["encrypted_content"] for item in asked.json["input"] if item["type"] == "reasoning"]


def unreadable(blob: str) -> dict[str, str]:
    return {
        "code": "invalid_encrypted_content",
        "message": f"The encrypted content {blob} could not be verified.",
    }


_numbers = count()


def thought(play: Playbook, up: Provider, blob: str, model: str = "x") -> dict[str, Any]:
    """An answer of the assistant's with this encrypted reasoning, as a client sends it back."""
    up.answer(lambda asked: json_answer(response(asked.json["model"], [reasoning("hm", blob), message("b")])))
    got = play.ask(model, thinking=ADAPTIVE)
    return {"role": "assistant", "content": json.loads(got.body)["content"]}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.fixture
def blob() -> str:
    """No other test's, since the router remembers what was refused."""
    return f"gAAAA{next(_numbers)}"


@pytest.mark.parametrize("sessions", [["one", "one"], ["", ""], ["one", "another"]])
def test_refused_reasoning_is_left_out_from_then_on_and_newer_goes_back(play, up, blob, sessions):
    """Also without a session, and in another one: a conversation that is resumed or forked has its own."""
    old = thought(play, up, blob)
    new = thought(play, up, "gAAAAnew")
    up.answer(lambda asked: error(400, **unreadable("gAAAA")) if blob in blobs(asked) else usual(asked))
    up.requests.clear()
    for play.session in sessions:
        said = [user("a"), old, user("c")] if not up.requests else [user("a"), old, user("c"), new, user("d")]
        assert play.ask("x", messages=said).status == 200
    assert list(map(blobs, up.requests)) == [[blob], [], ["gAAAAnew"]]


def test_reasoning_of_one_model_is_not_taken_for_refused_where_another_refuses_its_own(play, up):
    sol, terra = thought(play, up, "gAAAAsol"), thought(play, up, "gAAAAterra", "gpt-5.6-terra")
    said = [user("a"), sol, user("b"), terra, user("c")]
    up.answer(lambda asked: error(400, **unreadable("gAAAA")) if "gAAAAsol" in blobs(asked) else usual(asked))
    up.requests.clear()
    for model in ("x", "x", "gpt-5.6-terra"):
        assert play.ask(model, messages=said).status == 200
    assert list(map(blobs, up.requests)) == [["gAAAAsol"], [], [], ["gAAAAterra"]]


UNVERIFIED = "Your organization must be verified to generate reasoning summaries."
LATE = {
    "failed": lambda code, message, param: event(
        "failed", response=response("m", [], status="failed", error={"code": code, "message": message})
    ),
    "flat": lambda code, message, param: of_type("error", code=code, message=message, param=param),
    "nested": lambda code, message, param: of_type(
        "error", error={"type": "invalid_request_error", "code": code, "message": message, "param": param}
    ),
    "without a code": lambda code, message, param: of_type("error", message=message, code=None, param=param),
}


def of_type(type: str, **fields: Any) -> bytes:
    return f"event: {type}\ndata: {json.dumps({'type': type} | fields)}\n\n".encode()


def late(*chunks: bytes) -> Answer:
    """A stream that has nothing but its beginning and these."""
    begun = event("created", response=response("m", [], status="in_progress", usage=None))
    return Answer(200, (("Content-Type", "text/event-stream"),), (begun, *chunks), "chunked")


@both
@pytest.mark.parametrize("form", LATE)
def test_reasoning_that_is_refused_after_the_200_is_dropped_and_the_same_target_is_asked_again(
    play, up, blob, form, stream
):
    old = thought(play, up, blob)
    refused = late(LATE[form](*unreadable(blob).values(), None))
    up.answer(lambda asked: refused if blob in blobs(asked) else usual(asked))
    for _ in range(2):
        got = play.ask("x", stream=stream, messages=[user("a"), old, user("c")])
        assert (got.status, b"Hello" in got.body) == (200, True)
    assert [one["attempts"] for one in play.records(3)[1:]] == ["up:stream_error up:200", "up:200"]
    assert play.router.health("up")["circuit"] == "closed"


@both
@pytest.mark.parametrize("form", LATE)
def test_a_summary_that_is_refused_after_the_200_is_left_out_and_not_asked_for_again(play, up, form, stream):
    refused = late(LATE[form]("unsupported_value", UNVERIFIED, "reasoning.summary"))
    up.answer(lambda asked: refused if "summary" in asked.json.get("reasoning", {}) else usual(asked))
    for _ in range(2):
        assert play.ask(f"gpt-5.6-{form}-{stream}", stream=stream, thinking=ADAPTIVE).status == 200
    assert [one["attempts"] for one in play.records(2)] == ["up:stream_error up:200", "up:200"]


def test_a_refusal_that_comes_late_is_repaired_behind_pings(play, up, blob, never):
    old = thought(play, up, blob)
    up.answer(late(never), usual)
    play.asks("x", messages=[user("a"), old, user("c")])
    play.passes(11)
    assert play.got.status == 200
    assert b"event: ping" in play.got.body
    failed = LATE["failed"](*unreadable(blob).values(), None)
    asked = up.requests[-1]
    play.sends(asked.server, late().frame(failed))
    play.serve()
    assert play.got.body.count(b"message_start") == 2  # its name and its type
    assert b"Hello" in play.got.body


def test_a_stream_without_anything_to_leave_out_is_not_held(play, up, never):
    up.answer(late(never))
    play.asks("x")
    assert play.got.status == 200


def test_a_fault_of_the_provider_after_the_200_is_no_refusal(play, up, blob):
    old = thought(play, up, blob)
    up.requests.clear()
    up.answer(late(LATE["failed"]("server_is_overloaded", "Busy: reasoning.summary", None)))
    got = play.ask("x", thinking=ADAPTIVE, messages=[user("a"), old, user("c")])
    assert (got.status, len(up.requests)) == (529, 1)


@both
def test_a_policy_that_refuses_the_request_after_the_200_is_the_clients(play, up, home, stream):
    up.answer(late(LATE["failed"]("cyber_policy", "This request was flagged.", None)))
    got = play.ask("then-home", stream=stream, thinking=ADAPTIVE)
    assert (got.status, got.error["type"]) == (400, "invalid_request_error")
    assert "This request was flagged." in got.error["message"]
    assert play.records(1)[0]["attempts"] == "up:400"
    assert home.requests == []


SUMMARY = error(
    400,
    "Your organization must be verified to generate reasoning summaries. Please go to: https://example.com",
    type="invalid_request_error",
    param="reasoning.summary",
    code="unsupported_value",
)


@pytest.mark.parametrize(("model", "name"), [("gpt-5.6-terra", "up"), ("bare-terra", "bare")])
def test_a_summary_that_is_refused_is_left_out_and_not_asked_for_again(play, up, model, name):
    """Also where the rules drop Anthropic's betas, which this API does not know."""
    up.answer(lambda asked: SUMMARY if "summary" in asked.json.get("reasoning", {}) else usual(asked))
    for _ in range(2):
        ask(play, model, thinking=ADAPTIVE, output_config={"effort": "high"})
    assert [record["attempts"] for record in play.records(2)] == [f"{name}:400 {name}:200", f"{name}:200"]
    assert [one.json["reasoning"] for one in up.requests] == [
        {"effort": "high", "summary": "auto"},
        {"effort": "high"},
        {"effort": "high"},
    ]


def test_an_effort_that_is_refused_becomes_the_nearest_that_the_error_names(play, up):
    refused = error(
        400,
        "Unsupported value: 'reasoning_effort' does not support 'xhigh' with this model. Supported values "
        "are: 'none', 'low', 'medium', and 'high'.",
        param="reasoning.effort",
        code="unsupported_value",
    )
    up.answer(lambda asked: refused if asked.json["reasoning"]["effort"] == "xhigh" else usual(asked))
    for _ in range(2):
        ask(play, "gpt-5.6-luna", thinking=ADAPTIVE, output_config={"effort": "max"})
    assert [one.json["reasoning"]["effort"] for one in up.requests] == ["xhigh", "high", "high"]


def test_encrypted_reasoning_that_a_model_does_not_give_is_not_asked_for_again(play, up):
    refused = error(400, "Encrypted content is not supported with this model.", param="include")
    up.answer(lambda asked: refused if "include" in asked.json else usual(asked))
    for _ in range(2):
        ask(play, "gpt-5.6-small")
    assert ["include" in one.json for one in up.requests] == [True, False, False]


def test_images_that_a_model_does_not_take_are_replaced_by_text_from_then_on(play, up):
    refused = error(400, "This model does not support image input", type="invalid_request_error")
    shows = lambda asked: "input_image" in str(asked.json)  # noqa: E731
    up.answer(lambda asked: refused if shows(asked) else usual(asked))
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    for _ in range(2):
        ask(play, "gpt-5.6-blind", messages=[{"role": "user", "content": [image]}])
    assert list(map(shows, up.requests)) == [True, False, False]
    assert "[image omitted]" in str(up.requests[-1].json["input"])


def test_phases_that_a_server_does_not_know_are_left_out_from_then_on(play, up):
    refused = error(400, "Unknown parameter: 'input[1].phase'.", param="input[1].phase")
    phased = lambda asked: any("phase" in item for item in asked.json["input"])  # noqa: E731
    up.answer(lambda asked: refused if phased(asked) else usual(asked))
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for _ in range(2):
        ask(play, "gpt-5.6-phased", messages=[*said, {"role": "user", "content": "c"}])
    assert list(map(phased, up.requests)) == [True, False, False]


def test_reasoning_outlives_the_key_that_a_command_prints(tmp_path: Path):
    """Keys of Entra are valid for an hour (clouds.md, 5)."""
    printed = tmp_path / "key"
    printed.write_text("first-key-for-tests-01")
    rules = f"""
providers:
  renewed: {{url: "http://up.invalid", api: responses, dialect: azure, key: {{command: [cat, "{printed}"]}}}}
rules:
  - {{match: "*", to: renewed/gpt-5.6-sol}}
"""
    output = [reasoning("hm", "gAAAA-fake"), message("Hello.")]
    (tmp_path / "router").mkdir()
    with played(tmp_path / "router", rules) as router:
        up, play = router.provider("up"), router.connect()

        def answer(asked: Asked) -> Answer:
            if asked.header("authorization") != f"Bearer {printed.read_text()}":
                return error(401, "expired")
            return json_answer(response(asked.json["model"], output))

        up.answer(answer)
        first = play.ask("opus", thinking=ADAPTIVE)
        printed.write_text("second-key-for-tests-1")
        history = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": json.loads(first.body)["content"]},
            {"role": "user", "content": "b"},
        ]
        assert play.ask("opus", thinking=ADAPTIVE, messages=history).status == 200
        assert [item["type"] for item in up.requests[-1].json["input"]] == [
            "message", "reasoning", "message", "message",
        ]  # fmt: skip
        assert up.requests[-1].header("authorization") == "Bearer second-key-for-tests-1"


@pytest.mark.parametrize(
    ("answer", "status", "kind", "told"),
    [
        (
            error(
                429, "You exceeded your current quota.", type="insufficient_quota", code="insufficient_quota"
            ),
            402,
            "billing_error",
            "You exceeded your current quota.",
        ),
        (
            error(
                400, "Your input exceeds the context window of this model.", code="context_length_exceeded"
            ),
            400,
            "invalid_request_error",
            "prompt is too long",
        ),
        (error(401, "Incorrect API key", code="invalid_api_key"), 403, "permission_error", "Incorrect"),
        (error(503, "Busy", code="server_is_overloaded"), 529, "overloaded_error", "Busy"),
        (error(404, "No such model", code="model_not_found"), 404, "not_found_error", "gpt-5.6-sol"),
    ],
    ids=["quota", "context", "key", "overload", "model"],
)
def test_errors_have_anthropics_words(play, up, answer, status, kind, told):
    up.answer(answer)
    got = play.ask("claude-sonnet-4-6", stream=True)
    said = json.loads(got.body)["error"]
    assert (got.status, said["type"]) == (status, kind)
    assert told in said["message"]


# searches


def test_a_search_goes_to_a_provider_that_has_one(play, up):
    ask(play, tools=[SEARCH], tool_choice={"type": "tool", "name": "web_search"})
    (sent,) = up.requests
    assert (sent.json["tools"], sent.json["tool_choice"]) == ([{"type": "web_search"}], "required")


def test_a_search_passes_over_a_provider_without_one_and_the_reason_says_who_could(play, played_router, up):
    got = play.ask("alone-1", tools=[SEARCH])
    assert got.status == 400
    said = json.loads(got.body)["error"]["message"]
    assert said.endswith("itself defines (web_search); anthropic, up, openai, set and bare could serve it")
    assert said.count("could serve it") == 1, "told once, though two targets were passed over"
    assert up.requests == []
