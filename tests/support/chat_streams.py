"""Answers of chat completions and what becomes of them, as the golden files write them down.

`tests/golden/chat-streams/NAME.txt`: what a provider sends, a dashed line, what the client gets. A comment at
the start gives the options (`dialect`, `shows_thinking`, `streams`, `names`, `model`, `stops`), one at the
end says that the answer was cut or what error was reported.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.sse import Splitter, parse_event
from signalbox.openai.dialects import DIALECTS
from signalbox.openai.request import ChatRequest
from signalbox.openai.translator import ChatTranslator

GOLDEN = sorted((Path(__file__).parents[1] / "golden/chat-streams").glob("*.txt"))
DASHES = b"-----\n"
KEY = b"key for tests"
"""Of the digests of thinking blocks."""


class Result(NamedTuple):
    out: bytes
    facts: AnswerFacts

    @property
    def cut(self) -> str:
        return self.facts.cut

    @property
    def error(self) -> bytes | None:
        return self.facts.provider_error

    def events(self) -> list[dict[str, Any]]:
        return events_of(self.out)

    def message(self) -> dict[str, Any]:
        return json.loads(self.out)


def case(path: Path) -> tuple[bytes, bytes]:
    """What is sent, and what becomes of it."""
    raw, _, expected = path.read_bytes().partition(DASHES)
    return raw, expected


def sent(name: str) -> bytes:
    return case(next(path for path in GOLDEN if path.stem == name))[0]


def options(raw: bytes) -> dict[str, Any]:
    first = raw.partition(b"\n")[0]
    return json.loads(first[2:]) if first.startswith(b": {") else {}


def chat(
    *,
    dialect: str = "generic",
    model: str = "m-0",
    streams: bool = True,
    shows_thinking: bool = True,
    names: dict[str, str] | None = None,
    stops: Iterable[str] = (),
    response_model: str | None = None,
) -> ChatTranslator:
    request = ChatRequest(
        body=b"{}",
        names=names or {},
        stream=streams,
        shows_thinking=shows_thinking,
        notes=(),
        stops=tuple(stops),
    )
    return ChatTranslator(
        request=request,
        dialect=DIALECTS[dialect],
        provider="fake",
        model=model,
        seed="Seed",
        response_model=response_model,
    )


def translated(raw: bytes, cuts: Iterable[int] = (), encoding: str = "", **changed: Any) -> Result:
    """An answer in its golden form, cut at these places."""
    given = options(raw)
    if given:
        raw = raw.partition(b"\n\n")[2]
    bounds = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    return fed((raw[a:b] for a, b in pairwise(bounds)), encoding, **(given | changed))


def fed(
    chunks: Iterable[bytes], encoding: str = "", *, estimate: Callable[[], int] | None = None, **given: Any
) -> Result:
    reader = chat(**given).reader("", encoding, request_id="req_fake", key=KEY, estimate=estimate)
    out = b"".join([*(reader.feed(chunk) for chunk in chunks), reader.end()])
    return Result(out, reader.facts)


def written(result: Result) -> bytes:
    """As in the golden files."""
    told = b": cut, " + result.cut.encode() + b"\n" if result.cut else b""
    if result.error is not None:
        told += b": error " + result.error + b"\n"
    return result.out + (b"\n" if result.out and not result.out.endswith(b"\n") else b"") + told


def events_of(out: bytes) -> list[dict[str, Any]]:
    return list(_events(out))


def _events(out: bytes) -> Iterator[dict[str, Any]]:
    splitter = Splitter()
    for block in splitter.feed(out):
        name, data = parse_event(block)
        event = json.loads(data)
        assert event["type"] == name
        yield event
    assert splitter.end() == []
