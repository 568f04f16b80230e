"""HTTP/1 as providers and strangers may speak it: odd statuses, versions, framing, connections that break."""

import json
import threading
from dataclasses import replace

import pytest

from tests.support import chat
from tests.support.answers import (
    USAGE,
    Answer,
    compressed,
    error_json,
    json_answer,
    message_json,
    message_sse,
    sse,
)
from tests.support.playbook import Playbook, Provider
from tests.support.played_wire import Got
from tests.support.raw_client import both
from tests.support.stream_fixtures import BROKEN, LATE, NOISE

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client, circuit: &never {degraded_after: 100000, open_after: 100000}}
  up: {url: "http://up.invalid", key: up-key-for-tests-00001, circuit: *never}
  chat: {url: "http://up.invalid/v1", api: openai, key: up-key-for-tests-00001, circuit: *never}
rules:
  - {match: "last", to: up}
  - {match: "last-renamed", to: up/glm}
  - {match: "last-chat", to: chat/gpt}
  - {match: "up", to: [up, anthropic]}
  - {match: "back", to: [anthropic, up]}
  - {match: "home-renamed", to: anthropic/claude-opus-4-5}
  - {match: "chat", to: [chat/gpt, anthropic]}
  - {match: "again", to: up, failover: {retries: 1}}
  - {match: "*", to: anthropic}
"""  # noqa: E501  as rules are written
NEVER = threading.Event()


@pytest.fixture
def elsewhere(played_router) -> Provider:
    """Where requests go that no rule is about."""
    return played_router.provider("upstream")


def raw(head: str, body: bytes = b"", *, close: bool = False) -> Answer:
    chunks = (head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body,)
    return Answer(framing="raw", chunks=chunks, cut="close" if close else None)


def attempts(play: Playbook, model: str, **fields: object) -> str:
    got = play.ask(model, **fields)
    assert got.status == 200
    return got.headers["x-signalbox-attempts"]


def pass_on(play: Playbook, *lines: str, body: bytes = b"", path: str = "/v1/elsewhere") -> Got:
    """Send a request that no rule is about."""
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "x-api-key: k", *lines, "", ""]
    play.hears_anew()
    play.client_sends("\r\n".join(head).encode() + body)
    return play.got


def used(provider: Provider) -> int:
    """How many connections its requests came on."""
    return len({asked.connection for asked in provider.requests})


# statuses that are none of an answer


@pytest.mark.parametrize("status", [101, 0, 99, 7, -5])
@pytest.mark.parametrize("model", ["up", "chat"])
def test_a_status_that_is_none_of_an_answer_fails_over(play, home, up, model, status):
    up.answer(raw(f"HTTP/1.1 {status} Odd\nConnection: Upgrade\nUpgrade: odd"))
    for _ in range(2):
        play.clock.now += 3600
        assert attempts(play, model) == f"{model}:{status} anthropic:200"
    assert (len(up.requests), used(up)) == (2, 2)


@pytest.mark.parametrize("status", [101, 0, 99])
@pytest.mark.parametrize("model", ["last", "last-chat"])
def test_the_last_target_with_such_a_status_gives_502(play, up, model, status):
    up.answer(raw(f"HTTP/1.1 {status} Odd\nConnection: Upgrade\nUpgrade: odd"))
    got = play.ask(model)
    assert got.status == 502
    assert f"answered with status {status}" in got.error["message"]


def test_what_a_client_sends_after_a_switch_it_did_not_ask_for_goes_where_the_rules_say(play, home, up):
    up.answer(raw("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: odd"))
    assert play.ask("last").status == 502
    assert play.ask("claude-opus-4-5").status == 200
    assert (len(home.requests), len(up.requests)) == (1, 1)


def test_a_switch_that_a_client_did_not_ask_for_is_none_on_other_paths_either(play, elsewhere):
    elsewhere.answer(
        raw("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: odd"), json_answer({})
    )
    assert pass_on(play, "Content-Length: 0").error["type"] == "api_error"
    assert pass_on(play, "Content-Length: 0").status == 200


def test_a_client_may_ask_for_another_protocol_on_other_paths(play, elsewhere):
    elsewhere.answer(raw("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: odd", b"hello"))
    pass_on(play, "Content-Length: 0", "Connection: Upgrade", "Upgrade: odd")
    said = play.answer
    assert said.startswith(b"HTTP/1.1 101 ")
    assert said.endswith(b"hello")


# early hints

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


@pytest.mark.parametrize("count", [1, 500])
@pytest.mark.parametrize("model", ["up", "last"])
def test_early_hints_before_an_answer_are_skipped(play, up, model, count):
    answer = message_json("glm")
    up.answer(Answer(framing="raw", chunks=(HINTS * count, 0.1, HINTS + answer.head() + answer.body)))
    for _ in range(2):
        assert attempts(play, model) == "up:200"
    assert used(up) == 1


def test_early_hints_before_a_failure_change_nothing(play, home, up):
    failed = error_json(500, "api_error")
    up.answer(
        Answer(framing="raw", chunks=(HINTS, failed.head() + failed.body)),
        Answer(framing="raw", chunks=(HINTS,), cut="reset"),
    )
    assert attempts(play, "up") == "up:500 anthropic:200"
    assert attempts(play.router.connect(), "up") == "up:connect anthropic:200"


# versions and framing


def old(answer: Answer, framing: str) -> Answer:
    """The same answer of a server that speaks HTTP/1.0."""
    size = f"\nContent-Length: {len(answer.body)}" if framing == "length" else ""
    kind = dict(answer.headers)["Content-Type"]
    return raw(f"HTTP/1.0 200 OK\nContent-Type: {kind}{size}", answer.body, close=True)


@both
@pytest.mark.parametrize("framing", ["length", "closing"])
@pytest.mark.parametrize("model", ["up", "chat", "last", "last-renamed", "last-chat", "claude-opus-4-5"])
def test_a_provider_may_speak_http_1_0(play, home, up, model, framing, stream):
    if "chat" in model:
        said = chat.stream(chat.text_stream()) if stream else chat.completion()
    else:
        said = message_sse(model) if stream else message_json(model)
    (home if model.startswith("claude") else up).answer(old(said, framing))
    for _ in range(2):
        got = play.ask(model, stream=stream)
        assert (got.status, got.state) == (200, "ended")
        assert {"transfer-encoding", "content-length"} & got.headers.keys()
        assert got.headers["x-signalbox-attempts"].endswith(":200")
        assert " " not in got.headers["x-signalbox-attempts"]
        assert b"Hello" in got.body
        assert (b"message_stop" in got.body) == stream


@pytest.mark.parametrize("model", ["last", "last-renamed", "claude-opus-4-5"])
@pytest.mark.parametrize("head", ["204 No Content\nContent-Length: 0", "304 Not Modified\nContent-Length: 0"])
def test_an_answer_that_has_no_body_is_framed_as_such(play, home, up, model, head):
    (home if model.startswith("claude") else up).answer(
        raw(f"HTTP/1.1 {head}\nContent-Type: application/json"), message_json("glm")
    )
    got = play.ask(model)
    assert "transfer-encoding" not in got.headers
    assert got.body == b""
    assert play.ask(model).status == 200


@pytest.mark.parametrize("head", ["304 Not Modified\nTransfer-Encoding: chunked", "204 No Content"])
def test_an_answer_without_a_body_passes_other_paths_so_that_the_next_one_is_whole(play, elsewhere, head):
    elsewhere.answer(raw(f"HTTP/1.1 {head}"), json_answer({"next": True}))
    got = pass_on(play, "Content-Length: 0")
    assert "transfer-encoding" not in got.headers
    assert got.body == b""
    assert pass_on(play, "Content-Length: 0").body == b'{"next":true}'


@pytest.mark.parametrize("model", ["up", "last-renamed", "chat"])
def test_the_trailers_of_an_answer_are_dropped(play, up, model):
    plain = chat.stream(chat.text_stream()) if model == "chat" else message_sse("glm")
    chunks = b"".join(plain.frame(chunk) for chunk in plain.chunks if isinstance(chunk, bytes))
    up.answer(Answer(framing="raw", chunks=(plain.head() + chunks + b"0\r\nX-Checksum: 1\r\n\r\n",)))
    for _ in range(2):
        assert b"message_stop" in play.ask(model, stream=True).body
    assert used(up) == 1


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/elsewhere"])
def test_the_trailers_of_a_request_are_dropped(play, home, elsewhere, path):
    body = b'{"model": "claude-opus-4-5", "messages": []}'
    framed = b"%x\r\n%s\r\n0\r\nX-Checksum: 1\r\n\r\n" % (len(body), body)
    for _ in range(2):
        assert pass_on(play, "Transfer-Encoding: chunked", body=framed, path=path).status == 200
    assert [asked.body for asked in (home if path == "/v1/messages" else elsewhere).requests] == [body, body]


# heads without end


def endless(first: bytes) -> Answer:
    """An answer that goes on after `first` for 4 MB."""
    return Answer(framing="raw", chunks=(first, *[b"x" * 65536] * 64, NEVER))


@pytest.mark.parametrize("model", ["up", "chat"])
@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nX-Endless: ", b"x", b"HTTP/1.1 103 Early\r\nX: "])
def test_a_head_without_end_is_a_failed_attempt(play, home, up, model, first):
    up.answer(endless(first))
    assert attempts(play, model) == f"{model}:connect anthropic:200"


@pytest.mark.parametrize("tail", [b"1;", b"0\r\nX-Endless: "], ids=["chunk header", "trailers"])
def test_a_chunk_header_or_trailers_without_end_cut_the_answer(play, up, tail):
    answer = message_sse("glm")
    begun = b"".join(answer.frame(chunk) for chunk in answer.chunks[:5] if isinstance(chunk, bytes))
    up.answer(endless(answer.head() + begun + tail))
    assert play.ask("last", stream=True).state == "cut"


@pytest.mark.parametrize("first", [b"x", b"POST /v1/messages HTTP/1.1\r\nX-Endless: "])
def test_a_clients_head_without_end_is_answered_with_431(play, first):
    play.client_sends(first + b"x" * 1_000_000)
    assert (play.got.status, play.got.error["type"]) == (431, "invalid_request_error")
    assert play.client in play.closed


def test_a_head_just_below_the_limit_is_read(play, elsewhere):
    assert pass_on(play, "Content-Length: 0", f"X-Long: {'x' * 250_000}").status == 200
    assert len(elsewhere.requests[0].header("x-long") or "") == 250_000


def test_a_clients_chunk_header_without_end_ends_its_connection(play):
    play.client_sends(
        b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 1_000_000
    )
    assert play.client in play.closed


@pytest.mark.parametrize("ends", ["closes", "sends more", "stays"])
def test_an_answer_that_comes_before_the_request_is_whole_ends_neither_request_nor_connection(play, ends):
    """As of an upstream that refuses an upload."""
    head = b"POST /v1/elsewhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n"
    play.client_sends(head + b"begin")
    server = play.connects()
    play.sends(server, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")
    assert (play.got.status, play.got.body) == (400, b"no")
    if ends == "closes":
        play.closes(server)
    elif ends == "sends more":
        play.sends(server, b"of nothing")
    play.client_sends(b"ended")
    assert play.sent_to(server).endswith(b"begin" if ends == "closes" else b"beginended")
    assert play.streams == 0
    assert play.fetch("GET /health").status == 200


def test_a_large_request_may_be_sent_ahead(play, up):
    up.answer(message_json("m"), message_json("m"), message_json("m"))
    body = b'{"model": "last", "messages": [], "pad": "%b"}' % (b"x" * 300_000)
    head = b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: k\r\nContent-Length: %d\r\n\r\n"
    play.client_sends((head % len(body) + body) * 3)
    assert play.answer.count(b"HTTP/1.1 200 ") == 3
    assert len(up.requests) == 3


def test_what_a_client_sends_ahead_of_an_answer_is_bounded(play):
    play.asks("claude-opus-4-5")
    server = play.connects()
    for _ in range(2000):
        if play.client in play.closed:
            break
        play.client_sends(b"x" * 65536)
    assert play.client in play.closed
    play.client_leaves()
    assert server in play.aborted


MALFORMED = {
    "two lengths": ("POST /v1/messages HTTP/1.1", "Content-Length: 2", "Transfer-Encoding: chunked"),
    "a name that is none": ("POST /v1/messages HTTP/1.1", "Bad Name: x", "Content-Length: 2"),
    "a length that is none": ("POST /v1/messages HTTP/1.1", "Content-Length: two"),
    "a coding that is none": ("POST /v1/messages HTTP/1.1", "Transfer-Encoding: gzip"),
    "a line without colon": ("POST /v1/messages HTTP/1.1", "nothing", "Content-Length: 2"),
    "no request line": ("POST", "Content-Length: 2"),
    "a tunnel": ("CONNECT example.com:443 HTTP/1.1", "Content-Length: 2"),
}


@pytest.mark.parametrize("lines", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_valid_request_gets_400_in_anthropics_shape(play, lines):
    line, *fields = lines
    play.client_sends("\r\n".join([line, "Host: 127.0.0.1", *fields, "", ""]).encode() + b"{}")
    assert (play.got.status, play.got.error["type"]) == (400, "invalid_request_error")
    assert not play.opening


# connections that are used again, and those that break


def test_what_an_abandoned_answer_still_sends_goes_nowhere(play, home, up):
    for number in range(3):
        up.answer(sse(BROKEN, NEVER))
        home.answer(message_sse("up", (f"answer {number}",)))
        got = play.ask("up", stream=True)
        abandoned = up.requests[-1].server
        for noise in (NOISE[0], *LATE):
            play.sends(abandoned, noise)
        assert got.headers["x-signalbox-attempts"] == "up:stream_error anthropic:200"
        assert play.got.body == message_sse("up", (f"answer {number}",)).body
    assert used(up) == 3


def test_an_error_read_to_its_end_leaves_its_connection_for_the_next_request(play, home, up):
    up.answer(error_json(500, "api_error"), error_json(429, "rate_limit_error"), message_json())
    told = []
    for _ in range(3):
        told.append(attempts(play, "up"))
        play.passes(45)
    assert told == ["up:500 anthropic:200", "up:429 anthropic:200", "up:200"]
    assert used(up) == used(home) == 1


def test_a_retry_uses_the_same_connection(play, up):
    up.answer(error_json(500, "api_error"), message_json())
    play.asks("again", stream=False)
    play.passes(30)
    assert play.got.headers["x-signalbox-attempts"] == "up:500 up:200"
    first, then = up.requests
    assert (first.connection, first.body) == (then.connection, then.body)


def test_a_connection_that_was_closed_while_it_was_idle_is_no_failure(play, up):
    whole = message_json("up")
    up.answer(Answer(200, whole.headers, whole.chunks, cut="close"))
    for _ in range(3):
        assert attempts(play, "up") == "up:200"
    assert used(up) == 3


def test_a_fresh_connection_that_breaks_is_a_failure(play, home, up):
    up.answer(Answer(framing="raw", cut="reset"))
    assert attempts(play, "up") == "up:connect anthropic:200"
    assert len(up.requests) == 1


BREAKS = {
    "at once": (Answer(framing="raw", cut="reset"), True),
    "soon": (Answer(framing="raw", chunks=(0.5,), cut="reset"), True),
    "after a while": (Answer(framing="raw", chunks=(1.2,), cut="reset"), False),
    "after early hints": (Answer(framing="raw", chunks=(HINTS, 0.05), cut="reset"), False),
    "in the head": (Answer(framing="raw", chunks=(b"HTTP/1.1 200 OK\r\nContent-", 0.05), cut="close"), False),
}


@pytest.mark.parametrize(("broken", "is_stale"), BREAKS.values(), ids=BREAKS)
def test_a_kept_connection_that_breaks_is_asked_anew_only_if_it_was_stale(play, up, broken, is_stale):
    """A provider that breaks off later had the request, and may have worked on it."""
    up.answer(message_json(), broken, message_json())
    assert attempts(play, "last") == "up:200"
    play.passes(5)
    got = play.ask("last")
    expected = (200, "up:200", 3) if is_stale else (502, "up:connect", 2)
    assert (got.status, got.headers["x-signalbox-attempts"], len(up.requests)) == expected


def test_a_connection_that_breaks_again_at_once_is_a_failure(play, up):
    up.answer(message_json(), Answer(framing="raw", cut="reset"))
    assert attempts(play, "last") == "up:200"
    play.passes(5)
    assert (play.ask("last").status, len(up.requests)) == (502, 3)


def test_nothing_is_remembered_of_connections_that_are_over(play, home, up):
    failures = [
        error_json(500, "api_error"),
        Answer(502, (("Connection", "close"),), (b"<html>",), cut="close"),
        Answer(framing="raw", cut="reset"),
        sse(BROKEN, *NOISE),
        sse(LATE[0], cut="reset"),
    ]
    for number in range(20):
        up.answer(failures[number % len(failures)])
        play.clock.now += 3600
        assert attempts(play, "up", stream=True).endswith("anthropic:200")
    assert play.streams == 0
    assert play.kept_connections <= 2


# codings


def packed(answer: Answer, coding: str) -> Answer:
    return Answer(200, compressed(answer, coding).headers, (compressed(answer, coding).body,))


@both
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_compressed_answer_of_one_of_several_targets_is_decoded(play, up, coding, stream):
    plain = message_sse("up") if stream else message_json("up")
    up.answer(compressed(plain, coding) if stream else packed(plain, coding))
    got = play.ask("up", stream=stream, headers={"accept-encoding": coding})
    assert got.body == plain.body
    assert "content-encoding" not in got.headers
    assert up.requests[0].header("accept-encoding") == "identity"
    (record,) = play.records(1)
    assert (record["input_tokens"], record["output_tokens"]) == (
        USAGE["input_tokens"],
        USAGE["output_tokens"],
    )


@both
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("model", ["last", "last-renamed", "back", "home-renamed"])
def test_a_compressed_error_is_decoded(play, home, up, model, coding, stream):
    plain = error_json(500, "api_error", "what the provider says")
    answer = replace(packed(plain, coding), status=500)
    up.answer(answer)
    home.answer(answer)
    got = play.ask(model, stream=stream, headers={"accept-encoding": "gzip"})
    assert (got.status, got.body) == (500, plain.body)
    assert "content-encoding" not in got.headers
    assert got.state == "ended"


@pytest.mark.parametrize("body", [b'{"type":"error"}', b"\x1f\x8b\x08\x00 no gzip"], ids=["plain", "corrupt"])
def test_an_error_that_is_not_compressed_as_it_says_keeps_its_status(play, up, body):
    up.answer(Answer(500, (("Content-Encoding", "gzip"),), (body,)))
    got = play.ask("last")
    assert (got.status, got.body, got.state) == (500, body, "ended")
    assert "content-encoding" not in got.headers


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_a_compressed_error_passes_where_the_provider_was_told_what_the_client_takes(play, home, coding):
    answer = replace(packed(error_json(529, "overloaded_error"), coding), status=529)
    home.answer(answer)
    got = play.ask("claude-opus-4-5", headers={"accept-encoding": "gzip, br"})
    assert (got.status, got.body, got.headers["content-encoding"]) == (529, answer.body, coding)


def test_an_error_within_a_compressed_stream_is_seen(play, home, up):
    up.answer(compressed(sse(LATE[0], BROKEN), "gzip"))
    assert attempts(play, "up", stream=True) == "up:stream_error anthropic:200"


# what the client wants


@pytest.mark.parametrize("model", ["last", "up", "claude-opus-4-5"])
def test_a_client_that_wants_its_connection_closed_has_it_closed_after_any_answer(play, home, up, model):
    for answer in (error_json(401, "authentication_error"), message_json()):
        client = play.router.connect()
        up.answer(answer)
        home.answer(answer)
        client.ask(model, headers={"connection": "close"})
        assert client.client in client.closed


def test_an_answer_in_pieces_reaches_the_client_piece_by_piece(play):
    answer = json.loads(message_json("claude-opus-4-5").body)
    play.asks("claude-opus-4-5", stream=False)
    play.answers(Answer(200, (("Content-Type", "application/json"),), (b"{", NEVER), "chunked"))
    assert (play.got.body, play.got.state) == (b"{", "open")
    rest = json.dumps(answer)[1:].encode()
    play.sends(play.asked[0].server, b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
    assert json.loads(play.got.body) == answer
