"""Writing down what was asked and answered, and what people say about it. Every verb is one short transaction."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from interactions import spool
from interactions.insertion import answers_insert, is_one_message
from interactions.models import Feedback, RequestMemo, Subject, UserInteraction
from kalimtak.core.auth import Caller
from kalimtak.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from kalimtak.core.uuid7 import uuid7
from registry.services import label_given

MEMO_LIFETIME = timedelta(hours=24)
HISTORY_LENGTH = 50


@dataclass(slots=True)
class NewInteraction:
    """One answer about to be recorded. `pseudonym` is `pseudonym_of(client id)` or empty; `fields` maps name to text.

    `labels` is the text of the set that a multi-label classifier answered. `address` and `user_agent` go to the
    personal record, a table of its own; both empty: there is none.
    """

    classifier_id: int
    version_id: int | None
    deployment_id: int | None
    fields: dict[str, str]
    label: str
    confidence: float
    scores: dict[str, float]
    threshold: float
    abstained: bool
    labels: str = ""
    source: str = UserInteraction.Source.MODEL
    flags: list[str] = field(default_factory=list)
    latency_ms: float = 0.0
    kind: str = UserInteraction.Kind.CLASSIFY
    pseudonym: str = ""
    api_key_id: int | None = None
    address: str = ""
    user_agent: str = ""
    id: UUID = field(default_factory=uuid7)
    created_at: datetime = field(default_factory=timezone.now)


@dataclass(slots=True)
class NewMemo:
    """What a `request_id` was answered with. `owner` is `memo_owner(caller)`, `body_digest` tells requests apart."""

    owner: str
    request_id: str
    body_digest: str
    response: Any
    api_key_id: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.owner, self.request_id


@dataclass(slots=True)
class NewAnswer:
    """All rows of one request, and its memo where it carried a `request_id`."""

    rows: Sequence[NewInteraction]
    memo: NewMemo | None = None


def spool_folder() -> Path:
    """Where this machine's answers wait while the database is away (see `interactions.spooling`)."""
    return Path(settings.KALIMTAK_VAR) / "spool"


# Recording ---------------------------------------------------------------------------------------------------------


def interactions_record(rows: Sequence[NewInteraction]) -> None:
    """Write `rows` in one transaction, one insert per table. Writing the same rows again does nothing."""
    answers_record([NewAnswer(rows)])


def answers_record(answers: Sequence[NewAnswer]) -> list[RequestMemo | None]:
    """Write the answers of several requests in one transaction (the group commit).

    Returns for each the memo of an earlier request with the same `request_id`: that one's answer counts, and none of
    this one's rows were written. The unique constraint decides who was first. Repeating a call is harmless, since rows
    are known by their ids: a caller that lost its connection during the commit may simply try again.
    """
    rows = [row for answer in answers for row in answer.rows]
    if (
        is_one_message(len(rows))
        and not any(answer.memo for answer in answers)
        and not any(row.pseudonym for row in rows)
    ):
        answers_insert(rows, {})
        return [None] * len(answers)
    with transaction.atomic():
        held = _claim_request_ids([answer.memo for answer in answers if answer.memo])
        earlier = [_earlier(answer.memo, held) for answer in answers]
        _insert([row for answer, memo in zip(answers, earlier, strict=True) if memo is None for row in answer.rows])
    return earlier


def _claim_request_ids(memos: Sequence[NewMemo]) -> dict[tuple[str, str], RequestMemo]:
    """Insert the memos that are first, and return who holds each `request_id` now."""
    if not memos:
        return {}
    now = timezone.now()
    RequestMemo.objects.filter(created_at__lt=now - MEMO_LIFETIME).delete()
    RequestMemo.objects.bulk_create(
        [
            RequestMemo(
                api_key_id=memo.api_key_id,
                caller=memo.owner,
                request_id=memo.request_id,
                body_digest=memo.body_digest,
                response=memo.response,
                created_at=now,
            )
            for memo in memos
        ],
        ignore_conflicts=True,
    )
    wanted = {memo.key for memo in memos}
    held = RequestMemo.objects.filter(
        caller__in={owner for owner, _ in wanted}, request_id__in={request_id for _, request_id in wanted}
    )
    return {(memo.caller, memo.request_id): memo for memo in held}


def _earlier(memo: NewMemo | None, held: dict[tuple[str, str], RequestMemo]) -> RequestMemo | None:
    """Another request's memo where it was first; responses carry interaction ids, so no two are equal by chance."""
    holder = held.get(memo.key) if memo else None
    return holder if holder and memo and holder.response != memo.response else None


def _insert(rows: Sequence[NewInteraction]) -> None:
    answers_insert(rows, subject_ids({row.pseudonym for row in rows if row.pseudonym}))


# People ------------------------------------------------------------------------------------------------------------


def pseudonym_of(client_id: str) -> str:
    """The client's own user id as it is stored: HMAC-SHA-256 under `KALIMTAK_SUBJECT_KEY`, 64 hexadecimal digits.

    Raises `Unavailable` where no key is set.
    """
    key = settings.KALIMTAK_SUBJECT_KEY or (settings.SECRET_KEY if settings.DEBUG else "")
    if not key:
        raise Unavailable("KALIMTAK_SUBJECT_KEY is not set; run `manage.py setup`, which generates it.")
    return hmac.new(key.encode(), client_id.encode(), hashlib.sha256).hexdigest()


def subject_of(client_id: str) -> Subject:
    """The row of a person, made when it is first heard of."""
    return Subject.objects.get_or_create(pseudonym=pseudonym_of(client_id))[0]


def subject_ids(pseudonyms: Iterable[str]) -> dict[str, int]:
    """Row ids by pseudonym; new people get a row. Not cached: an erased person's row may be gone any moment."""
    wanted = set(pseudonyms)
    if not wanted:
        return {}
    found = dict(Subject.objects.filter(pseudonym__in=wanted).values_list("pseudonym", "pk"))
    if new := wanted - found.keys():
        Subject.objects.bulk_create([Subject(pseudonym=pseudonym) for pseudonym in new], ignore_conflicts=True)
        found |= dict(Subject.objects.filter(pseudonym__in=new).values_list("pseudonym", "pk"))
    return found


def memo_owner(caller: Caller) -> str:
    """Whose `request_id`s are apart from everybody else's: a key's, a user's, or an anonymous address'."""
    if caller.kind == "key":
        return caller.name
    if caller.user is not None:
        return f"user:{caller.user.pk}"
    return f"anonymous:{pseudonym_of(caller.address)[:32]}"


def source_of(caller: Caller, subject: str) -> str:
    """Whose word a feedback is: the subject's where the client names one, else the caller's own."""
    return f"subject:{pseudonym_of(subject)}" if subject else memo_owner(caller)


# Feedback ----------------------------------------------------------------------------------------------------------


def feedback_give(
    interaction_id: UUID | str,
    *,
    caller: Caller,
    rating: int | None = None,
    comment: str = "",
    correct_label: str = "",
    correct_labels: Sequence[str] | None = None,
    correct_response: str = "",
    subject: str = "",
) -> tuple[Feedback, bool]:
    """Record what somebody thinks of an answer; True where it is their first word on it.

    A later word of the same source updates the first: what it leaves out stays, and the earlier state is kept in
    `history`. The interaction mirrors the newest feedback. For a multi-label classifier `correct_labels` are all that
    apply, perhaps none. Raises `NotFound` for an interaction that is unknown or that another key asked for (staff may
    judge any), `InvalidInput` for a label outside the set or an empty feedback, `Unavailable` for an answer that still
    lies in the spool.
    """
    if rating is None and not correct_label and correct_labels is None and not correct_response:
        raise InvalidInput("Give a rating or a correction.", fields={"rating": ["Give a rating or a correction."]})
    if rating is not None and (isinstance(rating, bool) or rating not in range(1, 6)):
        raise InvalidInput("A rating is a whole number from 1 to 5.", fields={"rating": ["Use 1 to 5."]})
    with transaction.atomic():
        interaction = _interaction_of(interaction_id, caller)
        classifier = interaction.classifier
        known = interaction.version.labels if interaction.version else ()
        given = {
            "rating": rating,
            "comment": comment,
            "correct_label": label_given(classifier, correct_label, correct_labels, known=known),
            "correct_response": correct_response,
        }
        return _feedback_upsert(interaction, source_of(caller, subject), caller, given)


def _interaction_of(interaction_id: UUID | str, caller: Caller) -> UserInteraction:
    """The interaction, locked until the transaction ends, if this caller may judge it."""
    unknown = NotFound(f"No interaction {str(interaction_id)[:60]!r}.")
    try:
        key = interaction_id if isinstance(interaction_id, UUID) else UUID(interaction_id)
    except ValueError:
        raise unknown from None
    rows = UserInteraction.objects.select_for_update(of=("self",)).select_related("classifier", "version")
    is_spooled = spool.index_of(spool_folder()).holds(str(key))  # asked first: it goes from there into the table
    interaction = rows.filter(pk=key).first()
    if interaction is None and is_spooled:
        raise Unavailable("This answer is still being recorded; try again.", retry_after=2)
    if interaction is None or (caller.kind != "user" and interaction.api_key_id != caller.key_id):
        raise unknown
    return interaction


def _feedback_upsert(
    interaction: UserInteraction, source: str, caller: Caller, given: dict[str, Any]
) -> tuple[Feedback, bool]:
    """Insert, or merge into the source's earlier word. The interaction's row lock keeps two of them apart."""
    now, trusted = timezone.now(), caller.kind != "anonymous"
    feedback = Feedback.objects.filter(interaction=interaction, source=source).first()
    if feedback is None:
        row = Feedback(interaction=interaction, source=source, trusted=trusted, updated_at=now, said_at=now, **given)
        row.save(force_insert=True)
        _mirror(row)
        return row, True
    before = {name: getattr(feedback, name) for name in given}
    after = before | {name: value for name, value in given.items() if value not in (None, "")}
    if after != before:
        feedback.history = [*feedback.history, before | {"at": feedback.updated_at.isoformat()}][-HISTORY_LENGTH:]
        feedback.updated_at, feedback.said_at, feedback.trusted = now, now, feedback.trusted and trusted
        for name, value in after.items():
            setattr(feedback, name, value)
        feedback.save(update_fields=["history", "updated_at", "said_at", "trusted", *after])
        _mirror(feedback)
    return feedback, False


def _mirror(newest: Feedback) -> None:
    """The same word once more is not newer than what others said meanwhile, so only a change comes here."""
    UserInteraction.objects.filter(pk=newest.interaction_id).update(
        rating=newest.rating, comment=newest.comment, correction=newest.correct_label
    )


def review_note(interaction_id: UUID | str, *, label: str) -> None:
    """Note on the interaction which label a reviewer found right. An interaction that is gone is no error."""
    UserInteraction.objects.filter(pk=interaction_id).update(reviewed_label=label, reviewed_at=timezone.now())


def review_restore(interaction_id: UUID | str, *, label: str, at: datetime | None) -> None:
    """Put back what was noted before a reviewer's verdict that is undone."""
    UserInteraction.objects.filter(pk=interaction_id).update(reviewed_label=label, reviewed_at=at)


def audit_mark(interaction_ids: Iterable[UUID]) -> None:
    """Note on interactions that they were drawn at random: a reviewer's label on them measures live accuracy."""
    UserInteraction.objects.filter(pk__in=list(interaction_ids)).update(audit_slice=True)


# Remembered requests -----------------------------------------------------------------------------------------------


def memo_response(memo: RequestMemo | NewMemo, body_digest: str) -> Any:
    """The first answer, for a repeat of the same request. Raises `Conflict` for another request under its name."""
    if memo.body_digest != body_digest:
        raise Conflict("This request_id was used for another request in the last 24 hours.", code="request_id_reused")
    return memo.response


def memo_find(owner: str, request_id: str) -> RequestMemo | None:
    """What was answered under `request_id` in the last 24 hours."""
    since = timezone.now() - MEMO_LIFETIME
    return RequestMemo.objects.filter(caller=owner, request_id=request_id, created_at__gte=since).first()
