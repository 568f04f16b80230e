"""Learns the dialect of a provider of the Responses API from its 400 errors; see `openai.refusals`."""

import re
from collections.abc import Collection, Iterator

from msgspec.structs import replace

from signalbox.anthropic.errors import read_error
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.unsupported_fields import STATUSES, refuses_images
from signalbox.openai.dialects import ALL, Efforts
from signalbox.openai.refusals import REFUSED_CHOICE
from signalbox.responses.dialects import Dialect

SUMMARY = "reasoning.summary"
_INCLUDE = "include"
_TOOL_CHOICE = "tool_choice"
_DEVELOPER = "input.role=developer"
_PHASE = "input.phase"
_IMAGES = "input.content.type=input_image"

_SIGNS = (
    # an organization that is not verified, or a model without summaries (openai-responses.md, 3)
    (re.compile(r"generate reasoning summar|reasoning\.summary\b", re.IGNORECASE), "reasoning", SUMMARY),
    (re.compile(r"encrypted content is not supported", re.IGNORECASE), _INCLUDE, _INCLUDE),
    (
        REFUSED_CHOICE,
        _TOOL_CHOICE,
        _TOOL_CHOICE,
    ),
    (
        re.compile(
            r"developer\b.{0,60}(?:not (?:allowed|supported)|invalid|unexpected|unknown)"
            r"|(?:invalid|unexpected|unknown|unsupported).{0,40}\bdeveloper\b",
            re.IGNORECASE,
        ),
        "input",
        _DEVELOPER,
    ),
    (re.compile(r"\binput\W+\d+\W+phase\b", re.IGNORECASE), "input", _PHASE),  # input[2].phase
)
"""A wording, or a parameter that is blamed; the field that the request must have; the name that is stored."""


def refusals(status: int, error: bytes, request: Body) -> Iterator[str]:
    """The names that the error to a request teaches. `error` is the decoded body."""
    if refuses_images(status, error) and b'"input_image"' in request.readable:
        yield _IMAGES
    if status not in STATUSES:
        return
    report = read_error(error)
    text = f"{report.param}: {report.text}"
    for sign, field, name in _SIGNS:
        if field in request and sign.search(text):
            yield name


def taught(dialect: Dialect, model: str, refused: Collection[str]) -> Dialect:
    """The dialect changed by the names stored for this model."""
    if not refused:
        return dialect
    words = dialect.words(model)
    left = tuple(word for word in words if f"reasoning.effort={word}" not in refused)
    changed = replace(dialect, efforts=(Efforts(ALL, left),) if words else ())
    if SUMMARY in refused:
        changed = replace(changed, summary=False)
    if _INCLUDE in refused:
        changed = replace(changed, encrypted=())
    if _TOOL_CHOICE in refused:
        changed = replace(changed, forced=False)
    if _DEVELOPER in refused:
        changed = replace(changed, developer=False)
    if _PHASE in refused:
        changed = replace(changed, phases=())
    if _IMAGES in refused:
        changed = replace(changed, images=False)
    return changed
