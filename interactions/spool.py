"""Answers on the disk while the database is away: files that only grow, and are emptied into the table once.

A file holds one line per group of answers: length and BLAKE2b of what follows, then JSON. A group is fsynced before
anybody gets an answer of it, so a line that is torn or garbled at the end of a file (a power cut, a kill in the middle
of a write) holds nothing that was given to anybody, and is dropped. A bad line with a sound one behind it was damaged
afterwards: such a file is kept.

    <uuid7>-<pid>.spool   answers that wait; locked (`flock`) by the process that writes or empties it
    <uuid7>-<pid>.refused what the database will not take, each with the reason; `mv` it to `.spool` to try again
    <uuid7>-<pid>.damaged a file with damaged lines; what could be read of it was recorded

What is recorded is known by its ids, so emptying a file that was emptied half-way does nothing twice.
"""

import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.uuid7 import uuid7
from registry.manifest import fsync_path

WAITING, REFUSED, DAMAGED = ".spool", ".refused", ".damaged"
BATCH_ROWS = 200  # recorded in one transaction, which must not hold up those who write beside it
LOCK_SECONDS = 3.0

Record = dict[str, Any]  # one request's answers: "rows" with "id" and "created_at" each, and a "memo" or None


class SpoolFull(Exception):
    """No room in the spool, or on its disk."""


class SpoolBusy(Exception):
    """Another process kept the spool's lock for too long."""


# Lines -------------------------------------------------------------------------------------------------------------


def line_of(records: Sequence[Record]) -> bytes:
    """One group as it is written."""
    body = json.dumps(records, separators=(",", ":")).encode("ascii")
    return b"%08x %s %s\n" % (len(body), _digest(body), body)


def records_of(line: bytes) -> list[Record] | None:
    """The group that a line holds; None where it is not exactly what `line_of` wrote."""
    length, digest, body = line[:8], line[9:41], line[42:-1]
    if line[8:9] + line[41:42] + line[-1:] != b"  \n" or length != b"%08x" % len(body) or digest != _digest(body):
        return None
    records: list[Record] = json.loads(body)
    return records


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=16).hexdigest().encode("ascii")


class Group(NamedTuple):
    """`end` is the offset behind it. `records` is None for what was damaged before it."""

    end: int
    records: list[Record] | None


def groups(path: Path, start: int = 0) -> Iterator[Group]:
    """The groups of a file from the offset `start` on. What is bad at the end is left out, as if it were not there."""
    with path.open("rb") as stream:
        stream.seek(start)
        end, is_damaged = start, False
        for line in stream:
            end += len(line)
            records = records_of(line)
            if records is None:
                is_damaged = True
                continue
            if is_damaged:
                yield Group(end - len(line), None)
                is_damaged = False
            yield Group(end, records)


# Writing -----------------------------------------------------------------------------------------------------------


class SpoolFile:
    """A file of this process, locked as long as the process lives. Not for two threads at once."""

    def __init__(self, folder: Path) -> None:
        """Raises `OSError`."""
        make_folder(folder)
        self.size, self.has_failed = 0, False
        while True:
            self.path = folder / f"{uuid7()}-{os.getpid()}{WAITING}"
            self._descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
            if _locked(self._descriptor, self.path):  # nobody took it for one that was left behind
                break
            os.close(self._descriptor)
        fsync_path(folder)

    def append(self, line: bytes) -> None:
        """Bring one group to the disk. Where that raises `OSError`, `mend` must go through before anything else."""
        crashpoint("spool.before_write")
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            crashpoint("spool.before_fsync")
            os.fsync(self._descriptor)
        except OSError:
            self.has_failed = True
            raise
        self.size += len(line)
        crashpoint("spool.after_fsync")

    def mend(self) -> None:
        """Take back what was written without reaching the disk for certain. Raises `OSError`."""
        os.ftruncate(self._descriptor, self.size)
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file, which others may empty then."""
        os.close(self._descriptor)


def make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fsync_path(folder.parent)


def _locked(descriptor: int, path: Path) -> bool:
    """Lock an open file, unless somebody has it, or it is not the one at `path` any more."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


@contextmanager
def turn(folder: Path, *, shared: bool) -> Iterator[None]:
    """The lock beside the folder: alone to spool an answer that has a `request_id`, shared to record or look one up.

    Raises `SpoolBusy`, and `OSError` where it cannot be made; not if `shared`: then nobody spools either.
    """
    try:
        descriptor = os.open(folder.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError:
        if not shared:
            raise
        yield
        return
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SpoolBusy from None
                time.sleep(0.002)
        yield
    finally:
        os.close(descriptor)


# Looking -----------------------------------------------------------------------------------------------------------


def files(folder: Path, *suffixes: str) -> list[Path]:
    """The files that end so, oldest first; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.name.endswith(suffixes))
    except FileNotFoundError:
        return []


def room_check(folder: Path, needed: int, *, most: int, reserve: int) -> None:
    """Raises `SpoolFull` unless `needed` bytes fit into the folder's `most` and leave `reserve` on its disk."""
    if bytes_in(folder) + needed > most:
        raise SpoolFull(f"the spool holds its {most // 2**20} MiB (KALIMTAK_SPOOL_BYTES)")
    disk = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if shutil.disk_usage(disk).free < needed + reserve:
        raise SpoolFull("its disk is full (KALIMTAK_DISK_RESERVE)")


def bytes_in(folder: Path) -> int:
    """What the answers in the folder take, those set aside as well."""
    total = 0
    for path in files(folder, WAITING, REFUSED, DAMAGED):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def rows_in(path: Path) -> int:
    """How many rows a file holds; 0 for one that is gone by now."""
    try:
        return sum(len(record["rows"]) for group in groups(path) for record in group.records or ())
    except FileNotFoundError:
        return 0


def reason_in(path: Path) -> str:
    """Why the first answer of a file was set aside."""
    with suppress(FileNotFoundError):
        for group in groups(path):
            for record in group.records or ():
                return str(record.get("refused", ""))
    return ""


@dataclass(slots=True)
class _Seen:
    """What was read of one file so far."""

    inode: int
    end: int = 0
    since: str = ""
    ids: set[str] = field(default_factory=set)
    memos: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)


class Index:
    """What waits in a folder, whoever wrote it. Each look reads what is new; safe for several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: dict[Path, _Seen] = {}
        self._lock = threading.Lock()

    def memo(self, owner: str, request_id: str) -> dict[str, Any] | None:
        """The memo of a request that was answered out of here."""
        for seen in self._look():
            if memo := seen.memos.get((owner, request_id)):
                return memo
        return None

    def holds(self, row_id: str) -> bool:
        return any(row_id in seen.ids for seen in self._look())

    def count(self) -> tuple[int, str]:
        """How many rows wait, and since when the first (ISO 8601; empty: none)."""
        seen = self._look()
        return sum(len(each.ids) for each in seen), min((each.since for each in seen if each.since), default="")

    def _look(self) -> list[_Seen]:
        with self._lock:
            found = {}
            for path in files(self.folder, WAITING):
                with suppress(FileNotFoundError, PermissionError):  # emptied this moment; another user's
                    found[path] = self._read(path)
            self._seen = found
            return list(found.values())

    def _read(self, path: Path) -> _Seen:
        status = path.stat()
        seen = self._seen.get(path)
        if seen is None or seen.inode != status.st_ino or status.st_size < seen.end:
            seen = _Seen(status.st_ino)
        if status.st_size > seen.end:
            for end, records in groups(path, seen.end):
                seen.end = end
                for record in records or ():
                    _note(seen, record)
        return seen


def _note(seen: _Seen, record: Record) -> None:
    for row in record["rows"]:
        seen.ids.add(row["id"])
        seen.since = seen.since or row["created_at"]
    if memo := record["memo"]:
        seen.memos[memo["owner"], memo["request_id"]] = memo


@lru_cache(maxsize=4)
def index_of(folder: Path) -> Index:
    """This process's index of a folder."""
    return Index(folder)


# Emptying ----------------------------------------------------------------------------------------------------------


class Emptied(NamedTuple):
    """How many rows a file gave to the table, and how many answers were set aside."""

    rows: int
    refused: int


Write = Callable[[list[Record]], list[str]]


def left_behind(folder: Path) -> Iterator[Path]:
    """The files of processes that are gone; each is locked until the next is asked for."""
    for path in files(folder, WAITING):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except (FileNotFoundError, PermissionError):
            continue
        try:
            if _locked(descriptor, path):
                yield path
        finally:
            os.close(descriptor)


def empty(path: Path, write: Write) -> Emptied:
    """Give all that waits in a file to `write`, in order, then remove the file.

    The caller has the file's lock. `write(records)` records them for good in one go and returns for each why it was
    refused, or "". Where it raises, the file stays and may be emptied again from its beginning.
    """
    rows, refused, is_damaged = 0, [], False
    for batch in _batches(path):
        records = [record for record in batch if record is not None]
        is_damaged = is_damaged or len(records) < len(batch)
        for record, reason in zip(records, write(records), strict=True):
            if reason:
                refused.append(record | {"refused": reason})
            else:
                rows += len(record["rows"])
        crashpoint("spool.in_replay")
    if refused:
        _set_aside(path.with_suffix(REFUSED), refused)
    crashpoint("spool.before_removal")
    if is_damaged:
        path.rename(path.with_suffix(DAMAGED))
    else:
        path.unlink(missing_ok=True)
    fsync_path(path.parent)
    return Emptied(rows, len(refused))


def _batches(path: Path) -> Iterator[list[Record | None]]:
    """The records of whole groups; None for damaged ones."""
    batch: list[Record | None] = []
    waiting = 0
    for _, records in groups(path):
        batch += [None] if records is None else records
        waiting += sum(len(record["rows"]) for record in records or ())
        if waiting >= BATCH_ROWS:
            yield batch
            batch, waiting = [], 0
    if batch:
        yield batch


def _set_aside(path: Path, refused: list[Record]) -> None:
    """Written anew whenever the file is emptied again, so that nothing stands there twice."""
    draft = path.with_suffix(".draft")
    with open(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as stream:  # noqa: PTH123
        for record in refused:
            stream.write(line_of([record]))
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(path)
    fsync_path(path.parent)
