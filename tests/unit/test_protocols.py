"""One target is sent what it understands, and nothing of what another one was."""

import json
from typing import Any

import pytest
from hypothesis import given

from signalbox.anthropic.json_edit import Body
from signalbox.config.fields import Secret, Url, parse_glob
from signalbox.config.rules import Provider, Target
from signalbox.protocols import api_of
from signalbox.routing.facts import Facts
from signalbox.routing.outgoing import Incoming, Outgoing, ProviderConstraints
from signalbox.routing.plan import Candidate
from signalbox.routing.translator import UntranslatableError
from tests.support.chat_bodies import BODIES

LOGIN = ("Authorization", "Bearer sk-ant-oat01-fake-login-of-nobody")


def send(api: str, url: Url | None = None, path: str | None = None, **fields: object) -> Outgoing:
    body = {"model": "claude-opus-4-5", "max_tokens": 9, **fields}
    return prepare_body(api, Body.parse(json.dumps(body).encode()), url, path)


def prepare_body(api: str, body: Body, url: Url | None = None, path: str | None = None) -> Outgoing:
    url = url or Url("https", f"{api}.example", 443, "/base")
    header = "x-api-key" if api == "anthropic" else "authorization"
    keys = (Secret(f"key-of-{api}"),)
    provider = Provider(name=api, url=url, api=api, auth="key", key_header=header, keys=keys, path=path)
    candidate = Candidate(provider, Target(api), f"model-of-{api}")
    return api_of(candidate).prepare(
        candidate,
        Facts(path="/v1/messages", port=1, headers={}, body=body),
        Incoming("/v1/messages?beta=true", (("Host", "127.0.0.1"), LOGIN), body.raw, body),
        key=provider.key,
        constraints=ProviderConstraints(lambda _: None),
        is_only_candidate=False,
        seed="seed",
    )


QUESTION = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]


@pytest.mark.parametrize(
    ("api", "path", "key", "content"),
    [
        ("anthropic", "/base/v1/messages?beta=true", "key-of-anthropic", QUESTION[0]["content"]),
        ("openai", "/base/chat/completions", "Bearer key-of-openai", "Hello"),
        (
            "responses",
            "/base/responses",
            "Bearer key-of-responses",
            [{"type": "input_text", "text": "Hello"}],
        ),
    ],
)
def test_each_is_asked_in_the_protocol_it_speaks_at_its_own_url_with_its_own_key(api, path, key, content):
    outgoing = send(api, messages=QUESTION)
    headers = {name.lower(): value for name, value in outgoing.headers}
    body = json.loads(outgoing.body)
    assert (outgoing.path, headers["host"]) == (path, f"{api}.example")
    assert [value for value in headers.values() if "key-of" in value] == [key]
    assert LOGIN[1] not in headers.values()
    messages = body["input" if api == "responses" else "messages"]
    assert (body["model"], messages[0]["content"]) == (f"model-of-{api}", content)
    assert int(headers["content-length"]) == len(outgoing.body)
    assert headers["accept-encoding"] == "identity"


def test_a_provider_of_two_protocols_is_asked_in_that_of_the_model_sent():
    globs = ((parse_glob("claude-*"), "anthropic"), (parse_glob("*"), "openai"))
    provider = Provider(
        name="both", url=Url("https", "both.example", 443), api=globs, keys=(Secret("key-of-both"),)
    )
    body = Body.parse(json.dumps({"model": "x", "max_tokens": 9, "messages": QUESTION}).encode())
    asked = {}
    for model in ("claude-opus-4-5", "gpt-5.6-sol"):
        candidate = Candidate(provider, Target("both"), model)
        outgoing = api_of(candidate).prepare(
            candidate,
            Facts(path="/v1/messages", port=1, headers={}, body=body),
            Incoming("/v1/messages", (), body.raw, body),
            key=provider.key,
            constraints=ProviderConstraints(lambda _: None),
            is_only_candidate=False,
            seed="seed",
        )
        asked[outgoing.path] = [header for header in outgoing.headers if "key-of-both" in header[1]]
    assert asked == {
        "/v1/messages": [("x-api-key", "key-of-both")],
        "/chat/completions": [("authorization", "Bearer key-of-both")],
    }


def test_what_has_no_words_in_a_protocol_is_refused_by_that_alone():
    assert send("anthropic", messages=[], compaction={"type": "summarize"})
    for api in ("openai", "responses"):
        with pytest.raises(UntranslatableError):
            send(api, messages=[], compaction={"type": "summarize"})


PREFILLED = [*QUESTION, {"role": "assistant", "content": "It is"}]


@pytest.mark.parametrize(
    ("url", "path", "messages", "sent"),
    [
        (Url("https", "api.deepseek.com", 443), None, PREFILLED, "/beta/chat/completions"),
        (Url("https", "api.deepseek.com", 443, "/v1"), None, PREFILLED, "/beta/chat/completions"),
        (Url("https", "api.deepseek.com", 443, "/v1"), None, QUESTION, "/v1/chat/completions"),
        (Url("https", "api.deepseek.com", 443), "/own", PREFILLED, "/own"),
        (Url("https", "deepseek.example", 443, "/v1"), None, PREFILLED, "/v1/chat/completions"),
        (Url("https", "api.moonshot.ai", 443, "/v1"), None, PREFILLED, "/v1/chat/completions"),
    ],
    ids=str,
)
def test_deepseek_continues_the_assistants_words_under_another_path(url, path, messages, sent):
    outgoing = send("openai", url, path, messages=messages)
    assert (outgoing.path, outgoing.shown_path) == (sent, sent)


@pytest.mark.slow
@given(BODIES)
def test_any_body_is_prepared_or_refused_and_stays_as_it_is(fields: dict[str, Any]):
    """Another target may need it yet."""
    raw = json.dumps(fields).encode()
    body = Body.parse(raw)
    for api in ("anthropic", "openai", "responses"):
        try:
            outgoing = prepare_body(api, body)
        except UntranslatableError:
            assert api != "anthropic"
        else:
            assert ("content-length", str(len(outgoing.body))) in outgoing.headers
            assert isinstance(json.loads(outgoing.body), dict)
    assert (body.raw, body.readable) == (raw, raw)
