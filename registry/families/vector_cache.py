"""What a frozen encoder made of a text, kept under the digest of that text, so that no run encodes it twice.

One SQLite file beside a lock. It holds digests and vectors and no text. Nothing depends on it: a file that is damaged,
full or gone is begun anew, and a vector that is not whole counts as unknown. Whoever reads or writes holds the lock, a
few seconds at most, so that two runs may share it and a damaged file is never removed under somebody's hands.
"""

import fcntl
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 2**30  # some 650,000 vectors of 384 numbers
_KEPT_SHARE = 0.9  # of MOST_BYTES, when the oldest have to go
_TOUCH_SECONDS = 24 * 3600  # a use is noted once a day, so that looking up hardly writes
_PAGE_BYTES = 16384  # a vector of 384 numbers in SQLite's usual page of 4096 would waste a quarter of it
_NAME, _FORMAT = "vectors.sqlite3", 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, vector BLOB NOT NULL, cut INTEGER NOT NULL,
    checksum INTEGER NOT NULL, used INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS vectors_used ON vectors (used, id);
"""

Embedded = tuple[NDArray[np.float32], bool]
"""A vector (width,), and whether its text was longer than the encoder reads."""

T = TypeVar("T")


class VectorCache:
    """Vectors of `width` numbers by key, in `folder`, at most `most_bytes` of them."""

    def __init__(self, folder: Path, width: int, *, most_bytes: int = MOST_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._lock_path = folder / _NAME, folder / f"{_NAME}.lock"
        self._width, self._most_bytes = width, most_bytes

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Embedded]:
        """What is known of `keys`."""
        return self._try(lambda database: self._get(database, keys)) or {}

    def put(self, found: Mapping[bytes, Embedded]) -> None:
        """Keep `found`; the least recently used go where there is no room. What cannot be kept is lost, no more."""
        self._try(lambda database: self._put(database, found))

    def _get(self, database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Embedded]:
        now = int(time.time())
        with database:
            database.execute("CREATE TEMP TABLE wanted (key BLOB PRIMARY KEY) WITHOUT ROWID")
            database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", [(key,) for key in sorted(keys)])
            # In the order of the file; in that of the digests every vector would be a page read anew.
            database.execute(
                "CREATE TEMP TABLE found AS SELECT id FROM wanted CROSS JOIN vectors USING (key) ORDER BY id"
            )
            rows = database.execute("SELECT key, vector, cut, checksum FROM found CROSS JOIN vectors USING (id)")
            known = {
                key: (np.frombuffer(vector, dtype=np.float32), bool(cut))
                for key, vector, cut, checksum in rows
                if len(vector) == 4 * self._width and zlib.crc32(vector, zlib.crc32(key)) == checksum
            }
            database.execute(
                "UPDATE vectors SET used = ? WHERE used < ? AND id IN (SELECT id FROM found)",
                (now, now - _TOUCH_SECONDS),
            )
        return known

    def _put(self, database: sqlite3.Connection, found: Mapping[bytes, Embedded]) -> None:
        now = int(time.time())
        with database:
            database.executemany(
                "INSERT OR REPLACE INTO vectors (key, vector, cut, checksum, used) VALUES (?, ?, ?, ?, ?)",
                (
                    (key, data := vector.astype(np.float32).tobytes(), cut, zlib.crc32(data, zlib.crc32(key)), now)
                    for key, (vector, cut) in found.items()
                ),
            )
        if _used_bytes(database) > self._most_bytes:
            self._evict(database)

    def _evict(self, database: sqlite3.Connection) -> None:
        """Remove the least recently used; their pages are used again, so the file grows no further."""
        share = 1 - _KEPT_SHARE * self._most_bytes / _used_bytes(database)
        with database:
            (count,) = database.execute("SELECT count(*) FROM vectors").fetchone()
            database.execute(
                "DELETE FROM vectors WHERE id IN (SELECT id FROM vectors ORDER BY used, id LIMIT ?)",
                (int(np.ceil(share * count)),),
            )

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """What `work` makes of the file; None, and a file begun anew, where SQLite cannot read or write it."""
        with suppress(OSError), self._locked():
            try:
                with closing(self._open()) as database:
                    return work(database)
            except sqlite3.Error:
                for path in self._path.parent.glob(f"{_NAME}*"):
                    if path != self._lock_path:
                        path.unlink(missing_ok=True)
        return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock_path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _open(self) -> sqlite3.Connection:
        # A process killed while it writes leaves a journal, which the next one rolls back. As nothing waits for the
        # disk a power cut could do worse, and what it damages is begun anew.
        database = sqlite3.connect(self._path, timeout=0)
        database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        database.execute("PRAGMA synchronous = OFF")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, _FORMAT):
            database.close()
            raise sqlite3.DatabaseError("of another format")
        database.executescript(f"{_SCHEMA}PRAGMA user_version = {_FORMAT};")
        return database


def _used_bytes(database: sqlite3.Connection) -> int:
    """Of the file, without the pages that were freed."""
    pages, free = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    return int((pages - free) * _PAGE_BYTES)
