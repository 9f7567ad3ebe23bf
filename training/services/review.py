"""What a reviewer decides about items: approve, reject, or relabel, which makes a new item.

A share of the items (`review.second_share`) is judged by two, neither of whom sees the other's word; where they
disagree, a third decides. With `review.approve: agree:N` every item waits until N say the same.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from interactions.models import UserInteraction
from interactions.services import review_note
from kalimtak.core import audit
from kalimtak.core.errors import Conflict, InvalidInput
from registry.services import label_given
from training.etl.load import LIVE, REASON_LENGTH
from training.models import Review, ReviewLease, TrainingDataItem
from training.services.opinions import Standing, standing_of
from training.services.trust import own_items

Status = TrainingDataItem.Status
Verdict = Review.Verdict
BULK = 100


def item_review(
    item: TrainingDataItem, *, reviewer: AbstractBaseUser, verdict: str, label: str = "", seen: str | None = None
) -> TrainingDataItem:
    """Record a verdict and act on it; the item as it is now, or for a relabel the new item. See `review_undo`.

    `label` is that of a relabel: one label, or the text of a set (`registry.labels`). `seen` is `item_state` of the
    item as the reviewer saw it. Where the policy asks for several opinions, nothing is decided before they agree or a
    third has spoken; by `agree:N` the subjects whose word the item is count as well. An approved text replaces an
    approved item with the same text and another label. Raises `InvalidInput` for an unknown verdict or label, and
    `Conflict` for an item that is in quarantine, was replaced, was decided by somebody else since it was seen
    (`decided_meanwhile`), over which this reviewer is in dispute, or that is their own (`own_item`), which they can
    only reject.
    """
    decision = _Decision(reviewer, _checked_verdict(verdict), label)
    with transaction.atomic():
        locked = TrainingDataItem.objects.select_for_update(of=("self",)).select_related("classifier").get(pk=item.pk)
        if seen is not None and seen != item_state(locked):
            told = f"Somebody decided item {locked.pk} meanwhile. {locked.reason}".strip()
            raise Conflict(told, code="decided_meanwhile")
        if decision.barred([item.pk]):
            raise Conflict(f"Item {item.pk} is your own word; another reviewer has to judge it.", code="own_item")
        trail = Trail()
        result = decision.apply(locked, trail)
        trail.keep(locked, reviewer)
        ReviewLease.objects.filter(item=locked).delete()
        data = {"label": result.label, "classifier": locked.classifier.slug, "status": result.status}
        audit.record(decision.actor, f"item.{verdict}", f"item {locked.pk}", **data)
    return result


def items_review(
    items: "QuerySet[TrainingDataItem]", *, reviewer: AbstractBaseUser, verdict: str, label: str = ""
) -> int:
    """The same verdict on many items, those whose status it would not change and own ones left alone; how many were
    decided.

    At most `BULK` items and their audit event are one transaction; those before an error stay decided. Golden items
    are changed one by one or not at all: raises `Conflict` (`golden_item`) where the verdict would change one.
    """
    decision = _Decision(reviewer, _checked_verdict(verdict), label)
    if verdict != Verdict.APPROVE and items.filter(split=TrainingDataItem.Split.TEST, status=Status.APPROVED).exists():
        raise Conflict(
            "Some of these items are in the golden set, which many versions were measured on; change them one by one.",
            code="golden_item",
        )
    settled = {Verdict.APPROVE: Status.APPROVED, Verdict.REJECT: Status.REJECTED}.get(decision.verdict)
    open_items = items.exclude(status__in=[Status.QUARANTINED, settled or Status.REJECTED])
    if verdict == Verdict.RELABEL:
        open_items = open_items.exclude(label=label)
    if verdict == Verdict.APPROVE:
        open_items = open_items.exclude(label="")  # drawn at random, and nobody has said yet what it is
    in_dispute = TrainingDataItem.Why.DISPUTE  # over which this reviewer has had a say
    open_items = open_items.exclude(why=in_dispute, reviews__reviewer=reviewer.pk)
    keys = list(open_items.order_by("pk").values_list("pk", flat=True))
    return sum(decision.apply_batch(keys[start : start + BULK], settled) for start in range(0, len(keys), BULK))


def item_state(item: TrainingDataItem) -> str:
    """What tells whether somebody decided an item meanwhile: its status, and when it got it."""
    return f"{item.status}.{item.decided_at.isoformat() if item.decided_at else ''}"


@dataclass
class Trail:
    """What a verdict changed, as it was before: enough to undo it. Kept on the review, as JSON."""

    items: dict[int, dict[str, Any]] = field(default_factory=dict)
    touched: dict[int, TrainingDataItem] = field(default_factory=dict)
    made: TrainingDataItem | None = None
    interactions: list[dict[str, Any]] = field(default_factory=list)

    def note(self, item: TrainingDataItem) -> None:
        """Call this before `item` changes; only the first time counts."""
        if item.pk is None:
            self.made = item
        elif item.pk not in self.items:
            self.items[item.pk] = {name: getattr(item, name) for name in UNDONE} | {
                "decided_at": item.decided_at.isoformat() if item.decided_at else None
            }
        if item.pk is not None:
            self.touched[item.pk] = item

    def note_interactions(self, keys: Sequence[Any]) -> None:
        for row in UserInteraction.objects.filter(pk__in=keys).values("pk", "reviewed_label", "reviewed_at"):
            at = row["reviewed_at"]
            self.interactions.append(
                {"pk": str(row["pk"]), "label": row["reviewed_label"], "at": at.isoformat() if at else None}
            )

    def keep(self, item: TrainingDataItem, reviewer: Any) -> None:
        """Write it on the reviewer's newest review of `item`."""
        after = {**self.touched, **({self.made.pk: self.made} if self.made else {})}
        before = {
            "items": {str(key): state for key, state in self.items.items()},
            "made": self.made.pk if self.made else None,
            "interactions": self.interactions,
            "after": {str(key): item_state(each) for key, each in after.items()},
        }
        Review.objects.filter(pk=item.reviews.filter(reviewer=reviewer).latest("pk").pk).update(before=before)


UNDONE = ("status", "reason", "split", "priority", "why")  # what of an item a verdict changes, beside `decided_at`


def _checked_verdict(verdict: str) -> Review.Verdict:
    if verdict not in Verdict.values:
        message = f"Use one of {', '.join(Verdict.values)}."
        raise InvalidInput(message, fields={"verdict": [message]})
    return Verdict(verdict)


@dataclass(frozen=True)
class _Decision:
    """One reviewer's verdict, to be applied to locked items within a transaction."""

    reviewer: Any
    verdict: Review.Verdict
    label: str

    @property
    def actor(self) -> str:
        return str(self.reviewer.get_username())

    @transaction.atomic
    def apply_batch(self, keys: Sequence[int], settled: str | None) -> int:
        """Apply to the items with these keys but those that are `settled` by now; how many that were."""
        items = TrainingDataItem.objects.filter(pk__in=keys).select_related("classifier").order_by("pk")
        decided, barred = 0, self.barred(keys)
        for item in items.select_for_update(of=("self",)):
            item.refresh_from_db(fields=["status"])  # an earlier one of the batch may have replaced it
            if item.status != settled and item.pk not in barred:
                self.apply(item, Trail())
                decided += 1
        if decided:
            data = {"label": self.label, "first": keys[0], "last": keys[-1]}
            audit.record(self.actor, f"items.{self.verdict}", f"{decided} items", **data)
        return decided

    def barred(self, keys: Sequence[int]) -> set[int]:
        """Those that are the reviewer's own word: nobody makes a label of it, while taking it back is no such thing."""
        if self.verdict == Verdict.REJECT:
            return set()
        own = own_items(keys, self.reviewer)
        return own - self._relabelled(own) if own and self.verdict == Verdict.RELABEL else own

    def _relabelled(self, keys: Collection[int]) -> set[int]:
        """Those that the reviewer's relabel of somebody else's item made: another relabel corrects that verdict."""
        relabel = Review.objects.filter(
            reviewer=self.reviewer,
            verdict=Verdict.RELABEL,
            label=OuterRef("label"),
            item__classifier=OuterRef("classifier"),
            item__content_hash=OuterRef("content_hash"),
        )
        made = TrainingDataItem.objects.filter(Exists(relabel), pk__in=keys)
        return set(made.values_list("pk", flat=True))

    def apply(self, item: TrainingDataItem, trail: Trail) -> TrainingDataItem:
        if item.status == Status.QUARANTINED:
            raise Conflict(f"Item {item.pk} is in quarantine; release it first.", code="quarantined")
        label = self._label_for(item)
        standing = standing_of(item, self.reviewer, self.verdict, label)
        Review.objects.create(
            item=item, reviewer=self.reviewer, verdict=self.verdict, label=label, opinion=standing.opinion
        )
        trail.note(item)
        if not standing.is_decided:
            return _wait(item, standing)
        if self.verdict == Verdict.RELABEL:
            decided = self._relabel(item, label, trail)
        else:
            decided = self._approve(item, trail) if self.verdict == Verdict.APPROVE else self._reject(item, trail)
        if decided.status == Status.APPROVED:
            self._note_interactions(item, decided, trail)
        return decided

    def _note_interactions(self, item: TrainingDataItem, decided: TrainingDataItem, trail: Trail) -> None:
        """The answer that the item comes from, and all that were drawn at random with this text."""
        keys = set(item.draws.values_list("interaction_id", flat=True))
        if decided.interaction_id:
            keys.add(decided.interaction_id)
        trail.note_interactions(list(keys))
        for key in keys:
            review_note(key, label=decided.label)

    def _label_for(self, item: TrainingDataItem) -> str:
        classifier = item.classifier
        if self.verdict == Verdict.APPROVE and not item.label:
            raise InvalidInput("Nobody has said yet what this text is: give it a label, or reject it.")
        if self.verdict == Verdict.APPROVE and (unknown := classifier.unknown_labels(item.label)):
            raise InvalidInput(f"{unknown[0][:60]!r} is not a label of {classifier} any more; relabel or reject it.")
        if self.verdict != Verdict.RELABEL:
            return item.label
        if not self.label:
            raise InvalidInput("Name the right label.", fields={"label": ["Name the right label."]})
        parts = classifier.label_parts(self.label)
        label, labels = ("", parts) if classifier.multi_label else (self.label, None)
        label = label_given(classifier, label, labels, known=parts, names=("label", "label"))
        if label == item.label:
            message = f"The item has the label {label!r} already; approve it instead."
            raise InvalidInput(message, fields={"label": [message]})
        return label

    def _approve(self, item: TrainingDataItem, trail: Trail) -> TrainingDataItem:
        if item.status == Status.REJECTED and (same := _same_text(item).filter(label=item.label).first()):
            raise Conflict(f"Item {same.pk} holds the same text and label; review that one.", code="duplicate_item")
        item.split = self._replace_others(item, trail)
        return _settle(item, Status.APPROVED, f"Approved by {self.actor}.", trail)

    def _reject(self, item: TrainingDataItem, trail: Trail) -> TrainingDataItem:
        return _settle(item, Status.REJECTED, f"Rejected by {self.actor}.", trail)

    def _relabel(self, item: TrainingDataItem, label: str, trail: Trail) -> TrainingDataItem:
        """The text keeps its old item; the new label gets a new one, or the item that says the same already."""
        before = item.label
        _settle(item, Status.REJECTED, f"Relabelled as {label!r} by {self.actor}.", trail)
        new = _same_text(item).filter(label=label).first() or TrainingDataItem(
            classifier=item.classifier,
            dataset=item.dataset,
            interaction=item.interaction,
            origin=TrainingDataItem.Origin.CORRECTED,
            source=f"user:{self.reviewer.pk}",
            fields=item.fields,
            label=label,
            weight=item.weight,
            domain=item.domain,
            split=item.split,
            script=item.script,
            content_hash=item.content_hash,
        )
        trail.note(new)
        new.split = self._replace_others(new, trail) if new.split != TrainingDataItem.Split.TEST else new.split
        told = f"Relabelled from {before!r} by {self.actor}." if before else f"Labelled by {self.actor}."
        return _settle(new, Status.APPROVED, told, trail)

    def _replace_others(self, item: TrainingDataItem, trail: Trail) -> str:
        """Reject approved items with the same text and another label; the split the item now belongs to.

        It inherits a place in the golden set, so that no text is both learnt from and measured on.
        """
        others = list(_same_text(item).filter(status=Status.APPROVED).exclude(label=item.label))
        for other in others:
            _settle(other, Status.REJECTED, "replaced by a reviewed correction", trail)
        is_golden = any(other.split == TrainingDataItem.Split.TEST for other in others)
        return TrainingDataItem.Split.TEST if is_golden else item.split


def _same_text(item: TrainingDataItem) -> "QuerySet[TrainingDataItem]":
    """Other items with this text that have not been rejected."""
    same = TrainingDataItem.objects.filter(classifier_id=item.classifier_id, content_hash=item.content_hash)
    return same.filter(status__in=LIVE).exclude(pk=item.pk)


def _settle(item: TrainingDataItem, status: str, reason: str, trail: Trail) -> TrainingDataItem:
    trail.note(item)
    item.status, item.reason, item.decided_at = status, reason[:REASON_LENGTH], timezone.now()
    item.save()
    return item


def _wait(item: TrainingDataItem, standing: Standing) -> TrainingDataItem:
    """Before everything else in the queue, and with nothing that tells the next reviewer what was said."""
    if item.status != Status.APPROVED:
        item.status = Status.REVIEW
    item.reason, item.why, item.priority = standing.reason, standing.why, standing.priority
    item.save(update_fields=["status", "reason", "why", "priority"])
    return item
