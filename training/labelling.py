"""From the cells of a file to rows that can be loaded: what a label may be, and what is wrong with the others. Pure."""

import ast
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from registry.labels import MOST_CHARACTERS, NOTHING, SEPARATOR, label_set, label_text_of
from training.columns import APPROVED, SPLITS, STATUSES, WAITING, Columns
from training.etl.clean import text_problem
from training.importers import Chunk, RowError

if TYPE_CHECKING:
    import pandas as pd

LABEL_LENGTH = 100
LEFT_OUT = "Left out by its label."  # no error: somebody wants it so
_SURROGATES = re.compile("[\ud800-\udfff]")
SEPARATORS = "|;,"  # between the labels of a text, the likeliest first


@dataclass(frozen=True)
class LabelRules:
    """What labels may be: `labels` in order (empty: any), and `mapping` from those in the data.

    With `multi_label` a cell is read as a set of labels: a list, a list written as JSON, or labels with one of the
    `separators` between them. A separator within a known label does not part it. Rows with a label of `left_out` are
    dropped on purpose, and those with any unknown one where it `drops_unknown`.
    """

    labels: tuple[str, ...] = ()
    mapping: Mapping[str, str] | None = None
    multi_label: bool = False
    separators: str = SEPARATORS
    left_out: Collection[str] = ()
    drops_unknown: bool = False

    def read(self, cell: Any) -> tuple[str, str]:
        """The label of a cell, or the text of its set, and what is wrong with it ("": nothing).

        Where a label is not known, it alone is returned.
        """
        if self.multi_label:
            return self._read_set(cell)
        if isinstance(cell, dict | list):
            return "", "The label is a list or an object; one label per row, unless label_config says multi_label."
        return self._read_one(cell)

    def parts(self, label: str) -> tuple[str, ...]:
        """The labels within what `read` returned."""
        return label_set(label) if self.multi_label else (label,)

    def _read_one(self, cell: Any) -> tuple[str, str]:
        if cell is None or (isinstance(cell, float) and cell != cell):
            return "", "No label."
        text = (
            (str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)).replace("\x00", "").strip()
        )
        if text in self.left_out:
            return text, LEFT_OUT
        label = (self.mapping or {}).get(text, text)
        if not label:
            return "", "No label."
        if self.labels and label not in self.labels:
            return (
                label,
                LEFT_OUT
                if self.drops_unknown
                else f"Unknown label {label[:LABEL_LENGTH]!r}{_suggestion(label, self.labels)}",
            )
        if len(label) > LABEL_LENGTH or not label.isprintable():
            return label, f"A label has at most {LABEL_LENGTH} printable characters."
        return label, ""

    def _read_set(self, cell: Any) -> tuple[str, str]:
        cells = self._cells(cell)
        if isinstance(cells, str):
            return "", cells
        chosen = []
        for each in cells:
            label, problem = self._read_one(each)
            if not problem and SEPARATOR in label:
                problem = f"A label of a multi-label classifier holds no {SEPARATOR!r}."
            if problem:
                return label, problem
            chosen.append(label)
        text = label_text_of(chosen, self.labels or sorted(set(chosen)))
        if len(text) > MOST_CHARACTERS:
            return "", f"The labels have more than {MOST_CHARACTERS} characters together."
        return text, ""

    def _cells(self, cell: Any) -> list[Any] | str:
        """The labels of a cell one by one, or what is wrong with it."""
        text = cell.strip() if isinstance(cell, str) else cell
        if isinstance(text, str) and text.startswith("["):
            text = _list_in(text)
        if isinstance(text, list):
            odd = any(isinstance(each, dict | list | bool) for each in text)
            return "A label within the list is no text." if odd else text
        if isinstance(text, dict):
            return "The labels are an object; give a list."
        if text == NOTHING:
            return []
        if not isinstance(text, str) or text in self.labels or text in (self.mapping or {}):
            return [text]
        separator = next((each for each in self.separators if each in text and self._parts_at(each, text)), "")
        return [part for part in text.split(separator) if part.strip()] if separator else [text]

    def _parts_at(self, separator: str, text: str) -> bool:
        """Whether this is what stands between the labels: where they are known, all parts must be labels.

        What `|` parts is always taken so, for no label of such a classifier holds it.
        """
        if not self.labels or separator == SEPARATOR:
            return True
        return all(not self._read_one(part)[1] for part in text.split(separator) if part.strip())


def _list_in(text: str) -> Any:
    """The list that a text cell writes as JSON, or as pandas does; the text where it is none."""
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return read(text)
    return text


def separators_in(column: "pd.Series") -> str:
    """What parts the labels of a column where they are not known: the first of `SEPARATORS` that occurs in it."""
    texts = [cell for cell in column if isinstance(cell, str)]
    return next((each for each in SEPARATORS if any(each in text for text in texts)), SEPARATOR)


def _suggestion(label: str, labels: Sequence[str]) -> str:
    same = [known for known in labels if known.casefold() == label.casefold()]
    return f"; did you mean {same[0]!r}?" if same else "."


@dataclass(frozen=True, slots=True)
class Row:
    """A row that can be loaded. `label` is empty in a file without labels, `split` where no column says it.

    Of a multi-label classifier `label` is the text of a set (`registry.labels`). `is_unreviewed` where a column of the
    file says what was approved, and this row was not.
    """

    line: int
    fields: tuple[str, ...]
    label: str
    split: str
    is_unreviewed: bool = False


class ReadRows(NamedTuple):
    """A chunk as `rows` that can be loaded, the `errors` of others, the `unknown` labels among these, the labels of
    rows that were `dropped` on purpose, and the status of rows that were `skipped` for it."""

    rows: list[Row]
    errors: list[RowError]
    unknown: Counter[str]
    dropped: Counter[str]
    skipped: Counter[str]

    @property
    def total(self) -> int:
        return len(self.rows) + len(self.errors) + self.dropped.total() + self.skipped.total()


def read_rows(chunk: Chunk, columns: Columns, rules: LabelRules) -> ReadRows:
    """Tell the rows of a chunk that can be loaded from the others."""
    read = ReadRows([], list(chunk.errors), Counter(), Counter(), Counter())
    wanted = [*columns.inputs, *filter(None, (columns.label, columns.split, columns.status))]
    cells_of = chunk.frame.reindex(columns=wanted).itertuples(index=True, name=None)
    for line, *cells in cells_of:
        fields = cells[: len(columns.inputs)]
        rest = iter(cells[len(columns.inputs) :])
        label, problem = rules.read(next(rest)) if columns.label else ("", "")
        split = SPLITS.get(str(next(rest)).strip().lower(), "") if columns.split else ""
        status = _status_in(next(rest)) if columns.status else APPROVED
        if status not in (APPROVED, WAITING):
            read.skipped[status] += 1
            continue
        if label and problem.startswith("Unknown"):
            read.unknown[label] += 1
        if problem == LEFT_OUT:
            read.dropped[label[:LABEL_LENGTH]] += 1
        elif problem := _fields_problem(fields) or problem:
            read.errors.append(RowError(int(line), problem))
        else:
            texts = tuple(str(text).replace("\x00", "") for text in fields)
            read.rows.append(Row(int(line), texts, label, split, status == WAITING))
    return read


def _status_in(cell: Any) -> str:
    """One of STATUSES. What is none of them was approved by nobody."""
    word = str(cell).strip().lower()
    return word if word in STATUSES else WAITING


def _fields_problem(fields: Sequence[Any]) -> str:
    for text in fields:
        if text is None or (isinstance(text, float) and text != text):
            return "An empty text."
        if not isinstance(text, str):
            return f"The text is a {type(text).__name__}, not a text."
        if _SURROGATES.search(text):
            return "Not valid Unicode: a lone surrogate."
    return text_problem(tuple(fields))
