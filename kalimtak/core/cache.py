"""Caches that hold JSON, never pickles: Redis where `REDIS_URL` is set, else a SQLite file that one machine's processes
share, so that rate limits hold across workers. Nothing in here needs to survive a crash; the file is written without
fsync.
"""

import json
import threading
import time
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from .sqlite import Database

SCHEMA = "CREATE TABLE IF NOT EXISTS cache (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires REAL) WITHOUT ROWID"
FRESH = "(expires IS NULL OR expires > ?)"
GET = f"SELECT value FROM cache WHERE key = ? AND {FRESH}"  # noqa: S608
INCR = f"UPDATE cache SET value = CAST(value AS INTEGER) + ? WHERE key = ? AND {FRESH} RETURNING value"  # noqa: S608
TOUCH = f"UPDATE cache SET expires = ? WHERE key = ? AND {FRESH}"  # noqa: S608
SWEEP_SECONDS = 60.0
REDIS_SECONDS = 0.5  # for an answer; a cache that is slower than that is no cache
FILE_SECONDS = 0.5  # for the lock of another process


class JsonSerializer:
    """What Django's Redis cache stores; numbers stay plain, so that Redis can count them."""

    def dumps(self, value: Any) -> str:
        return json.dumps(value)

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


def redis_options() -> dict[str, Any]:
    """How to talk to Redis: give up soon, and try once more only where the connection turned out to be dead."""
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.retry import Retry

    return {
        "serializer": JsonSerializer,
        "socket_timeout": REDIS_SECONDS,
        "socket_connect_timeout": REDIS_SECONDS,
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    }


class SqliteCache(BaseCache):
    """Django's cache interface; `incr` and `add` are atomic across processes. A broken file raises, as Redis does."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._location = location
        self._local = threading.local()
        self._next_sweep = time.monotonic() + SWEEP_SECONDS

    def _execute(self, sql: str, *values: Any) -> Any:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = Database.connect(
                self._location, timeout=FILE_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute(SCHEMA)
            self._local.connection = connection
        if time.monotonic() > self._next_sweep:
            self._next_sweep = time.monotonic() + SWEEP_SECONDS
            connection.execute("DELETE FROM cache WHERE expires <= ?", (time.time(),))
        return connection.execute(sql, values)

    def _expiry(self, timeout: Any) -> float | None:
        return self.get_backend_timeout(timeout)  # type: ignore[no-any-return]

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        name = self.make_and_validate_key(key, version)
        row = self._execute(GET, name, time.time()).fetchone()
        return default if row is None else json.loads(row[0])

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        name = self.make_and_validate_key(key, version)
        sql = "INSERT INTO cache VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = ?2, expires = ?3"
        self._execute(sql, name, json.dumps(value), self._expiry(timeout))

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name = self.make_and_validate_key(key, version)
        sql = (
            "INSERT INTO cache VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = ?2, expires = ?3 "
            "WHERE expires <= ?4"
        )
        cursor = self._execute(sql, name, json.dumps(value), self._expiry(timeout), time.time())
        return bool(cursor.rowcount == 1)

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        name = self.make_and_validate_key(key, version)
        row = self._execute(INCR, delta, name, time.time()).fetchone()
        if row is None:
            raise ValueError(f"Key {key!r} not found")
        return int(row[0])

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name = self.make_and_validate_key(key, version)
        return bool(self._execute(TOUCH, self._expiry(timeout), name, time.time()).rowcount)

    def delete(self, key: str, version: int | None = None) -> bool:
        name = self.make_and_validate_key(key, version)
        return bool(self._execute("DELETE FROM cache WHERE key = ?", name).rowcount)

    def clear(self) -> None:
        self._execute("DELETE FROM cache")

    def close(self, **kwargs: Any) -> None:
        """Connections stay open for the next request of their thread."""
