"""The form of a scenario file, and the scenarios that there are.

A file describes what providers do, by their place in the chain and not by their names, so that it fits any
rules. Its keys are declared here as those of rules.yaml are in `config.schema`: the decoder, with its errors
by line, is the same.
"""

import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

from signalbox.config import document
from signalbox.config.decode import Decoder
from signalbox.config.document import ConflictError, DocumentError
from signalbox.config.fields import Count, Duration, Flag, HeaderName, HeaderValue, Port, Text
from signalbox.config.typespec import OneOrMore

SHIPPED = Path(__file__).with_name("shipped")
OWN = "scenarios"
"""Folder beside the rules with the user's own scenarios."""
PLACES = ("first", "second", "others")

_MOMENT = re.compile(r"\{(epoch|iso|time) (\d{1,4})(s|m|h|d)\}")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class ScenarioError(Exception):
    """Scenarios that cannot be played. Its text has a line for each fault: `scenarios/x.yaml:3: ...`."""


class UnknownScenarioError(ScenarioError):
    """There is no scenario of a name that was asked for."""


class Problem(msgspec.Struct, frozen=True):
    """An error in a provider's words."""

    message: Annotated[Text, "What it says."]
    type: Annotated[Text, "Its type. Default api_error."] = "api_error"
    code: Annotated[Text | None, "Its code, where the provider has one."] = None


class Piece(msgspec.Struct, frozen=True):
    """A piece of a stream: exactly one of these."""

    text: Annotated[Text | None, "Words of the answer."] = None
    thinking: Annotated[Text | None, "Words of thinking."] = None
    pause: Annotated[Duration | None, "Nothing for this time."] = None
    error: Annotated[Problem | None, "An error within the stream."] = None
    raw: Annotated[Text | None, "These bytes, as they are."] = None

    def __post_init__(self) -> None:
        if sum(one is not None for one in msgspec.structs.astuple(self)) != 1:
            raise ConflictError("a piece of a stream is one of text, thinking, pause, error, raw")


type Word = Literal["begin", "ping", "end", "cut", "silence"]
"""`begin`: what comes before the first words. `end`: the end of the answer. `cut`: the connection breaks.
`silence`: nothing more comes, and the connection stays."""


class Step(msgspec.Struct, frozen=True):
    """How a provider answers one request."""

    after: Annotated[Duration, "How long it takes until the first byte. Default 0s."] = 0.0
    status: Annotated[Count, "Status of the answer. Default 200, with error 500."] = 0
    headers: Annotated[
        Mapping[HeaderName, HeaderValue], "Headers of the answer; {epoch 2h} is the time in two hours."
    ] = {}
    error: Annotated[Problem | None, "An error as body."] = None
    body: Annotated[Text | None, "The body as it is."] = None
    stream: Annotated[tuple[Word | Piece, ...] | None, "The pieces of a stream, in order."] = None

    def __post_init__(self) -> None:
        given = [name for name in ("error", "body", "stream") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConflictError(f"give either {given[0]} or {given[1]}", given[1])


type Reply = Literal["answer", "whole", "refused", "silence"] | Step
"""`answer`: a usual answer. `whole`: one that is not streamed, although a stream was asked for. `refused`: no
connection. `silence`: a connection and nothing on it."""


class Ask(msgspec.Struct, frozen=True):
    """What the client asks."""

    model: Annotated[Text | None, "Model. Default: one of each tier that the rules tell apart."] = None
    stream: Annotated[Flag, "Whether it asks for a stream. Default true."] = True
    thinking: Annotated[Flag, "Whether it asks for thinking. Default false."] = False
    headers: Annotated[Mapping[HeaderName, HeaderValue], "Further headers of the request."] = {}
    client: Annotated[Text | None, "The client of the rules that asks. Default: the first."] = None
    port: Annotated[Port | None, "The listener that is asked: port or name. Default: the first."] = None
    after: Annotated[Duration, "How long it waits before that. Default 0s."] = 0.0


class Scenario(msgspec.Struct, frozen=True):
    """A situation of providers, and what a client asks in it."""

    about: Annotated[Text, "What happens, in a sentence."]
    providers: Annotated[
        Mapping[Text, OneOrMore[Reply]],
        "What they do: by name, or by who is asked first, second, and the others. "
        "A list has a reply for each request; the last one stays.",
    ] = {}
    asks: Annotated[OneOrMore[Ask], "The requests, one after the other. Default one."] = (Ask(),)
    wants: Annotated[Literal["answer", "error"], "What the client is to get. Default answer."] = "answer"


class Named(NamedTuple):
    name: str
    scenario: Scenario


def parse(text: str, file: str) -> Scenario:
    """The scenario in the text of a file. Raises ScenarioError."""
    try:
        root, findings = document.read_yaml(text)
    except DocumentError as broken:
        raise ScenarioError(broken.finding.within(file)) from None
    decoder = Decoder(root, {})
    scenario: Scenario = decoder.decode(Scenario, root)
    findings += decoder.findings
    if findings:
        raise ScenarioError("\n".join(one.within(file) for one in sorted(set(findings))))
    return scenario


def available(rules: Path) -> dict[str, Path]:
    """The files of all scenarios by name: those that are shipped, and the user's own in `scenarios/` beside
    the rules, which win."""
    folders = (SHIPPED, rules.parent / OWN)
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}


def chosen(wanted: Iterable[str], rules: Path) -> list[Named]:
    """The scenarios of these names or files; all, where none is named. Raises ScenarioError, of which
    UnknownScenarioError is one."""
    known, found, faults = available(rules), [], []
    kind = ScenarioError
    for name in list(wanted) or known:
        file = known.get(name) or (Path(name) if name.endswith((".yaml", ".yml")) else None)
        if file is None:
            kind = UnknownScenarioError
            faults.append(document.unknown("scenario", name, known))
            continue
        try:
            found.append(Named(file.stem, parse(document.decode_utf8(file.read_bytes()), str(file))))
        except ScenarioError as fault:
            faults.append(str(fault))
        except OSError as error:
            faults.append(f"{file} cannot be read: {error.strerror}")
        except DocumentError as broken:
            faults.append(broken.finding.within(str(file)))
    if faults:
        raise kind("\n".join(faults))
    return found


def with_times(text: str) -> str:
    """The text with its moments filled in: `{epoch 2h}` is the time in two hours in Unix seconds, `{iso 2h}`
    as in 2026-01-31T13:00:00Z, `{time 2h}` as in 2026-01-31 13:00:00 UTC."""

    def filled(found: re.Match[str]) -> str:
        at = time.time() + int(found[2]) * _SECONDS[found[3]]
        if found[1] == "epoch":
            return str(int(at))
        moment = datetime.fromtimestamp(at, UTC).replace(microsecond=0, tzinfo=None).isoformat()
        return f"{moment}Z" if found[1] == "iso" else moment.replace("T", " ")

    return _MOMENT.sub(filled, text)
