"""mitmproxy's content views for the protocols that go through the router (the contract, section 10).

They choose themselves: a request by the API that the router asked, in flows of others by its path, an answer
by its first bytes. They take what is stored of a body, also of a stream in progress, and never fail: what
cannot be read is shown as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, override

from mitmproxy import contentviews, http
from mitmproxy.contentviews import Contentview, Metadata, SyntaxHighlight

from signalbox.config.rules import Api
from signalbox.inspect import lenient
from signalbox.inspect.annotations import noted
from signalbox.inspect.answers import PEEK, Protocol, answer_of, answer_text, protocol_of
from signalbox.inspect.requests import chat_request, messages_request, responses_request
from signalbox.inspect.text import indented, items, joined, mapping, section

CHOSEN = 2.0
"""Priority above that of mitmproxy's own views, of which JSON's is 1."""


def _noted(metadata: Metadata) -> Mapping[str, Any]:
    """What the router noted of the flow; empty of others."""
    return noted(metadata.flow) if isinstance(metadata.flow, http.HTTPFlow) else {}


class View(Contentview):
    """A named view whose text is highlighted as YAML."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def syntax_highlight(self) -> SyntaxHighlight:
        return "yaml"

    def _as_it_is(self, data: bytes, error: Exception) -> Iterator[str]:
        """A body that cannot be read, or no further."""
        yield f"This cannot be read as a {self._name}: {error}"
        yield ""
        yield data.decode(errors="replace")


class RequestView(View):
    """For requests in one of `apis`; `paths` are ends of the paths of other flows, without their query."""

    def __init__(
        self,
        name: str,
        apis: tuple[Api, ...],
        paths: tuple[str, ...],
        render: Callable[[dict[str, Any]], Iterator[str]],
    ) -> None:
        super().__init__(name)
        self._apis, self._paths, self._render = apis, paths, render

    @override
    def prettify(self, data: bytes, metadata: Metadata) -> str:
        values = _noted(metadata)
        length = values.get("request_length")
        head = [
            *_cut(data, length),
            *section("Changes", _list(items(values.get("changes")))),
            *section("Why", _why(values)),
        ]
        return joined(_below(head, self._body(data, values.get("model"), is_cut=bool(length))))

    def _body(self, data: bytes, model: Any, *, is_cut: bool) -> Iterator[str]:
        """`model` is what the router asked for, which some APIs have in the path."""
        if is_cut and not data:
            return
        try:
            body = mapping(lenient.decode_cut(data) if is_cut else lenient.decode(data))
            yield from self._render({"model": model, **body} if body and model else body)
        except Exception as error:  # of broken data
            yield from self._as_it_is(data, error)

    @override
    def render_priority(self, data: bytes, metadata: Metadata) -> float:
        if not isinstance(metadata.http_message, http.Request):
            return -1
        if isinstance(api := _noted(metadata).get("api"), str):
            return CHOSEN if api in self._apis else -1
        path = metadata.http_message.path.partition("?")[0]
        return CHOSEN if path.endswith(self._paths) and data.lstrip().startswith(b"{") else -1


def _below(head: list[str], pieces: Iterable[str]) -> Iterator[str]:
    """The pieces below those of the head, with a line between them."""
    above = head[1:] if head[:1] == [""] else head
    yield from above
    for number, piece in enumerate(pieces):
        if above and not number:
            yield ""
        yield piece


def _list(values: list[Any]) -> Iterator[str]:
    return (indented(str(value)) for value in values)


def _cut(data: bytes, length: Any) -> list[str]:
    """That not the whole body was stored."""
    if not length:
        return []
    whole = f" of {length:,}" if isinstance(length, int) and length > len(data) else ""
    stored = f"the first {len(data):,}{whole} bytes are stored" if data else "nothing of it is stored"
    return ["", f"Cut: {stored}."]


def _why(values: Mapping[str, Any]) -> Iterator[str]:
    """Who is asked, by which rule, and who was skipped."""
    if not values.get("rule"):
        return
    held = ", ".join(map(str, items(values.get("conditions"))))
    yield indented(f"rule {values['rule']}" + (f": {held}" if held else ""))
    if values.get("reason") != f"rule:{values['rule']}":
        yield indented(f"reason {values.get('reason')}")
    for number, failed in enumerate(items(values.get("failed")), 1):
        yield indented(f"attempt {number} failed: {failed}")
    yield indented(f"attempt {values.get('attempt')} at {values.get('provider')}")
    for skipped in items(values.get("skipped")):
        yield indented(f"skipped {skipped}")


class AnswerView(View):
    def __init__(self, name: str, protocol: Protocol) -> None:
        super().__init__(name)
        self._protocol = protocol

    @override
    def prettify(self, data: bytes, metadata: Metadata) -> str:
        values = _noted(metadata)
        head = [
            *_cut(data, values.get("response_length")),
            *section("Replay", _list(items(values.get("compared")))),
        ]
        return joined(_below(head, self._body(data, values.get("cost"))))

    def _body(self, data: bytes, cost: Any) -> Iterator[str]:
        try:
            answer = answer_of(data, self._protocol)
            yield from answer_text(answer, cost if isinstance(cost, float) else None)
        except Exception as error:  # of broken data
            yield from self._as_it_is(data, error)

    @override
    def render_priority(self, data: bytes, metadata: Metadata) -> float:
        if not isinstance(metadata.http_message, http.Response):
            return -1
        told = protocol_of(data)
        if told is None and "api" in _noted(metadata) and b'"content":' in data[:PEEK]:
            told = "messages"  # the client's, whatever the order of its members
        return CHOSEN if told == self._protocol else -1


VIEWS: tuple[Contentview, ...] = (
    RequestView(
        "Messages request",
        ("anthropic", "vertex"),
        ("/v1/messages", "/v1/messages/count_tokens"),
        messages_request,
    ),
    AnswerView("Messages answer", "messages"),
    RequestView("Chat request", ("openai",), ("/chat/completions",), chat_request),
    AnswerView("Chat answer", "chat"),
    RequestView("Responses request", ("responses",), ("/responses",), responses_request),
    AnswerView("Responses answer", "responses"),
)


def register() -> None:
    """Add the views to mitmproxy's; again after a reload is harmless."""
    for view in VIEWS:
        if view.name.lower() not in contentviews.registry:
            contentviews.registry.register(view)
