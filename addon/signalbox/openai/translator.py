"""The translator for chat completions, one per attempt."""

from collections.abc import Callable, Iterator
from typing import ClassVar

import msgspec

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.errors import error_body
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.redaction import without_secrets
from signalbox.anthropic.translated_reader import TranslatedReader
from signalbox.openai.dialects import Dialect, matches_any
from signalbox.openai.errors import anthropic_error
from signalbox.openai.refusals import refusals
from signalbox.openai.request import ChatRequest
from signalbox.openai.stream import ChatStream


class ChatTranslator(msgspec.Struct, frozen=True):
    """A `routing.translator.Translator`."""

    is_identity: ClassVar[bool] = False
    request: ChatRequest
    dialect: Dialect
    provider: str
    model: str
    """The model as sent; the answer names it if the provider does not name one."""
    seed: str
    """Random letters and digits that make the ids of this answer unique."""
    response_model: str | None = None
    """The model that the client asked for. If set, the answer names it, whatever the provider reports."""
    secrets: tuple[str, ...] = ()
    """Removed from the provider's errors."""

    def reader(
        self,
        content_type: str,
        content_encoding: str,
        *,
        request_id: str,
        key: bytes | None = None,
        estimate: Callable[[], int] | None = None,
        decode: bool = True,
    ) -> TranslatedReader:
        """See `Translator.reader`."""
        facts = AnswerFacts()
        streams = self.request.stream
        stream = ChatStream(
            facts,
            names=self.request.names,
            shows_thinking=self.request.shows_thinking,
            signed=matches_any(self.model, self.dialect.signed_calls),
            provider=self.provider,
            model=self.model,
            seed=self.seed,
            request_id=request_id,
            stops=self.request.stops,
            searched=self.request.searched,
            secrets=self.secrets,
            writes=facts if streams else AnswerFacts(),
            key=key,
            response_model=self.response_model,
            estimate=estimate if streams else None,
        )
        return TranslatedReader(stream, content_type, content_encoding, wants_stream=streams, key=key)

    def refusals(self, status: int, error: bytes, request: Body) -> Iterator[str]:
        """See `Translator.refusals`."""
        return refusals(status, error, request)

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """See `Translator.error`."""
        shown = anthropic_error(status, without_secrets(body, self.secrets), self.provider, self.model)
        return shown.status, error_body(shown.status, shown.message, shown.type)
