"""Answers of Responses and what becomes of them; `golden_streams` describes the files."""

from signalbox.anthropic.translated_reader import AnswerContext
from signalbox.responses.reasoning import ReasoningOwner
from signalbox.responses.translator import ResponsesTranslator
from tests.support.golden_streams import GoldenStreams

OWNER = ReasoningOwner("fake", "0123456789abcdef")


def responses(
    *,
    model: str = "m-0",
    streams: bool = True,
    shows_thinking: bool = True,
    only_searches: bool = True,
    names: dict[str, str] | None = None,
    response_model: str | None = None,
    secrets: tuple[str, ...] = (),
    remedy: str = "",
) -> ResponsesTranslator:
    context = AnswerContext(
        provider="fake",
        model=model,
        seed="Seed",
        names=names or {},
        wants_stream=streams,
        shows_thinking=shows_thinking,
        response_model=response_model,
        secrets=secrets,
    )
    return ResponsesTranslator(context, only_searches=only_searches, owner=OWNER, remedy=remedy)


RESPONSES = GoldenStreams("responses-streams", responses)
