"""What is text in content blocks."""

from collections.abc import Iterable

from signalbox.translate.incoming import Block, Change, Piece, Source, Tool
from signalbox.translate.shapes import as_text

_NO_TEXT = ("thinking", "redacted_thinking", "fallback", "container_upload")


def text_of(piece: Piece) -> str:
    """All text in a block of whatever type, one line after the other; none of thinking, of media and of
    what is encrypted. Results of Anthropic's own tools are read by it too (translation.md, 2)."""
    if isinstance(piece, str):
        return piece
    if isinstance(piece, list):
        return joined(map(text_of, piece))
    if not isinstance(piece, Block) or piece.type in _NO_TEXT:
        return ""
    match piece.type:
        case "text":
            return as_text(piece.text)
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            return f"[{as_text(piece.name)} {piece.arguments}]"
        case "tool_reference":
            return as_text(piece.tool_name)
        case "tool_addition" | "tool_removal":
            state = "available now" if piece.type == "tool_addition" else "no longer available"
            return f"[The tool {_changed(piece)} is {state}.]"
    told = (piece.title, piece.context, piece.url, piece.source, piece.text, piece.error_code)
    return joined((*map(_text, (*told, piece.stdout, piece.stderr)), text_of(piece.content)))


def joined(texts: Iterable[str], by: str = "\n") -> str:
    return by.join(text for text in texts if is_said(text))


def is_said(text: str) -> bool:
    """Whether it is more than white space, which Anthropic and others refuse as content."""
    return bool(text) and not text.isspace()


def defined_by(piece: Piece) -> Tool | None:
    """The tool that a `tool_addition` brings along; None where it only names one of `tools`."""
    if not isinstance(piece, Block) or piece.type != "tool_addition" or not isinstance(piece.tool, Change):
        return None
    return piece.tool.definition if isinstance(piece.tool.definition, Tool) else None


def _changed(piece: Block) -> str:
    change = piece.tool if isinstance(piece.tool, Change) else Change()
    return as_text(change.name) or as_text(
        change.definition.name if isinstance(change.definition, Tool) else ""
    )


def _text(value: object) -> str:
    """A document's source may be text itself."""
    if isinstance(value, Source):
        return _text(value.data) if value.type == "text" else text_of(value.content)
    return as_text(value)
