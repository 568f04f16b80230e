"""The translator for chat completions, one per attempt."""

from collections.abc import Callable, Iterator
from typing import ClassVar

import msgspec

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.errors import error_body
from signalbox.anthropic.issued import ThinkingBlock
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.redaction import without_secrets
from signalbox.anthropic.translated_reader import AnswerContext, TranslatedReader
from signalbox.openai.dialects import Dialect, matches_any
from signalbox.openai.errors import anthropic_error
from signalbox.openai.refusals import refusals
from signalbox.openai.request import ChatRequest
from signalbox.openai.stream import ChatStream


class ChatTranslator(msgspec.Struct, frozen=True):
    """A `routing.translator.Translator`."""

    is_identity: ClassVar[bool] = False
    may_refuse_late: ClassVar[bool] = False
    context: AnswerContext
    request: ChatRequest
    dialect: Dialect

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
        context = self.context.of_answer(request_id, key, estimate)
        stream = ChatStream(
            AnswerFacts(),
            context,
            signed=matches_any(context.model, self.dialect.signed_calls),
            stops=self.request.stops,
            searched=self.request.searched,
        )
        return TranslatedReader(stream, context, content_type, content_encoding)

    def refusals(self, status: int, error: bytes, request: Body) -> Iterator[str]:
        """See `Translator.refusals`."""
        return refusals(status, error, request)

    def carries(self, block: ThinkingBlock) -> bool:
        """See `Translator.carries`."""
        return block.translated_from == self.context.provider

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """See `Translator.error`."""
        to = self.context
        shown = anthropic_error(status, without_secrets(body, to.secrets), to.provider, to.model)
        return shown.status, error_body(shown.status, shown.message, shown.type)
