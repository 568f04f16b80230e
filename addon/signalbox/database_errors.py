"""What goes wrong with a database.

Apart from `database`, which imports SQLAlchemy: that takes a quarter of the time that mitmproxy takes to
start, so only the threads that use a database import it.
"""


class DatabaseError(Exception):
    """The database cannot be read or written. The text gives the reason and holds no rows and no secret."""


class UnwritableError(DatabaseError):
    """The database is available, but refuses these values."""
