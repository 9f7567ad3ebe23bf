"""`DatabaseWrapper` of Django's SQLite backend, bound to the library chosen in this package's `__init__`."""

import datetime
import decimal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db.backends.sqlite3 import base as django_sqlite
from django.db.backends.sqlite3._functions import register as register_functions
from django.db.utils import OperationalError

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


class Cursor(Database.Cursor):  # type: ignore[misc]
    """Turns Django's `%s` and `%(name)s` placeholders into SQLite's, on the wheel's cursor class."""

    convert_query = django_sqlite.SQLiteCursorWrapper.convert_query

    def execute(self, query: str, params: Any = None) -> Any:
        if params is None:
            return super().execute(query)
        names = list(params) if isinstance(params, Mapping) else None
        return super().execute(self.convert_query(query, param_names=names), params)

    def executemany(self, query: str, param_list: Any) -> Any:
        rows = list(param_list)
        names = list(rows[0]) if rows and isinstance(rows[0], Mapping) else None
        return super().executemany(self.convert_query(query, param_names=names), rows)


SQLITE_BUSY = 5  # https://sqlite.org/rescode.html#busy; its extended codes share the low byte
FIRST_PAUSE, LONGEST_PAUSE = 0.0002, 0.005  # seconds between two attempts to begin writing


class DatabaseWrapper(django_sqlite.DatabaseWrapper):
    """Opens connections with the wheel's library and waits for its turn to write without dozing off.

    SQLite's own waiting sleeps 1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100 ms between attempts, while another process
    of ours holds the lock for about one: of two that write all the time one soon sleeps most of it (decision 21).
    """

    Database = Database

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timeout: float = self.settings_dict["OPTIONS"].get("timeout", 5.0)  # seconds
        self.patience = self._timeout

    @contextmanager
    def limited_patience(self, seconds: float) -> Iterator[None]:
        """Transactions begun in here wait no longer than so many seconds for the lock."""
        before, self.patience = self.patience, min(self.patience, seconds)
        try:
            yield
        finally:
            self.patience = before

    def _start_transaction_under_autocommit(self) -> None:
        if self.transaction_mode != "IMMEDIATE":
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
            return
        deadline, pause = time.monotonic() + self.patience, FIRST_PAUSE
        self.connection.execute("PRAGMA busy_timeout = 0")
        try:
            while not self._has_begun(is_last_try=time.monotonic() > deadline):
                time.sleep(pause)
                pause = min(pause * 1.3, LONGEST_PAUSE)
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {round(self._timeout * 1000)}")

    def _has_begun(self, *, is_last_try: bool) -> bool:
        try:
            self.cursor().execute("BEGIN IMMEDIATE")
        except OperationalError as error:
            if is_last_try or not _is_busy(error):
                raise
            return False
        return True

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = Database.connect(**conn_params)
        register_functions(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA legacy_alter_table = OFF")
        for command in filter(None, (part.strip() for part in self.init_commands)):
            connection.execute(command)
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        return self.connection.cursor(factory=Cursor)


def _is_busy(error: OperationalError) -> bool:
    return getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF == SQLITE_BUSY
