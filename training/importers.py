"""Reading data files: CSV, TSV, JSON, JSONL and Parquet, each optionally gzipped. Pure: no Django.

A file is believed by its first bytes, not by its name, and read in chunks of bounded memory (JSON, which has to be
parsed whole, up to a cap). A bad row becomes a `RowError` with its line and reason beside the good rows; a file that
cannot be meant raises `ImportRefused`. Each chunk is a pandas DataFrame whose index is the line in the file.
"""

import csv
import json
import os
import re
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from training.streams import (
    FORMULA_STARTS,
    ImportRefused,
    Limits,
    RowError,
    check_content,
    check_encoding,
    find_delimiter,
    find_encoding,
    named_format,
    text_lines,
    unpacked,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CHUNK_ROWS", "Chunk", "ImportRefused", "Limits", "RowError", "Source", "chunks", "open_source"]

CHUNK_ROWS = 500
RECORD_CHARACTERS = 100_000  # over several lines, before an unclosed quote is suspected; below csv's own field limit
_NO_NAME = re.compile("[\x00\ud800-\udfff]")  # what neither pandas nor databases take
RECORD_LISTS = ("data", "records", "rows", "examples", "items")


@dataclass(frozen=True)
class Chunk:
    """Up to `CHUNK_ROWS` good rows (index: line; cells: text, other JSON values, None) and the errors among them."""

    frame: "pd.DataFrame"
    errors: tuple[RowError, ...]


@dataclass(frozen=True)
class Source:
    """A file that was recognised. `kind` is a value of FORMATS; `metadata` is what a JSON file says of itself."""

    path: Path
    name: str
    kind: str
    is_gzipped: bool
    delimiter: str
    columns: tuple[str, ...]
    sample: "pd.DataFrame"
    metadata: Mapping[str, Any] | None = None
    limits: Limits = field(default_factory=Limits)
    encoding: str = ""

    def content(self) -> AbstractContextManager[IO[bytes]]:
        """The file from its start, unpacked and, where it is text, as UTF-8."""
        return unpacked(self.path, self.is_gzipped, self.limits, self.encoding)

    @property
    def unit(self) -> str:
        """What the numbers of rows count."""
        return source_unit(self.kind)


def source_unit(kind: str) -> str:
    return "record" if kind in ("json", "parquet") else "line"


def open_source(path: Path, name: str, limits: Limits | None = None, *, encoding: str = "") -> Source:
    """Recognise the file at `path`, called `name` by whoever sent it. Raises `ImportRefused`.

    `encoding`, a key of `ENCODINGS`, is what a text file is written in; "": as its byte order mark says, else UTF-8.
    """
    import pandas as pd  # half a second that the web processes need not pay for

    limits = limits or Limits()
    kind, is_gzipped = named_format(name)
    check_encoding(encoding)
    encoding = (encoding if kind != "parquet" else "") or find_encoding(path, kind, is_gzipped, limits)
    with unpacked(path, is_gzipped, limits, encoding) as stream:
        check_content(name, kind, stream.read(4096))
    delimiter = find_delimiter(path, kind, is_gzipped, limits, encoding)
    draft = Source(path, name, kind, is_gzipped, delimiter, (), pd.DataFrame(), limits=limits, encoding=encoding)
    if kind == "json":
        draft = replace(draft, metadata=_read_json(draft)[1])
    first = next(chunks(draft), None)
    if first is None:
        raise ImportRefused(f"{name} holds no rows; give a file with a header and at least one row under it.")
    if first.frame.columns.empty:
        why = f" ({source_unit(kind)} {first.errors[0].line}: {first.errors[0].reason})" if first.errors else ""
        raise ImportRefused(f"{name} begins with no row that can be read{why}.")
    columns = tuple(str(column) for column in first.frame.columns)
    return replace(draft, columns=columns, sample=first.frame)


def chunks(source: Source, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """The file from its start, in chunks; none where it has no rows. Raises `ImportRefused` where it is broken."""
    read = {"csv": _csv_rows, "tsv": _csv_rows, "jsonl": _jsonl_rows, "json": _json_rows, "parquet": _parquet_rows}
    good: list[dict[str, Any]] = []
    lines: list[int] = []
    errors: list[RowError] = []
    for row in read[source.kind](source):
        if isinstance(row, RowError):
            errors.append(row)
        else:
            lines.append(row[0])
            good.append(row[1])
        if len(good) + len(errors) >= rows:
            yield _chunk(source, good, lines, errors)
            good, lines, errors = [], [], []
    if good or errors:
        yield _chunk(source, good, lines, errors)


Rows = Iterator[tuple[int, dict[str, Any]] | RowError]


def _chunk(source: Source, good: list[dict[str, Any]], lines: list[int], errors: list[RowError]) -> Chunk:
    import pandas as pd

    columns = list(source.columns) or list(dict.fromkeys(name for row in good for name in row))
    table = [[row.get(name) for name in columns] for row in good]
    return Chunk(pd.DataFrame(table, index=lines, columns=columns, dtype=object), tuple(errors))


# CSV and TSV -----------------------------------------------------------------------------------------------------


class _RecordTooLong(Exception):
    """A quoted field ran over the cap: most likely its quote was never closed."""


class _Physical:
    """Feeds numbered lines to a csv reader, and takes back what a broken record swallowed.

    pandas' own parser knows neither the line of a bad row nor a limit to an unclosed quote, hence the csv module.
    """

    def __init__(self, lines: Iterable[tuple[int, str] | RowError], limit: int) -> None:
        self._lines, self._limit = iter(lines), limit
        self._again: deque[tuple[int, str]] = deque()
        self._size = 0
        self.taken: list[tuple[int, str]] = []
        self.skipped: list[RowError] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._size > self._limit:
            raise _RecordTooLong
        line = self._again.popleft() if self._again else next(self._lines)
        while isinstance(line, RowError):
            self.skipped.append(line)
            line = next(self._lines)
        self.taken.append(line)
        self._size += len(line[1])
        return line[1].replace("\x00", "")

    def begin(self) -> None:
        """A new record begins with the next line."""
        self.taken.clear()
        self._size = 0

    def give_back(self) -> int:
        """Offer all lines of the record but its first once more; the number of that first line."""
        self._again.extendleft(reversed(self.taken[1:]))
        return self.taken[0][0]


def _csv_rows(source: Source) -> Rows:
    with source.content() as stream:
        lines = _Physical(text_lines(stream, source.name, source.limits.line), RECORD_CHARACTERS)
        header: list[str] | None = None
        for record in _csv_records(lines, source.delimiter):
            if isinstance(record, RowError) and header is None:
                raise ImportRefused(f"The header of {source.name} cannot be read: {record.reason}")
            if isinstance(record, RowError):
                yield record
            elif header is None:
                header = _checked_header(source, record[1])
            elif len(record[1]) != len(header):
                yield RowError(record[0], f"{len(record[1])} columns where the header has {len(header)}.")
            else:
                yield record[0], dict(zip(header, map(formula_restored, record[1]), strict=True))


def formula_restored(cell: str) -> str:
    """What `exporters.formula_safe` made of a cell, undone."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(FORMULA_STARTS) else cell


def _csv_records(lines: _Physical, delimiter: str) -> Iterator[tuple[int, list[str]] | RowError]:
    """Records with the line each begins on. After a broken one the reader starts afresh on the following line."""
    while True:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            while True:
                lines.begin()
                cells = next(reader, None)
                yield from lines.skipped
                lines.skipped.clear()
                if cells is None:
                    return
                if any(cell.strip() for cell in cells):
                    yield lines.taken[0][0], cells
        except (csv.Error, _RecordTooLong) as error:
            too_long = isinstance(error, _RecordTooLong) or "unexpected end" in str(error)
            reason = "A quote is opened and never closed." if too_long else f"Not valid CSV: {error}."
            yield RowError(lines.give_back(), reason)


def _checked_header(source: Source, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(names) <= source.limits.columns else []
    if len(names) > source.limits.columns:
        raise ImportRefused(f"{source.name} has {len(names)} columns; {source.limits.columns} is the most.")
    if repeated:
        raise ImportRefused(f"{source.name} has more than one column {repeated[0]!r}; rename one.")
    if all(not name for name in names):
        raise ImportRefused(f"The first line of {source.name} must name the columns.")
    return names


# JSON ------------------------------------------------------------------------------------------------------------


def _jsonl_rows(source: Source) -> Rows:
    with source.content() as stream:
        for line in text_lines(stream, source.name, source.limits.line):
            if isinstance(line, RowError):
                yield line
            elif line[1].strip():
                yield _json_row(source, line[0], line[1])


def _json_row(source: Source, number: int, line: str) -> tuple[int, dict[str, Any]] | RowError:
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return RowError(number, f"Not valid JSON: {error}.")
    return _json_record(source, number, value)


def _json_record(source: Source, number: int, value: Any) -> tuple[int, dict[str, Any]] | RowError:
    if not isinstance(value, dict):
        return RowError(number, "Not an object with named fields.")
    if len(value) > source.limits.columns:
        return RowError(number, f"{len(value)} fields; {source.limits.columns} is the most.")
    if any(_NO_NAME.search(name) for name in value):
        return RowError(number, "A field's name holds NUL or half of a character.")
    return number, value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _json_rows(source: Source) -> Rows:
    for number, value in enumerate(_read_json(source)[0], start=1):
        yield _json_record(source, number, value)


def _read_json(source: Source) -> tuple[list[Any], Mapping[str, Any] | None]:
    """The records of a JSON file, and its `metadata` where it has one."""
    with source.content() as stream:
        raw = stream.read(source.limits.json + 1)
    if len(raw) > source.limits.json:
        raise ImportRefused(f"{source.name} is over {source.limits.json} bytes, too much to parse whole; use JSONL.")
    try:
        value = json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ImportRefused(
            f"Line {line} of {source.name} is not UTF-8; save it as UTF-8, or say which encoding it has."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ImportRefused(f"{source.name} is not valid JSON: {error}.") from error
    if isinstance(value, list):
        return value, None
    metadata = value.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise ImportRefused(f"{source.name}: metadata must be an object with modalities and task.")
    return _records_of(source, value), metadata


def _records_of(source: Source, value: Mapping[str, Any]) -> list[Any]:
    """The list under `data`, `records` and the like; or, where every key holds a list, the columns turned to rows."""
    for name in RECORD_LISTS:
        if isinstance(value.get(name), list):
            return list(value[name])
    columns = {name: cells for name, cells in value.items() if name != "metadata"}
    lengths = {len(cells) if isinstance(cells, list) else -1 for cells in columns.values()}
    if len(lengths) == 1 and -1 not in lengths:
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    raise ImportRefused(f"{source.name}: expected a list of objects, at the top or under data or records.")


# Parquet ---------------------------------------------------------------------------------------------------------


def _parquet_rows(source: Source) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with source.content() as stream, _seekable(source, stream) as whole:
        try:
            table = pq.ParquetFile(whole, buffer_size=2**20, pre_buffer=False)
            _check_parquet(source, table)
            number = 0
            for batch in table.iter_batches(batch_size=CHUNK_ROWS, columns=list(source.columns) or None):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0][:200]
            raise ImportRefused(f"{source.name} is a damaged Parquet file: {reason}") from error


@contextmanager
def _seekable(source: Source, stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Parquet is read from its end: an unpacked copy where the file was gzipped."""
    if not source.is_gzipped:
        with source.path.open("rb") as plain:
            yield plain
        return
    with tempfile.TemporaryFile() as copy:
        while block := stream.read(2**20):
            copy.write(block)
        copy.seek(0, os.SEEK_SET)
        yield copy


def _check_parquet(source: Source, table: Any) -> None:
    """A row group is read whole, so what it says of its size is held against the cap before any is read."""
    metadata = table.metadata
    if metadata.num_columns > source.limits.columns:
        raise ImportRefused(f"{source.name} has {metadata.num_columns} columns; {source.limits.columns} is the most.")
    largest = max((metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)), default=0)
    if largest > source.limits.unpacked:
        raise ImportRefused(f"{source.name} holds a row group of {largest} bytes; write it with smaller ones.")
