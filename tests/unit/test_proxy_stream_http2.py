"""Where one connection carries many requests: HTTP/2 clients and HTTP/2 providers."""

import pytest

from tests.support.answers import Answer, error_json, message_sse, sse
from tests.support.played_wire import Asked
from tests.support.stream_fixtures import BROKEN, LATE, NOISE

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client, circuit: &never {degraded_after: 100000, open_after: 100000}}
  zai: {url: "http://zai.invalid", key: zai-key-for-tests-0001, circuit: *never, timeout: {connect: 3s}}
rules:
  - {match: "zai*", to: [zai, anthropic]}
  - {match: "last*", to: zai}
  - {match: "stubborn*", to: zai, failover: {retries: 1}}
"""  # noqa: E501  as rules are written


@pytest.fixture
def client(played_router):
    """A client that speaks HTTP/2."""
    return played_router.connect(alpn=b"h2")


@pytest.fixture
def home(played_router):
    return played_router.provider("home")


def open_all(client) -> None:
    """Every connection that is being opened comes about, as one of HTTP/1."""
    while client.opening:
        client.connects()


# clients


def test_requests_of_one_http2_client_fail_over_without_touching_each_other(client, home):
    home.answer(lambda asked: message_sse(asked.json["model"], ("spare",)))
    numbers = {client.asks(name): name for name in [f"zai-{n}" for n in range(5)]}
    open_all(client)
    for asked in [asked for asked in client.asked if asked.host == "zai"]:
        name = asked.json["model"]
        client.answers(sse(BROKEN, *NOISE) if name == "zai-3" else message_sse(name, (f"of {name}",)), asked)
        client.serve()
    for number, name in numbers.items():
        got, failed = client.others[number], name == "zai-3"
        told = "zai:stream_error anthropic:200" if failed else "zai:200"
        assert (got.state, got.headers["x-signalbox-attempts"]) == ("ended", told)
        assert got.body == message_sse(name, ("spare" if failed else f"of {name}",)).body


def test_a_request_that_its_http2_client_gives_up_is_cancelled_alone(client, never):
    numbers = [client.asks(name) for name in ("last-one", "last-other")]
    open_all(client)
    one, other = client.asked
    for asked in (one, other):
        client.answers(sse(*LATE[:4], never), asked)
    client.client_leaves(numbers[0])
    assert client.aborted == [one.server]
    (record,) = client.records(1)
    assert (record["upstream_model"], record["status"]) == ("last-one", "cancelled")
    client.sends(other.server, b"0\r\n\r\n")
    assert client.others[numbers[1]].state == "ended"


def test_requests_that_wait_in_line_for_a_connection_are_no_providers_failure(client):
    """mitmproxy opens a few connections at a time; the limit on a connection is not on waiting in line."""
    waiting, beside = client.asks("last-waiting"), client.asks("last-beside")
    client.passes(30)
    client.client_leaves(beside)
    assert [record["status"] for record in client.records(1)] == ["cancelled"]
    while not client.asked:
        client.connects()
    client.answers(message_sse("last-waiting"))
    assert client.others[waiting].headers["x-signalbox-attempts"] == "zai:200"
    assert len(client.asked) == 1


def test_two_requests_of_one_client_get_pings_each_for_itself(client, never):
    first = client.asks("zai-1")
    client.passes(5)
    second = client.asks("zai-2")
    open_all(client)
    client.passes(5.2)
    assert client.others[first].body.count(b"event: ping") == 1
    assert client.others[second].state == "waiting"
    client.passes(5)
    assert client.others[second].body.count(b"event: ping") == 1


# providers


def ask(client, model: str) -> tuple[int, Asked]:
    """The number of the request, and what the provider was sent."""
    number = client.asks(model)
    while client.opening:
        client.connects(alpn=b"h2")
    return number, client.asked[-1]


def test_an_http2_provider_answers(client):
    number, asked = ask(client, "zai-x")
    client.answers(message_sse("zai-x"), asked)
    got = client.others[number]
    assert (got.status, got.state, got.body) == (200, "ended", message_sse("zai-x").body)


def test_a_retry_uses_the_same_http2_connection(client):
    number, asked = ask(client, "stubborn")
    client.answers(error_json(500, "api_error"), asked)
    client.passes(30)
    again = client.asked[-1]
    assert again is not asked
    assert again.server is asked.server
    client.answers(message_sse("stubborn"))
    assert client.others[number].headers["x-signalbox-attempts"] == "zai:500 zai:200"
    assert client.others[number].body == message_sse("stubborn").body


def test_a_request_that_is_given_up_on_an_http2_connection_does_not_touch_its_neighbours(client, home):
    asked = [ask(client, f"zai-{n}") for n in range(6)]
    assert len({one.server for _, one in asked}) == 1
    for n, (_, one) in enumerate(asked):
        broken = sse(BROKEN, *NOISE, cut="close")
        client.answers(broken if n % 2 else message_sse(f"zai-{n}"), one)
        client.serve()
    for n, (number, _) in enumerate(asked):
        got = client.others[number]
        told = "zai:stream_error anthropic:200" if n % 2 else "zai:200"
        assert (got.headers["x-signalbox-attempts"], got.state) == (told, "ended")
        assert got.body == message_sse(f"zai-{n}").body
    server = asked[0][1].server
    assert client.resets(server) == [asked[n][1].stream for n in (1, 3, 5)]
    assert server not in client.closed + client.aborted


def test_a_client_that_leaves_resets_its_request_alone(client, never):
    (number, asked), (other, beside) = ask(client, "zai-1"), ask(client, "zai-2")
    for one in (asked, beside):
        client.answers(sse(*LATE[:4], cut="close"), one)
    client.client_leaves(number)
    assert client.resets(asked.server) == [asked.stream]
    assert asked.server not in client.closed + client.aborted
    assert client.others[other].state == "open"


def test_a_provider_that_resets_every_request_of_a_kept_connection_is_not_asked_for_ever(client, home):
    _, asked = ask(client, "zai-first")
    client.answers(message_sse("zai-first"), asked)
    client.passes(1)
    number, asked = ask(client, "zai-second")
    for _ in range(3):
        if client.others[number].state == "ended":
            break
        client.answers(Answer(cut="reset"), client.asked[-1])
        while client.opening and client.goes_to()[0] == "zai":
            client.connects(alpn=b"h2")
        client.serve()
    assert client.others[number].headers["x-signalbox-attempts"] == "zai:connect anthropic:200"


def test_a_connection_on_which_one_request_waits_in_silence_is_used_by_others(client):
    waiting, asked = ask(client, "last-1")
    client.answers(sse(*LATE[:4], cut="close"), asked)
    client.passes(60)
    number, beside = ask(client, "last-2")
    assert beside.server is asked.server
    client.answers(message_sse("last-2"), beside)
    assert (client.others[number].state, client.others[waiting].state) == ("ended", "open")


def test_an_http2_connection_that_was_silent_for_long_is_not_used_again(client):
    servers = []
    for silence in (49, 51, 0):
        _, asked = ask(client, "last")
        client.answers(message_sse("last"), asked)
        servers.append(asked.server)
        client.passes(silence)
    assert servers[0] is servers[1] is not servers[2]
    assert servers[0] in client.closed


def test_a_client_of_http1_may_have_an_http2_provider(play):
    play.asks("last")
    play.answers(message_sse("last"), alpn=b"h2")
    assert (play.got.state, play.got.body) == ("ended", message_sse("last").body)
    play.asks("last")
    play.answers(message_sse("last"))
    assert len({asked.server for asked in play.asked}) == 1
