"""A provider that speaks chat completions: what it is sent, and the way back of its answer."""

from typing import ClassVar

import msgspec

from signalbox.messages.errors import error_body
from signalbox.messages.redaction import without_secrets
from signalbox.translate.dialects import Dialect, matches
from signalbox.translate.errors import anthropic_error
from signalbox.translate.request import ChatRequest
from signalbox.translate.stream import Stream
from signalbox.translate.translated import Translated
from signalbox.translate.translation import Answer


class Chat(msgspec.Struct, frozen=True):
    """A `Translation`."""

    passes: ClassVar[bool] = False
    request: ChatRequest
    dialect: Dialect
    provider: str
    model: str
    """As sent: the answer's, where the provider names none."""
    seed: str
    """Letters and digits, random: what makes the ids of this answer unique."""
    secrets: tuple[str, ...] = ()
    """What the provider's errors are told without."""

    def answer(self, content_type: str, content_encoding: str, request_id: str) -> Answer:
        stream = Stream(
            names=self.request.names,
            shows_thinking=self.request.shows_thinking,
            signed=matches(self.model, self.dialect.signed_calls),
            provider=self.provider,
            model=self.model,
            seed=self.seed,
            request_id=request_id,
            stops=self.request.stops,
            secrets=self.secrets,
        )
        streamed = content_type.strip().lower().startswith("text/event-stream")
        return Translated(stream, content_encoding, streams=self.request.stream, streamed=streamed)

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        said = anthropic_error(status, without_secrets(body, self.secrets), self.provider, self.model)
        return said.status, error_body(said.status, said.message, said.type)
