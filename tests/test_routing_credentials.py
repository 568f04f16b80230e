"""Which headers may leave for whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.config.rules import Provider, Secret, Url
from signalbox.routing.credentials import forwarded, identify, leak, secrets_of, with_key

URL = Url("https", "api.example.com", 443)
LOGIN = "Bearer sk-ant-oat-fake-login-of-nobody"
KEY = "key-of-the-provider"
THIRD = Provider(name="zai", url=URL, auth="key", keys=(Secret(KEY),))
HOME = Provider(name="anthropic", url=URL, auth="client", beta="forward")
HEADERS = (
    ("Authorization", LOGIN),
    ("X-Api-Key", "sk-ant-api-fake"),
    ("Cookie", "session=1"),
    ("X-Claude-Code-Session-Id", "s1"),
    ("anthropic-workspace-id", "w1"),
    ("anthropic-version", "2023-06-01"),
    ("X-Custom", "kept"),
    ("Connection", "keep-alive, X-Hop"),
    ("X-Hop", "1"),
    ("X-Other", "uses sk-ant-fake inside"),
)


def test_a_provider_with_the_callers_login_gets_every_header_in_order():
    assert forwarded(HEADERS, HOME) == list(HEADERS)


def test_another_provider_gets_nothing_that_tells_who_the_caller_is():
    assert forwarded(HEADERS, THIRD) == [("anthropic-version", "2023-06-01"), ("X-Custom", "kept")]


@pytest.mark.parametrize(
    ("key_header", "expected"),
    [("x-api-key", KEY), ("authorization", f"Bearer {KEY}"), ("api-key", KEY)],
)
def test_the_providers_key_goes_in_the_header_it_wants(key_header, expected):
    provider = Provider(name="p", url=URL, auth="key", keys=(Secret(KEY),), key_header=key_header)
    assert with_key([], provider, KEY) == [(key_header, expected)]


def test_what_a_request_is_sent_with_is_known_by_its_names():
    headers = [*HEADERS, ("authorization", "Bearer ollama"), ("api-key", KEY), ("x-max", "100000000")]
    assert set(secrets_of(headers, {"api-version": "2024-10-21", "sig-token": "of-the-query"})) == {
        "sk-ant-oat-fake-login-of-nobody",
        "sk-ant-api-fake",
        "session=1",
        "uses sk-ant-fake inside",
        KEY,
        "of-the-query",
    }


def test_without_clients_anyone_is_let_in_with_what_they_bring():
    caller = identify(HEADERS, {})
    assert caller is not None
    assert caller.headers == HEADERS
    assert caller.client is None


@pytest.mark.parametrize(
    "header",
    [
        ("x-api-key", "team-secret"),
        ("Authorization", "Bearer team-secret"),
        ("x-signalbox-client", "team-secret"),
    ],
)
def test_a_client_proves_itself_in_one_of_three_headers_and_that_one_goes_no_further(header):
    caller = identify((header, ("Accept", "*/*")), {"ann": "other-secret", "bob": "team-secret"})
    assert caller is not None
    assert caller.client == "bob"
    assert caller.headers == (("Accept", "*/*"),)
    assert not caller.has_login


def test_credentials_beside_a_clients_secret_are_the_callers_own_login():
    caller = identify((("x-signalbox-client", "s3"), ("Authorization", LOGIN)), {"ann": "s3"})
    assert caller is not None
    assert caller.has_login
    assert caller.headers == (("Authorization", LOGIN),)


@pytest.mark.parametrize("value", ["", "wrong", "Bearer", "Bearer ", "s3x", "\udcff"])
def test_no_other_value_lets_a_client_in(value):
    assert identify((("Authorization", value), ("x-api-key", value)), {"ann": "s3"}) is None


def test_the_last_look_finds_a_foreign_anthropic_credential_anywhere():
    assert leak(THIRD, "/v1/messages", [("x-note", "sk-ant-fake")]) == "x-note"
    assert leak(THIRD, "/v1/messages?key=sk-ant-fake", []) == "path"
    assert leak(HOME, "/v1/messages", [("authorization", LOGIN)]) is None


def test_the_last_look_lets_the_providers_own_anthropic_key_pass():
    provider = Provider(name="mine", url=URL, auth="key", keys=(Secret("sk-ant-api-fake-own"),))
    assert leak(provider, "/", [("x-api-key", "sk-ant-api-fake-own")]) is None
    assert leak(provider, "/", [("authorization", "Bearer sk-ant-api-fake-own")]) is None
    assert leak(provider, "/", [("x-api-key", "sk-ant-api-fake-other")]) == "x-api-key"


header_names = st.sampled_from(
    ["Authorization", "x-api-key", "API-KEY", "cookie", "X-Stainless-Lang", "proxy-authorization", "accept"]
) | st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)


@given(st.lists(st.tuples(header_names, st.sampled_from(["plain", LOGIN, "sk-ant-api-fake", "a=sk-ant-x"]))))
def test_no_anthropic_credential_survives_the_choice_of_headers(headers):
    assert leak(THIRD, "/", with_key(forwarded(tuple(headers), THIRD), THIRD, KEY)) is None
