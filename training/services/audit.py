"""The audit slice: answers drawn at random, whose labels alone measure how often the model is right.

What people rate and what a queue prefers says nothing about the rest. So some answers of every day are drawn with equal
chances, and wait for a reviewer without the model's answer beside them, lest it lead the eye.
"""

from collections.abc import Iterator
from uuid import UUID

from django.db import transaction

from interactions.models import UserInteraction
from interactions.services import audit_mark
from kalimtak.core import audit
from registry.models import Classifier
from training.etl.clean import redact_fields
from training.etl.duplicates import content_hash
from training.etl.load import fields_dict
from training.etl.scripts import script_of
from training.models import AuditDraw, TrainingDataItem
from training.selection import uniform_sample

_READ = 5_000
_FIRST = UUID(int=0)


def audit_draw(classifier: Classifier) -> int:
    """Draw the policy's `audit` from the answers since the last draw; how many were drawn.

    Bottom-k sampling by a hash of each answer's id: uniform, and the same again after a crash. A draw is one
    transaction with its audit entry.
    """
    wanted = classifier.get_policy().review.audit
    if not wanted:
        return 0
    window = _Window(classifier)
    drawn = uniform_sample(window.ids(), wanted, salt=f"audit:{classifier.pk}")
    if not drawn:
        return 0
    with transaction.atomic():
        Classifier.objects.select_for_update().get(pk=classifier.pk)  # two draws at once: the second finds nothing new
        if window.is_taken():
            return 0
        answers = UserInteraction.objects.filter(pk__in=drawn).select_related("classifier").order_by("pk")
        items = _items_for(classifier, list(answers))
        AuditDraw.objects.bulk_create(
            AuditDraw(interaction_id=key, item=item, seen=window.seen, drawn=len(items), window_end=window.end)
            for key, item in items.items()
        )
        audit_mark(items)
        audit.record("system", "audit.draw", classifier.slug, drawn=len(items), seen=window.seen)
    return len(items)


class _Window:
    """The answers since the last draw; ids are in order of time (UUID version 7)."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.start = self._last_end()
        self.end, self.seen = self.start, 0

    def ids(self) -> Iterator[str]:
        answers = UserInteraction.objects.filter(classifier=self._classifier, kind=UserInteraction.Kind.CLASSIFY)
        while keys := list(answers.filter(pk__gt=self.end).order_by("pk").values_list("pk", flat=True)[:_READ]):
            self.end, self.seen = keys[-1], self.seen + len(keys)
            yield from map(str, keys)

    def is_taken(self) -> bool:
        return self._last_end() != self.start

    def _last_end(self) -> UUID:
        draws = AuditDraw.objects.filter(item__classifier=self._classifier).order_by("-pk")
        return draws.values_list("window_end", flat=True).first() or _FIRST


def _items_for(classifier: Classifier, answers: list[UserInteraction]) -> dict[UUID, TrainingDataItem]:
    """An item without a label for each answer; answers to the same text share one."""
    made: dict[str, TrainingDataItem] = {}
    found: dict[UUID, TrainingDataItem] = {}
    for answer in answers:
        if not set(classifier.input_fields) <= answer.fields.keys():
            continue  # the classifier reads other fields since then
        texts, _ = redact_fields(tuple(answer.fields[name] for name in classifier.input_fields))
        digest = content_hash(texts)
        if digest not in made:
            made[digest] = _item_for(classifier, answer, texts, digest)
        found[answer.pk] = made[digest]
    return found


def _item_for(classifier: Classifier, answer: UserInteraction, texts: tuple[str, ...], digest: str) -> TrainingDataItem:
    waiting = TrainingDataItem.objects.filter(
        classifier=classifier, content_hash=digest, label="", status=TrainingDataItem.Status.REVIEW
    )
    return waiting.first() or TrainingDataItem.objects.create(
        classifier=classifier,
        interaction=answer,
        origin=TrainingDataItem.Origin.AUDIT,
        fields=fields_dict(classifier.input_fields, texts),
        label="",
        status=TrainingDataItem.Status.REVIEW,
        reason="Drawn at random among all answers.",
        why=TrainingDataItem.Why.AUDIT,
        script=script_of(" ".join(texts)),
        content_hash=digest,
    )
