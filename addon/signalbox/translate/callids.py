"""The ids that a client gets for the tool calls of one answer: legal, and unique in its conversation.

Some providers count their calls from 0 in every answer (`call_0`, `tool_0_Read`, `functions.Bash:0`); those
get a part that is random, and carry their own with them, as they carry what else the provider wants back
(translation.md, 10; ids.py).
"""

import re

from signalbox.translate.ids import pack
from signalbox.translate.shapes import Object

_COUNTED = re.compile(r"[_-]*(?:(?:[a-zA-Z]+|[0-9]{1,6})(?:[_-]+|$))*")
"""Words and small numbers: another answer may well use them too."""


_LONGEST = 40
"""Characters of an id that any provider takes; a longer one goes back to its own only."""


class CallIds:
    """`seed` is the random part, `provider` is who gets back what an id carries."""

    def __init__(self, seed: str, provider: str) -> None:
        self._seed = seed
        self._provider = provider
        self._given = 0
        self._used: set[str] = set()

    def given(self, own: str, name: str, extra: Object | None = None) -> str:
        """For the next call, of the tool `name`. `own` is the provider's id, or empty; `extra` is what else
        it carries."""
        carried = dict(extra or {})
        shown = own
        if not own:
            shown = f"toolu_{self._seed}{self._given}"
        elif own in self._used or pack(own, {}) != own or _COUNTED.fullmatch(own.replace(name, "")):
            shown = f"{own}_{self._seed}{self._given}"
            carried["id"] = own
        if carried or len(own) > _LONGEST:
            carried["by"] = self._provider
        self._given += 1
        self._used.add(own)
        return pack(shown, carried)
