"""Answers of chat completions and what becomes of them; `golden_streams` describes the files."""

from collections.abc import Iterable

from signalbox.anthropic.translated_reader import AnswerContext
from signalbox.openai.dialects import DIALECTS
from signalbox.openai.request import ChatRequest
from signalbox.openai.translator import ChatTranslator
from tests.support.golden_streams import GoldenStreams


def chat(
    *,
    dialect: str = "generic",
    model: str = "m-0",
    streams: bool = True,
    shows_thinking: bool = True,
    names: dict[str, str] | None = None,
    stops: Iterable[str] = (),
    searched: str = "",
    response_model: str | None = None,
) -> ChatTranslator:
    request = ChatRequest(
        body=b"{}",
        names=names or {},
        stream=streams,
        shows_thinking=shows_thinking,
        notes=(),
        stops=tuple(stops),
        searched=searched,
    )
    context = AnswerContext(
        provider="fake",
        model=model,
        seed="Seed",
        names=request.names,
        wants_stream=streams,
        shows_thinking=shows_thinking,
        response_model=response_model,
    )
    return ChatTranslator(context, request, DIALECTS[dialect])


CHAT = GoldenStreams("chat-streams", chat)
