"""Ledgers for tests: entries written as a router does, into SQLite or PostgreSQL."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from signalbox.config.rules import LedgerSettings
from signalbox.database import engine, ledger_url
from signalbox.record.database import LedgerDatabase
from signalbox.record.entry import Entry
from signalbox.record.ledger import Ledger


def record(folder: Path, entries: Sequence[Entry], url: str = "sqlite") -> None:
    """Write them all in one transaction, as a router of its own; `folder` is the state folder."""
    with closing(LedgerDatabase(ledger_url(folder, LedgerSettings(url)))) as database:
        database.write(token_hex(8), list(enumerate(entries, 1)), len(entries))


class LedgerStore(NamedTuple):
    """A state folder, and where the rules say that the ledger is."""

    folder: Path
    url: str = "sqlite"

    def settings(self, **fields: Any) -> LedgerSettings:
        return LedgerSettings(self.url, **fields)

    def ledger(self, **settings: Any) -> Ledger:
        """One more router's. The caller closes it."""
        made = Ledger(self.folder, **settings)
        made.follow(self.settings())
        return made

    def rows(self, query: str = "SELECT model FROM requests ORDER BY id") -> list[Any]:
        """Of one column the values, else tuples."""
        made = engine(ledger_url(self.folder, self.settings()))
        try:
            with made.connect() as connection:
                found = [tuple(row) for row in connection.exec_driver_sql(query)]
        finally:
            made.dispose()
        return [row[0] if len(row) == 1 else row for row in found]

    def holds(self, *models: str) -> bool:
        """Whether the ledger is there, and holds the requests for these models and no others."""
        try:
            return self.rows() == list(models)
        except SQLAlchemyError:
            return False
