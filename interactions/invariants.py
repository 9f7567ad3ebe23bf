"""What always holds between answers, the versions that gave them, and what people said about them."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db.models import F

from interactions import spool
from interactions.models import Feedback, RequestMemo, UserInteraction
from interactions.services import spool_folder
from kalimtak.core.findings import BATCH, Check, Finding, Look, batches, error, outside, warning

CLOCKS_APART = timedelta(seconds=10)  # between hosts

_BY_HAND = "No verb writes this: somebody changed the row by hand, or it is a bug."
# Where the classifier's policy let another classifier's version answer; the deployment is still the one asked.
BY_ANOTHER = (UserInteraction.Source.BACKUP, UserInteraction.Source.CASCADE, UserInteraction.Source.CACHE)
_COLUMNS = (
    *("pk", "classifier_id", "version__classifier_id", "version_id", "source"),
    *("deployment_id", "deployment__version_id", "deployment__classifier_id"),
    *("fields", "confidence", "label", "reviewed_label", "reviewed_at", "rating", "comment", "correction"),
)


def interactions_fit_their_versions(look: Look) -> Iterator[Finding]:
    """The version that answered, its deployment and the classifier that was asked belong together."""
    for row in look.rows(UserInteraction.objects.values_list(*_COLUMNS, named=True)):
        for what in _contradictions(row):
            yield error(f"interaction {row.pk}", what, _BY_HAND)
    for column, value, rows in outside(UserInteraction, "kind", "source"):
        yield error("interactions", f"{rows} with the unknown {column} {value!r}", _BY_HAND)


def _contradictions(row: Any) -> Iterator[str]:
    if (row.version_id is None) and row.source != UserInteraction.Source.IMPORTED:
        yield "no version is named that answered it"
    elif row.version_id is not None and row.source not in BY_ANOTHER:
        if row.version__classifier_id != row.classifier_id:
            yield "the version that answered is one of another classifier"
        if row.deployment_id is not None and row.deployment__version_id != row.version_id:
            yield "the deployment it names is one of another version"
    elif row.deployment_id is not None and row.deployment__classifier_id != row.classifier_id:
        yield "the deployment it names is one of another classifier"
    if not row.label or not 0 <= row.confidence <= 1.001:
        yield f"its answer is {row.label[:60]!r} with confidence {row.confidence}"
    if not isinstance(row.fields, dict) or not all(isinstance(text, str) for text in row.fields.values()):
        yield "its input is not one text per field"
    if bool(row.reviewed_label) != bool(row.reviewed_at):
        yield "it was reviewed without a label, or has a reviewed label without a time"


def interactions_mirror_their_feedback(look: Look) -> Iterator[Finding]:
    """Rating, comment and correction on the interaction are those of its newest feedback."""
    columns = ("pk", "rating", "comment", "correction")
    for rows in batches(UserInteraction.objects.values_list(*columns, named=True)):
        spoken = _feedback_between(rows[0].pk, rows[-1].pk)
        for row in rows:
            if not _is_mirror((row.rating, row.comment, row.correction), spoken.get(row.pk, [])):
                remedy = "Change the feedback, for instance its comment: what is said last is copied then."
                yield error(f"interaction {row.pk}", "its rating and correction are not its newest feedback's", remedy)


def _feedback_between(first: Any, last: Any) -> dict[Any, list[Feedback]]:
    found = defaultdict(list)
    rows = Feedback.objects.filter(interaction__gte=first, interaction__lte=last).order_by("updated_at", "pk")
    for feedback in rows.iterator(chunk_size=BATCH):
        found[feedback.interaction_id].append(feedback)
    return found


def _is_mirror(shown: tuple[int | None, str, str], spoken: list[Feedback]) -> bool:
    """True, too, for the second newest where hosts whose clocks differ wrote the two at almost the same time."""
    if not spoken:
        return shown == (None, "", "")
    late_enough = spoken[-1].updated_at - CLOCKS_APART
    newest = [feedback for feedback in spoken if feedback is spoken[-1] or feedback.updated_at > late_enough]
    return any(shown == (feedback.rating, feedback.comment, feedback.correct_label) for feedback in newest)


def feedback_says_something(look: Look) -> Iterator[Finding]:
    """Every feedback rates or corrects, and was curated no later than it was last changed."""
    silent = Feedback.objects.filter(rating=None, correct_label="", correct_response="")
    for feedback in silent[:100]:
        yield error(f"feedback {feedback.pk}", "it neither rates nor corrects", _BY_HAND)
    for feedback in Feedback.objects.filter(curated_at__gt=F("updated_at"))[:100]:
        yield error(f"feedback {feedback.pk}", "it was curated in a state it never had", _BY_HAND)
    for feedback in Feedback.objects.filter(source="")[:100]:
        yield error(f"feedback {feedback.pk}", "nobody is named as its source", _BY_HAND)


def remembered_answers_were_recorded(look: Look) -> Iterator[Finding]:
    """An answer that is given again under its `request_id` has its row."""
    for memos in batches(RequestMemo.objects.all()):
        named = {memo: list(_interaction_ids(memo.response)) for memo in memos}
        wanted = {key for keys in named.values() for key in keys}
        found = {str(pk) for pk in UserInteraction.objects.filter(pk__in=wanted).values_list("pk", flat=True)}
        for memo, keys in named.items():
            if missing := [key for key in keys if key not in found]:
                what = f"{len(missing)} of its answers have no interaction"
                yield error(f"remembered request {memo.pk}", what, "It expires a day after it was asked.")


def _interaction_ids(response: Any) -> Iterator[str]:
    results = response.get("results", [response]) if isinstance(response, dict) else []
    for result in results:
        if isinstance(result, dict) and result.get("interaction_id"):
            yield str(result["interaction_id"])


def no_answer_waits_in_the_spool(look: Look) -> Iterator[Finding]:
    """Every answer that was given has its row: none lies in this machine's spool, or was set aside there."""
    for path in spool.files(spool_folder(), spool.WAITING):
        if rows := spool.rows_in(path):
            remedy = "With the database back, a running web process or worker records them within a minute."
            yield warning(f"spool/{path.name}", f"{rows} answers that were given wait to be recorded", remedy)
    for path in spool.files(spool_folder(), spool.REFUSED):
        what = f"the database refused {spool.rows_in(path)} answers that were given: {spool.reason_in(path)}"
        remedy = f"Mend that and rename it to {path.stem}{spool.WAITING}: they are tried again. Else remove it."
        yield error(f"spool/{path.name}", what, remedy)
    for path in spool.files(spool_folder(), spool.DAMAGED):
        what = "it was damaged on the disk, and some answers that were given have no row"
        yield error(
            f"spool/{path.name}", what, "The others in it were recorded. Examine the disk, then remove the file."
        )


CHECKS: tuple[Check, ...] = (
    interactions_fit_their_versions,
    interactions_mirror_their_feedback,
    feedback_says_something,
    remembered_answers_were_recorded,
    no_answer_waits_in_the_spool,
)
