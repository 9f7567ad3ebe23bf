"""Data sets: kept in the store, analysed, loaded as items in short transactions that may be repeated."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from kalimtak.core import audit, jobs
from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import InvalidInput, KalimtakError
from kalimtak.core.models import Job
from registry import store
from registry.models import Classifier
from training.download import download, url_check
from training.etl.duplicates import content_hash
from training.etl.folding import mend
from training.etl.load import fields_dict, known_items
from training.models import Dataset, TrainingDataItem
from training.services.held_out import held_out_of, rows_without_copies
from training.streams import ImportRefused, named_format

if TYPE_CHECKING:
    from training.analysis import Analysis, LabelRules, Row
    from training.columns import Columns
    from training.importers import Source

Status = TrainingDataItem.Status
Progress = Callable[[float, str], None]
Effect = Callable[[], AbstractContextManager[Any]]
THEN = ("none", "train", "deploy")
MAX_LABELS = 1_000
ANALYSIS_SHARE = 0.4  # of the whole work, for the progress bar


def dataset_add(
    classifier: Classifier,
    *,
    source: BinaryIO | Path,
    name: str,
    role: str = Dataset.Role.TRAINING,
    split: str = "",
    options: Mapping[str, Any] | None = None,
    actor: str,
    origin: str = Dataset.Origin.UPLOAD,
    then: str | None = None,
    ring: bool = True,
) -> Dataset:
    """Keep a file in the store, and then write its row and, unless `then` is None, the job that loads it.

    The file's extension must be one that can be read. `options` may hold `text_fields` (one column per input) and
    `label_field`. No transaction may be open: copying a large file would hold up everybody. Raises `InvalidInput` for
    another name and for a role or split that does not exist, `TooLarge` and `Unavailable` from the store.
    """
    _check_choice("role", role, Dataset.Role.values)
    _check_choice("split", split, ["", *TrainingDataItem.Split.values])
    name = Path(name.replace("\\", "/").replace("\x00", "")).name[-200:] or "upload"
    _check_name("file", name)
    digest = store.dataset_put(source)
    row = Dataset(classifier=classifier, name=name, origin=origin, role=role, digest=digest, actor=actor)
    row.options = {**(options or {}), "split": split}
    return _write_row(row, then, ring=ring, digest=digest)


def dataset_add_url(
    classifier: Classifier,
    *,
    url: str,
    role: str = Dataset.Role.TRAINING,
    split: str = "",
    options: Mapping[str, Any] | None = None,
    actor: str,
    then: str | None = None,
) -> Dataset:
    """Write the row of a file that lies elsewhere, and unless `then` is None the job that fetches and loads it.

    Raises `NotAllowed` (`host_not_allowed`) for a host outside `KALIMTAK_DATASET_HOSTS`, `InvalidInput` for a URL that
    is not plain https or whose path has an extension that cannot be read.
    """
    _check_choice("role", role, Dataset.Role.values)
    _check_choice("split", split, ["", *TrainingDataItem.Split.values])
    host, name = url_check(url, settings.KALIMTAK_DATASET_HOSTS)
    _check_name("url", name)
    row = Dataset(classifier=classifier, name=name, origin=Dataset.Origin.URL, role=role, actor=actor)
    row.options = {**(options or {}), "split": split, "url": url}
    return _write_row(row, then, host=host)


def _write_row(dataset: Dataset, then: str | None, *, ring: bool = True, **noted: str) -> Dataset:
    """Save the row with its audit entry and, unless `then` is None, the job that loads it: all or nothing."""
    with transaction.atomic():
        dataset.save()
        slug = dataset.classifier.slug
        audit.record(dataset.actor, "dataset.add", f"dataset {dataset.pk}", classifier=slug, **noted)
        if then is not None:
            dataset_import_queue(dataset, actor=dataset.actor, then=then, ring=ring)
    return dataset


def dataset_fetch(dataset: Dataset, progress: Progress) -> None:
    """Download the file of a data set that was named by its URL, unless it is in the store already."""
    if dataset.digest or not dataset.options.get("url"):
        return
    with tempfile.TemporaryFile() as copy:
        progress(0.0, "downloading")
        download(
            dataset.options["url"],
            copy,
            allowed=settings.KALIMTAK_DATASET_HOSTS,
            limit=settings.KALIMTAK_MAX_UPLOAD,
            progress=lambda size: progress(0.0, f"downloaded {size // 2**20} MiB"),
        )
        copy.seek(0)
        dataset.digest = store.dataset_put(copy)
    crashpoint("import.fetched")
    dataset.save(update_fields=["digest"])


def dataset_import_queue(dataset: Dataset, *, actor: str, then: str = "none", ring: bool = True) -> Job:
    """Queue the loading of `dataset`, and afterwards perhaps a training run; the waiting job where there is one.

    With `ring=False` the caller runs the job by itself.
    """
    _check_choice("then", then, THEN)
    if dataset.job is not None and not dataset.job.is_finished:
        return dataset.job
    with transaction.atomic():
        job = jobs.enqueue("import", {"dataset": dataset.pk, "then": then}, actor=actor, ring=ring)
        Dataset.objects.filter(pk=dataset.pk).update(job=job)
    dataset.job = job
    return job


def _check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        message = f"Use one of {', '.join(filter(None, allowed))}."
        raise InvalidInput(f"{name}: {message}", fields={name: [message]})


def _check_name(place: str, name: str) -> None:
    try:
        named_format(name)
    except ImportRefused as error:
        raise InvalidInput(str(error), code="dataset_refused", fields={place: [str(error)]}) from error


# Analysing -------------------------------------------------------------------------------------------------------


def dataset_analyse(dataset: Dataset) -> dict[str, Any]:
    """Look through the file and store the report without loading anything. Raises `InvalidInput`."""
    report = _analyse(dataset, lambda fraction, note: None).analysis.report()
    Dataset.objects.filter(pk=dataset.pk).update(report=report)
    dataset.report = report
    return report


@dataclass(frozen=True)
class _Analysed:
    """A file that can be loaded."""

    source: "Source"
    columns: "Columns"
    rules: "LabelRules"
    analysis: "Analysis"


def _analyse(dataset: Dataset, progress: Progress) -> _Analysed:
    from training.analysis import analyse  # pandas takes half a second, which the web need not pay for
    from training.columns import choose_columns
    from training.importers import Limits, chunks, open_source

    classifier, options = dataset.classifier, dataset.options
    try:
        path = store.dataset_path(dataset.digest)
        source = open_source(path, dataset.name, Limits(unpacked=settings.KALIMTAK_MAX_UPLOAD))
        columns = choose_columns(
            source.columns,
            source.sample,
            input_fields=classifier.input_fields,
            label_field=classifier.label_field,
            labels={*classifier.labels, *classifier.get_label_config().mapping},
            multi_label=classifier.multi_label,
            asked_inputs=options.get("text_fields") or (),
            asked_label=options.get("label_field") or "",
        )
        rules = label_rules(classifier, source, columns)
        analysis = analyse(
            source, columns, rules, chunks(source), lambda rows: progress(0.0, f"looked at {rows:,} rows")
        )
        _refuse_unusable(classifier, analysis)
    except ImportRefused as error:
        raise InvalidInput(str(error), code="dataset_refused") from error
    return _Analysed(source, columns, rules, analysis)


def label_rules(classifier: Classifier, source: "Source", columns: "Columns") -> "LabelRules":
    """How the label column of a file is read for this classifier."""
    from training.analysis import SEPARATORS, LabelRules, separators_in

    separators = SEPARATORS
    if classifier.multi_label and not classifier.labels and columns.label:
        separators = separators_in(source.sample[columns.label])
    mapping = classifier.get_label_config().mapping
    return LabelRules(tuple(classifier.labels), mapping, classifier.multi_label, separators)


def _refuse_unusable(classifier: Classifier, analysis: "Analysis") -> None:
    """Files of which nothing could be learnt. Raises `ImportRefused`."""
    name, label = analysis.source.name, analysis.columns.label
    if label is None:
        raise ImportRefused(
            f"{name} has no label column among {', '.join(analysis.source.columns[:20])}; name the right one."
        )
    if analysis.unknown and not analysis.good:
        found = ", ".join(repr(each[:60]) for each, _ in analysis.unknown.most_common(5))
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
class _Outcome:
    """What loading did, earlier attempts included: rows made into items, and why others were not."""

    loaded: int = 0
    duplicates: int = 0
    for_review: int = 0
    refused_before: int = 0
    held_out: int = 0
    labels: Counter[str] = field(default_factory=Counter)

    @classmethod
    def so_far(cls, dataset: Dataset) -> Self:
        """What an attempt that broke off has loaded since the last one that did not; it will be met as duplicates."""
        items = TrainingDataItem.objects.filter(dataset=dataset).order_by("pk")
        ahead = list(items.values_list("status", flat=True)[dataset.rows :])
        return cls(loaded=len(ahead), duplicates=-len(ahead), for_review=ahead.count(Status.REVIEW))

    def to_dict(self) -> dict[str, int]:
        names = ("loaded", "duplicates", "for_review", "refused_before", "held_out")
        return {name: max(0, getattr(self, name)) for name in names}


def dataset_load(
    dataset: Dataset, *, progress: Progress | None = None, effect: Effect = transaction.atomic, job: str = ""
) -> Dataset:
    """Analyse the file and make items of its rows, at most 500 per transaction (`effect`).

    Labelled rows are approved; one whose text already has another label waits for a reviewer. Texts that are there
    already are counted, not loaded twice, so that a repetition changes nothing and an interrupted load goes on. Rows
    with errors are listed in `report["errors"]`. Raises `InvalidInput` (`dataset_refused`) for a file that cannot be
    loaded, whose data set is then failed. `job` is noted in the report, so that the job knows its work was done.
    """
    report_progress = progress or (lambda fraction, note: None)
    Dataset.objects.filter(pk=dataset.pk).update(state=Dataset.State.LOADING, error="")
    try:
        dataset_fetch(dataset, report_progress)
        analysed = _analyse(dataset, report_progress)
        _adopt_labels(dataset.classifier, analysed.analysis, effect)
        crashpoint("import.before_first_chunk")
        outcome = _load_rows(dataset, analysed, report_progress, effect)
    except KalimtakError as error:
        _note_failure(dataset, error.message)
        raise
    except jobs.JobCancelled:
        _note_failure(dataset, "Stopped before its end; load it again to go on.")
        raise
    crashpoint("import.before_ready")
    with effect():
        dataset.state, dataset.error = Dataset.State.READY, ""
        dataset.report = analysed.analysis.report() | {"outcome": outcome.to_dict(), "job": job}
        dataset.rows = TrainingDataItem.objects.filter(dataset=dataset).count()
        dataset.save(update_fields=["state", "error", "report", "rows"])
        data = {"classifier": dataset.classifier.slug, **outcome.to_dict()}
        audit.record(dataset.actor or "system", "dataset.load", f"dataset {dataset.pk}", **data)
    return dataset


def _note_failure(dataset: Dataset, error: str) -> None:
    """An attempt that was overtaken has no say about what a newer one finished."""
    unfinished = Dataset.objects.filter(pk=dataset.pk).exclude(state=Dataset.State.READY)
    unfinished.update(state=Dataset.State.FAILED, error=error)


def _adopt_labels(classifier: Classifier, analysis: "Analysis", effect: Effect) -> None:
    """A classifier without labels takes them from its first data, in order of appearance."""
    if classifier.labels:
        return
    with effect():
        locked = Classifier.objects.select_for_update().get(pk=classifier.pk)
        if not locked.labels:
            locked.labels = list(analysis.labels)
            locked.save(update_fields=["labels", "updated_at"])  # web processes look at the time
    classifier.labels = locked.labels


def _load_rows(dataset: Dataset, analysed: _Analysed, progress: Progress, effect: Effect) -> _Outcome:
    from training.analysis import read_rows
    from training.importers import chunks

    outcome, done, total = _Outcome.so_far(dataset), 0, max(analysed.analysis.rows, 1)
    rules, held_out = analysed.rules, held_out_of(dataset.classifier)
    if rules.multi_label:  # sets are written in the order of the labels, which the file may just have decided
        rules = replace(rules, labels=tuple(dataset.classifier.labels))

    def is_golden(row: "Row") -> bool:
        return _split(dataset, row) == TrainingDataItem.Split.TEST

    for chunk in chunks(analysed.source):
        rows, errors, _ = read_rows(chunk, analysed.columns, rules)
        read = len(rows)
        rows = rows_without_copies(rows, held_out, spared=is_golden, refuse=analysed.analysis.add_error)
        outcome.held_out += read - len(rows)
        with effect():
            _load_chunk(dataset, rows, outcome)
            crashpoint("import.in_chunk")
        crashpoint("import.between_chunks")
        done += read + len(errors)
        progress(ANALYSIS_SHARE + (1 - ANALYSIS_SHARE) * done / total, f"loaded {done:,} of {total:,} rows")
    return outcome


def _load_chunk(dataset: Dataset, rows: list["Row"], outcome: _Outcome) -> None:
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
    reason = f"The same text is already labelled {other_label!r}." if is_conflict else f"Loaded from {dataset.name}."
    return TrainingDataItem(
        classifier=dataset.classifier,
        dataset=dataset,
        origin=TrainingDataItem.Origin.IMPORT,
        source=f"import:{dataset.actor}"[:80],
        fields=fields_dict(dataset.classifier.input_fields, tuple(mend(text) for text in row.fields)),
        label=row.label,
        status=Status.REVIEW if is_conflict else Status.APPROVED,
        split=_split(dataset, row),
        reason=reason[:300],
        content_hash=digest,
        decided_at=None if is_conflict else now,
    )


def _split(dataset: Dataset, row: "Row") -> str:
    """As asked for; a golden data set is held out as a whole; else what the file says, else training."""
    if dataset.options.get("split"):
        return str(dataset.options["split"])
    if dataset.role == Dataset.Role.GOLDEN:
        return TrainingDataItem.Split.TEST
    return row.split or TrainingDataItem.Split.TRAIN
