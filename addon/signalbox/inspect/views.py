"""mitmproxy's content views for the protocols that go through the router (the contract, section 10).

They choose themselves: a request by the path that it went to, an answer by its first bytes. They take what is
stored of a body, also of a stream in progress, and never fail: what cannot be read is shown as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, override

import msgspec
from mitmproxy import contentviews, http
from mitmproxy.contentviews import Contentview, Metadata, SyntaxHighlight

from signalbox.inspect.annotations import noted
from signalbox.inspect.answers import Protocol, answer_of, answer_text, protocol_of
from signalbox.inspect.requests import chat_request, messages_request, responses_request
from signalbox.inspect.text import indented, items, mapping, section

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


class RequestView(View):
    """`paths` are ends of paths, without their query."""

    def __init__(
        self, name: str, paths: tuple[str, ...], render: Callable[[dict[str, Any]], Iterator[str]]
    ) -> None:
        super().__init__(name)
        self._paths, self._render = paths, render

    @override
    def prettify(self, data: bytes, metadata: Metadata) -> str:
        lines: list[str] = []
        values = _noted(metadata)
        lines += _cut(data, values.get("request_length"))
        lines += [line for line in section("Changes", _list(items(values.get("changes")))) if line or lines]
        lines += [line for line in section("Why", _why(values)) if line or lines]
        try:
            body = mapping(msgspec.json.decode(data))
            lines += [""] * bool(lines) + list(self._render(body))
        except Exception as error:  # of broken data: shown as it is
            lines += [f"This cannot be read as a {self._name}: {error}", "", data.decode(errors="replace")]
        return _encodable(lines)

    @override
    def render_priority(self, data: bytes, metadata: Metadata) -> float:
        if not isinstance(metadata.http_message, http.Request) or not data.lstrip().startswith(b"{"):
            return -1
        path = metadata.http_message.path.partition("?")[0]
        return CHOSEN if path.endswith(self._paths) else -1


def _list(values: list[Any]) -> Iterator[str]:
    for value in values:
        yield from indented(str(value))


def _cut(data: bytes, length: Any) -> list[str]:
    """That not the whole body was stored."""
    whole = f" of {length:,}" if isinstance(length, int) and length > len(data) else ""
    return [f"Cut: the first {len(data):,}{whole} bytes are stored.", ""] if length else []


def _why(values: Mapping[str, Any]) -> Iterator[str]:
    """Who is asked, by which rule, and who was skipped."""
    if not values.get("rule"):
        return
    held = ", ".join(map(str, items(values.get("conditions"))))
    yield from indented(f"rule {values['rule']}" + (f": {held}" if held else ""))
    if values.get("reason") != f"rule:{values['rule']}":
        yield from indented(f"reason {values.get('reason')}")
    for number, failed in enumerate(items(values.get("failed")), 1):
        yield from indented(f"attempt {number} failed: {failed}")
    yield from indented(f"attempt {values.get('attempt')} at {values.get('provider')}")
    for skipped in items(values.get("skipped")):
        yield from indented(f"skipped {skipped}")


def _encodable(lines: Iterable[str]) -> str:
    """One text, with `?` for lone surrogates: mitmdump's highlighter fails on them."""
    return "\n".join(lines).encode(errors="replace").decode()


class AnswerView(View):
    def __init__(self, name: str, protocol: Protocol) -> None:
        super().__init__(name)
        self._protocol = protocol

    @override
    def prettify(self, data: bytes, metadata: Metadata) -> str:
        try:
            cost, length = _noted(metadata).get("cost"), _noted(metadata).get("response_length")
            text = answer_text(answer_of(data), cost if isinstance(cost, float) else None)
            compared = list(section("Replay", _list(items(_noted(metadata).get("compared")))))
            return _encodable([*_cut(data, length), *compared[1:], *([""] if compared else []), *text])
        except Exception as error:  # of broken data: shown as it is
            return f"This cannot be read as a {self._name}: {error}\n\n{data.decode(errors='replace')}"

    @override
    def render_priority(self, data: bytes, metadata: Metadata) -> float:
        if not isinstance(metadata.http_message, http.Response):
            return -1
        return CHOSEN if protocol_of(data) == self._protocol else -1


VIEWS: tuple[Contentview, ...] = (
    RequestView("Messages request", ("/v1/messages", "/v1/messages/count_tokens"), messages_request),
    AnswerView("Messages answer", "messages"),
    RequestView("Chat request", ("/chat/completions",), chat_request),
    AnswerView("Chat answer", "chat"),
    RequestView("Responses request", ("/responses",), responses_request),
    AnswerView("Responses answer", "responses"),
)


def register() -> None:
    """Add the views to mitmproxy's; again after a reload is harmless."""
    for view in VIEWS:
        if view.name.lower() not in contentviews.registry:
            contentviews.registry.register(view)
