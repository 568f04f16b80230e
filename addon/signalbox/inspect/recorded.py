"""A client's request as its flow keeps it, and as it is read from flows again, also from those of others.

A routed flow shows what went to its provider. The request as it came stands in its metadata, with masked
credentials, so that it can be explained, and sent to another target, also from a saved file.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from mitmproxy import http
from mitmproxy.exceptions import FlowReadException
from mitmproxy.flow import Flow
from mitmproxy.io import FlowReader

from signalbox.anthropic.api import COUNT_TOKENS, MESSAGES, TOKEN_FIELDS, Usage
from signalbox.anthropic.encoding import EncodingError, TooLarge, decode
from signalbox.exchange import Exchange
from signalbox.inspect.annotations import noted
from signalbox.inspect.answers import answer_of
from signalbox.inspect.explain import RecordedRequest
from signalbox.inspect.masking import MOST_DECODED, masked
from signalbox.routing.credentials import is_secret, masked_path, masked_value

REQUEST = "signalbox-request"
"""The key in `Flow.metadata` of the client's request."""


def kept_request(exchange: Exchange, secrets: Collection[str]) -> dict[str, Any] | None:
    """The client's request as plain values for its flow's metadata: path, headers and body, where that is
    short enough to be kept, listener and client. None where it could not be read."""
    body = exchange.facts.body if exchange.facts is not None else None
    if body is None or exchange.facts is None:
        return None
    hides, whole = exchange.rules.inspect.secrets == "mask", body.raw
    headers = exchange.caller.facts
    if hides:
        headers = tuple((name, masked_value(v) if is_secret(name, v) else v) for name, v in headers)
    return {
        "path": masked_path(exchange.asked_path) if hides else exchange.asked_path,
        "headers": [[_encodable(name), _encodable(value)] for name, value in headers],
        "body": masked(whole, secrets) if len(whole) <= exchange.rules.inspect.bodies else None,
        "length": len(whole),
        "port": exchange.facts.port,
        "client": exchange.caller.client,
    }


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()


class HeldTurn(NamedTuple):
    """A request of a session whose flow is still held, as bodies with masked credentials."""

    request_id: str
    """As the client knows it, and the ledger. Some providers give the same to several."""
    ts: int
    """When it came, as the ledger has it: Unix milliseconds."""
    request: bytes
    """The client's own."""
    stored: bytes
    """The provider's answer as it is stored."""
    encoding: str = ""
    """Of that."""

    @property
    def answer(self) -> bytes:
        """The provider's answer, decoded, which takes its time; empty where it cannot be."""
        try:
            return decode(self.stored, self.encoding, MOST_DECODED)
        except (EncodingError, TooLarge):
            return b""


def held_turns(flows: Iterable[Flow], session: str) -> list[HeldTurn]:
    """Those that were answered, in the order of the flows, each by its last attempt."""
    return [turn for flow in flows if (turn := _held_turn(flow, session)) is not None]


def _held_turn(flow: Flow, session: str) -> HeldTurn | None:
    if not isinstance(flow, http.HTTPFlow) or flow.response is None:
        return None
    values = noted(flow)
    moment: Any = values.get("ts")
    is_last = values.get("attempt") == (values.get("attempts") or 1)
    if values.get("session") != session or not is_last or not isinstance(moment, int):
        return None
    kept, request_id = flow.metadata.get(REQUEST), flow.response.headers.get("request-id")
    if not isinstance(kept, Mapping) or kept.get("body") is None or request_id is None:
        return None
    encoding = flow.response.headers.get("content-encoding", "")
    return HeldTurn(request_id, moment, kept["body"], flow.response.data.content or b"", encoding)


class NotWhole(ValueError):
    """A request whose body is not there, or not all of it. Its text says why, for people."""


class Unreadable(ValueError):
    """A file that holds no flows, or that breaks off. Its text says why, for people."""


def read_flows(file: Path) -> Iterator[http.HTTPFlow]:
    """The HTTP flows in a file that mitmproxy saved, or in a HAR file. Raises Unreadable."""
    try:
        with file.open("rb") as source:
            for flow in FlowReader(source).stream():
                if isinstance(flow, http.HTTPFlow):
                    yield flow
    except (FlowReadException, OSError) as error:
        raise Unreadable(str(error)) from None


def outcome_of(flow: http.HTTPFlow) -> str:
    """What became of a request, as the router noted it; empty for flows of others."""
    return flow.comment if noted(flow).get("rule") else ""


def request_of(flow: http.HTTPFlow, *, is_any_attempt: bool = False) -> RecordedRequest | None:
    """The client's request of a flow. None where it is none to the messages paths, and, but for
    `is_any_attempt`, of an attempt that another followed: the last one stands for the request. Raises
    NotWhole."""
    values = noted(flow)
    kept = flow.metadata.get(REQUEST)
    is_last = not values.get("attempts") or values["attempts"] == values.get("attempt")
    if not (is_last or is_any_attempt):
        return None
    if isinstance(kept, Mapping):
        if kept.get("body") is None:
            raise NotWhole(f"its body of {kept.get('length', 0):,} bytes was too long to be kept")
        headers = tuple((str(name), str(value)) for name, value in kept["headers"])
        received = _received(flow)
        return RecordedRequest(kept["path"], headers, kept["body"], kept["port"], kept["client"], received)
    path = flow.request.path.partition("?")[0]
    if flow.request.method != "POST" or path not in (MESSAGES, COUNT_TOKENS):
        return None
    content = flow.request.raw_content
    if content is None:
        raise NotWhole("its body was not kept")
    if values.get("request_length"):
        raise NotWhole(f"only a part of its {values['request_length']:,} bytes was kept")
    try:
        body = decode(content, flow.request.headers.get("content-encoding", ""), MOST_DECODED)
    except (EncodingError, TooLarge) as why:
        raise NotWhole(f"its body cannot be decoded: {why}") from None
    sockname = flow.client_conn.sockname
    return RecordedRequest(
        flow.request.path,
        tuple(flow.request.headers.items(multi=True)),
        body,
        sockname[1] if sockname else None,
        None,
        _received(flow),
    )


def _received(flow: http.HTTPFlow) -> datetime:
    return datetime.fromtimestamp(flow.request.timestamp_start, UTC)


def usage_of(flow: http.HTTPFlow) -> Usage:
    """What the answer of a flow used: as noted, else as the answer tells it; zeros where neither says."""
    usage, values = Usage(), noted(flow)
    usage.take(values)
    if any(getattr(usage, name) for name in TOKEN_FIELDS) or flow.response is None:
        return usage
    content = flow.response.raw_content or b""
    try:
        body = decode(content, flow.response.headers.get("content-encoding", ""), MOST_DECODED)
        usage.take(answer_of(body).usage)
    except ValueError:  # it is no answer of a model, or cannot be decoded
        pass
    return usage


def answer_words(flow: http.HTTPFlow) -> str:
    """What the answer of a flow says, without thinking and calls; empty where it says nothing."""
    content: Any = flow.response.content if flow.response is not None else None
    try:
        blocks = answer_of(content or b"").blocks
    except ValueError:
        return ""
    return "\n".join(block.grown("text") for block in blocks if block.kind == "text")
