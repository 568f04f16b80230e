"""OpenRouter's `reasoning_details`: thinking, signed or encrypted, which goes back verbatim and in order
(openai-chat.md, 3)."""

from collections.abc import Iterable

from signalbox.translate.shapes import Object, as_text

_PIECES = ("text", "summary", "data")


class Details:
    """Those of one block as they come in: each entry is streamed in pieces, which its `index` tells."""

    def __init__(self) -> None:
        self._entries: list[Object] = []

    def add(self, pieces: Iterable[Object]) -> None:
        for piece in pieces:
            last = self._entries[-1] if self._entries else {}
            if piece.get("index") is None or any(last.get(n) != piece.get(n) for n in ("index", "type")):
                self._entries.append(dict(piece))
            else:
                _extend(last, piece)

    @property
    def is_opaque(self) -> bool:
        """Whether anything in it is more than text: what only its provider can read, or signed."""
        return any(as_text(entry.get(name)) for entry in self._entries for name in ("data", "signature"))

    def payload(self) -> Object:
        """As ids and signatures carry it; nothing where there is nothing to carry."""
        return {"reasoning_details": self._entries} if self._entries else {}


def _extend(entry: Object, piece: Object) -> None:
    for name, value in piece.items():
        if name in _PIECES and isinstance(value, str) and isinstance(entry.get(name), str):
            entry[name] += value
        elif value is not None:
            entry[name] = value
