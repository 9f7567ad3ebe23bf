"""What a reviewer decides about items: approve, reject, or relabel, which makes a new item."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from interactions.services import review_note
from kalimtak.core import audit
from kalimtak.core.errors import Conflict, InvalidInput
from registry.services import label_given
from training.etl.load import LIVE, REASON_LENGTH
from training.models import Review, TrainingDataItem

Status = TrainingDataItem.Status
Verdict = Review.Verdict
BULK = 100


def item_review(
    item: TrainingDataItem, *, reviewer: AbstractBaseUser, verdict: str, label: str = ""
) -> TrainingDataItem:
    """Record a verdict and act on it; the item as it is now, or for a relabel the new item.

    `label` is that of a relabel: one label, or the text of a set (`registry.labels`). Where the policy says `agree:N`,
    nothing is decided before N reviewers say the same. An approved text replaces an approved item with the same text
    and another label. Raises `InvalidInput` for an unknown verdict or label and `Conflict` for an item that is in
    quarantine or was replaced.
    """
    decision = _Decision(reviewer, _checked_verdict(verdict), label)
    with transaction.atomic():
        locked = TrainingDataItem.objects.select_for_update(of=("self",)).select_related("classifier").get(pk=item.pk)
        result = decision.apply(locked)
        data = {"label": result.label, "classifier": locked.classifier.slug, "status": result.status}
        audit.record(decision.actor, f"item.{verdict}", f"item {locked.pk}", **data)
    return result


def items_review(
    items: "QuerySet[TrainingDataItem]", *, reviewer: AbstractBaseUser, verdict: str, label: str = ""
) -> int:
    """The same verdict on many items, those whose status it would not change left alone; how many were decided.

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
    keys = list(open_items.order_by("pk").values_list("pk", flat=True))
    return sum(decision.apply_batch(keys[start : start + BULK], settled) for start in range(0, len(keys), BULK))


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
        decided = 0
        for item in items.select_for_update(of=("self",)):
            item.refresh_from_db(fields=["status"])  # an earlier one of the batch may have replaced it
            if item.status != settled:
                self.apply(item)
                decided += 1
        if decided:
            data = {"label": self.label, "first": keys[0], "last": keys[-1]}
            audit.record(self.actor, f"items.{self.verdict}", f"{decided} items", **data)
        return decided

    def apply(self, item: TrainingDataItem) -> TrainingDataItem:
        if item.status == Status.QUARANTINED:
            raise Conflict(f"Item {item.pk} is in quarantine; release it first.", code="quarantined")
        label = self._label_for(item)
        Review.objects.create(item=item, reviewer=self.reviewer, verdict=self.verdict, label=label)
        missing = _agreement_missing(item, self.verdict, label)
        if missing:
            if item.status != Status.APPROVED:
                item.status = Status.REVIEW
            item.reason = f"Waits for {missing} more to agree on {self.verdict} as {label!r}."
            item.save(update_fields=["status", "reason"])
            return item
        if self.verdict == Verdict.RELABEL:
            decided = self._relabel(item, label)
        else:
            decided = self._approve(item) if self.verdict == Verdict.APPROVE else self._reject(item)
        if decided.interaction_id and decided.status == Status.APPROVED:
            review_note(decided.interaction_id, label=decided.label)
        return decided

    def _label_for(self, item: TrainingDataItem) -> str:
        classifier = item.classifier
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

    def _approve(self, item: TrainingDataItem) -> TrainingDataItem:
        if item.status == Status.REJECTED and (same := _same_text(item).filter(label=item.label).first()):
            raise Conflict(f"Item {same.pk} holds the same text and label; review that one.", code="duplicate_item")
        item.split = self._replace_others(item)
        return _settle(item, Status.APPROVED, f"Approved by {self.actor}.")

    def _reject(self, item: TrainingDataItem) -> TrainingDataItem:
        return _settle(item, Status.REJECTED, f"Rejected by {self.actor}.")

    def _relabel(self, item: TrainingDataItem, label: str) -> TrainingDataItem:
        """The text keeps its old item; the new label gets a new one, or the item that says the same already."""
        before = item.label
        _settle(item, Status.REJECTED, f"Relabelled as {label!r} by {self.actor}.")
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
            content_hash=item.content_hash,
        )
        new.split = self._replace_others(new) if new.split != TrainingDataItem.Split.TEST else new.split
        return _settle(new, Status.APPROVED, f"Relabelled from {before!r} by {self.actor}.")

    def _replace_others(self, item: TrainingDataItem) -> str:
        """Reject approved items with the same text and another label; the split the item now belongs to.

        It inherits a place in the golden set, so that no text is both learnt from and measured on.
        """
        others = list(_same_text(item).filter(status=Status.APPROVED).exclude(label=item.label))
        for other in others:
            _settle(other, Status.REJECTED, "replaced by a reviewed correction")
        is_golden = any(other.split == TrainingDataItem.Split.TEST for other in others)
        return TrainingDataItem.Split.TEST if is_golden else item.split


def _same_text(item: TrainingDataItem) -> "QuerySet[TrainingDataItem]":
    """Other items with this text that have not been rejected."""
    same = TrainingDataItem.objects.filter(classifier_id=item.classifier_id, content_hash=item.content_hash)
    return same.filter(status__in=LIVE).exclude(pk=item.pk)


def _settle(item: TrainingDataItem, status: str, reason: str) -> TrainingDataItem:
    item.status, item.reason, item.decided_at = status, reason[:REASON_LENGTH], timezone.now()
    item.save()
    return item


def _agreement_missing(item: TrainingDataItem, verdict: str, label: str) -> int:
    """How many more reviewers have to say the same; each reviewer's last word counts."""
    approve = item.classifier.get_policy().review.approve
    needed = int(approve.removeprefix("agree:")) if approve.startswith("agree:") else 1
    last_words: dict[int, tuple[str, str]] = {}
    for reviewer_id, said, as_label in item.reviews.order_by("pk").values_list("reviewer_id", "verdict", "label"):
        last_words[reviewer_id] = (said, as_label)
    return max(0, needed - list(last_words.values()).count((verdict, label)))
