"""The SQLite backend: the fixed library, durable pragmas, Django's placeholders."""

import datetime
import decimal

import pytest
from django.db import connection

from kalimtak.core.sqlite import Database, pragmas, wal_is_safe

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
