"""Writing rows as CSV, JSONL or Parquet, to a stream or a file. Pure: no Django.

In CSV a cell that a spreadsheet would take for a formula gets an apostrophe before it (OWASP, "CSV Injection"), which
`training.importers` takes away again. A file is written aside and renamed: it is whole or absent.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from training.streams import FORMULA_STARTS

ROWS_AT_ONCE = 1_000
PARQUET_ROWS = 10_000

Row = Mapping[str, Any]


class ExportRefused(ValueError):
    """The file cannot be written; the message is one line that names the remedy."""


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> int:
    """Write `rows` with these columns to `path` in the format its extension names; how many there were."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ExportRefused(f"{path.name}: the name must end in {', '.join(f'.{known}' for known in FORMATS)}.")
    if not path.parent.is_dir():
        raise ExportRefused(f"There is no folder {path.parent}.")
    draft = path.with_name(f".{path.name}.part")
    counted = _Counted(rows)
    try:
        with draft.open("wb") as stream:
            for block in stream_rows(kind, columns, counted):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return counted.count


def stream_rows(kind: str, columns: Sequence[str], rows: Iterable[Row]) -> Iterator[bytes]:
    """The bytes of a file of `kind`, a key of FORMATS, piece by piece at constant memory."""
    return FORMATS[kind][1](columns, rows)


def formula_safe(cell: Any) -> Any:
    """A text that could run as a formula with an apostrophe before it; anything else as it is.

    A text that looks like one so treated gets one as well, so that the import gives back every text as it was.
    """
    is_risky = isinstance(cell, str) and cell.lstrip("'").startswith(FORMULA_STARTS)
    return f"'{cell}" if is_risky else cell


def csv_line(cells: Iterable[Any]) -> bytes:
    """One record of a CSV file, safe in a spreadsheet."""
    line = io.StringIO(newline="")
    csv.writer(line).writerow([formula_safe(cell) for cell in cells])
    return line.getvalue().encode()


class _Counted:
    """Counts what passes."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows, self.count = rows, 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            yield row


def _csv(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[bytes]:
    text = io.StringIO(newline="")
    writer, waiting = csv.writer(text), iter(rows)
    writer.writerow([formula_safe(name) for name in columns])
    yield text.getvalue().encode()
    while some := list(islice(waiting, ROWS_AT_ONCE)):
        text.seek(0)
        text.truncate()
        writer.writerows([[formula_safe(row.get(name)) for name in columns] for row in some])
        yield text.getvalue().encode()


def _jsonl(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[bytes]:
    waiting = iter(rows)
    while some := list(islice(waiting, ROWS_AT_ONCE)):
        lines = (json.dumps({name: row.get(name) for name in columns}, ensure_ascii=False) for row in some)
        yield "".join(f"{line}\n" for line in lines).encode()


def _parquet(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink, waiting = _Pieces(), iter(rows)
    schema = pa.schema([(name, pa.string()) for name in columns])
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema) as writer:
        while some := list(islice(waiting, PARQUET_ROWS)):
            table = [{name: None if row.get(name) is None else str(row[name]) for name in columns} for row in some]
            writer.write_table(pa.Table.from_pylist(table, schema=schema))
            yield sink.take()
    yield sink.take()


class _Pieces(io.RawIOBase):
    """Where Parquet, which is written from start to end, leaves its bytes to be taken."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        self._waiting.append(bytes(data))
        self._size += len(data)
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._waiting)
        self._waiting.clear()
        return taken


FORMATS: dict[str, tuple[str, Callable[[Sequence[str], Iterable[Row]], Iterator[bytes]]]] = {
    "csv": ("text/csv; charset=utf-8", _csv),
    "jsonl": ("application/x-ndjson", _jsonl),
    "parquet": ("application/vnd.apache.parquet", _parquet),
}
