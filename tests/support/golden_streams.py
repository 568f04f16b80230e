"""Answers in another protocol and what becomes of them, as the golden files write them down.

`tests/golden/FOLDER/NAME.txt`: what a provider sends, a dashed line, what the client gets. A comment at the
start gives the options of the translator (below), one at the end says that the answer was cut or what error
was reported.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.sse import Splitter, parse_event
from signalbox.routing.translator import ResponseReader, Translator

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


class GoldenStreams:
    """The golden files of one protocol, and its translator."""

    def __init__(self, folder: str, translator: Callable[..., Translator]) -> None:
        """`translator` takes the options in the golden files."""
        files = sorted((Path(__file__).parents[1] / "golden" / folder).glob("*.txt"))
        self.cases = [GoldenCase(self, path) for path in files]
        self.translator = translator

    def case(self, name: str) -> "GoldenCase":
        return next(one for one in self.cases if one.path.stem == name)

    def fed(
        self,
        chunks: Iterable[bytes],
        encoding: str = "",
        *,
        estimate: Callable[[], int] | None = None,
        **given: Any,
    ) -> Result:
        reader = self.reader(encoding, estimate=estimate, **given)
        out = b"".join([*(reader.feed(chunk) for chunk in chunks), reader.end()])
        return Result(out, reader.facts)

    def reader(
        self,
        encoding: str = "",
        *,
        content_type: str = "",
        estimate: Callable[[], int] | None = None,
        **given: Any,
    ) -> ResponseReader:
        translator = self.translator(**given)
        return translator.reader(
            content_type, encoding, request_id="req_fake", key=KEY, estimate=estimate, decode=True
        )


class GoldenCase:
    """One golden file."""

    def __init__(self, protocol: GoldenStreams, path: Path) -> None:
        self.protocol = protocol
        self.path = path

    def __repr__(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"

    @cached_property
    def raw(self) -> bytes:
        """The options and what is sent."""
        return self.path.read_bytes().partition(DASHES)[0]

    @cached_property
    def expected(self) -> bytes:
        return self.path.read_bytes().partition(DASHES)[2]

    @cached_property
    def options(self) -> dict[str, Any]:
        return options(self.raw)

    @cached_property
    def sent(self) -> bytes:
        """What is sent, without the options."""
        return sent(self.raw)

    @property
    def streams(self) -> bool:
        return self.options.get("streams", True)

    def cut(self, cuts: Iterable[int]) -> list[bytes]:
        """What is sent, cut at these places."""
        bounds = [0, *sorted(min(cut, len(self.sent)) for cut in cuts), len(self.sent)]
        return [self.sent[a:b] for a, b in pairwise(bounds)]

    def translated(self, cuts: Iterable[int] = (), **changed: Any) -> Result:
        return self.protocol.fed(self.cut(cuts), **(self.options | changed))


def options(raw: bytes) -> dict[str, Any]:
    first = raw.partition(b"\n")[0]
    return json.loads(first[2:]) if first.startswith(b": {") else {}


def sent(raw: bytes) -> bytes:
    """What is sent, without the options."""
    return raw.partition(b"\n\n")[2] if options(raw) else raw


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
