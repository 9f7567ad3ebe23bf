"""Django's SQLite backend over the `pysqlite3` wheel.

That wheel carries SQLite 3.53, which is free of the WAL-reset corruption bug of 3.7.0 to 3.51.2
(https://sqlite.org/wal.html#walresetbug). Where the wheel cannot be had, the interpreter's own library is used and
`pragmas()` falls back to the rollback journal, which that bug does not touch.
"""

import sqlite3 as standard

try:
    from pysqlite3 import dbapi2 as Database
except ImportError:  # no wheel for this platform
    from sqlite3 import dbapi2 as Database

__all__ = ["USES_WHEEL", "Database", "pragmas", "wal_is_safe"]

FIXED_VERSIONS = ((3, 51, 3), (3, 50, 7), (3, 44, 6))


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """True for a SQLite `version` that carries the fix of the WAL-reset bug (3.51.3, or its two backports)."""
    newest, *backports = FIXED_VERSIONS
    return version >= newest or any(version[:2] == fix[:2] and version >= fix for fix in backports)


def pragmas() -> str:
    """The `init_command` of every connection: an answer is durable before it leaves, hence `synchronous=FULL`."""
    journal = "WAL" if wal_is_safe(Database.sqlite_version_info) else "DELETE"
    return (
        f"PRAGMA journal_mode={journal}; PRAGMA synchronous=FULL; PRAGMA mmap_size=0; PRAGMA cache_size=-16000; "
        "PRAGMA temp_store=MEMORY; PRAGMA journal_size_limit=67108864"
    )


USES_WHEEL = Database is not standard.dbapi2
