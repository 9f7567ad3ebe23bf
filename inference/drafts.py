"""A long output that survives whatever interrupts it: what is there already is kept, and the next try goes on there.

`out.csv.part` is the draft, `out.csv.part.json` says what it belongs to and how far it is safe. Bytes come to the disk
before the note that counts them, so what a crash leaves behind the noted size is cut off, never a torn row kept.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TextIO

from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import Conflict, InvalidInput
from registry.manifest import fsync_path

SAVE_SECONDS = 1.0  # of work, at most, that a crash costs


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a draft is safe: `rows` of the input are in its first `size` bytes; `columns` of a table's head."""

    rows: int = 0
    refused: int = 0
    size: int = 0
    columns: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Raises `TypeError` or `ValueError` for what was not written by `asdict`."""
        reached = cls(**values)
        if any(type(each) is not int or each < 0 for each in (reached.rows, reached.refused, reached.size)):
            raise ValueError("no counts")
        return cls(reached.rows, reached.refused, reached.size, tuple(map(str, reached.columns)))


class Draft:
    """`stream` is written to from where `reached` says; `save` after whole rows only."""

    def __init__(self, path: Path, belongs: Mapping[str, Any], reached: Reached, stream: TextIO) -> None:
        self.reached, self.stream = reached, stream
        self._path, self._note, self._belongs = path, _note_of(path), belongs
        self._saved = time.monotonic()

    def save(self, rows: int, refused: int, columns: tuple[str, ...], *, now: bool = False) -> None:
        """Note that all rows so far are written; does nothing most of the time, since it waits for the disk."""
        if not now and time.monotonic() - self._saved < SAVE_SECONDS:
            return
        self.stream.flush()
        os.fsync(self.stream.fileno())
        crashpoint("draft.unnoted")
        reached = Reached(rows, refused, os.fstat(self.stream.fileno()).st_size, columns)
        aside = self._note.with_name(self._note.name + ".new")
        with aside.open("w", encoding="utf-8") as file:
            json.dump({"belongs": self._belongs, "reached": asdict(reached)}, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._note)
        crashpoint("draft.noted")
        self._saved = time.monotonic()

    def finish(self, target: Path) -> None:
        """The draft becomes `target`."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self._path.replace(target)
        fsync_path(target.parent)
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


@contextmanager
def draft_of(target: Path, belongs: Mapping[str, Any], say: Callable[[str], None]) -> Iterator[Draft]:
    """The draft of `target`, at its end where it belongs to the same work, else empty; `say` hears which.

    Afterwards it is `target`; where `InvalidInput` was raised it is gone, since no further try could end otherwise;
    after everything else it stays. Raises `Conflict` while another process writes it, `OSError` where nobody can.
    """
    path = target.with_name(target.name + ".part")
    with path.open("a", encoding="utf-8", newline="") as stream:
        _lock(path, stream)
        reached = _reached(path, belongs, say)
        stream.truncate(reached.size)
        draft = Draft(path, belongs, reached, stream)
        try:
            yield draft
        except InvalidInput:
            draft.discard()
            raise
        draft.finish(target)


def _lock(path: Path, stream: TextIO) -> None:
    """For this process, until the stream is closed. Who had it before may have finished in between."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(stream.fileno())):
            raise BlockingIOError
    except BlockingIOError:
        raise Conflict(f"Another process is writing {path.name}; wait for it, or name another output.") from None


def _reached(path: Path, belongs: Mapping[str, Any], say: Callable[[str], None]) -> Reached:
    """What of the draft can be kept."""
    size = path.stat().st_size
    try:
        noted = json.loads(_note_of(path).read_text(encoding="utf-8"))
        reached = Reached.from_dict(noted["reached"])
        is_ours = noted["belongs"] == belongs
    except (OSError, ValueError, TypeError, KeyError):
        if size:
            say(f"{path.name} does not say how far it is, so everything is answered anew.")
        return Reached()
    if not is_ours:
        say(f"{path.name} was begun for another input, version or output format, so everything is answered anew.")
        return Reached()
    if reached.size > size:
        say(f"{path.name} is shorter than it was, so everything is answered anew.")
        return Reached()
    say(f"Going on after row {reached.rows:,}, where it stopped before.")
    return reached


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")
