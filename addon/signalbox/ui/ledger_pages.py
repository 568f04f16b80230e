"""The pages that are made of the ledger, each on a thread.

What makes them is imported for the first of them: SQLAlchemy and Jinja take a quarter of the time that
mitmproxy takes to start.
"""

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from signalbox.config.rules import Rules
from signalbox.ui.pages import PageResponse
from signalbox.ui.state import State

if TYPE_CHECKING:
    from signalbox.ui.dashboard import Dashboard
    from signalbox.ui.session_summary import Percents


class LedgerPages:
    """The pages of one ledger; for several threads."""

    def __init__(self, folder: Path) -> None:
        """`folder` is that of the ledger, where it is a file."""
        self._folder = folder
        self._rules = Rules()
        self._lock = Lock()
        self._made: Dashboard | None = None

    def follow(self, rules: Rules) -> None:
        """Read the ledger that these rules name."""
        with self._lock:
            self._rules = rules
            if self._made is not None:
                self._made.follow(rules)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def dashboard(self, path: str, query: str, state: State) -> PageResponse:
        """A page below `/ui`. Blocks. Raises nothing that is due to the request or to the ledger."""
        return self._dashboard().answer(path, query, state)

    def session_summary(self, path: str, percents: "Percents") -> PageResponse:
        """Blocks. Raises nothing that is due to the request or to the ledger."""
        from signalbox.ui.session_summary import summary_page

        return summary_page(self._dashboard().ledger, path, percents)

    def _dashboard(self) -> "Dashboard":
        from signalbox.ui.dashboard import Dashboard

        with self._lock:
            if self._made is None:
                made = Dashboard(self._folder)
                made.follow(self._rules)
                self._made = made
            return self._made
