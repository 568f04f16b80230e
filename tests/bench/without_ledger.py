"""The router without its ledger and its spool, in place of `addon/router.py`: for `tests.bench.ledger`."""

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "addon"))

from signalbox.record import recorder
from signalbox.record.spool import Spool


class NoLedger:
    waiting = 0
    written = spooled = 1 << 60

    def __init__(self, *given: Any, **named: Any) -> None: ...

    def follow(self, settings: Any) -> None: ...

    def enter(self, entry: Any) -> int:
        return 1

    def complete(self, number: int, entry: Any) -> None: ...

    def has_spooled(self, number: int) -> None: ...

    def used(self, provider: str, since: datetime) -> int:
        return 0

    def ready(self, timeout: float = 0.0) -> None: ...

    def close(self, timeout: float | None = None) -> None: ...


class NoSpool(Spool):
    def append(self, entries: Sequence[Any]) -> None: ...


recorder.Ledger, recorder.Spool = NoLedger, NoSpool  # type: ignore[misc,assignment]

from router import addons  # type: ignore[import-not-found]  # noqa: E402

__all__ = ["addons"]
