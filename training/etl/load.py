"""Last step: records become training items. Touches rows."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Q

from registry.models import Classifier
from training.etl import Dropped, Record
from training.models import Review, TrainingDataItem

Status = TrainingDataItem.Status
LIVE = (Status.APPROVED, Status.REVIEW, Status.CANDIDATE)
KEPT_DROPS = frozenset({"inappropriate", "low_quality", "over_represented"})  # shown to staff as rejected items
REASON_LENGTH = 300


@dataclass
class Known:
    """What items say of some texts: `pairs` of (content hash, label) that exist, the `labels` {content hash: label}
    that stand (an approved one before one that waits), and the pairs that a reviewer `refused`."""

    pairs: set[tuple[str, str]] = field(default_factory=set)
    labels: dict[str, str] = field(default_factory=dict)
    refused: set[tuple[str, str]] = field(default_factory=set)

    def add(self, content_hash: str, label: str) -> None:
        self.pairs.add((content_hash, label))
        self.labels.setdefault(content_hash, label)


def known_items(classifier: Classifier, hashes: Collection[str], *, except_ids: Collection[int] = ()) -> Known:
    """Look up the texts with these content hashes among the items of `classifier`."""
    items = TrainingDataItem.objects.filter(classifier=classifier, content_hash__in=hashes)
    live = items.filter(status__in=LIVE).exclude(pk__in=except_ids).exclude(label="")  # which says nothing yet
    known = Known()
    rows = list(live.values_list("content_hash", "label", "status"))
    for content_hash, label, _ in sorted(rows, key=lambda row: LIVE.index(row[2])):
        known.add(content_hash, label)
    told_wrong = Q(reviews__verdict__in=[Review.Verdict.REJECT, Review.Verdict.RELABEL])
    known.refused = set(items.filter(told_wrong, status=Status.REJECTED).values_list("content_hash", "label"))
    return known


def new_items(
    classifier: Classifier, kept: Iterable[Record], dropped: Iterable[Dropped], *, now: datetime
) -> list[TrainingDataItem]:
    """Unsaved items for records that come from feedback; drops that staff should see become rejected items."""
    made = [_item(classifier, record, *verdict_of(record), now) for record in kept if record.item_id is None]
    made += [
        _item(classifier, drop.record, Status.REJECTED, drop.reason, now)
        for drop in dropped
        if drop.record.item_id is None and drop.kind in KEPT_DROPS
    ]
    return made


def decided_items(
    candidates: Mapping[int, TrainingDataItem], kept: Iterable[Record], dropped: Iterable[Dropped], *, now: datetime
) -> list[TrainingDataItem]:
    """The candidates (by id) with the status that the steps gave them, not yet saved."""
    decided = []
    for record in kept:
        if record.item_id is not None:
            decided.append(_decide(candidates[record.item_id], *verdict_of(record), now, record.quality))
    for drop in dropped:
        if drop.record.item_id is not None:
            decided.append(_decide(candidates[drop.record.item_id], Status.REJECTED, drop.reason, now, None))
    return decided


def verdict_of(record: Record) -> tuple[str, str]:
    """Status and reason: approved, unless there is a doubt."""
    if record.doubts:
        return Status.REVIEW, " ".join(doubt.reason for doubt in record.doubts)
    because = {
        "confirmed": "A rating confirmed the answer.",
        "corrected": "A person corrected the answer.",
        "example": "A client gave it as an example.",
    }
    return Status.APPROVED, because[record.origin]


def _item(classifier: Classifier, record: Record, status: str, reason: str, now: datetime) -> TrainingDataItem:
    return TrainingDataItem(
        classifier=classifier,
        interaction_id=record.interaction_id,
        origin=record.origin,
        source=record.source,
        fields=fields_dict(classifier.input_fields, record.fields),
        label=record.label,
        quality=record.quality,
        status=status,
        reason=reason[:REASON_LENGTH],
        content_hash=record.content_hash,
        decided_at=None if status == Status.REVIEW else now,
    )


def _decide(item: TrainingDataItem, status: str, reason: str, now: datetime, quality: float | None) -> TrainingDataItem:
    item.status, item.reason = status, reason[:REASON_LENGTH]
    item.decided_at = None if status == Status.REVIEW else now
    if quality is not None:
        item.quality = quality
    return item


def fields_dict(names: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    """As items and interactions store their input: {field name: text}."""
    return dict(zip(names, fields, strict=True))
