"""What is known of one request while it is under way."""

import json
from datetime import UTC, datetime

import pytest

from signalbox.anthropic.api import Usage
from signalbox.anthropic.json_edit import Body
from signalbox.config.fields import Url
from signalbox.config.rules import Provider, Rules, Target, Timeout
from signalbox.exchange import Exchange
from signalbox.routing.attempts import Attempt
from signalbox.routing.credentials import Caller
from signalbox.routing.facts import Facts
from signalbox.routing.outcome import Outcome
from signalbox.routing.outgoing import Outgoing
from signalbox.routing.plan import Candidate


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


def attempt() -> Attempt:
    provider = Provider(name="zai", url=Url("https", "zai.invalid", 443))
    outgoing = Outgoing(provider=provider, model="glm", path="/", shown_path="/", headers=(), body=b"1 MB")
    return Attempt(Candidate(provider, Target("zai"), "glm"), outgoing=outgoing)


def test_next_attempt_releases_the_body_of_the_one_before():
    one, first, second = exchange(Timeout()), attempt(), attempt()
    one.start_attempt(first)
    one.label_attempt("429")
    one.fail_attempt(Outcome("429", "throttle", 429), Usage(), 1.0)
    assert one.outgoing is first.outgoing, "its secrets are still to be redacted"
    one.start_attempt(second)
    assert first.outgoing is None
    assert (one.outgoing, one.outcome) == (second.outgoing, None)
    assert one.attempt_labels == ("zai:429",)


def test_cancel_labels_only_an_attempt_under_way():
    one, first = exchange(Timeout()), attempt()
    one.start_attempt(first)
    one.finish_attempt(Outcome("200", "success", 200), 1.0)
    one.label_attempt("200")
    one.cancel()
    assert (one.ending, first.label) == ("cancelled", "")
    one.start_attempt(second := attempt())
    one.cancel()
    assert second.label == "cancelled"


def test_error_below_the_hooks_does_not_hide_that_the_client_left():
    one = exchange(Timeout())
    one.cancel()
    one.fail()
    assert one.ending == "cancelled"


def test_released_exchange_holds_neither_credentials_nor_bodies():
    one = exchange(Timeout())
    one.mask("/?key=secret", "/?key=***", {"x-api-key": (["***"], ["secret"])})
    one.start_attempt(attempt())
    one.release()
    assert (one.facts, one.outgoing, one.hidden, one.path) == (None, None, {}, "/?key=***")


def test_refused_request_is_no_messages_request():
    one = exchange(Timeout())
    assert one.is_messages_request
    one.refuse()
    assert not one.is_messages_request
    assert one.headers() == {}
