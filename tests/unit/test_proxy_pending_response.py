"""The response of one attempt on its way through the reader."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from mitmproxy import http

from signalbox.anthropic.reader import MessagesReader, Rewrites
from signalbox.config.rules import Provider, Rules
from signalbox.exchange import Exchange
from signalbox.proxy.pending_response import PendingResponse
from signalbox.routing.credentials import Caller
from tests.support.answers import message_sse


class FailingReader(MessagesReader):
    def pieces(self, data: bytes) -> Iterable[bytes]:
        raise KeyError(data)

    def end(self) -> bytes:
        raise KeyError


def test_an_error_inside_the_reader_costs_no_byte_and_is_logged_once(caplog):
    exchange = Exchange(Rules(), "messages", Caller(()), id="fake", started=0.0, ts=datetime.now(UTC))
    exchange.provider = Provider(name="up", url="http://127.0.0.1:1")
    response = http.Response.make(200, b"", {"content-type": "text/event-stream"})
    answer = PendingResponse(response, exchange, key=None, decode=False)
    answer.reader = FailingReader("text/event-stream", "", rewrites=Rewrites())
    chunks = message_sse("glm").chunks
    with caplog.at_level(logging.ERROR, "signalbox"):
        assert [b"".join(answer.pieces(chunk)) for chunk in chunks] == list(chunks)
        assert answer.end() == b""
    assert len(caplog.records) == 1
    assert "error in the reader of an answer: KeyError at " in caplog.text
