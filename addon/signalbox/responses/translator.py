"""The translator for Responses, one per attempt."""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import msgspec

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.errors import error_body
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.redaction import without_secrets
from signalbox.anthropic.translated_reader import TranslatedReader
from signalbox.openai.errors import anthropic_error
from signalbox.responses.reasoning import ReasoningOwner
from signalbox.responses.refusals import refusals
from signalbox.responses.stream import EXPECTED, ResponsesStream


class ResponsesTranslator(msgspec.Struct, frozen=True):
    """A `routing.translator.Translator`."""

    is_identity: ClassVar[bool] = False
    names: Mapping[str, str]
    """Client's tool names by the names sent, where they differ."""
    wants_stream: bool
    """Whether the client asked for a stream; some providers only stream."""
    shows_thinking: bool
    """Whether the client asked for thinking."""
    only_searches: bool
    """Whether web search is the only tool: what is found then matters more than that text comes at once."""
    owner: ReasoningOwner
    """Whose reasoning the answer holds."""
    provider: str
    model: str
    """The model as sent; the answer names it if the provider does not name one."""
    seed: str
    """Random letters and digits that make the ids of this answer unique."""
    response_model: str | None = None
    """The model that the client asked for. If set, the answer names it, whatever the provider reports."""
    secrets: tuple[str, ...] = ()
    """Removed from the provider's errors."""
    remedy: str = ""
    """What the user can do where the provider refuses the credential."""

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
        facts, streams = AnswerFacts(), self.wants_stream
        stream = ResponsesStream(
            facts,
            names=self.names,
            shows_thinking=self.shows_thinking,
            awaits_titles=self.only_searches or not streams,
            sign=self.owner.signature,
            provider=self.provider,
            model=self.model,
            seed=self.seed,
            request_id=request_id,
            secrets=self.secrets,
            writes=facts if streams else AnswerFacts(),
            key=key,
            response_model=self.response_model,
            estimate=estimate if streams else None,
        )
        return TranslatedReader(stream, content_type, content_encoding, wants_stream=streams, key=key)

    def refusals(self, status: int, error: bytes, request: Body) -> Iterable[str]:
        """See `Translator.refusals`."""
        return refusals(status, error, request)

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """See `Translator.error`."""
        said = without_secrets(body, self.secrets)
        shown = anthropic_error(status, said, self.provider, self.model, expected=EXPECTED)
        remedy = f": {self.remedy}" if status == 401 and self.remedy else ""
        return shown.status, error_body(shown.status, shown.message + remedy, shown.type)
