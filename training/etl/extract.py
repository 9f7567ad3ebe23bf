"""Reading evidence: feedback not yet taken in, and examples that clients gave. Touches rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import F, Q, QuerySet

from interactions.models import Feedback, UserInteraction
from registry.labels import MOST_CHARACTERS
from registry.models import Classifier
from training.etl import Dropped, Record, Step
from training.models import TrainingDataItem

BATCH = 1_000  # a transaction: large enough to share its costs, short enough for those who wait to write


class Said(NamedTuple):
    """What a curation reads of one feedback and the interaction it is about."""

    pk: int
    source: str
    trusted: bool
    rating: int | None
    correct_label: str
    updated_at: datetime
    said_at: datetime | None
    curated_at: datetime | None
    interaction_id: UUID
    fields: Mapping[str, str]
    label: str
    labels: str
    confidence: float | None

    @property
    def answered(self) -> str:
        return self.labels or self.label


_COLUMNS = (
    *("pk", "source", "trusted", "rating", "correct_label", "updated_at", "said_at", "curated_at"),
    *("interaction_id", "interaction__fields", "interaction__label", "interaction__labels", "interaction__confidence"),
)


@dataclass(frozen=True)
class Evidence:
    """One batch: the feedback rows and candidate items it came from, and the records they give.

    `dropped` are rows that say nothing a model could learn from, such as a low rating without a correction. `last` is
    the highest key that was looked at, `is_last` says that there is nothing behind it.
    """

    feedback: Sequence[Said]
    items: Sequence[TrainingDataItem]
    step: Step
    last: int
    is_last: bool

    @property
    def size(self) -> int:
        return len(self.feedback) + len(self.items)


def waiting_feedback(classifier: Classifier) -> QuerySet[Feedback]:
    """Feedback on answers of `classifier` that is new, or changed since it was taken in."""
    waiting = Feedback.objects.filter(Q(curated_at=None) | Q(curated_at__lt=F("updated_at")))
    # The sum keeps databases from going through all the classifier's interactions instead of what is waiting.
    asked = waiting.alias(asked=F("interaction__classifier_id") + 0)
    return asked.filter(asked=classifier.pk, interaction__kind=UserInteraction.Kind.CLASSIFY)


def waiting_candidates(classifier: Classifier) -> QuerySet[TrainingDataItem]:
    return TrainingDataItem.objects.filter(classifier=classifier, status=TrainingDataItem.Status.CANDIDATE)


def candidate_evidence(classifier: Classifier, after: int) -> Evidence:
    """The next candidates in the order of their keys."""
    items = list(waiting_candidates(classifier).filter(pk__gt=after).order_by("pk")[:BATCH])
    last = items[-1].pk if items else after
    return Evidence([], items, Step(item_records(items, classifier.input_fields)), last, is_last=len(items) < BATCH)


def item_records(items: Sequence[TrainingDataItem], names: Sequence[str]) -> list[Record]:
    """Items as the steps see them."""
    return [
        Record(
            fields=tuple(item.fields.get(name, "") for name in names),
            label=item.label,
            origin="example",
            source=item.source,
            trusted=not item.source.startswith("anonymous:"),
            item_id=item.pk,
            content_hash=item.content_hash,
            given_at=item.created_at,
            domain=item.domain,
        )
        for item in items
    ]


def feedback_evidence(classifier: Classifier, after: int, *, min_rating: int, lock: bool) -> Evidence:
    """The next feedback rows in the order of their keys; `lock` them where somebody else may curate as well."""
    rows = waiting_feedback(classifier).filter(pk__gt=after).order_by("pk").values_list(*_COLUMNS)[:BATCH]
    read = [Said(*row) for row in rows]
    feedback = _locked(read) if lock and connection.features.has_select_for_update_skip_locked else read
    kept: list[Record] = []
    dropped: list[Dropped] = []
    for record, drop in (_record(said, classifier, min_rating) for said in feedback):
        if drop:
            dropped.append(drop)
        else:
            kept.append(record)
    return Evidence(feedback, [], Step(kept, dropped), read[-1].pk if read else after, is_last=len(read) < BATCH)


def _locked(read: Sequence[Said]) -> list[Said]:
    """Those rows that nobody else holds, and that are still as they were read."""
    rows = Feedback.objects.filter(pk__in=[said.pk for said in read]).select_for_update(skip_locked=True)
    held = {pk: state for pk, *state in rows.values_list("pk", "updated_at", "curated_at")}
    return [said for said in read if held.get(said.pk) == [said.updated_at, said.curated_at]]


def _record(feedback: Said, classifier: Classifier, min_rating: int) -> tuple[Record, Dropped | None]:
    """What one feedback says: a correction proposes other labels, a good rating or the answer named again confirms."""
    is_correction = bool(feedback.correct_label) and feedback.correct_label != feedback.answered
    record = Record(
        fields=tuple(feedback.fields.get(name, "") for name in classifier.input_fields),
        label=feedback.correct_label or feedback.answered,
        origin="corrected" if is_correction else "confirmed",
        source=feedback.source,
        trusted=feedback.trusted,
        rating=feedback.rating,
        feedback_id=feedback.pk,
        interaction_id=feedback.interaction_id,
        confidence=feedback.confidence,
        given_at=feedback.said_at or feedback.updated_at,
    )
    if not feedback.correct_label and (feedback.rating is None or feedback.rating < min_rating):
        return record, Dropped(record, "low_rating", "A low rating without a correction says not what is right.")
    if not is_correction and feedback.rating is not None and feedback.rating < min_rating:
        return record, Dropped(record, "contradiction", "A low rating, and yet its correction is the answer itself.")
    if unknown := classifier.unknown_labels(record.label):
        return record, Dropped(record, "unknown_label", f"{unknown[0]!r} is not a label of the classifier any more.")
    if len(record.label) > MOST_CHARACTERS:
        return record, Dropped(record, "too_many_labels", f"Its labels have more than {MOST_CHARACTERS} characters.")
    return record, None


def taken_in_before(evidence: Evidence) -> Iterator[tuple[Said, str]]:
    """Feedback that was taken in before and has changed since, with the label it stands for now ("": none)."""
    labels = {record.feedback_id: record.label for record in evidence.step.kept}
    for row in evidence.feedback:
        if row.curated_at is not None:
            yield row, labels.get(row.pk, "")
