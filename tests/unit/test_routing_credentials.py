"""Which headers may leave for whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.config.fields import Secret, Url
from signalbox.config.load import load
from signalbox.config.rules import Provider
from signalbox.routing.credentials import (
    forwardable,
    forwarded,
    forwarded_query,
    identify,
    is_secret,
    leak,
    masked_path,
    masked_secret,
    masked_value,
    own_secrets,
    path_less_clients,
    secrets_of,
    with_key,
)

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


def test_another_provider_gets_nothing_that_identifies_the_caller():
    assert forwarded(HEADERS, THIRD) == [("anthropic-version", "2023-06-01"), ("X-Custom", "kept")]


@pytest.mark.parametrize(
    ("key_header", "expected"),
    [("x-api-key", KEY), ("authorization", f"Bearer {KEY}"), ("api-key", KEY)],
)
def test_the_providers_key_goes_in_the_header_it_wants(key_header, expected):
    provider = Provider(name="p", url=URL, auth="key", keys=(Secret(KEY),), key_header=key_header)
    assert with_key([], provider, KEY, "anthropic") == [(key_header, expected)]


def test_credentials_are_recognized_by_the_names_of_headers_and_parameters():
    headers = [*HEADERS, ("authorization", "Bearer ollama"), ("api-key", KEY), ("x-max", "100000000")]
    assert set(secrets_of(headers, "/v1?api-version=2024-10-21&sig-token=of%2Dthe-query")) == {
        "sk-ant-oat-fake-login-of-nobody",
        "sk-ant-api-fake",
        "session=1",
        "uses sk-ant-fake inside",
        KEY,
        "of-the-query",
    }


SECRET_HEADERS = [
    ("Authorization", "Bearer x"),
    ("x-api-key", "1"),
    ("X_Api_Key", "1"),
    ("apikey", "1"),
    ("X-ApiKey", "1"),
    ("XApiKey", "1"),
    ("Ocp-Apim-Subscription-Key", "1"),
    ("x-portkey-api-key", "1"),
    ("x-portkey-virtual-key", "1"),
    ("cf-aig-authorization", "1"),
    ("Proxy-Authorization", "1"),
    ("Helicone-Auth", "1"),
    ("X-Authentication", "1"),
    ("X-OAuth2", "1"),
    ("x-amz-security-token", "1"),
    ("X-CSRF-Token", "1"),
    ("authtoken", "1"),
    ("accessToken", "1"),
    ("x-client-secret", "1"),
    ("X-Password", "1"),
    ("x-credentials", "1"),
    ("Cookie", "a=b"),
    ("Cookie2", "$Version=1"),
    ("Set-Cookie", "a=b"),
    ("x-signalbox-client", "1"),
    ("X-Note", "Bearer abc"),
    ("X-Note", "use bearer abc"),
    ("X-Note", "Basic YTpi"),
    ("X-Note", "sk-ant-fake"),
    ("X-Note", "see SK-ANT-fake"),
    ("X-Note", "sk%2Dant%2Dfake"),
    ("X-Note", "%73k%252dant%252dfake"),
    ("X-Note", "sk-or-v1-fake-0123456789"),
]
HARMLESS_HEADERS = [
    ("Accept", "application/json"),
    ("User-Agent", "claude-cli/2.1.0 (external, cli)"),
    ("anthropic-version", "2023-06-01"),
    ("anthropic-beta", "claude-code-20250219,fine-grained-tool-streaming-2025-05-14"),
    ("anthropic-dangerous-direct-browser-access", "true"),
    ("X-Stainless-Runtime-Version", "v22.0.0"),
    ("x-app", "cli"),
    ("x-max-tokens", "64000"),
    ("X-RateLimit-Limit-Tokens", "1"),
    ("x-author", "somebody"),
    ("x-authority", "localhost"),
    ("x-keyboard", "us"),
    ("x-monkey", "1"),
    ("x-secretary", "1"),
    ("x-tokenizer", "o200k"),
    ("X-Title", "task-of-a-basic-kind"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]


@pytest.mark.parametrize("header", SECRET_HEADERS)
def test_a_credential_under_any_name_is_masked_and_stays_home(header):
    assert is_secret(*header)
    assert forwarded((header,), THIRD) == []
    assert forwarded((header,), HOME) == [header]


@pytest.mark.parametrize("header", HARMLESS_HEADERS)
def test_a_header_that_only_sounds_like_a_credential_goes_to_every_provider(header):
    assert not is_secret(*header)
    assert forwarded((header,), THIRD) == [header]


@pytest.mark.parametrize(
    ("query", "sent", "shown"),
    [
        ("beta=true", "beta=true", "beta=true"),
        ("beta=true&key=1&n=%2d", "beta=true&n=%2d", "beta=true&key=***&n=%2d"),
        ("note=sk-ant-fake", "", "note=***"),
        ("note=%73k%2Dant-fake&a", "a", "note=***&a"),
        ("note=%2573k-ant-fake", "", "note=***"),
        ("a+b=Bearer+1", "", "a+b=***"),
        ("access%5Ftoken=1", "", "access%5Ftoken=***"),
        ("Code=1&codes=2&sig=3", "codes=2", "Code=***&codes=2&sig=***"),
        ("sk-ant-fake", "", "***"),
        ("", "", ""),
    ],
)
def test_credentials_of_a_query_stay_home_and_are_shown_masked(query, sent, shown):
    assert forwarded_query(query, THIRD) == sent
    assert forwarded_query(query, HOME) == query
    assert masked_path(f"/v1/messages?{query}") == f"/v1/messages?{shown}"


def test_the_secrets_of_a_request_are_also_those_within_a_header():
    headers = [("Cookie", "a=cookie-one; b=cookie-two"), ("X-Auth", "Basic dXNlcjpwYXNzLW9mLW5vYm9keQ==")]
    assert {"cookie-one", "cookie-two", "pass-of-nobody"} <= set(secrets_of(headers))


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


CLIENTS = {"ann": "secret-of-ann", "bob": "s3"}


@pytest.mark.parametrize(
    "header",
    [
        ("x-api-key", "secret-of-ann"),
        ("X-Other", "Bearer secret-of-ann"),
        ("Cookie", "router=secret-of-ann; a=b"),
        ("Proxy-Authorization", "Basic YW5uOnNlY3JldC1vZi1hbm4="),
        ("Referer", "http://localhost/?key=secret%2Dof%2Dann"),
        ("x-api-key", "s3"),
        ("x-signalbox-client", "anything"),
    ],
)
def test_a_clients_secret_goes_no_further_whatever_header_it_is_in(header):
    assert forwardable((header, ("X-Kept", "s3-like text")), CLIENTS) == (("X-Kept", "s3-like text"),)


def test_the_project_is_known_to_rules_and_goes_no_further():
    project = ("X-Signalbox-Project", "/home/ann/shop")
    caller = identify((project, ("Accept", "*/*")), {})
    assert caller is not None
    assert caller.headers == (("Accept", "*/*"),)
    assert project in caller.facts


def test_a_clients_secret_goes_no_further_in_the_query():
    assert path_less_clients("/x?a=%20&key=secret%2Dof-ann", CLIENTS) == "/x?a=%20"
    assert path_less_clients("/x?key=secret-of-ann", CLIENTS) == "/x"
    assert path_less_clients("/x?&a=b", CLIENTS) == "/x?&a=b"


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


@pytest.mark.parametrize(
    "path", ["/v1/messages?a=sk%2dant%2dfake", "/v1/messages?a=%2573k-ant-fake", "/sk-ant-x"]
)
def test_the_last_look_reads_percent_escapes(path):
    assert leak(THIRD, path, []) == "path"
    assert leak(THIRD, "/", [("x-note", path)]) == "x-note"


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
    assert leak(THIRD, "/", with_key(forwarded(tuple(headers), THIRD), THIRD, KEY, "anthropic")) is None


# secrets as they are shown

SHOWN_KEY = "sk-ant-fake-0123456789-wigAA"


def test_the_first_and_last_five_characters_are_shown():
    assert masked_secret(SHOWN_KEY) == "sk-an...wigAA"


def test_nothing_of_a_short_secret_is_shown():
    assert masked_secret("sk-ant-fake-123") == "***"
    assert masked_secret("sk-ant-fake-1234") == "sk-an...-1234"
    assert masked_secret("") == "***"


def test_the_scheme_of_a_header_value_is_kept():
    assert masked_value(f"Bearer {SHOWN_KEY}") == "Bearer sk-an...wigAA"
    assert masked_value(f"basic  {SHOWN_KEY}") == "basic sk-an...wigAA"
    assert masked_value("Bearer short") == "Bearer ***"


def test_a_header_value_without_scheme_is_masked_whole():
    assert masked_value(SHOWN_KEY) == "sk-an...wigAA"
    assert masked_value("session=0123456789; other=0123456789") == "sessi...56789"


@given(st.text())
def test_at_most_ten_characters_of_a_secret_are_shown(secret: str):
    shown = masked_secret(secret)
    assert shown == "***" or shown == f"{secret[:5]}...{secret[-5:]}"
    assert len(shown) <= 13
    assert len(secret) >= 16 or shown == "***"


@given(st.text(st.characters(categories=["L", "N"]), min_size=11))
def test_no_masked_header_value_contains_its_secret(secret: str):
    assert secret not in masked_value(f"Bearer {secret}")
    assert secret not in masked_value(secret)


def test_secrets_of_the_rules_are_keys_headers_queries_and_those_of_clients_and_the_ledger(tmp_path):
    file = tmp_path / "rules.yaml"
    file.write_text("""
providers:
  one: {url: "http://one", keys: [first-key-for-tests, second-key-for-tests], headers: {X-Title: no secret}}
  two: {url: "http://two", headers: {X-Extra-Token: header-for-tests}, query: {key: query-for-tests}}
  plan: {url: "http://three", auth: client, quota: {probe_key: probe-for-tests}}
rules:
  - match: x
    to: {provider: one, headers: {Authorization: Bearer target-for-tests, X-Note: nothing secret}}
clients: {me: client-for-tests}
ledger: postgresql+psycopg://router:password%2Dfor%2Dtests@db.invalid/router
""")
    found = ["first-key-for-tests", "second-key-for-tests", "header-for-tests", "query-for-tests"]
    found += ["probe-for-tests", "target-for-tests", "client-for-tests", "password-for-tests"]
    assert list(own_secrets(load(file, {}))) == found
