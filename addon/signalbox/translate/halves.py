"""Characters that a provider cuts in two, each half in a chunk of its own.

JSON writes characters beyond U+FFFF as two escapes (https://www.rfc-editor.org/rfc/rfc8259#section-7). A
server that cuts its text by UTF-16 units sends them apart; alone neither can be written as UTF-8.
"""

import re

_HIGH = re.compile(r"[\ud800-\udbff]\Z")
_ESCAPES = re.compile(
    r"(?<!\\)((?:\\\\)*+)"
    r"(?:(\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2})|\\u[dD][89a-fA-F][\da-fA-F]{2})"
)
"""In the text of a JSON object: the escapes of both halves (the second group), or of one alone."""
_OPEN_ESCAPE = re.compile(
    r"(?<!\\)(?:\\\\)*+"
    r"(\\(?:u(?:[dD](?:[c-fC-F][\da-fA-F]?|[89abAB](?:[\da-fA-F](?:[\da-fA-F]"
    r"(?:\\(?:u(?:[dD](?:[c-fC-F][\da-fA-F]?)?)?)?)?)?)?)?)?)?)\Z"
)
"""At the end of such text: what may go on as the escapes of both halves."""


_TAIL = 100
"""Characters at the end of a piece that are looked at."""


def joined(text: str) -> str:
    """With U+FFFD for halves of characters; two that belong together become their character."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class Halves:
    """Joins what was cut, in pieces of one text. `escaped`: the text is JSON, in which halves may stand as
    escapes too."""

    def __init__(self, *, escaped: bool = False) -> None:
        self._open = (_HIGH, _OPEN_ESCAPE) if escaped else (_HIGH,)
        self._held = ""

    def feed(self, text: str) -> str:
        """What is whole of the text so far; a half at its end waits for the other one."""
        if not text:
            return ""
        text, self._held = self._held + text, ""
        for pattern in self._open:
            if found := pattern.search(text, max(len(text) - _TAIL, 0)):
                at = found.start(found.lastindex or 0)
                text, self._held = text[:at], text[at:] + self._held
        return self._whole(text)

    def end(self) -> str:
        """What waited: no more is to come."""
        text, self._held = self._held, ""
        return self._whole(text)

    def _whole(self, text: str) -> str:
        text = joined(text)
        if len(self._open) > 1 and "\\u" in text:
            text = _ESCAPES.sub(lambda found: found[0] if found[2] else f"{found[1]}\\ufffd", text)
        return text
