"""What of a caller reaches a provider that is not the caller's own, and what of a provider the caller."""

import http.client
import json

import pytest

from tests.support.fake_provider import Upstream
from tests.support.raw_client import LOGIN
from tests.support.router import Router
from tests.unit.test_routing_credentials import HARMLESS_HEADERS, SECRET_HEADERS


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  up: {{url: "{up.url}", key: up-key-for-tests-0001, headers: {{Helicone-Auth: "Bearer named-by-the-user"}}}}
rules:
  - {{match: "up*", to: up}}
  - {{match: "home*", to: anthropic}}
"""


def ask(
    router: Router, model: str, *headers: tuple[str, str], path: str = "/v1/messages"
) -> http.client.HTTPResponse:
    """One request with these headers beside those of every client."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}]}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=10)
    connection.putrequest("POST", path, skip_accept_encoding=True)
    for name, value in (("Authorization", LOGIN), ("Content-Length", str(len(body))), *headers):
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.fixture
def odd_headers() -> list[tuple[str, str]]:
    """One of each name: what is sent twice may be refused."""
    return list(
        {name.lower(): (name, value) for name, value in SECRET_HEADERS if name != "Authorization"}.values()
    )


def test_no_credential_of_the_caller_reaches_another_provider(router, up, odd_headers):
    headers = [*odd_headers, *HARMLESS_HEADERS]
    assert ask(router, "up-x", *headers, path="/v1/messages?beta=true&k=%73k%2Dant-fake").status == 200
    sent = up.wait_for(1)[0]
    own = {"host", "content-length", "x-api-key", "helicone-auth", "accept-encoding", "anthropic-beta"}
    names = {name.lower() for name, _ in sent.headers}
    assert names - own <= {name.lower() for name, _ in HARMLESS_HEADERS}
    assert names >= {name.lower() for name, _ in HARMLESS_HEADERS} - {"x-note"}
    assert sent.header("x-api-key") == "up-key-for-tests-0001"
    assert sent.header("helicone-auth") == "Bearer named-by-the-user"
    assert sent.path == "/v1/messages?beta=true"


def test_to_anthropic_itself_the_caller_sends_what_it_likes(router, home, odd_headers):
    assert ask(router, "home-x", *odd_headers, path="/v1/messages?key=of-the-caller").status == 200
    sent = home.wait_for(1)[0]
    lower = {name.lower() for name, _ in sent.headers}
    assert {name.lower() for name, _ in odd_headers} - lower == {"x-signalbox-client"}
    assert sent.path == "/v1/messages?key=of-the-caller"
