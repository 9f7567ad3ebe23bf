"""`DatabaseWrapper` of Django's SQLite backend, bound to the library chosen in this package's `__init__`."""

import datetime
import decimal
from collections.abc import Mapping
from typing import Any

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


class DatabaseWrapper(django_sqlite.DatabaseWrapper):
    """Opens connections with the wheel's library; all else is Django's."""

    Database = Database

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
