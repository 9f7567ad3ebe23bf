"""Taking a verdict back: item, reviews and what was noted on the interaction are again what they were."""

from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from interactions.services import review_restore
from kalimtak.core import audit
from kalimtak.core.errors import Conflict
from training.etl.load import LIVE
from training.models import Review, SnapshotItem, TrainingDataItem
from training.services.review import UNDONE, item_state


def review_undo(reviewer: Any) -> TrainingDataItem:
    """Undo the last verdict of `reviewer`; the item, as it was before.

    Raises `Conflict`: `nothing_to_undo`; `bulk_verdict` where the last one was on many items at once;
    `changed_since` where somebody decided one of the items anew, or a training has used one that the verdict made.
    """
    with transaction.atomic():
        review = Review.objects.select_for_update().filter(reviewer=reviewer).order_by("-pk").first()
        if review is None:
            raise Conflict("You have given no verdict that could be undone.", code="nothing_to_undo")
        if not review.before:
            message = "Your last verdict was on several items at once; change them in the list."
            raise Conflict(message, code="bulk_verdict")
        _undo(review)
        item = TrainingDataItem.objects.select_related("classifier").get(pk=review.item_id)
        actor = str(reviewer.get_username())
        audit.record(actor, "item.undo", f"item {item.pk}", verdict=review.verdict, status=item.status)
        review.delete()
    return item


def _undo(review: Review) -> None:
    before, made = review.before["items"], review.before["made"]
    keys = [int(key) for key in before] + ([made] if made else [])
    items = TrainingDataItem.objects.select_for_update().order_by("pk").in_bulk(keys)
    if Review.objects.filter(item=review.item_id, pk__gt=review.pk).exists():
        raise Conflict(f"Somebody else judged item {review.item_id} since then.", code="changed_since")
    for key, state in review.before["after"].items():
        item = items.get(int(key))
        if item is None or item_state(item) != state:
            raise Conflict(f"Item {key} was decided anew since then; review it again instead.", code="changed_since")
    if made:
        _unmake(items[made])
    # First what leaves the set, then what comes back into it: the same text with the same label is one live item.
    for key, state in sorted(before.items(), key=lambda pair: pair[1]["status"] in LIVE):
        _restore(items[int(key)], state)
    for note in review.before["interactions"]:
        review_restore(note["pk"], label=note["label"], at=_moment(note["at"]))


def _unmake(item: TrainingDataItem) -> None:
    if SnapshotItem.objects.filter(item=item).exists() or item.reviews.exists():
        raise Conflict(f"Item {item.pk} is in use since then; review it again instead.", code="changed_since")
    item.delete()


def _restore(item: TrainingDataItem, state: dict[str, Any]) -> None:
    for name in UNDONE:
        setattr(item, name, state[name])
    item.decided_at = _moment(state["decided_at"])
    try:
        with transaction.atomic():
            item.save(update_fields=[*UNDONE, "decided_at"])
    except IntegrityError:
        message = f"Another item holds the text and label of item {item.pk} by now; review that one."
        raise Conflict(message, code="changed_since") from None


def _moment(written: str | None) -> datetime | None:
    return datetime.fromisoformat(written) if written else None
