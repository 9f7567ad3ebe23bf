"""Examining the items of a data set: in a job, at bounded memory, with the result on the data set's page."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from kalimtak.core import audit, jobs
from kalimtak.core.errors import Conflict
from kalimtak.core.findings import batches
from kalimtak.core.models import Job
from training.etl.load import LIVE
from training.models import Dataset, TrainingDataItem
from training.services.datasets import Progress
from training.services.passes import Effect

if TYPE_CHECKING:
    from training.examination import Item

CHARACTERS = 2_000  # of a text that are looked at


def dataset_examine_queue(dataset: Dataset, *, actor: str) -> Job:
    """Queue an examination; the waiting one where there is one. Raises `Conflict` for a data set without items."""
    if not TrainingDataItem.objects.filter(dataset=dataset).exists():
        raise Conflict("It has no items to examine; load it first.", code="no_data")
    waiting = Job.objects.filter(kind="examine", params__dataset=dataset.pk).exclude(finished_at__isnull=False)
    with transaction.atomic():
        return waiting.first() or jobs.enqueue("examine", {"dataset": dataset.pk}, actor=actor)


def dataset_examine(dataset: Dataset, *, progress: Progress, effect: Effect = transaction.atomic) -> Dataset:
    """Work out `training.examination`'s figures over the items that count, and keep them as `findings`."""
    from training.examination import COMPARED, OTHERS, examine  # pandas, which the web need not load

    classifier = dataset.classifier
    live = TrainingDataItem.objects.filter(classifier=classifier, status__in=LIVE)
    own = live.filter(dataset=dataset)
    golden = live.filter(split=TrainingDataItem.Split.TEST).exclude(dataset=dataset)
    others = live.exclude(dataset=dataset).exclude(split=TrainingDataItem.Split.TEST)
    figures = examine(
        items_of(own),
        list(items_of(sampled(own, COMPARED))),
        list(items_of(sampled(golden, OTHERS))),
        list(items_of(sampled(others, OTHERS))),
        one_label=not classifier.multi_label,
        progress=progress,
    )
    figures["at"] = timezone.now().isoformat()
    with effect():
        Dataset.objects.filter(pk=dataset.pk).update(findings=figures)
        audit.record("system", "dataset.examine", f"dataset {dataset.pk}", items=figures["items"])
    dataset.findings = figures
    return dataset


def sampled(items: "QuerySet[TrainingDataItem]", most: int) -> "QuerySet[TrainingDataItem]":
    """About `most` of the items, the same ones each time: those with the lowest content hashes, which are uniform."""
    total = items.count()
    if total <= most:
        return items
    return items.filter(content_hash__lt=f"{int(2**64 * most / total):016x}")


def items_of(items: "QuerySet[TrainingDataItem]") -> "Iterator[Item]":
    from training.examination import Item

    for some in batches(items.select_related("dataset", "classifier")):
        for item in some:
            text = "\n".join(str(text) for text in item.fields.values())[:CHARACTERS]
            yield Item(item.pk, text, item.label_parts, item.dataset.name if item.dataset else "")
