"""Reading evidence: feedback not yet taken in, and examples that clients gave. Touches rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.db import connection
from django.db.models import F, Q, QuerySet

from interactions.models import Feedback, UserInteraction
from registry.labels import MOST_CHARACTERS
from registry.models import Classifier
from training.etl import Dropped, Record, Step
from training.models import TrainingDataItem

BATCH = 500


@dataclass(frozen=True)
class Evidence:
    """One batch: the feedback rows and candidate items it came from, and the records they give.

    `dropped` are rows that say nothing a model could learn from, such as a low rating without a correction.
    """

    feedback: Sequence[Feedback]
    items: Sequence[TrainingDataItem]
    step: Step

    @property
    def size(self) -> int:
        return len(self.feedback) + len(self.items)


def waiting_feedback(classifier: Classifier) -> QuerySet[Feedback]:
    """Feedback on answers of `classifier` that is new, or changed since it was taken in."""
    return Feedback.objects.filter(
        Q(curated_at=None) | Q(curated_at__lt=F("updated_at")),
        interaction__classifier=classifier,
        interaction__kind=UserInteraction.Kind.CLASSIFY,
    )


def waiting_candidates(classifier: Classifier) -> QuerySet[TrainingDataItem]:
    return TrainingDataItem.objects.filter(classifier=classifier, status=TrainingDataItem.Status.CANDIDATE)


def candidate_evidence(classifier: Classifier, after: int) -> Evidence:
    """The next candidates in the order of their keys."""
    items = list(waiting_candidates(classifier).filter(pk__gt=after).order_by("pk")[:BATCH])
    names = classifier.input_fields
    records = [
        Record(
            fields=tuple(item.fields.get(name, "") for name in names),
            label=item.label,
            origin="example",
            source=item.source,
            trusted=not item.source.startswith("anonymous:"),
            item_id=item.pk,
            given_at=item.created_at,
        )
        for item in items
    ]
    return Evidence([], items, Step(records))


def feedback_evidence(classifier: Classifier, after: int, *, min_rating: int, lock: bool) -> Evidence:
    """The next feedback rows in the order of their keys; `lock` them where somebody else may curate as well."""
    rows = waiting_feedback(classifier).filter(pk__gt=after).select_related("interaction").order_by("pk")
    if lock and connection.features.has_select_for_update_skip_locked:
        rows = rows.select_for_update(of=("self",), skip_locked=True)
    feedback = list(rows[:BATCH])
    kept: list[Record] = []
    dropped: list[Dropped] = []
    for record, drop in (_record(row, classifier, min_rating) for row in feedback):
        if drop:
            dropped.append(drop)
        else:
            kept.append(record)
    return Evidence(feedback, [], Step(kept, dropped))


def _record(feedback: Feedback, classifier: Classifier, min_rating: int) -> tuple[Record, Dropped | None]:
    """What one feedback says: a correction proposes other labels, a good rating confirms those answered."""
    interaction = feedback.interaction
    is_correction = bool(feedback.correct_label) and feedback.correct_label != interaction.answered
    record = Record(
        fields=tuple(interaction.fields.get(name, "") for name in classifier.input_fields),
        label=feedback.correct_label or interaction.answered,
        origin="corrected" if is_correction else "confirmed",
        source=feedback.source,
        trusted=feedback.trusted,
        rating=feedback.rating,
        feedback_id=feedback.pk,
        interaction_id=interaction.pk,
        confidence=interaction.confidence,
        given_at=feedback.updated_at,
    )
    if not feedback.correct_label and (feedback.rating is None or feedback.rating < min_rating):
        return record, Dropped(record, "low_rating", "A low rating without a correction says not what is right.")
    if unknown := classifier.unknown_labels(record.label):
        return record, Dropped(record, "unknown_label", f"{unknown[0]!r} is not a label of the classifier any more.")
    if len(record.label) > MOST_CHARACTERS:
        return record, Dropped(record, "too_many_labels", f"Its labels have more than {MOST_CHARACTERS} characters.")
    return record, None


def taken_in_before(evidence: Evidence) -> Iterator[tuple[Feedback, str]]:
    """Feedback that was taken in before and has changed since, with the label it stands for now ("": none)."""
    labels = {record.feedback_id: record.label for record in evidence.step.kept}
    for row in evidence.feedback:
        if row.curated_at is not None:
            yield row, labels.get(row.pk, "")
