"""`DatabaseWrapper` of Django's SQLite backend, bound to the library chosen in this package's `__init__`."""

import datetime
import decimal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from django.db.backends.sqlite3 import base as django_sqlite
from django.db.backends.sqlite3._functions import register as register_functions

from . import Database

for name, convert in (
    ("bool", b"1".__eq__),
    ("date", django_sqlite.decoder(django_sqlite.parse_date)),
    ("time", django_sqlite.decoder(django_sqlite.parse_time)),
    ("datetime", django_sqlite.decoder(django_sqlite.parse_datetime)),
    ("timestamp", django_sqlite.decoder(django_sqlite.parse_datetime)),
):
    Database.register_converter(name, convert)
Database.register_adapter(decimal.Decimal, str)
Database.register_adapter(datetime.date, django_sqlite.adapt_date)
Database.register_adapter(datetime.datetime, django_sqlite.adapt_datetime)


SQLITE_BUSY = 5  # https://sqlite.org/rescode.html#busy; its extended codes share the low byte
FIRST_PAUSE, LONGEST_PAUSE = 0.0002, 0.005  # seconds between two attempts to write

Made = TypeVar("Made")


class Connection(Database.Connection):  # type: ignore[misc]
    """Has patience: so many seconds a statement of its own waits for another writer."""

    patience = 0.0


class Cursor(Database.Cursor):  # type: ignore[misc]
    """Turns Django's `%s` and `%(name)s` placeholders into SQLite's, on the wheel's cursor class, and waits for its
    turn to write without dozing off.

    SQLite's own waiting sleeps 1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100 ms between attempts, while another process
    of ours holds the lock for about one: of two that write all the time one soon sleeps most of it (decision 21).
    """

    convert_query = django_sqlite.SQLiteCursorWrapper.convert_query

    def execute(self, query: str, params: Any = None) -> Any:
        if params is None:
            return self._insist(lambda: super(Cursor, self).execute(query))
        names = list(params) if isinstance(params, Mapping) else None
        converted = self.convert_query(query, param_names=names)
        return self._insist(lambda: super(Cursor, self).execute(converted, params))

    def executemany(self, query: str, param_list: Any) -> Any:
        rows = list(param_list)
        names = list(rows[0]) if rows and isinstance(rows[0], Mapping) else None
        converted = self.convert_query(query, param_names=names)
        return self._insist(lambda: super(Cursor, self).executemany(converted, rows))

    def _insist(self, attempt: Callable[[], Made]) -> Made:
        """Try until nobody else writes. Inside a transaction the lock is held or lost: nothing to wait for."""
        try:
            return attempt()
        except Database.OperationalError as error:
            if not self._may_wait(error):
                raise
        deadline, pause = time.monotonic() + self.connection.patience, FIRST_PAUSE
        while True:
            time.sleep(pause)
            pause = min(pause * 1.3, LONGEST_PAUSE)
            try:
                return attempt()
            except Database.OperationalError as error:
                if not self._may_wait(error) or time.monotonic() > deadline:
                    raise

    def _may_wait(self, error: Exception) -> bool:
        is_busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == SQLITE_BUSY
        return is_busy and self.connection.patience > 0 and not self.connection.in_transaction


class DatabaseWrapper(django_sqlite.DatabaseWrapper):
    """Opens connections with the wheel's library; all else is Django's."""

    Database = Database

    @contextmanager
    def limited_patience(self, seconds: float) -> Iterator[None]:
        """What is begun in here waits no longer than so many seconds for another writer."""
        self.ensure_connection()
        connection = self.connection
        before, connection.patience = connection.patience, min(connection.patience, seconds)
        try:
            yield
        finally:
            connection.patience = before

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = Database.connect(**conn_params, factory=Connection)
        register_functions(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA legacy_alter_table = OFF")
        for command in filter(None, (part.strip() for part in self.init_commands)):
            connection.execute(command)
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":  # else a commit may have to wait as well
            connection.patience = conn_params.get("timeout", 5.0)
            connection.execute("PRAGMA busy_timeout = 0")
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        return self.connection.cursor(factory=Cursor)
