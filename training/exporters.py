"""Writing rows to CSV, JSONL or Parquet. Pure: no Django. Written aside and renamed, a file is whole or absent.

In CSV a cell that a spreadsheet would take for a formula gets an apostrophe before it (OWASP, "CSV Injection").
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
PARQUET_ROWS = 10_000

Row = Mapping[str, Any]


class ExportRefused(ValueError):
    """The file cannot be written; the message is one line that names the remedy."""


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> int:
    """Write `rows` with these columns to `path` in the format its extension names; how many there were."""
    writers: dict[str, Callable[[Path, Sequence[str], Iterable[Row]], int]] = {
        ".csv": _write_csv,
        ".jsonl": _write_jsonl,
        ".parquet": _write_parquet,
    }
    write = writers.get(path.suffix.lower())
    if write is None:
        raise ExportRefused(f"{path.name}: the name must end in {', '.join(writers)}.")
    if not path.parent.is_dir():
        raise ExportRefused(f"There is no folder {path.parent}.")
    draft = path.with_name(f".{path.name}.part")
    try:
        count = write(draft, columns, rows)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def formula_safe(cell: Any) -> Any:
    """A text that could run as a formula with an apostrophe before it; anything else as it is."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([formula_safe(name) for name in columns])
        for row in rows:
            writer.writerow([formula_safe(row.get(name)) for name in columns])
            count += 1
    return count


def _write_jsonl(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps({name: row.get(name) for name in columns}, ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_parquet(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, count, waiting = pa.schema([(name, pa.string()) for name in columns]), 0, iter(rows)
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(waiting, PARQUET_ROWS)):
            table = [{name: None if row.get(name) is None else str(row[name]) for name in columns} for row in batch]
            writer.write_table(pa.Table.from_pylist(table, schema=schema))
            count += len(batch)
    return count
