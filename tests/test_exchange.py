"""What is known of one request while it is under way."""

import json
from datetime import UTC, datetime

import pytest

from signalbox.config.fields import Url
from signalbox.config.rules import Provider, Rules, Timeout
from signalbox.exchange import Exchange
from signalbox.messages.json_edit import Body
from signalbox.routing.credentials import Caller
from signalbox.routing.facts import Facts


def exchange(timeout: Timeout, **asked: object) -> Exchange:
    one = Exchange(Rules(), "messages", Caller(()), id="fake", started=0.0, ts=datetime.now(UTC))
    body = Body.parse(json.dumps({"model": "glm", **asked}).encode())
    one.facts = Facts(path="/v1/messages", port=1, headers={}, body=body)
    one.provider = Provider(name="zai", url=Url("https", "zai.invalid", 443), timeout=timeout)
    return one


@pytest.mark.parametrize(
    ("timeout", "asked", "limit"),
    [
        (Timeout(), {"stream": True}, 120.0),
        (Timeout(), {"stream": False}, 600.0),
        (Timeout(), {}, 600.0),
        (Timeout(first_byte=2.0), {"stream": True}, 2.0),
        (Timeout(first_byte=2.0), {"stream": False}, 2.0),
    ],
)
def test_first_byte_limit_is_longer_for_whole_answers_unless_configured(timeout, asked, limit):
    assert exchange(timeout, **asked).first_byte_limit == limit


def test_unreadable_request_counts_as_a_request_for_a_whole_answer():
    one = exchange(Timeout())
    one.facts = None
    assert one.first_byte_limit == 600.0


@pytest.mark.parametrize(
    ("headers", "id"),
    [
        ({"Request-Id": "req_of_anthropic", "x-request-id": "of-a-proxy"}, "req_of_anthropic"),
        ({"x-request-id": "", "apim-request-id": "of-azure"}, "of-azure"),
        ({"x-request-id": "no id, but a text"}, "req_fake"),
        ({}, "req_fake"),
    ],
)
def test_request_id_is_the_providers_or_the_flows(headers, id):
    one = exchange(Timeout())
    assert one.provider is not None
    one.pass_on(one.provider, "", 0.0)
    assert one.request_id == "req_fake"
    one.on_response_head(200, headers, 1.0)
    assert one.headers()["request-id"] == one.request_id == id
    one.pass_on(one.provider, "", 2.0)
    assert one.request_id == "req_fake"


def test_request_id_stays_after_an_early_head():
    one = exchange(Timeout())
    assert one.provider is not None
    one.pass_on(one.provider, "", 0.0)
    one.give_early_head(None)
    one.on_response_head(200, {"x-request-id": "of-the-provider"}, 1.0)
    assert one.request_id == "req_fake"
