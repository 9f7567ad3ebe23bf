"""Last step: records become training items. Touches rows."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.db import connection

from interactions.insertion import conversions, insert_into
from registry.models import Classifier
from training.etl import Dropped, Record
from training.etl.trust import is_held
from training.models import Review, TrainingDataItem

Status = TrainingDataItem.Status
LIVE = (Status.APPROVED, Status.REVIEW, Status.CANDIDATE)
# Shown to staff as rejected items.
KEPT_DROPS = frozenset(
    {"inappropriate", "low_quality", "over_represented", "over_domain", "held_out", "near_duplicate"}
)
REASON_LENGTH = 300
NewItem = dict[str, Any]  # column: value


@dataclass
class Known:
    """What items say of some texts: `pairs` of (content hash, label) that exist, the `labels` {content hash: label}
    that stand (an approved one before one that waits), the pairs that were `rejected`, and those among them that a
    reviewer `refused`."""

    pairs: set[tuple[str, str]] = field(default_factory=set)
    labels: dict[str, str] = field(default_factory=dict)
    rejected: set[tuple[str, str]] = field(default_factory=set)
    refused: set[tuple[str, str]] = field(default_factory=set)

    def add(self, content_hash: str, label: str) -> None:
        self.pairs.add((content_hash, label))
        self.labels.setdefault(content_hash, label)


def known_items(classifier: Classifier, hashes: Collection[str], *, except_ids: Collection[int] = ()) -> Known:
    """Look up the texts with these content hashes among the items of `classifier`."""
    items = TrainingDataItem.objects.filter(classifier=classifier, content_hash__in=hashes)
    rows = list(items.exclude(pk__in=except_ids).values_list("pk", "content_hash", "label", "status"))
    live = [row for row in rows if row[2] and row[3] in LIVE]  # one without a label says nothing yet
    known = Known()
    for _, content_hash, label, _ in sorted(live, key=lambda row: (LIVE.index(row[3]), row[0])):
        known.add(content_hash, label)
    rejected = {pk: (content_hash, label) for pk, content_hash, label, status in rows if status == Status.REJECTED}
    known.rejected = set(rejected.values())
    if rejected:
        reviews = Review.objects.filter(item__in=rejected, verdict__in=[Review.Verdict.REJECT, Review.Verdict.RELABEL])
        known.refused = {rejected[pk] for pk in reviews.values_list("item", flat=True)}
    return known


def new_items(classifier: Classifier, kept: Iterable[Record], *, now: datetime) -> list[NewItem]:
    """Rows for records that come from feedback, in their order."""
    return [_item(classifier, record, *verdict_of(record), now) for record in kept if record.item_id is None]


def rejected_items(
    classifier: Classifier,
    dropped: Iterable[Dropped],
    *,
    known: Collection[tuple[str, str]],
    made: Mapping[tuple[str, str], int],
    now: datetime,
) -> list[NewItem]:
    """Rows of rejected items for drops that staff should see; those that are `known` as rejected are seen already.

    `made` tells the ids of the items that this batch made, by content hash and label.
    """
    return [
        _item(classifier, drop.record, Status.REJECTED, reason_of(drop, made), now)
        for drop in dropped
        if drop.record.item_id is None
        and drop.kind in KEPT_DROPS
        and (drop.record.content_hash, drop.record.label) not in known
    ]


def reason_of(drop: Dropped, made: Mapping[tuple[str, str], int]) -> str:
    """Why it was left out, with the item that was made of what stays in its place."""
    if drop.twin is None:
        return drop.reason
    item_id = drop.twin.item_id or made.get((drop.twin.content_hash, drop.twin.label))
    return drop.reason.replace("{twin}", str(item_id or "of the same day"))


def decided_items(
    candidates: Mapping[int, TrainingDataItem],
    kept: Iterable[Record],
    dropped: Iterable[Dropped],
    *,
    made: Mapping[tuple[str, str], int],
    now: datetime,
) -> list[TrainingDataItem]:
    """The candidates (by id) with what the steps found about them, not yet saved."""
    decided = []
    for record in kept:
        if record.item_id is not None:
            decided.append(_decide(candidates[record.item_id], record, *verdict_of(record), now))
    for drop in dropped:
        if drop.record.item_id is not None:
            item = candidates[drop.record.item_id]
            decided.append(_decide(item, drop.record, Status.REJECTED, reason_of(drop, made), now))
    return decided


def verdict_of(record: Record) -> tuple[str, str]:
    """Status and reason: approved, unless there is a doubt; in quarantine where it came in a flood."""
    if record.doubts:
        return Status.QUARANTINED if is_held(record) else Status.REVIEW, " ".join(
            doubt.reason for doubt in record.doubts
        )
    because = {
        "confirmed": f"A {'person' if record.rating is None else 'rating'} confirmed the answer.",
        "corrected": "A person corrected the answer.",
        "example": "A client gave it as an example.",
    }
    return Status.APPROVED, because[record.origin]


def _item(classifier: Classifier, record: Record, status: str, reason: str, now: datetime) -> NewItem:
    return {
        "classifier_id": classifier.pk,
        "interaction_id": record.interaction_id,
        "origin": record.origin,
        "source": record.source,
        "fields": fields_dict(classifier.input_fields, record.fields),
        "label": record.label,
        "quality": record.quality,
        "domain": record.domain,
        "status": status,
        "reason": reason[:REASON_LENGTH],
        "content_hash": record.content_hash,
        "cluster": record.cluster,
        "compared": status in LIVE,
        "created_at": now,
        "decided_at": None if status == Status.REVIEW else now,
    }


def items_insert(rows: Sequence[NewItem]) -> dict[tuple[str, str], int]:
    """Insert items without the ORM's preparation of each value; {(content hash, label): id}.

    Where somebody else has made the same live item since it was looked up, theirs will do.
    """
    if not rows:
        return {}
    ids: dict[tuple[str, str], int] = {}
    insert = replace(insert_into(TrainingDataItem, tuple(rows[0]), connection.vendor), tail=_TAIL)
    with connection.cursor() as cursor:
        for statement in insert.statements(_prepared(rows)):
            cursor.execute(*statement)
            ids |= {(content_hash, label): pk for pk, content_hash, label in cursor.fetchall()}
    for row in rows:
        key = (row["content_hash"], row["label"])
        if key not in ids:
            same = TrainingDataItem.objects.filter(classifier=row["classifier_id"], content_hash=key[0], label=key[1])
            ids[key] = same.filter(status__in=LIVE).values_list("pk", flat=True).get()
    return ids


_TAIL = " ON CONFLICT DO NOTHING RETURNING id, content_hash, label"


def _prepared(rows: Sequence[NewItem]) -> list[tuple[Any, ...]]:
    """The values as the database stores them, in the order of the first row's columns."""
    uuid, moment, document = conversions()
    prepare = {"interaction_id": uuid, "fields": document, "created_at": moment, "decided_at": moment}
    steps = [(name, prepare.get(name)) for name in rows[0]]
    return [
        tuple([row[name] if step is None or row[name] is None else step(row[name]) for name, step in steps])
        for row in rows
    ]


def _decide(item: TrainingDataItem, record: Record, status: str, reason: str, now: datetime) -> TrainingDataItem:
    item.status, item.reason = status, reason[:REASON_LENGTH]
    item.decided_at = None if status == Status.REVIEW else now
    item.cluster, item.compared = record.cluster, status in LIVE
    if status != Status.REJECTED:
        item.quality, item.domain = record.quality, record.domain
    return item


def fields_dict(names: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    """As items and interactions store their input: {field name: text}."""
    return dict(zip(names, fields, strict=True))
