"""Items and snapshots as flat rows, for files that people take away.

They are read in the order of their keys, a short query per batch, so that a long export holds up nobody.
"""

from collections.abc import Iterator
from typing import Any

from kalimtak.core.findings import batches
from registry.models import Classifier
from training.etl.load import LIVE
from training.models import DatasetSnapshot, SnapshotItem, TrainingDataItem


def export_columns(classifier: Classifier, *, last: str) -> list[str]:
    """The columns of an export; `last` is `status` for items and `weight` for the rows of a snapshot."""
    return [*classifier.input_fields, classifier.label_field, "split", last]


def items_to_export(classifier: Classifier, *, unreviewed: bool = False) -> Iterator[dict[str, Any]]:
    """The approved items of a classifier as flat rows, in the order of their keys; `unreviewed` adds those that wait.

    Whoever trains on the file elsewhere need not know what a status is, so what nobody approved has to be asked for.
    """
    statuses = LIVE if unreviewed else (TrainingDataItem.Status.APPROVED,)
    for items in batches(TrainingDataItem.objects.filter(classifier=classifier, status__in=statuses)):
        for item in items:
            yield {**item.fields, classifier.label_field: item.label, "split": item.split, "status": item.status}


def snapshot_to_export(snapshot: DatasetSnapshot) -> Iterator[dict[str, Any]]:
    """The rows a snapshot froze whose items still exist, in the order of the items."""
    names, label_field = snapshot.classifier.input_fields, snapshot.classifier.label_field
    held = SnapshotItem.objects.filter(snapshot=snapshot).exclude(item=None).select_related("item")
    for rows in batches(held):  # written in the order of their items
        for row in rows:
            texts = row.item.fields if row.item else {}
            yield {name: texts.get(name) for name in names} | {
                label_field: row.label,
                "split": row.split,
                "weight": row.weight,
            }
