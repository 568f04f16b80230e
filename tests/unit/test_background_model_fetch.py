"""One provider is asked for its model list."""

import asyncio
import gzip
import json
import threading
import time
from typing import Any

import pytest

from signalbox.background.model_fetch import LARGEST, fetch_models
from signalbox.background.model_list import LIMIT, FetchError, FetchRefusedError
from signalbox.config.load import parse
from signalbox.config.rules import Provider
from signalbox.routing.credentials import Caller
from tests.support.answers import Answer, error_json, json_answer
from tests.support.fake_provider import Received, Upstream
from tests.support.raw_client import black_hole
from tests.support.router_process import ROOT, free_ports

CALLER = Caller(
    (
        ("Host", "127.0.0.1:8082"),
        ("Connection", "keep-alive"),
        ("Accept-Encoding", "gzip, br"),
        ("Authorization", "Bearer sk-ant-oat01-fake-login-of-nobody"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "one"),
        ("anthropic-beta", "two"),
        ("X-Claude-Code-Session-Id", "s1"),
        ("Cookie", "c=1"),
        ("X-Name", "Zoë"),
    )
)


def provider(url: str, settings: str = "key: key-of-the-provider") -> Provider:
    text = f'providers:\n  p: {{url: "{url}", {settings}}}\n'
    return parse(text, file=ROOT / "rules.yaml", environ={}).providers["p"]


def asked(
    provider: Provider, caller: Caller | None = None, query: str = "", *, limit: float = 30
) -> list[str]:
    credential = caller if provider.auth == "client" else provider.key
    return [entry["id"] for entry in asyncio.run(fetch_models(provider, credential, query, limit=limit))]


def models(*ids: str, **more: Any) -> Answer:
    return json_answer({"data": [{"id": id} for id in ids], **more})


def test_anthropics_protocol_is_asked_for_as_much_as_it_gives_at_once(upstream):
    upstream.answer(models("a", "b"))
    assert asked(provider(upstream.url + "/api")) == ["a", "b"]
    (received,) = upstream.requests
    assert (received.method, received.path) == ("GET", "/api/v1/models?limit=1000")
    assert received.header("x-api-key") == "key-of-the-provider"
    assert received.header("anthropic-version") == "2023-06-01"


def test_openais_protocol_has_its_own_path_and_header_and_no_pages(upstream):
    upstream.answer(models("a", has_more=True))
    assert asked(provider(upstream.url + "/v1", "api: openai, key: key-of-the-provider")) == ["a"]
    (received,) = upstream.requests
    assert received.path == "/v1/models"
    assert received.header("authorization") == "Bearer key-of-the-provider"
    assert received.header("anthropic-version") is None


def test_the_headers_and_the_query_of_the_rules_go_along(upstream):
    upstream.answer(models())
    settings = 'headers: {X-Title: signalbox, user-agent: ""}, query: {api-version: v 1}'
    asked(provider(upstream.url, settings), query="lifecycle[]=active")
    (received,) = upstream.requests
    assert received.path == "/v1/models?lifecycle[]=active&limit=1000&api-version=v+1"
    assert received.header("x-title") == "signalbox"
    assert received.header("user-agent") is None


def test_a_provider_with_the_callers_login_gets_what_the_caller_sent_and_no_more(upstream):
    upstream.answer(models())
    asked(provider(upstream.url, "auth: client"), CALLER)
    received = [(name, value.encode("latin-1").decode()) for name, value in upstream.requests[0].headers]
    sent = [header for header in CALLER.headers if header[0] not in ("Host", "Connection", "Accept-Encoding")]
    assert [header for header in received if header in sent] == sent
    others = {name.lower(): value for name, value in received if (name, value) not in sent}
    assert others == {"host": f"127.0.0.1:{upstream.port}", "accept-encoding": "identity"}


def test_a_provider_with_a_login_of_its_own_gets_its_token_with_the_beta_that_belongs_to_it(upstream):
    upstream.answer(models())
    asyncio.run(fetch_models(provider(upstream.url, "auth: claude-login"), "sk-ant-oat01-fake-own-login"))
    (received,) = upstream.requests
    assert received.header("authorization") == "Bearer sk-ant-oat01-fake-own-login"
    assert received.header("anthropic-beta") == "oauth-2025-04-20"


def test_each_answers_status_and_headers_are_heard(upstream):
    heard = []
    told = ("anthropic-ratelimit-unified-5h-utilization", "0.4")
    upstream.answer(
        json_answer({"data": [{"id": "a"}], "has_more": True}, headers=(told,)), error_json(429, "e")
    )
    with pytest.raises(FetchRefusedError):
        asyncio.run(fetch_models(provider(upstream.url), None, observe=lambda *answer: heard.append(answer)))
    assert [(status, headers.get(told[0])) for status, headers in heard] == [(200, "0.4"), (429, None)]


def test_a_provider_of_another_kind_gets_nothing_of_the_callers(upstream):
    upstream.answer(models())
    asked(provider(upstream.url))
    names = {name.lower() for name, _ in upstream.requests[0].headers}
    assert names == {*("host", "accept", "accept-encoding", "user-agent", "anthropic-version", "x-api-key")}


def test_an_anthropic_credential_in_a_header_of_the_rules_is_not_sent(upstream):
    with pytest.raises(FetchError, match="x-more holds an Anthropic credential that is not its own"):
        asked(provider(upstream.url, "headers: {x-more: sk-ant-fake-of-nobody}"))
    assert upstream.requests == []


def test_all_pages_are_asked_for(upstream):
    def page(received: Received) -> Answer:
        _, _, after = received.path.partition("&after_id=")
        pages = {"": ("a", "b"), "b": ("c", "d"), "d": ("e",)}
        return models(*pages[after], has_more=after != "d")

    upstream.answer(page)
    assert asked(provider(upstream.url)) == list("abcde")


def test_pages_that_tell_nothing_new_end_it(upstream):
    upstream.answer(models("a", has_more=True))
    assert asked(provider(upstream.url)) == ["a"]
    assert len(upstream.requests) == 2


def test_a_list_without_end_ends(upstream):
    number = iter(range(10**6))
    upstream.answer(lambda _: models(*(f"m{next(number)}" for _ in range(1000)), has_more=True))
    assert len(asked(provider(upstream.url))) == 5000


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_a_refusal_holds_the_providers_own_answer(upstream, status):
    upstream.answer(error_json(status, "some_error", headers=(("Retry-After", "7"),)))
    with pytest.raises(FetchRefusedError, match=f"it answered {status}") as refused:
        asked(provider(upstream.url))
    answer = refused.value.answer
    assert answer.status == status
    assert ("retry-after", "7") in [(name.lower(), value) for name, value in answer.headers]
    assert json.loads(answer.body)["error"]["type"] == "some_error"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_nobody_is_sent_a_key_because_of_a_redirect(upstream, second, status):
    upstream.answer(Answer(status, (("Location", f"{second.url}/v1/models"),)))
    with pytest.raises(FetchRefusedError, match=f"it answered {status}"):
        asked(provider(upstream.url))
    assert second.requests == []


def test_a_compressed_list_is_read_all_the_same(upstream):
    body = gzip.compress(b'{"data": [{"id": "a"}]}')
    upstream.answer(Answer(200, (("Content-Encoding", "gzip"),), (body,)))
    assert asked(provider(upstream.url)) == ["a"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(200, (), (b"<html>busy</html>",)), "its list cannot be read: "),
        (
            Answer(200, (), (b" " * (LARGEST + 1), threading.Event()), length=LARGEST * 2),
            "its list cannot be read: more than",
        ),
        (
            Answer(200, (("Content-Encoding", "gzip"),), (gzip.compress(b" " * (LARGEST + 1)),)),
            "its list cannot be read: more than",
        ),
        (Answer(200, (("Content-Encoding", "rot13"),), (b"{}",)), "its list cannot be read: content-enc"),
        (Answer(200, (), (b'{"data": [',), length=500, cut="close"), "it could not be asked: "),
        (
            Answer(200, (), (b"no HTTP at all\r\n\r\n",), framing="raw", cut="close"),
            "it could not be asked: ",
        ),
        (json_answer({"error": {"message": "unsupported"}}), "its list cannot be read: it is no list"),
    ],
    ids=["HTML", "huge", "bomb", "unknown encoding", "cut", "no HTTP", "error with 200"],
)
def test_what_is_no_list_is_reported(upstream, answer, why):
    upstream.answer(answer)
    with pytest.raises(FetchError, match=why):
        asked(provider(upstream.url))


def test_one_that_refuses_connections_is_reported():
    with pytest.raises(FetchError, match="it could not be reached"):
        asked(provider(f"http://127.0.0.1:{free_ports(1)[0]}"))


@pytest.mark.slow
@pytest.mark.parametrize("script", ["silent", "trickle", "endless pages"])
def test_a_slow_one_is_left_after_the_limit(upstream, script):
    number = iter(range(10**6))

    def slow_page(_: Received) -> Answer:
        return Answer(200, (), (0.3, b'{"data": [{"id": "m%d"}], "has_more": true}' % next(number)), "close")

    scripts = {
        "silent": Answer(wait=threading.Event()),
        "trickle": Answer(200, (), (b"{", *(0.2, b" ") * 50)),
        "endless pages": slow_page,
    }
    upstream.answer(scripts[script])
    begun = time.monotonic()
    with pytest.raises(FetchError, match="it took longer than 2 s"):
        asked(provider(upstream.url), limit=LIMIT)
    assert time.monotonic() - begun > LIMIT - 0.1


@pytest.mark.slow
def test_one_that_takes_no_connection_is_left_after_the_limit():
    with black_hole() as port, pytest.raises(FetchError, match="it took longer than 2 s"):
        asked(provider(f"http://127.0.0.1:{port}"), limit=LIMIT)


def test_no_proxy_of_the_environment_stands_between(upstream, second, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", second.url)
    monkeypatch.setenv("ALL_PROXY", second.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    upstream.answer(models("a"))
    assert asked(provider(upstream.url)) == ["a"]
    assert second.requests == []


def test_a_cookie_of_one_answer_stays_out_of_the_next_request():
    with Upstream() as upstream:
        upstream.answer(json_answer({"data": []}, headers=(("Set-Cookie", "account=1"),)))
        for _ in range(2):
            asked(provider(upstream.url))
        assert [received.header("cookie") for received in upstream.requests] == [None, None]
