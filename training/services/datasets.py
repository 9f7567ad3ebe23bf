"""Data sets: kept in the store with a row and a job that loads them, fetched, and given another role.

What a file holds and how it becomes items is told in `training.services.imports`.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from kalimtak.core import audit, jobs
from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import Conflict, InvalidInput
from kalimtak.core.models import Job
from registry import store
from registry.models import Classifier
from training.download import download, url_check
from training.models import Dataset, ItemQuerySet, SnapshotItem, TrainingDataItem
from training.streams import ENCODINGS, ImportRefused, named_format

Progress = Callable[[float, str], None]
THEN = ("none", "train", "deploy")
MAX_LABELS = 1_000
UNKNOWN_LABELS = ("report", "refuse", "drop")  # what becomes of rows whose label the classifier does not have


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

    The file's extension must be one that can be read. `options` may hold what `options_check` knows. No transaction
    may be open: copying a large file would hold up everybody. Raises `InvalidInput` for another name, option, role or
    split, `TooLarge` and `Unavailable` from the store.
    """
    _check_choice("role", role, Dataset.Role.values)
    _check_choice("split", split, ["", *TrainingDataItem.Split.values])
    options_check(options or {})
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
    options_check(options or {})
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


def dataset_load_queue(dataset: Dataset, options: Mapping[str, Any], *, actor: str, then: str = "none") -> Job:
    """Queue the loading of `dataset` as the `options` say. Raises `InvalidInput` for options that cannot be, and
    `Conflict` (`dataset_busy`) while it is being loaded already."""
    options_check(options)
    _check_choice("split", str(options.get("split", "")), ["", *TrainingDataItem.Split.values])
    _check_choice("then", then, THEN)
    with transaction.atomic():
        locked = Dataset.objects.select_for_update(of=("self",)).select_related("job").get(pk=dataset.pk)
        if locked.job is not None and not locked.job.is_finished:
            raise Conflict("It is being loaded already.", code="dataset_busy")
        address = {"url": dataset.options["url"]} if dataset.options.get("url") else {}
        dataset.options = {**options, **address}
        dataset.state, dataset.error = Dataset.State.PENDING, ""
        dataset.save(update_fields=["options", "state", "error"])
        return dataset_import_queue(dataset, actor=actor, then=then)


def options_check(options: Mapping[str, Any]) -> None:
    """What a person may say of a file; everything else is found by itself.

    `text_fields` (one column per input), `label_field`, `split_field`, `encoding` (a key of `ENCODINGS`), `labels`
    ({label in the file: one of the classifier, or "" to leave its rows out}), `unknown_labels` (one of UNKNOWN_LABELS)
    and `redact` (placeholders instead of personal data). Raises `InvalidInput`.
    """
    _check_choice("encoding", options.get("encoding", ""), ["", *ENCODINGS])
    _check_choice("unknown_labels", options.get("unknown_labels", UNKNOWN_LABELS[0]), UNKNOWN_LABELS)


def _check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        message = f"Use one of {', '.join(filter(None, allowed))}."
        raise InvalidInput(f"{name}: {message}", fields={name: [message]})


def _check_name(place: str, name: str) -> None:
    try:
        named_format(name)
    except ImportRefused as error:
        raise InvalidInput(str(error), code="dataset_refused", fields={place: [str(error)]}) from error


# Removing it -----------------------------------------------------------------------------------------------------


def dataset_discard(dataset: Dataset, *, actor: str) -> None:
    """Remove a data set of which nothing was loaded: its row, its file and the list of its bad rows.

    A file that another data set names as well stays. Raises `Conflict`: `dataset_busy` while it is being loaded,
    `dataset_loaded` where items came of it, or interactions, whose origin it then is.
    """
    with transaction.atomic():
        rows = Dataset.objects.select_for_update(of=("self",)).select_related("job", "classifier")
        locked = rows.filter(pk=dataset.pk).first()
        if locked is None:
            return
        if locked.job is not None and not locked.job.is_finished:
            raise Conflict("It is being loaded; wait for its end, or cancel the job.", code="dataset_busy")
        if not dataset_is_discardable(locked):
            raise Conflict("Something of it was loaded, so it stays.", code="dataset_loaded")
        ended = locked.job.finished_at if locked.job else None
        files = {locked.digest, str(locked.report.get("errors_file", ""))} - {""}
        noted = {"classifier": locked.classifier.slug, "name": locked.name, "digest": locked.digest}
        locked.delete()
        audit.record(actor, "dataset.discard", f"dataset {dataset.pk}", **noted)
        transaction.on_commit(lambda: _remove_files(files, before=max(ended or locked.created_at, locked.created_at)))


def dataset_is_discardable(dataset: Dataset) -> bool:
    """Whether nothing came of it that would lose its origin."""
    is_open = dataset.state != Dataset.State.READY and dataset.origin != Dataset.Origin.FEEDBACK
    return is_open and not TrainingDataItem.objects.filter(dataset=dataset).exists()


def _remove_files(digests: Iterable[str], *, before: datetime) -> None:
    """Remove files of the store that no data set names, unless they were uploaded again after `before`."""
    for digest in digests:
        if not Dataset.objects.filter(Q(digest=digest) | Q(report__errors_file=digest)).exists():
            store.dataset_remove(digest, before=before)


# Another role ----------------------------------------------------------------------------------------------------


class RoleChange(NamedTuple):
    """What another role of a data set means: `moved` items change their split; `golden` are held out afterwards;
    `learnt` versions were trained on rows that would be held out."""

    moved: int
    golden: int
    learnt: int


def dataset_role_preview(dataset: Dataset, role: str) -> RoleChange:
    """What `dataset_role_set` would do."""
    _check_choice("role", role, Dataset.Role.values)
    moving = _moving(dataset, role)
    golden = TrainingDataItem.objects.filter(classifier=dataset.classifier).golden().count()
    approved, learnt = moving.approved().count(), 0
    if role == Dataset.Role.GOLDEN:
        seen = SnapshotItem.objects.filter(item__in=moving, snapshot__runs__version__isnull=False)
        seen = seen.exclude(split=TrainingDataItem.Split.TEST)
        learnt = seen.order_by().values("snapshot__runs__version").distinct().count()
        return RoleChange(moving.count(), golden + approved, learnt)
    return RoleChange(moving.count(), golden - approved, learnt)


def dataset_role_set(dataset: Dataset, role: str, *, actor: str) -> Dataset:
    """Give a data set another role, and its items the split that goes with it.

    Golden rows are held out; those of a data set that is golden no more may be learnt from. The next snapshots see it.
    Raises `Conflict` (`dataset_busy`) while the data set is being loaded.
    """
    _check_choice("role", role, Dataset.Role.values)
    with transaction.atomic():
        locked = Dataset.objects.select_for_update(of=("self",)).select_related("job", "classifier").get(pk=dataset.pk)
        if locked.job is not None and not locked.job.is_finished:
            raise Conflict("It is being loaded; wait for its end, or cancel the job.", code="dataset_busy")
        before = locked.role
        if before != role:
            moved = _moving(locked, role).update(split=_split_for(locked, role))
            Dataset.objects.filter(pk=dataset.pk).update(role=role)
            audit.record(actor, "dataset.role", f"dataset {dataset.pk}", before=before, after=role, moved=moved)
    dataset.role = role
    return dataset


def _moving(dataset: Dataset, role: str) -> ItemQuerySet:
    """The items whose split another role changes: into the golden set or out of it."""
    items = TrainingDataItem.objects.filter(dataset=dataset)
    golden = Dataset.Role.GOLDEN
    if role == golden:
        return items.exclude(split=TrainingDataItem.Split.TEST)
    return items.filter(split=TrainingDataItem.Split.TEST) if dataset.role == golden else items.none()


def _split_for(dataset: Dataset, role: str) -> str:
    if role == Dataset.Role.GOLDEN:
        return TrainingDataItem.Split.TEST
    asked = str(dataset.options.get("split") or "")
    return asked if asked not in ("", TrainingDataItem.Split.TEST) else TrainingDataItem.Split.TRAIN
