"""Writing down what was asked and answered elsewhere, or here before: once, however often it is imported."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from interactions.models import Feedback, UserInteraction
from interactions.services import HISTORY_LENGTH, subject_ids

MOST_COMMENT = 4_000
WORD = ("rating", "comment", "correct_label")  # what a row says of an answer


@dataclass(frozen=True, slots=True)
class PastInteraction:
    """One answer of the past and what its asker thought of it. `source` is whose word that is, `said_at` when it was
    said (None: not told). A source is not certain where it is guessed, or names somebody of the installation that wrote
    the file, which need not be this one.

    `labels` is the text of the set of a multi-label classifier. Without rating and correction there is no feedback.
    """

    id: UUID
    classifier_id: int
    version_id: int | None
    fields: dict[str, str]
    label: str
    labels: str
    confidence: float
    created_at: datetime
    pseudonym: str
    source: str
    rating: int | None = None
    comment: str = ""
    correct_label: str = ""
    said_at: datetime | None = None
    is_certain: bool = False

    @property
    def is_judged(self) -> bool:
        return self.rating is not None or bool(self.correct_label)


class PastOutcome(NamedTuple):
    """How many interactions and feedback were new, were there already, and how many words were changed."""

    recorded: int
    repeated: int
    feedback: int
    changed: int


def past_id(moment: datetime | None, *identity: Any) -> UUID:
    """The same identity, the same id: a UUID version 8 (RFC 9562 § 5.8) that sorts by time as version 7 does.

    48 bits of Unix milliseconds (0 where the moment is not known), the rest from the SHA-256 of `identity` as JSON.
    """
    said = json.dumps(identity, ensure_ascii=True, sort_keys=True, default=str)
    digest = int.from_bytes(hashlib.sha256(said.encode()).digest()[:10], "big")
    milliseconds = int(moment.timestamp() * 1000) if moment else 0
    value = (milliseconds & 0xFFFFFFFFFFFF) << 80 | digest
    value = value & ~(0xF << 76) | 0x8 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def past_record(rows: Sequence[PastInteraction], *, importer: str) -> PastOutcome:
    """Write the rows that are not there yet, within the caller's transaction. A later word of a source updates its
    earlier one; the same word once more changes nothing. `importer` is the source of words that are nobody's here."""
    now = timezone.now()
    first = {row.id: row for row in reversed(rows)}
    with transaction.atomic():
        known = set(UserInteraction.objects.filter(pk__in=first).values_list("pk", flat=True))
        subjects = subject_ids({row.pseudonym for row in rows if row.pseudonym})
        fresh = [row for row in first.values() if row.id not in known]
        UserInteraction.objects.bulk_create([_interaction(row, subjects) for row in fresh], ignore_conflicts=True)
        spoken: defaultdict[UUID, list[Feedback]] = defaultdict(list)
        for each in Feedback.objects.filter(interaction__in={row.id for row in rows if row.is_judged}):
            spoken[each.interaction_id].append(each)
        named = (_named(row, spoken[row.id], importer) for row in reversed(rows) if row.is_judged)
        judged = {(row.id, row.source): row for row in named if row is not None}
        held = {(each.interaction_id, each.source): each for some in spoken.values() for each in some}
        new = [row for key, row in judged.items() if key not in held]
        Feedback.objects.bulk_create([_feedback(row, now) for row in new], ignore_conflicts=True)
        for row in new:
            if row.id in known:
                _mirror(row)
        changed = sum(_update(held[key], row, now) for key, row in judged.items() if key in held)
    return PastOutcome(len(fresh), len(rows) - len(fresh), len(new), changed)


def _named(row: PastInteraction, spoken: Sequence[Feedback], importer: str) -> PastInteraction | None:
    """The row with whose word it is here; None where it only repeats what somebody said here of the same answer."""
    if row.is_certain or any(each.source == row.source for each in spoken):
        return row
    word = {name: getattr(row, name) for name in WORD}
    for each in spoken:
        if any(_is_word(said, word) for said in ({name: getattr(each, name) for name in WORD}, *each.history)):
            return None
    return row if row.source.startswith("subject:") else replace(row, source=importer)


def _interaction(row: PastInteraction, subjects: dict[str, int]) -> UserInteraction:
    return UserInteraction(
        id=row.id,
        classifier_id=row.classifier_id,
        version_id=row.version_id,
        fields=row.fields,
        label=row.label[:120],
        labels=row.labels,
        confidence=row.confidence,
        source=UserInteraction.Source.IMPORTED,
        subject_id=subjects.get(row.pseudonym),
        rating=row.rating,
        comment=row.comment if row.is_judged else "",
        correction=row.correct_label,
        created_at=row.created_at,
    )


def _feedback(row: PastInteraction, now: datetime) -> Feedback:
    return Feedback(
        interaction_id=row.id,
        source=row.source,
        trusted=not row.source.startswith("anonymous:"),
        rating=row.rating,
        comment=row.comment,
        correct_label=row.correct_label,
        updated_at=now,
        said_at=row.said_at,
    )


def _update(feedback: Feedback, row: PastInteraction, now: datetime) -> bool:
    """Whether the row says something that its source has not said before; then it counts.

    What was said and changed later is old: a file that holds both words may be imported any number of times.
    """
    before = {name: getattr(feedback, name) for name in WORD}
    after = before | {name: getattr(row, name) for name in WORD if getattr(row, name) not in (None, "")}
    if after == before or any(_is_word(old, after) for old in feedback.history):
        return False
    feedback.history = [*feedback.history, before | {"at": feedback.updated_at.isoformat()}][-HISTORY_LENGTH:]
    feedback.updated_at, feedback.said_at = now, row.said_at
    for name, value in after.items():
        setattr(feedback, name, value)
    feedback.save(update_fields=["history", "updated_at", "said_at", *WORD])
    UserInteraction.objects.filter(pk=row.id).update(
        rating=feedback.rating, comment=feedback.comment, correction=feedback.correct_label
    )
    return True


def _is_word(said: Mapping[str, Any], word: Mapping[str, Any]) -> bool:
    return {name: said.get(name) for name in WORD} == word


def _mirror(row: PastInteraction) -> None:
    UserInteraction.objects.filter(pk=row.id).update(
        rating=row.rating, comment=row.comment, correction=row.correct_label
    )
