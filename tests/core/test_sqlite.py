"""The SQLite backend: the fixed library, durable pragmas, Django's placeholders."""

import datetime
import decimal
import threading
import time
from contextlib import contextmanager

import pytest
from django.db import OperationalError, connection

from kalimtak.core.sqlite import Database, pragmas, wal_is_safe
from kalimtak.core.sqlite.base import DatabaseWrapper

pytestmark = pytest.mark.skipif("connection.vendor != 'sqlite'", reason="runs on PostgreSQL here")


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 50, 7), True),
        ((3, 44, 5), False),
        ((3, 53, 4), True),
    ],
)
def test_the_corruption_bug_is_known_by_version(version, safe):
    assert wal_is_safe(version) is safe


@pytest.mark.django_db
def test_answers_are_durable_and_writers_do_not_corrupt():
    with connection.cursor() as cursor:
        values = {}
        for name in ("journal_mode", "synchronous", "foreign_keys", "mmap_size"):
            cursor.execute(f"PRAGMA {name}")
            row = cursor.fetchone()
            values[name] = row[0] if row else 0
    expected = "wal" if wal_is_safe(Database.sqlite_version_info) else "delete"
    assert values == {"journal_mode": expected, "synchronous": 2, "foreign_keys": 1, "mmap_size": 0}
    assert expected.upper() in pragmas()


@pytest.mark.django_db
def test_placeholders_and_types_come_through():
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s, %s, '100%%'", ["a ? b", 3])
        assert cursor.fetchone() == ("a ? b", 3, "100%")
        cursor.execute("SELECT %(x)s", {"x": 5})
        assert cursor.fetchone() == (5,)
        cursor.execute("CREATE TEMP TABLE t (a text, b integer)")
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", iter([("x", 1), ("y", 2)]))
        cursor.execute("SELECT count(*), %s FROM t", [decimal.Decimal("1.5")])
        assert cursor.fetchone() == (2, "1.5")
        cursor.execute("SELECT %s", [datetime.date(2026, 1, 2)])
        assert cursor.fetchone() == ("2026-01-02",)


@pytest.fixture
def other_writer(tmp_path):
    """A database and a connection of another process's kind that has begun to write there."""
    path = tmp_path / "shared.sqlite3"
    other = Database.connect(str(path), isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("CREATE TABLE t (a)")
    other.execute("BEGIN IMMEDIATE")
    yield path, other
    other.close()


@pytest.fixture
def writer(other_writer):
    settings_dict = connection.settings_dict | {"NAME": str(other_writer[0])}
    wrapper = DatabaseWrapper(settings_dict, alias="other")
    yield wrapper
    wrapper.close()


@pytest.mark.django_db
@pytest.mark.clock
def test_whoever_waits_to_write_begins_soon_after_the_other_ends(other_writer, writer):
    _, other = other_writer
    writer.ensure_connection()
    ended = []

    def end():
        time.sleep(0.15)  # SQLite's own waiting would sleep until 0.178 s and 0.228 s have passed
        other.execute("COMMIT")
        ended.append(time.monotonic())

    thread = threading.Thread(target=end)
    thread.start()
    with transaction_of(writer):
        assert time.monotonic() - ended[0] < 0.1
        writer.cursor().execute("INSERT INTO t VALUES (1)")
    thread.join()
    assert other.execute("SELECT count(*) FROM t").fetchone() == (1,)


@pytest.mark.django_db
def test_patience_ends_and_can_be_cut_short(other_writer, writer):
    with writer.limited_patience(0.05):
        began = time.monotonic()
        with pytest.raises(OperationalError, match="locked"), transaction_of(writer):
            pass
        assert 0.05 <= time.monotonic() - began < 5
    assert writer.connection.patience == writer.settings_dict["OPTIONS"]["timeout"]


@pytest.mark.django_db
def test_a_statement_outside_of_transactions_waits_as_well_and_is_not_starved(other_writer, writer):
    """Others begin anew as soon as they have ended; SQLite's own waiting would sleep through every gap."""
    _, other = other_writer
    writer.ensure_connection()
    stop = threading.Event()

    def write_on():
        other.execute("COMMIT")
        while not stop.is_set():
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO t VALUES (1)")
            time.sleep(0.001)
            other.execute("COMMIT")

    thread = threading.Thread(target=write_on)
    thread.start()
    began = time.monotonic()
    for _ in range(20):
        with writer.cursor() as cursor:
            cursor.execute("INSERT INTO t VALUES (2)")
    stop.set()
    thread.join()
    assert time.monotonic() - began < 10
    assert other.execute("SELECT count(*) FROM t WHERE a = 2").fetchone() == (20,)


@contextmanager
def transaction_of(wrapper):
    """`atomic` for a connection that is not among Django's."""
    wrapper.ensure_connection()
    wrapper._start_transaction_under_autocommit()
    yield
    wrapper.connection.execute("COMMIT")
