"""The ledger in SQLite: files that are locked, full, damaged, deleted or old, and what waits meanwhile."""

import re
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from signalbox.database import ASIDE, FILE
from signalbox.record.entry import AttemptRow, Entry
from signalbox.record.ledger import Ledger, Timing
from signalbox.record.spool import Spool, orphans, spooled
from tests.support.ledger import LedgerStore
from tests.support.router_process import wait_until

NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)
ATTEMPT = AttemptRow(provider="zai", started=NOON, latency_ms=312, outcome="200")
ENTRY = Entry(ts=NOON, model="sonnet", backend="zai", status="success", attempt_rows=(ATTEMPT,))
QUICK = Timing(lock_timeout=0.02, linger=0.02, poll=0.02, retry=0.02)


def entry(*rows: AttemptRow, **fields: Any) -> Entry:
    return msgspec.structs.replace(ENTRY, attempt_rows=rows or ENTRY.attempt_rows, **fields)


@pytest.fixture
def store(tmp_path: Path) -> LedgerStore:
    return LedgerStore(tmp_path)


@pytest.fixture
def start(store: LedgerStore) -> Iterator[Callable[..., Ledger]]:
    """Opens a ledger there, as one more router; all are closed with the test."""
    with ExitStack() as started:
        yield lambda **settings: started.enter_context(closing(store.ledger(**settings)))


def test_what_cannot_be_written_now_is_written_later_and_reported_once(start, store, tmp_path, caplog):
    caplog.set_level("INFO")
    one = start(timing=QUICK)
    one.enter(entry(model="before"))
    wait_until(lambda: store.holds("before"), 5, lambda: "not written")
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("BEGIN IMMEDIATE")
        for name in ("a", "b", "c"):
            one.enter(entry(model=name))
        wait_until(lambda: caplog.messages, 5, lambda: "no line")
        other.rollback()
    wait_until(lambda: len(caplog.messages) == 2, 5, lambda: str(caplog.messages))
    assert store.rows() == ["before", "a", "b", "c"]
    told, well = caplog.messages
    assert "database is locked" in told
    assert "INSERT" not in told
    assert "recorded again, 0 were lost" in well


def test_a_damaged_file_is_set_aside_and_a_new_one_begun(start, store, tmp_path, caplog):
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    one = start(timing=QUICK)
    one.enter(entry(model="a"))
    one.close()
    assert store.rows() == ["a"]
    assert (tmp_path / f"{FILE}.broken").read_bytes().startswith(b"no database")
    assert re.search(r"not a database: set aside as ledger.sqlite.broken and begun anew", caplog.messages[0])


def test_a_second_damaged_file_does_not_take_the_place_of_the_first(start, store, tmp_path, caplog):
    for said in (b"first", b"second"):
        (tmp_path / FILE).write_bytes(said * 1000)
        one = start(timing=QUICK)
        one.enter(entry(model="a"))
        one.close()
    assert (tmp_path / f"{FILE}.broken").read_bytes().startswith(b"first")
    assert (tmp_path / f"{FILE}.broken-2").read_bytes().startswith(b"second")


@pytest.mark.slow
def test_damaged_files_do_not_fill_the_disk(start, tmp_path):
    for number in range(ASIDE + 2):
        (tmp_path / FILE).write_bytes(b"%d is no database" % number * 1000)
        one = start(timing=QUICK)
        one.enter(entry(model="a"))
        one.close()
    assert len(list(tmp_path.glob(f"{FILE}.broken*"))) == ASIDE


def test_a_file_that_was_deleted_is_begun_anew(start, store, tmp_path):
    one = start(timing=QUICK)
    one.enter(entry(model="before"))
    wait_until(lambda: store.holds("before"), 5, lambda: "not written")
    (tmp_path / FILE).unlink()
    one.enter(entry(model="after"))
    one.close()
    assert store.rows() == ["after"]


def test_lost_tables_are_made_anew_and_no_row_is_logged(start, store, tmp_path, caplog):
    one = start(timing=QUICK)
    one.enter(entry(model="first"))  # after which what is too old is looked for, once
    wait_until(lambda: store.holds("first"), 5, lambda: "not written")
    one.enter(entry(model="before"))
    wait_until(lambda: store.holds("first", "before"), 5, lambda: "not written")
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.executescript("DROP TABLE attempts; DROP TABLE requests;")
    one.enter(entry(model="of a customer"))
    one.close()
    assert store.rows() == ["of a customer"]
    assert re.search("no such table: (requests|attempts)", caplog.messages[0])
    assert "customer" not in caplog.text


OF_NOVEMBER_2026 = """
CREATE TABLE requests (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, ts INTEGER NOT NULL, model VARCHAR NOT NULL,
    backend VARCHAR NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cache_creation_input_tokens INTEGER NOT NULL, cache_read_input_tokens INTEGER NOT NULL,
    status VARCHAR NOT NULL, upstream_model VARCHAR NOT NULL, rule VARCHAR NOT NULL, reason VARCHAR NOT NULL,
    attempts VARCHAR NOT NULL, latency_ms INTEGER NOT NULL, first_byte_ms INTEGER, cost FLOAT,
    session VARCHAR, client VARCHAR, tier VARCHAR, agent VARCHAR, stream BOOLEAN, http_status INTEGER,
    error_type VARCHAR
);
CREATE INDEX requests_ts ON requests (ts);
CREATE TABLE attempts (
    request INTEGER NOT NULL, number INTEGER NOT NULL, provider VARCHAR NOT NULL, model VARCHAR NOT NULL,
    "key" INTEGER, started INTEGER NOT NULL, latency_ms INTEGER NOT NULL, first_byte_ms INTEGER,
    outcome VARCHAR NOT NULL, http_status INTEGER, kind VARCHAR NOT NULL, detail VARCHAR NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cache_creation_input_tokens INTEGER NOT NULL, cache_read_input_tokens INTEGER NOT NULL,
    PRIMARY KEY (request, number), FOREIGN KEY(request) REFERENCES requests (id)
) WITHOUT ROWID;
CREATE TABLE spooled
    (name VARCHAR NOT NULL, number INTEGER NOT NULL, ts INTEGER NOT NULL, PRIMARY KEY (name));
INSERT INTO requests (ts, model, backend, input_tokens, output_tokens, cache_creation_input_tokens,
    cache_read_input_tokens, status, upstream_model, rule, reason, attempts, latency_ms)
VALUES (1795000000000, 'before', 'zai', 1, 2, 3, 4, 'success', 'glm-4.7', '#1', 'rule:#1', 'zai:200', 5);
"""
"""The tables before they had a version. `request_id`, `list_cost` and the cost of an attempt came last."""


def shape(folder: Path) -> dict[str, set[str]]:
    """The columns of each table, and the names of all indexes."""
    with closing(sqlite3.connect(folder / FILE)) as file:
        names = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        indexes = file.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
        columns = {name: {row[1] for row in file.execute(f"PRAGMA table_info({name})")} for name in names}
    return columns | {"": {name for (name,) in indexes}}


def test_a_file_of_before_there_were_migrations_is_brought_up_to_date(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    with closing(sqlite3.connect(old / FILE)) as file:
        file.executescript(OF_NOVEMBER_2026)
    priced = msgspec.structs.replace(ATTEMPT, cost=0.25)
    for folder in (old, new):
        with closing(Ledger(folder)) as one:
            one.enter(entry(priced, model="after", list_cost=0.5, request_class="main", project="/home/me"))
    query = "SELECT model, list_cost, class, project FROM requests"
    assert LedgerStore(old).rows(query) == [("before", None, None, None), ("after", 0.5, "main", "/home/me")]
    assert LedgerStore(old).rows("SELECT cost FROM attempts") == [0.25]
    assert shape(old) == shape(new)
    assert LedgerStore(old).rows("SELECT number FROM schema_version") == LedgerStore(new).rows(
        "SELECT number FROM schema_version"
    )


def test_a_file_of_the_third_migration_gets_the_columns_of_the_fourth(tmp_path):
    with closing(Ledger(tmp_path)) as one:
        one.enter(entry(model="before"))
    with closing(sqlite3.connect(tmp_path / FILE)) as file:
        for column in ("missed_tokens", "missed_cost"):
            file.execute(f"ALTER TABLE requests DROP COLUMN {column}")
        file.execute("UPDATE schema_version SET number = 3")
        file.commit()
    with closing(Ledger(tmp_path)) as one:
        one.enter(entry(model="after", missed_tokens=900, missed_cost=0.25))
    query = "SELECT model, missed_tokens, missed_cost FROM requests ORDER BY id"
    assert LedgerStore(tmp_path).rows(query) == [("before", None, None), ("after", 900, 0.25)]
    assert LedgerStore(tmp_path).rows("SELECT number FROM schema_version") == [4]


def test_many_routers_that_start_at_once_bring_it_up_to_date_together(start, store, tmp_path, caplog):
    with closing(sqlite3.connect(tmp_path / FILE)) as file:
        file.executescript(OF_NOVEMBER_2026)
    many = [start() for _ in range(8)]
    for number, one in enumerate(many):
        one.enter(entry(model=str(number)))
    for one in many:
        one.close()
    assert sorted(store.rows()) == [*map(str, range(8)), "before"]
    assert not caplog.messages


def test_without_a_spool_more_than_can_wait_is_lost_and_reported(start, store, tmp_path, caplog):
    (tmp_path / FILE).mkdir()
    one = start(most=2, timing=QUICK._replace(close=0.0))
    for _ in range(5):
        one.enter(ENTRY)
    one.close()
    assert "2 requests wait to be recorded, 3 are lost" in caplog.messages[0]
    assert caplog.messages[-1].endswith("2 requests are not recorded")


def spool_and_enter(spool: Spool, ledger: Ledger, *names: str) -> None:
    for name in names:
        number = ledger.enter(entry(model=name))
        spool.append([(number, entry(model=name))])
        ledger.has_spooled(number)


def test_more_than_memory_holds_waits_in_the_spool_and_is_written_in_its_order(
    start, store, tmp_path, caplog
):
    caplog.set_level("INFO")
    (tmp_path / FILE).mkdir()
    spool = Spool(tmp_path)
    one = start(most=3, spool=spool.name, timing=QUICK)
    names = [str(number) for number in range(10)]
    spool_and_enter(spool, one, *names[:8])
    wait_until(lambda: caplog.messages, 5, lambda: "no line")
    assert one.waiting == 8
    (tmp_path / FILE).rmdir()
    spool_and_enter(spool, one, *names[8:])
    one.close()
    assert store.rows() == names
    assert caplog.messages[-1].endswith("recorded again, 0 were lost")
    spool.close(remove=True)


def test_what_the_spool_lacks_too_is_reported_as_lost(start, store, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / FILE).mkdir()
    spool = Spool(tmp_path)
    one = start(most=2, spool=spool.name, timing=QUICK)
    spool_and_enter(spool, one, "a", "b")
    one.has_spooled(one.enter(entry(model="lost")))
    spool_and_enter(spool, one, "d")
    wait_until(lambda: caplog.messages, 5, lambda: "no line")
    (tmp_path / FILE).rmdir()
    one.close()
    assert store.rows() == ["a", "b", "d"]
    assert caplog.messages[-1].endswith("recorded again, 1 were lost")
    spool.close(remove=True)


def test_a_spool_that_another_router_takes_for_an_orphan_is_made_again(tmp_path):
    """Between the moment it is opened and the moment it is locked."""
    spool = Spool(tmp_path)
    (tmp_path / f"spool-{spool.name}.jsonl").touch()
    (taken,) = orphans(tmp_path)
    writing = threading.Thread(target=spool.append, args=([(1, entry(model="a"))],))
    writing.start()
    writing.join(0.1)
    taken.release(remove=True)
    writing.join(5)
    assert [one.model for _, one in spooled(tmp_path, spool.name, 0)] == ["a"]
    spool.close(remove=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=400k", "none", str(folder))
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root on Linux can make a disk that is full")
    try:
        yield folder
    finally:
        subprocess.run(("umount", str(folder)), check=True)


@pytest.mark.slow
def test_what_a_full_disk_does_not_take_is_written_when_there_is_room(small_disk, caplog):
    caplog.set_level("INFO")
    store = LedgerStore(small_disk)
    filler = small_disk / "filler"
    with closing(store.ledger(timing=QUICK)) as one:
        one.enter(entry(model="before"))
        wait_until(lambda: store.holds("before"), 5, lambda: caplog.text)
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))
        names = [str(number) for number in range(300)]
        for name in names:
            one.enter(entry(model=name))
        wait_until(lambda: "disk is full: 300 requests wait" in caplog.text, 5, lambda: caplog.text)
        filler.unlink()
    assert store.rows() == ["before", *names]
    assert "recorded again, 0 were lost" in caplog.text
