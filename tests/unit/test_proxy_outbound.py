"""What is kept of connections through a proxy, and what is said of those that do not come about."""

import pytest

from tests.support.answers import message_json
from tests.support.playbook import Playbook

RULES = """
providers:
  far: {url: "http://far.invalid", key: zai-key-for-tests-0001, proxy: "http://proxy.invalid:3128"}
  near: {url: "http://near.invalid", key: zai-key-for-tests-0002}
rules:
  - {match: "*sonnet*", to: [far, near]}
"""


@pytest.fixture
def tunnel(play: Playbook):
    """The connection to the proxy, which was asked for a tunnel."""
    play.asks()
    assert play.goes_to() == ["proxy"]
    server = play.connects()
    assert play.sent_to(server) == b"CONNECT far.invalid:80 HTTP/1.1\r\nHost: far.invalid:80\r\n\r\n"
    return server


def test_nothing_is_kept_of_a_tunnel_that_was_refused(play: Playbook, tunnel) -> None:
    play.sends(tunnel, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    assert tunnel in play.closed
    play.answers(message_json("glm"))
    assert play.got.headers["x-signalbox-attempts"] == "far:connect near:200"
    assert play.kept_connections == 1


def test_nothing_is_kept_of_a_proxy_that_is_down(play: Playbook) -> None:
    for _ in range(3):
        play.asks()
        play.refuses()
        play.answers(message_json("glm"))
        assert play.got.headers["x-signalbox-attempts"] == "far:connect near:200"
    assert play.kept_connections <= 3


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (b"220 mail.invalid ESMTP\r\n\r\n", "answered with no HTTP"),
        (b"\r\n\r\n", "answered with no HTTP"),
        (b"x" * 300_000, "answered with no HTTP"),
    ],
)
def test_what_is_no_proxy_is_reported_as_such(play: Playbook, tunnel, caplog, says, reason) -> None:
    play.sends(tunnel, says)
    play.answers(message_json("glm"))
    assert f"the proxy proxy.invalid:3128 {reason}" in caplog.text


def test_a_proxy_that_closes_instead_of_an_answer_is_reported_as_such(play: Playbook, tunnel, caplog) -> None:
    play.closes(tunnel)
    play.answers(message_json("glm"))
    assert "the proxy proxy.invalid:3128 closed the connection" in caplog.text


def test_the_head_of_the_proxys_answer_may_come_in_pieces(play: Playbook, tunnel) -> None:
    for piece in (b"HTTP/1.1 2", b"00 OK\r\nVia: x\r", b"\n\r\n"):
        play.sends(tunnel, piece)
    assert play.sent_to(tunnel).startswith(b"POST /v1/messages HTTP/1.1\r\n")


def test_a_client_that_leaves_while_the_tunnel_is_made_ends_it(play: Playbook, tunnel) -> None:
    play.client_leaves()
    assert tunnel in play.closed


def test_what_comes_right_after_the_proxys_answer_is_the_providers(play: Playbook, tunnel) -> None:
    answer = message_json("glm")
    play.sends(tunnel, b"HTTP/1.1 200 OK\r\n\r\n" + answer.head()[:20])
    assert play.sent_to(tunnel).startswith(b"POST /v1/messages HTTP/1.1\r\n")
    play.sends(tunnel, answer.head()[20:] + b"".join(map(answer.frame, answer.chunks)))
    assert play.got.status == 200
