"""What is known of one request while it is under way."""

import json
from datetime import UTC, datetime

import pytest

from signalbox.config.rules import Provider, Rules, Timeout, Url
from signalbox.messages.body import Body
from signalbox.routing.credentials import Caller
from signalbox.routing.exchange import Exchange
from signalbox.routing.facts import Facts


def exchange(timeout: Timeout, **asked: object) -> Exchange:
    one = Exchange(Rules(), "messages", Caller(()), id="fake", started=0.0, ts=datetime.now(UTC))
    body = Body.parse(json.dumps({"model": "glm", **asked}).encode())
    one.facts = Facts(path="/v1/messages", port=1, headers={}, body=body)
    one.provider = Provider(name="zai", url=Url("https", "zai.invalid", 443), timeout=timeout)
    return one


@pytest.mark.parametrize(("asked", "limit"), [({"stream": True}, 2.0), ({"stream": False}, 3.0), ({}, 3.0)])
def test_an_answer_that_is_not_streamed_has_a_limit_of_its_own(asked, limit):
    assert exchange(Timeout(first_byte=2.0, first_byte_whole=3.0), **asked).first_byte_limit == limit


def test_by_default_a_whole_answer_may_take_ten_minutes():
    limits = [exchange(Timeout(), stream=stream).first_byte_limit for stream in (True, False)]
    assert limits == [120.0, 600.0]


def test_what_cannot_be_read_counts_as_a_request_for_a_whole_answer():
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
def test_a_request_is_known_by_its_providers_id_or_by_the_flows(headers, id):
    one = exchange(Timeout())
    assert one.provider is not None
    one.pass_to(one.provider, 0.0)
    assert one.request_id == "req_fake"
    one.hear(200, headers, 1.0)
    assert one.headers()["request-id"] == one.request_id == id
    one.pass_to(one.provider, 2.0)
    assert one.request_id == "req_fake"


def test_a_client_that_has_a_head_already_is_told_no_other_id():
    one = exchange(Timeout())
    assert one.provider is not None
    one.pass_to(one.provider, 0.0)
    one.head_given = True
    one.hear(200, {"x-request-id": "of-the-provider"}, 1.0)
    assert one.request_id == "req_fake"
