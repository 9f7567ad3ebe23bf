"""What a file holds, and how it becomes items: in short transactions that go on where an attempt broke off."""

import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from kalimtak.core import audit, jobs
from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import KalimtakError
from registry.models import Classifier
from training.etl.clean import redact_fields
from training.etl.duplicates import content_hash
from training.etl.folding import mend
from training.etl.held_out import HeldOut
from training.etl.load import fields_dict, known_items
from training.models import Dataset, TrainingDataItem
from training.services.datasets import MAX_LABELS, Progress, dataset_fetch
from training.services.files import Opened, dataset_open
from training.services.held_out import held_out_of, rows_without_copies
from training.services.passes import BadRows, Checkpoint, Effect, note_failure, refusals_told, share_of, storable
from training.streams import ImportRefused

if TYPE_CHECKING:
    from training.analysis import Analysis, Row

Status = TrainingDataItem.Status


# Looking at it ---------------------------------------------------------------------------------------------------


def dataset_analyse(dataset: Dataset) -> dict[str, Any]:
    """Look through the file and store the report without loading anything. Raises `InvalidInput`."""
    with refusals_told():
        opened = dataset_open(dataset, dataset.options)
        report: dict[str, Any] = storable(_analyse(dataset, opened, lambda fraction, note: None)[0].report())
    Dataset.objects.filter(pk=dataset.pk).update(report=report)
    dataset.report = report
    return report


def _analyse(dataset: Dataset, opened: Opened, progress: Progress) -> tuple["Analysis", str]:
    """The analysis of the whole file, and the digest of the list of bad rows ("": none). Raises `ImportRefused`."""
    from training.analysis import analyse
    from training.importers import chunks

    with tempfile.TemporaryFile() as listed:
        errors = BadRows(listed, opened.source.unit)
        analysis = analyse(
            *opened,
            chunks(opened.source),
            lambda rows: progress(0.0, f"looked at {rows:,} rows"),
            errors.add,
        )
        _refuse_unusable(dataset, analysis)
        return analysis, errors.keep()


def _refuse_unusable(dataset: Dataset, analysis: "Analysis") -> None:
    """Files of which nothing could be learnt, or not what was said. Raises `ImportRefused`."""
    classifier, name, label = dataset.classifier, analysis.source.name, analysis.columns.label
    if label is None:
        raise ImportRefused(
            f"{name} has no label column among {', '.join(analysis.source.columns[:20])}; name the right one."
        )
    found = ", ".join(repr(each[:60]) for each, _ in analysis.unknown.most_common(5))
    if analysis.unknown and dataset.options.get("unknown_labels") == "refuse":
        raise ImportRefused(
            f"{analysis.unknown.total():,} rows of {name} have labels that the classifier does not have ({found}); "
            "map them, or have their rows left out."
        )
    if analysis.unknown and not analysis.good:
        raise ImportRefused(
            f"None of the labels in {label!r} ({found}) is one of {', '.join(classifier.labels)}; "
            "translate them with label_config.mapping, or name another label column."
        )
    if not analysis.good:
        first = f" (line {analysis.errors[0].line}: {analysis.errors[0].reason})" if analysis.errors else ""
        raise ImportRefused(f"{name} has no row that can be loaded{first}.")
    if len(analysis.labels) > MAX_LABELS:
        raise ImportRefused(f"{label!r} holds over {MAX_LABELS} different labels; name the right column.")
    if not classifier.labels and len(analysis.labels) < 2:
        only = next(iter(analysis.labels))
        raise ImportRefused(f"All rows of {name} have the label {only[:60]!r}; a classifier needs at least two.")


# Loading ---------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What loading did: rows made into items, and why others were not (`held_out`: copies of golden texts); personal
    data that was replaced."""

    loaded: int = 0
    duplicates: int = 0
    for_review: int = 0
    refused_before: int = 0
    held_out: int = 0
    pii_redacted: int = 0


def dataset_load(
    dataset: Dataset, *, progress: Progress | None = None, effect: Effect = transaction.atomic, job: str = ""
) -> Dataset:
    """Analyse the file and make items of its rows, at most 500 per transaction (`effect`).

    Labelled rows are approved; one whose text already has another label waits for a reviewer, and so does one that our
    own export calls unreviewed. Texts that are there
    already are counted, not loaded twice, so that a repetition changes nothing; a load that broke off goes on at the
    chunk it had reached. Rows with errors are listed: the first in `report["errors"]`, all in the store's file
    `report["errors_file"]`. Raises `InvalidInput` (`dataset_refused`) for a file that cannot be loaded, whose data
    set is then failed. `job` is noted in the report, so that the job knows its work was done.
    """
    report_progress = progress or (lambda fraction, note: None)
    Dataset.objects.filter(pk=dataset.pk).update(state=Dataset.State.LOADING, error="")
    try:
        dataset_fetch(dataset, report_progress)
        with refusals_told():
            opened = dataset_open(dataset, dataset.options)
            checkpoint = Checkpoint.of(dataset, Outcome)
            if not checkpoint.is_analysed:
                _look_through(dataset, opened, checkpoint, report_progress, effect)
            crashpoint("import.before_first_chunk")
            _load_rows(dataset, opened, checkpoint, report_progress, effect)
    except KalimtakError as error:
        note_failure(dataset, error.message)
        raise
    except jobs.JobCancelled:
        note_failure(dataset, "Stopped before its end; load it again to go on.")
        raise
    crashpoint("import.before_ready")
    with effect():
        dataset.state, dataset.error, dataset.checkpoint = Dataset.State.READY, "", {}
        dataset.report |= {"outcome": asdict(checkpoint.outcome), "job": job}
        dataset.rows = TrainingDataItem.objects.filter(dataset=dataset).count()
        dataset.save(update_fields=["state", "error", "report", "rows", "checkpoint"])
        data = {"classifier": dataset.classifier.slug, **asdict(checkpoint.outcome)}
        audit.record(dataset.actor or "system", "dataset.load", f"dataset {dataset.pk}", **data)
    return dataset


def _look_through(
    dataset: Dataset, opened: Opened, checkpoint: Checkpoint[Outcome], progress: Progress, effect: Effect
) -> None:
    """The first pass: the report, the list of bad rows, and the labels of a classifier that had none."""
    analysis, errors_file = _analyse(dataset, opened, progress)
    crashpoint("import.analysed")
    with effect():
        _adopt_labels(dataset.classifier, analysis)
        dataset.report = storable(analysis.report()) | {
            "errors_file": errors_file,
            "separators": opened.rules.separators,
        }
        Dataset.objects.filter(pk=dataset.pk).update(report=dataset.report)
        checkpoint.chunks = 0
        checkpoint.save(dataset)


def _adopt_labels(classifier: Classifier, analysis: "Analysis") -> None:
    """A classifier without labels takes them from its first data, in order of appearance."""
    if classifier.labels:
        return
    locked = Classifier.objects.select_for_update().get(pk=classifier.pk)
    if not locked.labels:
        locked.labels = list(analysis.labels)
        locked.save(update_fields=["labels", "updated_at"])  # web processes look at the time
    classifier.labels = locked.labels


def _load_rows(
    dataset: Dataset, opened: Opened, checkpoint: Checkpoint[Outcome], progress: Progress, effect: Effect
) -> None:
    """The second pass: what was loaded before is read once more and passed over."""
    from training.analysis import read_rows
    from training.importers import chunks

    done, total, held_out = 0, max(dataset.report["rows"], 1), held_out_of(dataset.classifier)
    # Sets are written in the order of the labels, which this very file may just have decided.
    rules = replace(opened.rules, labels=tuple(dataset.classifier.labels), separators=dataset.report["separators"])
    for number, chunk in enumerate(chunks(opened.source), start=1):
        if number <= checkpoint.chunks:
            done += len(chunk.frame) + len(chunk.errors)
            progress(share_of(done, total), f"passed over {done:,} rows that are loaded")
            continue
        read = read_rows(chunk, opened.columns, rules)
        rows = [_redacted(row, checkpoint.outcome) for row in read.rows] if dataset.options.get("redact") else read.rows
        rows = _without_copies(dataset, rows, held_out, checkpoint.outcome)
        with effect():
            _load_chunk(dataset, rows, checkpoint.outcome)
            checkpoint.chunks = number
            checkpoint.save(dataset)
            crashpoint("import.in_chunk")
        crashpoint("import.between_chunks")
        done += read.total
        progress(share_of(done, total), f"loaded {done:,} of {total:,} rows")


def _without_copies(dataset: Dataset, rows: list["Row"], held_out: HeldOut, outcome: Outcome) -> list["Row"]:
    """The rows that copy no golden text, or are themselves held out; the others are told among the rows left out."""
    from training.analysis import ERRORS_SHOWN

    def is_golden(row: "Row") -> bool:
        return _split(dataset, row) == TrainingDataItem.Split.TEST

    def refuse(line: int, reason: str) -> None:
        outcome.held_out += 1
        dataset.report["error_count"] += 1
        if len(dataset.report["errors"]) < ERRORS_SHOWN:
            dataset.report["errors"].append({"line": line, "reason": reason})

    return rows_without_copies(rows, held_out, spared=is_golden, refuse=refuse)


def _redacted(row: "Row", outcome: Outcome) -> "Row":
    fields, count = redact_fields(row.fields)
    outcome.pii_redacted += count
    return replace(row, fields=fields)


def _load_chunk(dataset: Dataset, rows: list["Row"], outcome: Outcome) -> None:
    now = timezone.now()
    hashes = [content_hash(row.fields) for row in rows]
    known = known_items(dataset.classifier, set(hashes))
    items = []
    for row, digest in zip(rows, hashes, strict=True):
        if (digest, row.label) in known.refused:
            outcome.refused_before += 1
        elif (digest, row.label) in known.pairs:
            outcome.duplicates += 1
        else:
            other = known.labels.get(digest)
            item = _item(dataset, row, digest, other, now)
            outcome.loaded += 1
            outcome.for_review += item.status == Status.REVIEW
            items.append(item)
            known.add(digest, row.label)
    # Somebody else may have made the same item since it was looked up: theirs will do.
    TrainingDataItem.objects.bulk_create(items, ignore_conflicts=True)


def _item(dataset: Dataset, row: "Row", digest: str, other_label: str | None, now: datetime) -> TrainingDataItem:
    is_conflict = other_label is not None and other_label != row.label
    waits = is_conflict or row.is_unreviewed
    reason = f"Not approved yet where it was exported; loaded from {dataset.name}."
    if not row.is_unreviewed:
        reason = f"Loaded from {dataset.name}."
    if is_conflict:
        reason = f"The same text is already labelled {other_label!r}."
    return TrainingDataItem(
        classifier=dataset.classifier,
        dataset=dataset,
        origin=TrainingDataItem.Origin.IMPORT,
        source=f"import:{dataset.actor}"[:80],
        fields=fields_dict(dataset.classifier.input_fields, tuple(mend(text) for text in row.fields)),
        label=row.label,
        status=Status.REVIEW if waits else Status.APPROVED,
        split=_split(dataset, row),
        reason=reason[:300],
        content_hash=digest,
        decided_at=None if waits else now,
    )


def _split(dataset: Dataset, row: "Row") -> str:
    """A golden data set is held out as a whole; else as asked for, else what the file says, else training."""
    if dataset.role == Dataset.Role.GOLDEN:
        return TrainingDataItem.Split.TEST
    return str(dataset.options.get("split") or "") or row.split or TrainingDataItem.Split.TRAIN
