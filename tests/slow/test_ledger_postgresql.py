"""The ledger in PostgreSQL: a server that stops, a connection that is cut, routers that start at once.

What holds for both engines is in `unit/test_record_ledger.py`.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from signalbox.config.rules import LedgerSettings
from signalbox.database import ledger_url
from signalbox.record.database import LedgerDatabase
from signalbox.record.entry import AttemptRow, Entry
from signalbox.record.ledger import Ledger, Timing
from signalbox.record.spool import Spool
from tests.support.ledger import LedgerStore
from tests.support.postgres import PASSWORD, Postgres
from tests.support.router_process import wait_until

pytestmark = pytest.mark.slow

NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)
ATTEMPT = AttemptRow(provider="zai", started=NOON, latency_ms=312, outcome="200", output_tokens=10)
ENTRY = Entry(ts=NOON, model="sonnet", backend="zai", status="success", attempt_rows=(ATTEMPT,))
QUICK = Timing(linger=0.02, poll=0.02, retry=0.05)


def entry(**fields: Any) -> Entry:
    return msgspec.structs.replace(ENTRY, **fields)


@pytest.fixture
def store(postgres: Postgres, tmp_path: Path) -> LedgerStore:
    return LedgerStore(tmp_path, postgres.new_database())


@pytest.fixture
def start(store: LedgerStore) -> Iterator[Callable[..., Ledger]]:
    """Opens a ledger there, as one more router; all are closed with the test."""
    with ExitStack() as started:
        yield lambda **settings: started.enter_context(closing(store.ledger(**settings)))


def test_routers_that_start_at_once_make_the_tables_together(start, store, caplog):
    many = [start() for _ in range(8)]
    for number, one in enumerate(many):
        one.enter(entry(model=str(number)))
    for one in many:
        one.close()
    assert sorted(store.rows()) == [str(number) for number in range(8)]
    assert not caplog.messages


@pytest.mark.parametrize(
    ("version", "lacks"),
    [(1, ("project", "class", "missed_tokens", "missed_cost")), (3, ("missed_tokens", "missed_cost"))],
)
def test_a_database_of_an_earlier_version_gets_the_columns_it_lacks(start, store, version, lacks):
    with closing(start()) as one:
        one.enter(entry(model="before"))
    with closing(LedgerDatabase(ledger_url(store.folder, store.settings()))) as database:
        assert database.used({"zai": 0}) == {"zai": 10}
    (newest,) = store.rows("SELECT number FROM schema_version")
    dropped = "".join(f"ALTER TABLE requests DROP COLUMN {name}; " for name in lacks)
    execute(store, f"{dropped}UPDATE schema_version SET number = {version}")
    with closing(start()) as one:
        one.enter(entry(model="after", project="/home/me", missed_tokens=900, missed_cost=0.25))
    query = "SELECT model, missed_tokens, missed_cost FROM requests ORDER BY id"
    assert store.rows(query) == [("before", None, None), ("after", 900, 0.25)]
    assert store.rows("SELECT project FROM requests WHERE model = 'after'") == ["/home/me"]
    assert store.rows("SELECT number FROM schema_version") == [newest]


def test_what_comes_while_the_server_is_down_is_written_when_it_is_back(postgres, start, store, caplog):
    caplog.set_level("INFO")
    spool = Spool(store.folder)
    one = start(spool=spool.name, most=5, timing=QUICK)
    names = [str(number) for number in range(40)]
    enter(one, spool, names[:10])
    wait_until(lambda: store.holds(*names[:10]), 5, lambda: str(caplog.messages))
    postgres.stop("immediate")
    try:
        enter(one, spool, names[10:30])
        wait_until(lambda: any("wait to be recorded" in line for line in caplog.messages), 10, str)
    finally:
        postgres.start()
    enter(one, spool, names[30:])
    wait_until(lambda: store.holds(*names), 20, lambda: str(caplog.messages))
    wait_until(lambda: "recorded again, 0 were lost" in caplog.messages[-1], 5, lambda: caplog.text)
    one.close()
    spool.close(remove=True)


def test_a_transaction_whose_end_was_not_heard_is_not_written_again(postgres, store, caplog):
    with CutAtCommit(postgres.port) as proxy:
        url = postgres.url(store.url.rpartition("/")[2], proxy.port)
        through = LedgerStore(store.folder, url)
        with closing(through.ledger(timing=QUICK)) as one:
            one.enter(entry(model="first"))
            wait_until(lambda: store.holds("first"), 5, lambda: caplog.text)
            proxy.cut = 3
            one.enter(entry(model="second"))
            wait_until(lambda: proxy.cut == 0, 10, lambda: caplog.text)
            one.enter(entry(model="third"))
    assert store.rows() == ["first", "second", "third"]
    assert not re.search("[1-9][0-9]* (were|are) lost", caplog.text)


def test_the_password_is_in_no_line_that_is_logged(postgres, store, caplog):
    wrong = postgres.url("nowhere").replace(PASSWORD, "a-secret-that-is-wrong")
    with closing(LedgerStore(store.folder, wrong).ledger(timing=QUICK._replace(close=0.1))) as one:
        one.enter(ENTRY)
        wait_until(lambda: caplog.messages, 10, lambda: "no line")
    assert re.search(r"PostgreSQL nowhere at 127.0.0.1:[0-9]+: .*password authentication failed", caplog.text)
    assert "a-secret" not in caplog.text


def test_a_host_that_does_not_answer_delays_neither_requests_nor_the_end(store):
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/d"
        one = LedgerStore(store.folder, url).ledger(timing=QUICK._replace(close=0.1))
        numbers = [one.enter(ENTRY) for _ in range(1000)]
        assert (numbers[-1], one.waiting) == (1000, 1000)
        one.close(timeout=0.5)


def test_old_rows_are_deleted_by_one_router_while_others_write(start, store):
    old = [entry(ts=datetime(2020, 1, 1, tzinfo=UTC), model=f"old {number}") for number in range(20)]
    with closing(LedgerDatabase(ledger_url(store.folder, store.settings()))) as database:
        database.write("earlier", list(enumerate(old, 1)), len(old))
    many = [start(at_once=3, timing=QUICK) for _ in range(4)]
    for number, one in enumerate(many):
        one.follow(LedgerSettings(store.url, keep=86400.0 * 365))
        one.enter(entry(ts=datetime.now(UTC), model=str(number)))
    wait_until(lambda: sorted(store.rows()) == ["0", "1", "2", "3"], 10, lambda: str(store.rows()))
    assert store.rows("SELECT count(*) FROM attempts") == [4]


def enter(ledger: Ledger, spool: Spool, names: list[str]) -> None:
    for name in names:
        number = ledger.enter(entry(model=name))
        spool.append([(number, entry(model=name))])
        ledger.has_spooled(number)


def execute(store: LedgerStore, statements: str) -> None:
    import psycopg

    with psycopg.connect(store.url.replace("+psycopg", "")) as connection:
        connection.execute(statements.encode())


class CutAtCommit:
    """A proxy before PostgreSQL that cuts a connection once the server has been told to commit, as often as
    `cut` says: the server commits, and its client does not hear of it."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut = 0
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.cut and b"COMMIT" in data and sink.getpeername()[1] == self._server:
                    self.cut -= 1
                    source.shutdown(socket.SHUT_RDWR)  # its client hears no more
                    sink.sendall(data)
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
