"""Answers of chat completions and what becomes of them; `golden_streams` describes the files."""

from collections.abc import Iterable

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
    return ChatTranslator(
        request=request,
        dialect=DIALECTS[dialect],
        provider="fake",
        model=model,
        seed="Seed",
        response_model=response_model,
    )


CHAT = GoldenStreams("chat-streams", chat)
