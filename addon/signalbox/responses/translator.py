"""The translator for Responses, one per attempt."""

from collections.abc import Callable, Iterable
from typing import ClassVar

import msgspec

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.errors import error_body
from signalbox.anthropic.issued import ThinkingBlock
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.redaction import without_secrets
from signalbox.anthropic.translated_reader import AnswerContext, TranslatedReader
from signalbox.openai.errors import anthropic_error
from signalbox.responses.reasoning import ReasoningOwner
from signalbox.responses.refusals import refusals
from signalbox.responses.stream import EXPECTED, ResponsesStream


class ResponsesTranslator(msgspec.Struct, frozen=True):
    """A `routing.translator.Translator`."""

    is_identity: ClassVar[bool] = False
    context: AnswerContext
    only_searches: bool
    """Whether web search is the only tool: what is found then matters more than that text comes at once."""
    owner: ReasoningOwner
    """Whose reasoning the answer holds."""
    may_refuse_late: bool = False
    """Whether the request holds reasoning or asks for a summary (openai-responses.md, 2, 3 and 6)."""
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
        context = self.context.of_answer(request_id, key, estimate)
        stream = ResponsesStream(
            AnswerFacts(),
            context,
            awaits_titles=self.only_searches or not context.wants_stream,
            sign=self.owner.signature,
        )
        return TranslatedReader(stream, context, content_type, content_encoding)

    def refusals(self, status: int, error: bytes, request: Body) -> Iterable[str]:
        """See `Translator.refusals`."""
        return refusals(status, error, request)

    def carries(self, block: ThinkingBlock) -> bool:
        """See `Translator.carries`."""
        return bool(self.owner.encrypted_content(block.signature or ""))

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """See `Translator.error`."""
        to = self.context
        said = without_secrets(body, to.secrets)
        shown = anthropic_error(status, said, to.provider, to.model, expected=EXPECTED)
        remedy = f": {self.remedy}" if status == 401 and self.remedy else ""
        return shown.status, error_body(shown.status, shown.message + remedy, shown.type)
