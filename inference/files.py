"""Answering a whole file: CSV, TSV or JSONL in and out, row by row, at constant memory.

A row that cannot be answered keeps its place in the output with the reason in `error`. Rows of a file are not recorded
as interactions: they are no users' questions, and would drown those in every statistic.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Protocol

from inference.classifier import CHUNK, LocalClassifier, chunks
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
    classifier: LocalClassifier, source: Path, target: Path | None, *, out: Writable, progress: Callable[[float], None]
) -> Summary:
    """Answer every row of `source` into `target`, or onto `out` in the same format.

    Several labels of a text are joined by `|` in a table, and a list in JSONL. `target` appears when it is complete.
    Raises `InvalidInput` for a file that cannot be read as its name says, lacks the classifier's fields, or would be
    overwritten by its own answers.
    """
    formats = _format(source), _format(target or source)
    if target is not None and target.exists() and target.samefile(source):
        raise InvalidInput("The output would overwrite the input; name another file.")
    with source.open("rb") as raw:
        size = os.fstat(raw.fileno()).st_size or 1
        rows = _answered(classifier, _read(raw, formats[0], classifier), lambda: progress(raw.tell() / size))
        if target is None:
            return _write(rows, out, formats[1])
        draft = target.with_name(target.name + ".part")
        try:
            with draft.open("w", encoding="utf-8", newline="") as stream:
                summary = _write(rows, stream, formats[1])
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    return summary


def _format(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InvalidInput(f"{path.name}: use a name that ends in {', '.join(FORMATS)}.")
    return suffix


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


def _answered(classifier: LocalClassifier, rows: Iterable[Row], moved: Callable[[], None]) -> Iterator[Row]:
    names = MULTI_LABEL_COLUMNS if classifier.served.multi_label else COLUMNS
    for chunk in chunks(rows, CHUNK):
        items, errors = [], {}
        for index, row in enumerate(chunk):
            try:
                items.append(classifier.item(_input(row, classifier.served.input_fields)))
            except KalimtakError as error:
                errors[index] = error.message
        results = iter(classifier.answer(items))
        for index, row in enumerate(chunk):
            yield row | _columns(names, {"error": errors[index]} if index in errors else next(results))
        moved()


def _input(row: Row, input_fields: tuple[str, ...]) -> Mapping[str, Any]:
    """Only what the classifier reads; a row may hold anything beside it."""
    found = {name: row[name] for name in input_fields if name in row}
    return found if found or "text" not in row else {"text": row["text"]}


def _columns(names: Sequence[str], result: Mapping[str, Any]) -> Row:
    return {name: result.get(name) for name in names} | ({"scores": result["scores"]} if "scores" in result else {})


def _write(rows: Iterable[Row], stream: Writable, suffix: str) -> Summary:
    count = refused = 0
    writer: Any = None
    for row in rows:
        count += 1
        refused += row["error"] is not None
        if suffix == ".jsonl":
            stream.write(json.dumps(row, ensure_ascii=True) + "\n")
            continue
        row.pop("scores", None)
        if isinstance(row.get("labels"), list):
            row["labels"] = label_text(row["labels"])
        if writer is None:
            writer = csv.DictWriter(stream, list(row), delimiter=DELIMITERS[suffix], extrasaction="ignore")
            writer.writeheader()
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return Summary(count, refused)


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if isinstance(value, str) and value.startswith(FORMULA):
        return "'" + value
    return value
