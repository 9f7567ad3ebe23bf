"""Answering a whole file: CSV, TSV or JSONL in (gzipped or not) and out, row by row, at constant memory.

A row that cannot be answered keeps its place in the output with the reason in `error`. Rows of a file are not recorded
as interactions: they are no users' questions, and would drown those in every statistic.
"""

import csv
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

from inference.classifier import CHUNK, LocalClassifier, chunks
from inference.crew import answered_together
from inference.drafts import Draft, Reached, draft_of
from inference.parsing import Item
from kalimtak.core.errors import InvalidInput, KalimtakError
from registry.labels import label_text

Row = dict[str, Any]
COLUMNS = ("label", "confidence", "abstained", "flags", "model_version", "error")
MULTI_LABEL_COLUMNS = ("label", "labels", *COLUMNS[1:])
DELIMITERS = {".csv": ",", ".tsv": "\t"}
FORMATS = (*DELIMITERS, ".jsonl")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # what a spreadsheet would run


class Writable(Protocol):
    def write(self, text: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Summary:
    rows: int
    refused: int


def file_answer(
    classifier: LocalClassifier,
    source: Path,
    target: Path | None,
    *,
    out: Writable,
    progress: Callable[[float], None],
    say: Callable[[str], None],
    processes: int = 1,
) -> Summary:
    """Answer every row of `source` into `target`, or onto `out` in the same format.

    Several labels of a text are joined by `|` in a table, and a list in JSONL. `target` appears when it is complete;
    what an earlier try answered before it was interrupted is kept (`inference.drafts`), of which `say` hears.
    `processes` answer a long file together.

    Raises `InvalidInput` for a file that cannot be read as its name says, lacks the classifier's fields, or would be
    overwritten by its own answers.
    """
    formats = _format(source, packed=True), _format(target or source, packed=target is None)
    if target is not None and target.exists() and target.samefile(source):
        raise InvalidInput("The output would overwrite the input; name another file.")
    with source.open("rb") as raw:
        size = os.fstat(raw.fileno()).st_size or 1
        rows = _read(_unpacked(raw, source), formats[0], classifier)

        def answered(rows: Iterable[Row]) -> Iterator[list[Row]]:
            return _answered(classifier, rows, processes, lambda: progress(raw.tell() / size))

        if target is None:
            return _write(answered(rows), out, formats[1])
        belongs = {"input": _digest(source), "formats": list(formats), **_answering(classifier)}
        with draft_of(target, belongs, say) as draft:
            if sum(1 for _ in islice(rows, draft.reached.rows)) < draft.reached.rows:
                raise InvalidInput(f"{source.name} was changed while it was read; run the command again.")
            return _write(answered(rows), draft.stream, formats[1], draft)


def _format(path: Path, *, packed: bool = False) -> str:
    """The extension that tells the format; of a `packed` name the one before `.gz`."""
    name = path.with_suffix("") if packed and path.suffix.lower() == ".gz" else path
    suffix = name.suffix.lower()
    if suffix not in FORMATS:
        raise InvalidInput(f"{path.name}: use a name that ends in {', '.join(FORMATS)}.")
    return suffix


def _unpacked(raw: IO[bytes], source: Path) -> IO[bytes]:
    return gzip.GzipFile(fileobj=raw) if source.suffix.lower() == ".gz" else raw  # type: ignore[return-value]


def _digest(source: Path) -> str:
    with source.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def _answering(classifier: LocalClassifier) -> dict[str, Any]:
    """All that the answers depend on beside the input, in JSON types."""
    served = classifier.served
    return {
        "version": classifier.version.ref,
        "version_id": str(classifier.version.version_id),
        "threshold": served.threshold,
        "backup": classifier.enable_backup,
        "helpers": sorted(classifier.version.others),
    }


def _read(raw: IO[bytes], suffix: str, classifier: LocalClassifier) -> Iterator[Row]:
    """The rows, before each of which `raw` has been read about as far as the row."""
    text = TextIOWrapper(raw, encoding="utf-8-sig", newline="")
    try:
        if suffix == ".jsonl":
            yield from _read_jsonl(text)
        else:
            yield from _read_csv(text, DELIMITERS[suffix], classifier)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The file is not UTF-8 (byte {error.start} of a block).") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidInput(f"The gzip file is damaged or cut off ({error}).") from error
    finally:
        text.detach()


def _read_jsonl(text: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"Line {number} is not valid JSON.") from error
        if not isinstance(row, dict):
            raise InvalidInput(f"Line {number} is not a JSON object.")
        yield row


def _read_csv(text: Iterable[str], delimiter: str, classifier: LocalClassifier) -> Iterator[Row]:
    reader = csv.DictReader(text, delimiter=delimiter, strict=True, restkey="")
    try:
        columns = reader.fieldnames or ()
        wanted = classifier.served.input_fields
        if not (set(wanted) <= set(columns) or (len(wanted) == 1 and "text" in columns)):
            found = ", ".join(map(str, columns)) or "none"
            raise InvalidInput(f"The file needs the columns {', '.join(wanted)}; it has {found}.")
        for row in reader:
            row.pop("", None)
            yield row
    except csv.Error as error:
        raise InvalidInput(f"Line {reader.line_num}: {error}.") from error


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows, and of those that cannot be answered the reason, by their place."""

    rows: list[Row]
    errors: dict[int, str]


def _answered(
    classifier: LocalClassifier, rows: Iterable[Row], processes: int, moved: Callable[[], None]
) -> Iterator[list[Row]]:
    names = MULTI_LABEL_COLUMNS if classifier.served.multi_label else COLUMNS
    pieces = (_checked(classifier, chunk) for chunk in chunks(rows, CHUNK))
    for chunk, results in answered_together(classifier, pieces, processes):
        moved()
        given = iter(results)
        yield [
            row | _columns(names, {"error": chunk.errors[index]} if index in chunk.errors else next(given))
            for index, row in enumerate(chunk.rows)
        ]


def _checked(classifier: LocalClassifier, rows: list[Row]) -> tuple[Chunk, list[Item]]:
    """The rows, and an input for each that can be answered."""
    items, errors = [], {}
    for index, row in enumerate(rows):
        try:
            items.append(classifier.item(_input(row, classifier.served.input_fields)))
        except KalimtakError as error:
            errors[index] = error.message
    return Chunk(rows, errors), items


def _input(row: Row, input_fields: tuple[str, ...]) -> Mapping[str, Any]:
    """Only what the classifier reads; a row may hold anything beside it."""
    found = {name: row[name] for name in input_fields if name in row}
    return found if found or "text" not in row else {"text": row["text"]}


def _columns(names: Sequence[str], result: Mapping[str, Any]) -> Row:
    return {name: result.get(name) for name in names} | ({"scores": result["scores"]} if "scores" in result else {})


def _write(chunks: Iterable[list[Row]], stream: Writable, suffix: str, draft: Draft | None = None) -> Summary:
    """Go on after what `draft` has, and have it save what is added, chunk by chunk."""
    reached = draft.reached if draft else Reached()
    count, refused, columns = reached.rows, reached.refused, reached.columns
    for chunk in chunks:
        for row in chunk:
            count += 1
            refused += row["error"] is not None
            if suffix == ".jsonl":
                stream.write(json.dumps(row, ensure_ascii=True) + "\n")
            else:
                columns = _write_cells(row, stream, suffix, columns)
        if draft:
            draft.save(count, refused, columns)
    return Summary(count, refused)


def _write_cells(row: Row, stream: Writable, suffix: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    """One line of a table, after its head where there are no `columns` yet; returns the columns."""
    row.pop("scores", None)
    if isinstance(row.get("labels"), list):
        row["labels"] = label_text(row["labels"])
    writer = csv.writer(stream, delimiter=DELIMITERS[suffix])
    if not columns:
        columns = tuple(row)
        writer.writerow(columns)
    writer.writerow([_cell(row.get(name, "")) for name in columns])
    return columns


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if isinstance(value, str) and value.startswith(FORMULA):
        return "'" + value
    return value
