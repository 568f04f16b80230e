"""What a replay sends: never what only stands for a credential."""

from datetime import UTC, datetime

import pytest
from mitmproxy.test import tflow

from signalbox.inspect.explain import RecordedRequest
from signalbox.proxy.replay import new_flow

WHEN = datetime(2026, 11, 29, 12, tzinfo=UTC)


def replayed(path: str, *headers: tuple[str, str]):
    return new_flow(
        tflow.tflow(), RecordedRequest(path, headers, b'{"model": "m"}', 8082, None, WHEN)
    ).request


@pytest.mark.parametrize("value", ["sk-an...obody", "***", "Bearer sk-an...obody", " *** "])
def test_a_header_that_shows_a_mask_is_left_out(value):
    made = replayed("/v1/messages", ("x-foo", value), ("x-note", "three *** stars"))
    assert "x-foo" not in made.headers
    assert made.headers["x-note"] == "three *** stars"


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/messages?beta=true&key=***", "/v1/messages?beta=true"),
        ("/v1/messages?foo=sk-an...obody", "/v1/messages"),
        ("/v1/messages?beta=true", "/v1/messages?beta=true"),
        ("/v1/messages", "/v1/messages"),
    ],
)
def test_a_parameter_that_shows_a_mask_is_left_out(path, sent):
    assert replayed(path).path == sent
