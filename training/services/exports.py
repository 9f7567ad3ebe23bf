"""Items and snapshots as flat rows, for files that people take away."""

from collections.abc import Iterator
from typing import Any

from registry.models import Classifier
from training.etl.load import LIVE
from training.models import DatasetSnapshot, TrainingDataItem


def items_to_export(classifier: Classifier) -> Iterator[dict[str, Any]]:
    """The items of a classifier that have not been rejected, as flat rows, in the order of their keys."""
    items = TrainingDataItem.objects.filter(classifier=classifier, status__in=LIVE).order_by("pk")
    for item in items.iterator(chunk_size=1_000):
        yield {**item.fields, classifier.label_field: item.label, "split": item.split, "status": item.status}


def snapshot_to_export(snapshot: DatasetSnapshot) -> Iterator[dict[str, Any]]:
    """The rows a snapshot froze whose items still exist, in the order of the items."""
    names, label_field = snapshot.classifier.input_fields, snapshot.classifier.label_field
    rows = snapshot.rows.exclude(item=None).select_related("item").order_by("item_id")
    for row in rows.iterator(chunk_size=1_000):
        texts = row.item.fields if row.item else {}
        yield {name: texts.get(name) for name in names} | {
            label_field: row.label,
            "split": row.split,
            "weight": row.weight,
        }
