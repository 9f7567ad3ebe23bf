"""What is in a file: modality, task, labels, lengths, scripts, duplicates, conflicts, errors. Pure: no Django.

A `metadata` key in the file is used as it stands; without one, heuristics decide and say why. The report is JSON. It
takes one pass at constant memory but for 64-bit hashes that duplicates are told by, which are tracked up to a cap.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kalimtak.core import pii
from training.columns import Columns
from training.etl.duplicates import content_hash
from training.etl.languages import language_of
from training.etl.scripts import script_of
from training.importers import Chunk, ImportRefused, RowError, Source
from training.labelling import SEPARATORS, LabelRules, Row, read_rows, separators_in

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SEPARATORS", "Analysis", "LabelRules", "Row", "analyse", "read_rows", "separators_in"]

TRACKED = 1_000_000  # rows whose text is remembered to count duplicates and conflicts
ERRORS_SHOWN = 100
LABELS_SHOWN = 1_000
LABELS_COUNTED = 10_000
PERSONAL_ROWS = 10_000  # rows that are searched for personal data, which takes longest
PERCENTILES = (5, 50, 95, 99)
NO_SCRIPT = "none"  # of a text without letters
MEDIA = {
    "image": re.compile(r"\.(jpe?g|png|gif|webp|bmp|tiff?)$", re.IGNORECASE),
    "audio": re.compile(r"\.(wav|mp3|flac|ogg|m4a)$", re.IGNORECASE),
    "video": re.compile(r"\.(mp4|mov|avi|mkv|webm)$", re.IGNORECASE),
}


class Analysis:
    """Gathers the report chunk by chunk."""

    def __init__(
        self,
        source: Source,
        columns: Columns,
        rules: LabelRules,
        note_error: Callable[[RowError], None] = lambda error: None,
    ) -> None:
        """`note_error` hears every row that is left out; the report lists the first ones."""
        self.source, self.columns, self.rules, self._note_error = source, columns, rules, note_error
        self.rows = self.good = self.empty = self.duplicates = self.conflicts = self.error_count = 0
        self.labels: Counter[str] = Counter()  # one by one, in order of first appearance
        self.labelled = self.without_labels = 0
        self.unknown: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.unreviewed = 0
        self.personal: Counter[str] = Counter()
        self.looked_for_personal = self.with_personal = 0
        self.splits: Counter[str] = Counter()
        self.errors: list[RowError] = []
        self._characters: Counter[int] = Counter()
        self._words: Counter[int] = Counter()
        self._scripts: Counter[str] = Counter()
        self._languages: Counter[str] = Counter()
        self._seen: dict[int, int] = {}  # 64 bits of the content's hash → number of the label, to stay small
        self._label_numbers: dict[str, int] = {}

    def add(self, chunk: Chunk) -> None:
        read = read_rows(chunk, self.columns, self.rules)
        rows, errors = read.rows, read.errors
        self.rows += read.total
        self.good += len(rows)
        self.unknown.update(_bounded(self.unknown, read.unknown))
        self.dropped.update(_bounded(self.dropped, read.dropped))
        self.skipped.update(read.skipped)
        self.unreviewed += sum(row.is_unreviewed for row in rows)
        self.error_count += len(errors)
        self.empty += sum(error.reason == "An empty text." for error in errors)
        self.errors += errors[: max(0, ERRORS_SHOWN - len(self.errors))]
        for error in errors:
            self._note_error(error)
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
        self._scripts[script or NO_SCRIPT] += 1
        if language := language_of(words, script):
            self._languages[language] += 1
        if self.looked_for_personal < PERSONAL_ROWS:
            self._look_for_personal(row)
        if len(self._seen) < TRACKED:
            digest = int(content_hash(row.fields)[:16], 16)
            number = self._label_numbers.setdefault(row.label, len(self._label_numbers))
            if digest not in self._seen:
                self._seen[digest] = number
            elif self._seen[digest] == number:
                self.duplicates += 1
            else:
                self.conflicts += 1

    def _look_for_personal(self, row: Row) -> None:
        findings = [finding for text in row.fields for finding in pii.redact(text).findings]
        self.looked_for_personal += 1
        self.with_personal += bool(findings)
        self.personal.update(finding.kind for finding in findings)

    def report(self) -> dict[str, Any]:
        """The analysis as JSON."""
        modalities, task, why, decided_by = self._task()
        source = self.source
        return {
            "file": {
                "name": source.name,
                "format": source.kind,
                "gzipped": source.is_gzipped,
                "unit": source.unit,
                "encoding": source.encoding,
                "delimiter": source.delimiter if source.kind in ("csv", "tsv") else "",
            },
            "decided_by": decided_by,
            "modalities": modalities,
            "task": task,
            "metadata": dict(source.metadata) if source.metadata is not None else None,
            "columns": [name[:200] for name in source.columns[:100]],
            "fields": {
                "inputs": list(self.columns.inputs),
                "label": self.columns.label,
                "split": self.columns.split,
                "status": self.columns.status,
            },
            "why": [*self.columns.why, *why],
            "rows": self.rows,
            "good": self.good,
            "empty": self.empty,
            "labels": dict(self.labels.most_common(LABELS_SHOWN)),
            **self._label_sets(),
            "unknown_labels": dict(self.unknown.most_common(20)),
            "dropped": dict(self.dropped.most_common(20)),
            "dropped_count": self.dropped.total(),
            "skipped": dict(self.skipped.most_common()),
            "unreviewed": self.unreviewed,
            "personal": {
                "looked_at": self.looked_for_personal,
                "rows": self.with_personal,
                "kinds": dict(self.personal.most_common()),
            },
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


def _bounded(known: Counter[str], new: Counter[str]) -> Counter[str]:
    """Of `new` what is known, and others as long as there is room: a column of free texts must not fill the memory."""
    room = LABELS_COUNTED - len(known)
    return Counter({label: count for label, count in new.items() if label in known or (room := room - 1) >= 0})


def analyse(
    source: Source,
    columns: Columns,
    rules: LabelRules,
    chunks: Iterator[Chunk],
    progress: Callable[[int], None],
    note_error: Callable[[RowError], None] = lambda error: None,
) -> Analysis:
    """Run the whole file through an `Analysis`; `progress` hears how many rows were read, `note_error` the bad ones.

    Raises `ImportRefused` where the label column cannot be one, for it holds too many different values.
    """
    analysis = Analysis(source, columns, rules, note_error)
    for chunk in chunks:
        analysis.add(chunk)
        if len(analysis.labels) > LABELS_COUNTED:
            raise ImportRefused(
                f"{columns.label!r} holds over {LABELS_COUNTED:,} different labels; name the right column."
            )
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
