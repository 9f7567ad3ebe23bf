"""The golden set against leaks: what copies it is not learnt from, whichever way it came in."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kalimtak.core.findings import batches
from registry.models import Classifier
from training.etl.duplicates import skeletons
from training.etl.held_out import HeldOut, copy_reason
from training.models import TrainingDataItem

if TYPE_CHECKING:
    from training.analysis import Row


def held_out_of(classifier: Classifier) -> HeldOut:
    """The golden set of `classifier` as it is now, to look for copies of it."""
    names = classifier.input_fields
    golden = TrainingDataItem.objects.filter(classifier=classifier).golden().only("fields")
    return HeldOut(
        (item.pk, skeletons([item.fields.get(name, "") for name in names])) for some in batches(golden) for item in some
    )


def copies_of_held_out(classifier: Classifier) -> set[int]:
    """The trainable items of `classifier` that are copies of its golden items."""
    held_out, names = held_out_of(classifier), classifier.input_fields
    copies: set[int] = set()
    if not held_out:
        return copies
    for items in batches(TrainingDataItem.objects.filter(classifier=classifier).trainable().only("fields")):
        found = held_out.find([skeletons([item.fields.get(name, "") for name in names]) for item in items])
        copies.update(item.pk for item, copied in zip(items, found, strict=True) if copied is not None)
    return copies


def rows_without_copies(
    rows: Sequence["Row"], held_out: HeldOut, *, spared: Callable[["Row"], bool], refuse: Callable[[int, str], None]
) -> list["Row"]:
    """The rows of a file that copy no golden text. `spared` are those that are not to be learnt from; `refuse` hears
    line and reason of each that is left out.
    """
    kept = []
    for row, item_id in zip(rows, held_out.find([skeletons(row.fields) for row in rows]), strict=True):
        if item_id is None or spared(row):
            kept.append(row)
        else:
            refuse(row.line, copy_reason(item_id))
    return kept
