"""What goes wrong, told clearly: dead providers, huge bodies, faults of our own."""

import gzip
import http.client
import json
import re
import socket
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.answers import Answer, message_sse
from tests.running import Router
from tests.upstream import Upstream

ROUTER = Router

LOGIN = "Bearer sk-ant-oat01-fake-login-of-nobody"
DEAD = 1
"""A port of loopback on which nobody listens: only the system's own services may."""


def rules(home: Upstream, zai: Upstream, more: str = "") -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001}}
  dead: {{url: "http://127.0.0.1:{DEAD}", key: dead-key-for-tests-001}}
  nowhere: {{url: "http://nowhere.invalid", key: dead-key-for-tests-001}}
rules:
  - {{match: "*haiku*", to: zai/glm-4.5-air}}
  - {{match: "dead", to: dead}}
  - {{match: "nowhere", to: nowhere}}
  - {{match: "*", to: anthropic}}
limits: {{body: 64KB}}
{more}
"""


def ask(
    port: int, model: str, path: str = "/v1/messages", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer, asked on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        raw = json.dumps({"model": model, "messages": []}).encode() if body is None else body
        connection.request("POST", path, raw, {"Authorization": LOGIN} | headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    finally:
        connection.close()


def error(body: bytes) -> dict[str, str]:
    told: dict[str, Any] = json.loads(body)
    assert told["type"] == "error"
    return told["error"]


@pytest.mark.parametrize("model", ["dead", "nowhere"])
def test_a_provider_that_cannot_be_reached_is_named_with_the_cause(router, model):
    status, headers, body = ask(router.ports[0], model)
    assert status == 502
    assert error(body)["type"] == "api_error"
    assert error(body)["message"].startswith(f"{model} could not be reached at ")
    assert "Errno" not in error(body)["message"]
    assert headers["x-signalbox-attempts"] == f"{model}:connect"
    router.wait_log(rf"\[{model}\|{model}\] 502 .+ \({model} at [\w.]+:\d+\) \d+ms")


def test_a_provider_that_speaks_no_tls_is_one_that_cannot_be_reached(start_router, upstream, second, no_tls):
    text = rules(upstream, second).replace(f"http://127.0.0.1:{DEAD}", f"https://127.0.0.1:{no_tls}")
    status, _, body = ask(start_router(upstream.url, rules=text).ports[0], "dead")
    assert status == 502
    assert error(body)["message"].startswith("dead could not be reached at ")


def test_a_failed_connect_leaves_the_clients_connection_usable(router):
    connection = http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=10)
    for model, status in (("dead", 502), ("claude-haiku-4-5", 200), ("dead", 502), ("claude-haiku-4-5", 200)):
        connection.request("POST", "/v1/messages", json.dumps({"model": model}), {"Authorization": LOGIN})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


@pytest.mark.parametrize(
    "broken",
    [
        Answer(framing="raw", chunks=(), cut="close"),
        Answer(framing="raw", chunks=(), cut="reset"),
        Answer(framing="raw", chunks=(b"SSH-2.0-this is no HTTP\r\n\r\n",), cut="close"),
        Answer(framing="raw", chunks=(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",), cut="close"),
    ],
    ids=["closed", "reset", "no HTTP", "no length"],
)
def test_a_provider_that_breaks_off_before_it_answers_gives_502(router, shared, broken):
    shared.second.answer(broken)
    status, headers, body = ask(router.ports[0], "claude-haiku-4-5")
    assert status == 502
    assert error(body)["message"].startswith("zai at 127.0.0.1:")
    assert headers["content-type"] == "application/json"


def test_what_is_only_passed_on_gets_its_502_in_anthropics_shape_too(start_router, upstream):
    dead = start_router(f"http://127.0.0.1:{DEAD}", rules="")
    broken = start_router(upstream.url, rules="")
    upstream.answer(Answer(framing="raw", chunks=(), cut="close"))
    for router, said in (
        (dead, r"could not be reached at 127\.0\.0\.1:\d+: .+"),
        (broken, "at .+ broke off .+"),
    ):
        status, headers, body = ask(router.ports[0], "claude-haiku-4-5", "/v1/elsewhere")
        assert (status, error(body)["type"]) == (502, "api_error")
        assert re.fullmatch(f"the upstream {said}", error(body)["message"])
        assert not [name for name in headers if name.startswith("x-signalbox")]


def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(router):
    with socket.create_connection(("127.0.0.1", router.ports[0]), timeout=5) as client:
        client.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n{")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_a_client_that_writes_before_it_reads_gets_to_see_the_refusal(router, shared, path):
    status, headers, body = ask(router.ports[0], "x", path, b"x" * 5_000_000)
    assert status == 413
    assert error(body)["type"] == "request_too_large"
    assert "x-signalbox-provider" not in headers
    assert not shared.upstream.requests


def test_a_body_without_a_length_is_refused_once_it_is_too_large(router):
    connection = http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=10)
    connection.request("POST", "/v1/messages", iter([b"x" * 10_000] * 20), encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413
    assert error(answer.read())["type"] == "request_too_large"
    connection.close()


def test_a_body_that_grows_too_large_when_decoded_is_refused(router):
    bomb = gzip.compress(b'{"model":"' + b"x" * 100_000_000)
    bomb = gzip.compress(bomb)
    assert len(bomb) < 64 * 1024
    status, _, body = ask(router.ports[0], "", body=bomb, **{"Content-Encoding": "gzip, gzip"})
    assert status == 413
    assert error(body)["type"] == "request_too_large"


def test_a_body_just_within_the_limit_passes(router, shared):
    raw = json.dumps({"model": "claude-haiku-4-5", "pad": ""}).encode()
    raw = raw.replace(b'"pad": ""', b'"pad": "%s"' % (b"x" * (64 * 1024 - len(raw))))
    assert len(raw) == 64 * 1024
    assert ask(router.ports[0], "", body=raw)[0] == 200


def test_other_paths_take_any_size(router, shared):
    assert ask(router.ports[0], "", "/v1/files", b"x" * 200_000)[0] == 200
    assert len(shared.upstream.wait_for(1)[0].body) == 200_000


# faults of the router itself


@pytest.fixture
def broken_router(start_router: Callable[..., Router], upstream: Upstream, second: Upstream) -> Router:
    options = ("-s", str(Path(__file__).parent / "faults.py"))
    return start_router(upstream.url, rules=rules(upstream, second), options=options)


@pytest.fixture
def closed_router(start_router: Callable[..., Router], upstream: Upstream, second: Upstream) -> Router:
    options = ("-s", str(Path(__file__).parent / "faults.py"))
    return start_router(upstream.url, rules=rules(upstream, second, "fail: closed"), options=options)


def test_a_fault_lets_a_request_with_its_own_login_through_unchanged(broken_router, upstream, second):
    status, headers, _ = ask(broken_router.ports[0], "claude-haiku-4-5", **{"X-Break": "route"})
    assert status == 200
    assert headers["x-signalbox-rule"] == "fail-open"
    assert upstream.wait_for(1)[0].json["model"] == "claude-haiku-4-5"
    assert upstream.requests[0].header("authorization") == LOGIN
    assert not second.requests
    assert broken_router.health()["status"] == "degraded"
    broken_router.wait_log("dispatch: anthropic reason=fail-open")
    assert "Traceback" not in broken_router.log()
    assert "secret-in-a-fault" not in broken_router.log()


def test_a_fault_after_the_request_was_rewritten_sends_it_nowhere(broken_router, upstream, second):
    status, _, body = ask(broken_router.ports[0], "claude-haiku-4-5", **{"X-Break": "late"})
    assert status == 500
    assert error(body)["type"] == "api_error"
    assert not upstream.requests
    assert not second.requests


def test_a_fault_of_an_own_page_is_not_forwarded(broken_router, upstream):
    (broken_router.folder / "break-health").touch()
    with pytest.raises(urllib.error.HTTPError) as refused:
        broken_router.health()
    assert refused.value.code == 500
    refused.value.close()
    assert not upstream.requests


def test_a_fault_gives_an_error_where_the_caller_has_no_login(broken_router, upstream):
    connection = http.client.HTTPConnection("127.0.0.1", broken_router.ports[0], timeout=10)
    connection.request("POST", "/v1/messages", b'{"model":"claude-haiku-4-5"}', {"X-Break": "route"})
    answer = connection.getresponse()
    assert answer.status == 500
    assert error(answer.read())["type"] == "api_error"
    connection.close()
    assert not upstream.requests


def test_a_fault_gives_an_error_where_the_rules_say_closed(closed_router, upstream):
    status, _, body = ask(closed_router.ports[0], "claude-haiku-4-5", **{"X-Break": "route"})
    assert status == 500
    assert error(body)["message"] == "The router failed; its log says where."
    assert not upstream.requests


def test_a_fault_of_the_reader_costs_no_byte(broken_router, second):
    second.answer(message_sse("glm", ["BREAK-READER"]))
    asked = json.dumps({"model": "claude-haiku-4-5", "stream": True, "messages": []}).encode()
    status, _, body = ask(broken_router.ports[0], "", body=asked)
    assert status == 200
    assert b"BREAK-READER" in body
    assert body.endswith(b'data: {"type":"message_stop"}\n\n')
    broken_router.wait_log("error in the reader of an answer: KeyError at faults.py:")


def test_a_fault_in_the_layers_is_answered_and_the_next_request_works(broken_router):
    began = time.monotonic()
    status, _, body = ask(broken_router.ports[0], "claude-haiku-4-5", **{"X-Break": "layer"})
    assert status == 500
    assert error(body)["type"] == "api_error"
    assert time.monotonic() - began < 5
    assert "secret-in-a-fault" not in broken_router.log()
    assert ask(broken_router.ports[0], "claude-haiku-4-5")[0] == 200
