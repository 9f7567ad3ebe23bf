"""What is in a file: modality, task, labels, lengths, scripts, duplicates, conflicts, errors. Pure: no Django.

A `metadata` key in the file is used as it stands; without one, heuristics decide and say why. The report is JSON. It
takes one pass at constant memory but for the hashes that duplicates are told by, which are tracked up to a cap.
"""

import ast
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.labels import MOST_CHARACTERS, NOTHING, SEPARATOR, label_set, label_text_of
from training.columns import SPLITS, Columns
from training.etl.clean import text_problem
from training.etl.duplicates import content_hash
from training.importers import Chunk, RowError, Source

if TYPE_CHECKING:
    import pandas as pd

TRACKED = 1_000_000  # rows whose text is remembered to count duplicates and conflicts
ERRORS_SHOWN = 100
LABELS_SHOWN = 1_000
LABEL_LENGTH = 100
SEPARATORS = "|;,"  # between the labels of a text, the likeliest first
PERCENTILES = (5, 50, 95, 99)
SCRIPTS = ("LATIN", "ARABIC", "CYRILLIC", "GREEK", "HEBREW", "DEVANAGARI", "HANGUL", "HIRAGANA", "KATAKANA", "CJK")
FUNCTION_WORDS = {
    "English": {"the", "and", "is", "was", "of", "to", "you", "my", "this", "it"},
    "German": {"der", "die", "das", "und", "ist", "nicht", "ich", "ein", "mit", "auf"},
    "French": {"le", "la", "les", "et", "est", "je", "pas", "une", "des", "pour"},
    "Spanish": {"el", "los", "las", "y", "es", "que", "una", "por", "con", "para"},
}
MEDIA = {
    "image": re.compile(r"\.(jpe?g|png|gif|webp|bmp|tiff?)$", re.IGNORECASE),
    "audio": re.compile(r"\.(wav|mp3|flac|ogg|m4a)$", re.IGNORECASE),
    "video": re.compile(r"\.(mp4|mov|avi|mkv|webm)$", re.IGNORECASE),
}


@dataclass(frozen=True)
class LabelRules:
    """What labels may be: `labels` in order (empty: any), and `mapping` from those in the data.

    With `multi_label` a cell is read as a set of labels: a list, a list written as JSON, or labels with one of the
    `separators` between them. A separator within a known label does not part it.
    """

    labels: tuple[str, ...] = ()
    mapping: Mapping[str, str] | None = None
    multi_label: bool = False
    separators: str = SEPARATORS

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
        text = (str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)).strip()
        label = (self.mapping or {}).get(text, text)
        if not label:
            return "", "No label."
        if self.labels and label not in self.labels:
            return label, f"Unknown label {label[:LABEL_LENGTH]!r}{_suggestion(label, self.labels)}"
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

    Of a multi-label classifier `label` is the text of a set (`registry.labels`).
    """

    line: int
    fields: tuple[str, ...]
    label: str
    split: str


def read_rows(chunk: Chunk, columns: Columns, rules: LabelRules) -> tuple[list[Row], list[RowError], Counter[str]]:
    """The rows of a chunk that can be loaded, the errors of the others, and the unknown labels among these."""
    rows, errors, unknown = [], list(chunk.errors), Counter[str]()
    wanted = [*columns.inputs, *filter(None, (columns.label, columns.split))]
    cells_of = chunk.frame.reindex(columns=wanted).itertuples(index=True, name=None)
    for line, *cells in cells_of:
        fields = cells[: len(columns.inputs)]
        rest = iter(cells[len(columns.inputs) :])
        label, problem = rules.read(next(rest)) if columns.label else ("", "")
        if label and problem.startswith("Unknown"):
            unknown[label] += 1
        split = SPLITS.get(str(next(rest)).strip().lower(), "") if columns.split else ""
        if problem := _fields_problem(fields) or problem:
            errors.append(RowError(int(line), problem))
        else:
            rows.append(Row(int(line), tuple(str(text).replace("\x00", "") for text in fields), label, split))
    return rows, errors, unknown


def _fields_problem(fields: Sequence[Any]) -> str:
    for text in fields:
        if text is None or (isinstance(text, float) and text != text):
            return "An empty text."
        if not isinstance(text, str):
            return f"The text is a {type(text).__name__}, not a text."
        if any("\ud800" <= character <= "\udfff" for character in text):
            return "Not valid Unicode: a lone surrogate."
    return text_problem(tuple(fields))


class Analysis:
    """Gathers the report chunk by chunk."""

    def __init__(self, source: Source, columns: Columns, rules: LabelRules) -> None:
        self.source, self.columns, self.rules = source, columns, rules
        self.rows = self.good = self.empty = self.duplicates = self.conflicts = self.error_count = 0
        self.labels: Counter[str] = Counter()  # one by one, in order of first appearance
        self.labelled = self.without_labels = 0
        self.unknown: Counter[str] = Counter()
        self.splits: Counter[str] = Counter()
        self.errors: list[RowError] = []
        self._characters: Counter[int] = Counter()
        self._words: Counter[int] = Counter()
        self._scripts: Counter[str] = Counter()
        self._languages: Counter[str] = Counter()
        self._seen: dict[str, str] = {}

    def add(self, chunk: Chunk) -> None:
        rows, errors, unknown = read_rows(chunk, self.columns, self.rules)
        self.rows += len(rows) + len(errors)
        self.good += len(rows)
        self.unknown.update(unknown)
        self.error_count += len(errors)
        self.empty += sum(error.reason == "An empty text." for error in errors)
        self.errors += errors[: max(0, ERRORS_SHOWN - len(self.errors))]
        for row in rows:
            self._add_row(row)

    def add_error(self, line: int, reason: str) -> None:
        """Note that a row which could be read was refused all the same."""
        self.error_count += 1
        if len(self.errors) < ERRORS_SHOWN:
            self.errors.append(RowError(line, reason))

    def _add_row(self, row: Row) -> None:
        if row.label:
            parts = self.rules.parts(row.label)
            self.labels.update(parts)
            self.labelled += 1
            self.without_labels += not parts
        if row.split:
            self.splits[row.split] += 1
        text = " ".join(row.fields)
        words = text.split()
        self._characters[len(text)] += 1
        self._words[len(words)] += 1
        script = script_of(text)
        self._scripts[script] += 1
        if language := language_of(words, script):
            self._languages[language] += 1
        if len(self._seen) < TRACKED:
            digest = content_hash(row.fields)[:32]
            if digest not in self._seen:
                self._seen[digest] = row.label
            elif self._seen[digest] == row.label:
                self.duplicates += 1
            else:
                self.conflicts += 1

    def report(self) -> dict[str, Any]:
        """The analysis as JSON."""
        modalities, task, why, decided_by = self._task()
        source = self.source
        return {
            "file": {"name": source.name, "format": source.kind, "gzipped": source.is_gzipped, "unit": source.unit},
            "decided_by": decided_by,
            "modalities": modalities,
            "task": task,
            "metadata": dict(source.metadata) if source.metadata is not None else None,
            "columns": [name[:200] for name in source.columns[:100]],
            "fields": {
                "inputs": list(self.columns.inputs),
                "label": self.columns.label,
                "split": self.columns.split,
            },
            "why": [*self.columns.why, *why],
            "rows": self.rows,
            "good": self.good,
            "empty": self.empty,
            "labels": dict(self.labels.most_common(LABELS_SHOWN)),
            **self._label_sets(),
            "unknown_labels": dict(self.unknown.most_common(20)),
            "splits": dict(self.splits),
            "duplicates": self.duplicates,
            "conflicts": self.conflicts,
            "tracked": len(self._seen) < TRACKED,
            "characters": percentiles(self._characters),
            "words": percentiles(self._words),
            "scripts": dict(self._scripts.most_common()),
            "languages": dict(self._languages.most_common()),
            "error_count": self.error_count,
            "errors": [{"line": error.line, "reason": error.reason} for error in self.errors],
        }

    def _label_sets(self) -> dict[str, Any]:
        """How many labels the texts of a multi-label classifier have."""
        if not self.rules.multi_label:
            return {}
        mean = self.labels.total() / self.labelled if self.labelled else 0.0
        return {"labels_per_text": round(mean, 2), "without_labels": self.without_labels}

    def _task(self) -> tuple[list[str], str, list[str], str]:
        """Modalities, task, why, and whether the file's metadata or heuristics say so."""
        modalities, task, why = self._guess()
        metadata = self.source.metadata or {}
        if not {"modalities", "task"} & metadata.keys():
            return modalities, task, why, "heuristics"
        said = metadata.get("modalities", modalities)
        return (
            [str(one) for one in said] if isinstance(said, list) else [str(said)],
            str(metadata.get("task", task)),
            ["The file's metadata says what it is."],
            "metadata",
        )

    def _guess(self) -> tuple[list[str], str, list[str]]:
        """By the structure: what the inputs look like, how many there are, whether labels repeat."""
        modalities = list(dict.fromkeys(modality_of(self.source.sample[name]) for name in self.columns.inputs))
        why = [f"The input looks like {' and '.join(modalities)}."]
        if self.columns.label is None or not self.labels:
            return modalities, "unlabelled", [*why, "There are no labels."]
        kinds = len(self.labels)
        pair = "-pair" if len(self.columns.inputs) > 1 else ""
        if kinds > max(20, self.good / 2):
            why.append(f"{kinds} labels in {self.good} rows hardly repeat, so they may be answers or numbers.")
            return modalities, "text-generation", why
        why.append(f"{kinds} labels repeat over {self.good} rows, so the task is classification.")
        if self.rules.multi_label:
            mean = self._label_sets()["labels_per_text"]
            why.append(f"A text has {mean} labels on average; {self.without_labels} have none of them.")
        return modalities, f"text{pair}-classification", why


def analyse(
    source: Source, columns: Columns, rules: LabelRules, chunks: Iterator[Chunk], progress: Callable[[int], None]
) -> Analysis:
    """Run the whole file through an `Analysis`; `progress` hears how many rows were read."""
    analysis = Analysis(source, columns, rules)
    for chunk in chunks:
        analysis.add(chunk)
        progress(analysis.rows)
    return analysis


def percentiles(histogram: Mapping[int, int]) -> dict[str, float]:
    """Minimum, maximum, mean and percentiles of the values in {value: how often}; empty for none."""
    import numpy as np
    import pandas as pd

    if not histogram:
        return {}
    counts = pd.Series(histogram).sort_index()
    cumulative = counts.cumsum().to_numpy()
    values = counts.index.to_numpy()
    places = {f"p{share}": values[np.searchsorted(cumulative, cumulative[-1] * share / 100)] for share in PERCENTILES}
    mean = float((values * counts.to_numpy()).sum() / cumulative[-1])
    return {"min": int(values[0]), "max": int(values[-1]), "mean": round(mean, 1)} | {
        name: int(value) for name, value in places.items()
    }


def modality_of(column: "pd.Series") -> str:
    """`image`, `audio` or `video` where most cells are names of such files, else `text`."""
    texts = column[column.map(lambda cell: isinstance(cell, str))]
    for modality, pattern in MEDIA.items():
        if len(texts) and texts.map(lambda text, p=pattern: bool(p.search(text.strip()))).mean() > 0.5:
            return modality
    return "text"


def script_of(text: str) -> str:
    """The script of most of the first letters, as Unicode names it, or `OTHER`."""
    letters = [character for character in text[:200] if character.isalpha()][:40]
    names = Counter(unicodedata.name(letter, "OTHER").split(" ")[0] for letter in letters)
    found = names.most_common(1)[0][0] if names else "OTHER"
    return found if found in SCRIPTS else "OTHER"


def language_of(words: Sequence[str], script: str) -> str:
    """A rough guess: by the script, or for Latin by function words; "" where nothing tells."""
    if script != "LATIN":
        return {"ARABIC": "Arabic", "HEBREW": "Hebrew", "GREEK": "Greek", "HANGUL": "Korean"}.get(script, "")
    present = {word.lower() for word in words[:100]}
    hits = {language: len(present & known) for language, known in FUNCTION_WORDS.items()}
    best = max(hits, key=lambda language: hits[language])
    return best if hits[best] >= 2 else ""
