"""Answers of providers of the Responses API: when they have begun, are over, or have failed."""

import json
from collections.abc import Callable

import pytest

from tests.support import responses
from tests.support.answers import Answer, Chunk, message_sse
from tests.support.chat import completion, error
from tests.support.golden_streams import events_of
from tests.support.playbook import Playbook, Provider
from tests.support.played_wire import Got
from tests.support.raw_client import both
from tests.support.request_validator import check_events

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client, circuit: &never {degraded_after: 100000, open_after: 100000}}
  up: {url: "http://up.invalid/v1", api: responses, dialect: openai, key: key-for-tests-0001, circuit: *never}
rules:
  - {match: "*then-home*", to: [up/gpt-5.6-sol, anthropic]}
  - {match: "*", to: up/gpt-5.6-sol}
"""  # noqa: E501  as rules are written

STREAM = (("Content-Type", "text/event-stream"),)
THOUGHT = responses.reasoning(blob="gAAAfull")
FAULT = responses.event("error", code="server_error", message="It broke.")


@pytest.fixture
def ask(play: Playbook, home: Provider) -> Callable[..., Got]:
    """Where nothing else is scripted, the other target answers."""

    def ask(model: str, *, stream: bool = True) -> Got:
        return play.ask(model, stream=stream, thinking={"type": "adaptive"})

    return ask


@both
def test_an_answer_is_over_soon_after_its_last_event_though_its_connection_stays_open(
    ask, play, up, never, stream
):
    up.answer(responses.stream([*responses.text_stream(), never]), responses.stream(responses.text_stream()))
    ask("open", stream=stream)
    play.passes(1.1)
    assert b"end_turn" in play.got.body
    assert play.got.state == "ended"
    assert play.aborted == [up.requests[0].server]
    assert ask("next", stream=stream).status == 200
    record, _ = play.records(2)
    assert (record["status"], record["attempts"]) == ("success", "up:200")
    assert (record["input_tokens"], record["cache_read_input_tokens"], record["output_tokens"]) == (
        120,
        500,
        17,
    )


@both
def test_an_answer_is_whole_after_its_last_event_though_its_connection_breaks(ask, play, up, stream):
    up.answer(Answer(200, STREAM, tuple(responses.text_stream()), "chunked", cut="close"))
    assert b"end_turn" in ask("breaks", stream=stream).body
    assert play.records(1)[0]["status"] == "success"


@both
def test_an_answer_that_was_held_is_over_soon_after_its_last_event_too(ask, play, up, never, stream):
    up.answer(responses.stream([*responses.text_stream(), never]))
    ask(f"then-home-open-{stream}", stream=stream)
    play.passes(1.1)
    assert b"end_turn" in play.got.body
    assert play.got.state == "ended"


FAILURES: dict[str, list[Chunk]] = {
    "quota": [responses.ended("failed", error={"code": "insufficient_quota", "message": "You exceeded it."})],
    "throttle": [
        responses.ended("failed", error={"code": "rate_limit_exceeded", "message": "Try again in 11.054s."})
    ],
    "overload": [responses.event("error", code="server_is_overloaded", message="Busy.")],
    "context": [
        responses.event(
            "error",
            error={"code": "context_length_exceeded", "message": "Input exceeds the context window."},
        )
    ],
    "empty": [responses.ended()],
    "reasoning-alone": [responses.item_events(THOUGHT), responses.ended(output=[THOUGHT])],
    "reasoning-then-fault": [responses.item_events(THOUGHT), FAULT],
    "page-opened-then-fault": [
        responses.item_events(responses.web_search("", type="open_page")),
        responses.event("keepalive"),
        FAULT,
    ],
    "cut": [],
    "cut-after-a-beginning": [responses.item_added(responses.message(""))],
}


@both
@pytest.mark.parametrize("how", FAILURES)
def test_a_failure_before_the_first_shown_piece_is_one_of_the_next_target(ask, play, up, how, stream):
    up.answer(responses.stream([responses.created(), *FAILURES[how]]))
    answer = ask(f"then-home-{how}-{stream}", stream=stream)
    assert answer.headers["x-signalbox-attempts"] == "up:stream_error anthropic:200"
    assert play.records(1)[0]["attempts"] == "up:stream_error anthropic:200"


@pytest.mark.parametrize("how", ["quota", "throttle", "overload"])
def test_a_failure_after_the_200_gives_the_key_or_the_model_a_rest(ask, up, how):
    up.answer(responses.stream([responses.created(), *FAILURES[how]]))
    ask(f"then-home-{how}")
    again = ask(f"then-home-{how}-again")
    assert again.headers["x-signalbox-attempts"] == "anthropic:200"
    assert len(up.requests) == 1


BEGUN = {
    "text": responses.text_delta("Hel"),
    "refusal": responses.event("response.refusal.delta", output_index=0, content_index=0, delta="No"),
    "thinking": responses.event(
        "response.reasoning_summary_text.delta", output_index=0, summary_index=0, delta="Hm."
    ),
    "call": responses.item_added(responses.function_call("Read")) + responses.arguments('{"p'),
    "search": responses.item_events(responses.web_search("foo", "https://a.example")),
}


@pytest.mark.parametrize("how", BEGUN)
def test_an_error_after_the_first_shown_piece_is_the_clients(ask, play, up, how):
    up.answer(responses.stream([responses.created(), BEGUN[how], FAULT]))
    answer = ask(f"then-home-{how}")
    events = events_of(answer.body)
    check_events(events)
    assert answer.headers["x-signalbox-attempts"] == "up:200"
    assert events[-1]["error"] == {"type": "api_error", "message": "up: It broke."}
    assert play.records(1)[0]["status"] == "error"


@pytest.mark.parametrize("how", BEGUN)
def test_a_clean_end_without_a_last_event_is_a_cut(ask, play, up, how):
    up.answer(responses.stream([responses.created(), BEGUN[how]]))
    answer = ask(f"then-home-{how}")
    assert answer.state == "cut"
    assert answer.headers["x-signalbox-attempts"] == "up:200"
    assert play.records(1)[0]["status"] == "error"


def test_an_error_within_an_answer_is_its_end_though_its_connection_stays_open(ask, play, up, never):
    up.answer(responses.stream([responses.created(), BEGUN["text"], FAULT, never]))
    ask("fault-open")
    play.passes(1.1)
    assert play.got.state == "ended"
    assert b"It broke." in play.got.body


@pytest.mark.parametrize(
    ("how", "status", "type", "message"),
    [
        ("quota", 402, "billing_error", "up: You exceeded it."),
        ("throttle", 429, "rate_limit_error", "up: Try again in 11.054s."),
        ("overload", 529, "overloaded_error", "up: Busy."),
        (
            "context",
            400,
            "invalid_request_error",
            "prompt is too long: Input exceeds the context window. (about 5 tokens)",
        ),
        ("empty", 529, "overloaded_error", "up: the answer is empty"),
        ("reasoning-then-fault", 500, "api_error", "up: It broke."),
    ],
)
def test_a_failure_of_the_last_target_has_its_status_where_nothing_was_sent(
    ask, up, how, status, type, message
):
    up.answer(responses.stream([responses.created(), *FAILURES[how]]))
    answer = ask(f"whole-{how}", stream=False)
    assert (answer.status, answer.error["type"], answer.error["message"]) == (status, type, message)


@both
def test_the_tokens_of_a_response_that_failed_are_recorded(ask, play, up, stream):
    used = {"input_tokens": 50, "input_tokens_details": {"cached_tokens": 20}, "output_tokens": 7}
    failed = responses.ended("failed", error={"code": "server_error", "message": "It broke."}, usage=used)
    up.answer(responses.stream([responses.created(), failed]))
    ask("fails", stream=stream)
    record = play.records(1)[0]
    tokens = [record[name] for name in ("input_tokens", "cache_read_input_tokens", "output_tokens")]
    assert (record["status"], tokens) == ("error", [30, 20, 7])


def test_a_request_that_is_not_streamed_works_where_the_provider_only_streams(ask, up):
    call = responses.function_call("Read", '{"path": "a"}')
    up.answer(responses.stream(responses.item_stream(THOUGHT, responses.message("I read."), call)))
    message = json.loads(ask("whole", stream=False).body)
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert (message["stop_reason"], message["content"][2]["input"]) == ("tool_use", {"path": "a"})


def test_a_streamed_request_works_where_the_provider_answers_whole(ask, up):
    up.answer(responses.whole(responses.reasoning("Hm.", blob="gAAA"), responses.message("Hello there.")))
    answer = ask("streamed")
    assert answer.headers["content-type"].startswith("text/event-stream")
    kinds = [one["content_block"]["type"] for one in events_of(answer.body) if "content_block" in one]
    assert kinds == ["thinking", "text"]


@both
@pytest.mark.parametrize(
    "answer", [completion(), message_sse()], ids=["a chat completion", "a stream of messages"]
)
def test_an_answer_of_another_protocol_fails_over(ask, up, answer, stream):
    up.answer(answer)
    got = ask(f"then-home-other-{stream}", stream=stream)
    assert got.headers["x-signalbox-attempts"] == "up:stream_error anthropic:200"


def test_an_error_instead_of_an_answer_has_anthropics_shape(ask, up):
    up.answer(error(429, "Rate limit reached.", type="tokens", code="rate_limit_exceeded"))
    answer = ask("refused")
    assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
    assert answer.error["message"] == "up: Rate limit reached."


def test_a_search_is_counted_and_its_results_have_titles(ask, up):
    found = "https://a.example/one"
    items = [
        responses.web_search("foo bar", found),
        responses.web_search("", type="open_page"),
        responses.message("Foo is bar.", (f"{found}?utm_source=openai", "One")),
    ]
    up.answer(responses.stream(responses.item_stream(*items)))
    message = json.loads(ask("searched", stream=False).body)
    call, result, text = message["content"]
    assert (call["name"], call["input"]) == ("web_search", {"query": "foo bar"})
    assert result["tool_use_id"] == call["id"]
    assert [(one["url"], one["title"]) for one in result["content"]] == [(found, "One")]
    assert (text["text"], text["citations"][0]["title"]) == ("Foo is bar.", "One")
    assert message["usage"]["server_tool_use"] == {"web_search_requests": 1}
