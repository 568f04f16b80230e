"""HTTP's corners: what a client or a provider may do that is not the usual way."""

import json
import socket
import threading
from collections.abc import Callable

import pytest

from tests.conftest import Shared
from tests.support.answers import (
    USAGE,
    Answer,
    compressed,
    message_events,
    message_json,
    message_sse,
    sse,
    text_block,
)
from tests.support.fake_provider import Upstream
from tests.support.router import Router

LOGIN = "Bearer sk-ant-oat01-fake-login-of-nobody"


def rules(home: Upstream, zai: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001}}
rules:
  - {{match: "*haiku*", to: zai/glm}}
  - {{match: "*", to: anthropic}}
"""


def head(path: str = "/v1/messages", version: str = "1.1", **headers: str) -> bytes:
    fields = {"Host": "127.0.0.1", "Authorization": LOGIN} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    lines = [f"POST {path} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def asked(model: str, **fields: object) -> bytes:
    return json.dumps({"model": model} | fields).encode()


class Line:
    """A raw connection to the router."""

    def __init__(self, router: Router) -> None:
        self.socket = socket.create_connection(("127.0.0.1", router.ports[0]), timeout=10)
        self.seen = b""

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def until(self, text: bytes) -> bytes:
        """All that came, once `text` is in it."""
        while text not in self.seen:
            data = self.socket.recv(65536)
            assert data, f"closed before {text!r} came: {self.seen!r}"
            self.seen += data
        return self.seen

    def until_closed(self) -> bytes:
        while data := self.socket.recv(65536):
            self.seen += data
        return self.seen


@pytest.fixture
def line(shared: Shared) -> Line:
    with Line(shared.router) as one:
        yield one


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-4-5"])
def test_a_client_that_asks_whether_to_go_on_is_told_so_once(shared, line, model):
    body = asked(model)
    line.send(head(Expect="100-continue", Content_Length=str(len(body))))
    line.until(b"100 Continue\r\n\r\n")
    line.send(body)
    assert line.until(b"message").count(b"HTTP/1.1 ") == 2
    provider = shared.second if "haiku" in model else shared.upstream
    assert provider.requests[0].header("expect") is None


def test_an_error_reaches_a_client_that_had_been_told_to_go_on(start_router, upstream, second):
    text = rules(upstream, second).replace(second.url, "http://127.0.0.1:9")
    with Line(start_router(upstream.url, rules=text)) as line:
        body = asked("claude-haiku-4-5")
        line.send(head(Expect="100-continue", Content_Length=str(len(body))) + body)
        assert b"HTTP/1.1 502" in line.until(b"could not be reached")


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-4-5"])
def test_early_hints_are_not_the_answer(shared, line, model):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 2
    answer = message_json(model)
    shared.upstream.answer(Answer(framing="raw", chunks=(hints, answer.head() + answer.body)))
    shared.second.answer(Answer(framing="raw", chunks=(hints + answer.head() + answer.body,)))
    for _ in range(2):
        line.send(head(Content_Length=str(len(asked(model)))) + asked(model))
        answer = line.until(b'"output_tokens":17}}')
        assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 200") == 1
        line.seen = b""


def test_headers_that_stand_twice_keep_their_values(shared, line):
    body = asked("claude-opus-4-5")
    twice = (
        head(Content_Length=str(len(body)))[:-2]
        + b"Cookie: a=1\r\nX-Token: k1\r\nCookie: b=2\r\nX-Token: k2\r\n\r\n"
    )
    line.send(twice + body)
    line.until(b"message")
    sent = shared.upstream.requests[0].headers
    assert [value for name, value in sent if name == "Cookie"] == ["a=1", "b=2"]
    assert [value for name, value in sent if name == "X-Token"] == ["k1", "k2"]


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-4-5"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_wants_its_connection_closed_gets_that(shared, line, model, stream):
    body = asked(model, stream=stream)
    line.send(head(Connection="close", Content_Length=str(len(body))) + body)
    assert line.until_closed().startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-4-5"])
def test_an_old_client_gets_a_stream_without_chunks(shared, line, model):
    shared.upstream.answer(message_sse(model))
    shared.second.answer(message_sse(model))
    body = asked(model, stream=True)
    line.send(head(version="1.0", Content_Length=str(len(body))) + body)
    answer = line.until_closed()
    assert answer.partition(b"\r\n\r\n")[2] == message_sse(model).body
    assert b"chunked" not in answer


@pytest.mark.parametrize("cut", [60, -12], ids=["in the middle", "at the end"])
def test_an_answer_that_cannot_be_decoded_to_its_end_is_cut(shared, line, cut):
    whole = compressed(message_sse("glm"), "gzip")
    data = whole.body[:cut] if cut < 0 else whole.body[:cut] + b"\xff" * 40
    shared.second.answer(Answer(200, whole.headers, (data,), "chunked"))
    body = asked("claude-haiku-4-5", stream=True)
    line.send(head(Content_Length=str(len(body)), X_Claude_Code_Session_Id=f"cut{cut}") + body)
    assert not line.until_closed().endswith(b"\r\n0\r\n\r\n")
    assert shared.router.records(1, session=f"cut{cut}")[0]["status"] == "error"


def test_two_clients_secrets_go_no_further(start_router, upstream, second):
    text = rules(upstream, second) + "clients: {ann: secret-of-ann, bob: secret-of-bob}\n"
    with Line(start_router(upstream.url, rules=text)) as line:
        body = asked("claude-opus-4-5")
        secrets = {"x-api-key": "secret-of-ann", "X-Signalbox-Client": "secret-of-bob"}
        line.send(head(Content_Length=str(len(body)), **secrets) + body)
        line.until(b"message")
    sent = upstream.requests[0]
    assert not any("secret-of" in value for _, value in sent.headers)
    assert sent.header("x-signalbox-client") is None
    assert sent.header("authorization") == LOGIN


def test_a_provider_that_was_down_is_asked_again_on_the_same_connection(start_router, upstream):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        text = f"providers: {{p: {{url: 'http://127.0.0.1:{port}'}}}}\nrules: [{{match: '*', to: p}}]\n"
        router = start_router(upstream.url, rules=text)
        with Line(router) as line:
            line.send(head(Content_Length="13") + b'{"model":"x"}')
            line.until(b"could not be reached")
            line.seen = b""
            held.listen()
            line.send(head(Content_Length="13") + b'{"model":"x"}')
            held.settimeout(10)
            provider, _ = held.accept()
            with provider:
                provider.recv(65536)
                answer = message_json("x")
                provider.sendall(answer.head() + answer.body)
            assert line.until(b'"output_tokens":17}}').startswith(b"HTTP/1.1 200")


def test_what_is_in_flight_when_the_router_ends_is_nobodys_failure(start_router, upstream, second):
    router: Router = start_router(upstream.url, rules=rules(upstream, second))
    never = threading.Event()
    events = message_events("glm", [text_block("")], ["half"], USAGE, USAGE)
    second.answer(sse(*events[:4], never))
    with Line(router) as line:
        body = asked("claude-haiku-4-5", stream=True)
        line.send(head(Content_Length=str(len(body))) + body)
        line.until(b"half")
        assert router.stop() == 0
    assert router.records(1)[0]["status"] == "cancelled"


def test_a_client_that_leaves_at_once_is_recorded_as_such(shared):
    with Line(shared.router) as line:
        body = asked("claude-haiku-4-5", pad="x" * 200_000)
        line.send(head(Content_Length=str(len(body)), X_Claude_Code_Session_Id="left") + body)
    assert shared.router.records(1, session="left")[0]["status"] == "cancelled"


def test_a_redirect_of_a_provider_does_not_lead_the_client_away(shared, line):
    shared.second.answer(Answer(307, (("Location", "http://elsewhere.invalid/"),), ()))
    body = asked("claude-haiku-4-5")
    line.send(head(Content_Length=str(len(body))) + body)
    answer = line.until(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 307")
    assert b"elsewhere" not in answer


def test_a_key_that_a_command_prints_is_fetched_again_after_a_401_and_used_at_once(
    start_router: Callable[..., Router], upstream, tmp_path
):
    key = tmp_path / "key"
    key.write_text("first-key-for-tests")
    text = f"""
providers: {{p: {{url: "{upstream.url}", key: {{command: [cat, "{key}"]}}}}}}
rules: [{{match: "*", to: p}}]
"""
    router = start_router(upstream.url, rules=text)
    upstream.answer(Answer(401), message_json("x"))
    key.write_text("second-key-for-tests")
    with Line(router) as line:
        line.send(head(Content_Length="13") + b'{"model":"x"}')
        line.until(b"HTTP/1.1 200")
        line.until(b"message")
    assert [one.header("x-api-key") for one in upstream.requests] == [
        "first-key-for-tests",
        "second-key-for-tests",
    ]
