"""Whose word becomes a label: floods are held back, people who agree count, nobody approves what is their own."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import Count, Min, Q, QuerySet
from django.utils import timezone

from interactions.models import Feedback, UserInteraction
from interactions.services import pseudonym_of
from kalimtak.core import audit
from kalimtak.core.alerts import alert_open, alert_over
from kalimtak.core.errors import Unavailable
from registry.models import Classifier
from registry.recipe import ReviewPolicy
from training.etl import Dropped, Record, Step
from training.etl.extract import waiting_candidates, waiting_feedback
from training.etl.load import LIVE
from training.etl.trust import (
    IMPORT,
    PEOPLE,
    QUARANTINING,
    STEP,
    WINDOW,
    FloodWatch,
    Suspicion,
    Word,
    hold_back,
    is_person,
)
from training.models import ItemSource, TrainingDataItem

Status = TrainingDataItem.Status
FLOOD, NEWCOMERS = "feedback_flood", "feedback_newcomers"  # kinds of alerts
WAITS_FOR_PEOPLE = "Waits until enough people say the same, or a reviewer."
_CHUNK = 500


class Left(NamedTuple):
    """How many items left quarantine: those that wait for review now, and those that a live item repeats, which were
    rejected."""

    waiting: int
    duplicates: int


class Trust:
    """What one curation of a classifier believes; made before its first batch, from what waits and the hour before."""

    def __init__(self, classifier: Classifier, policy: ReviewPolicy, *, dry_run: bool) -> None:
        self.classifier, self.dry_run = classifier, dry_run
        self.needed = int(policy.approve.removeprefix("agree:")) if policy.approve.startswith("agree:") else 0
        self.suspicions = _suspicions(classifier, policy.burst)
        released, self._rejected = _decided_in_quarantine(classifier, self.suspicions)
        for key in released:
            del self.suspicions[key]
        self._said: list[Record] = []

    def hold_back(self, records: Sequence[Record]) -> tuple[Step, list[Record]]:
        """The records that go on, with how many sources agree on each, and those for quarantine. Words of a flood that
        were rejected there, and are said once more, are dropped."""
        going, held = hold_back(records, self.suspicions)
        again = [one for one in held if one.feedback_id in self._rejected]
        dropped = [Dropped(one, "refused_before", "It was rejected in quarantine.") for one in again]
        self._said = [record for record in going if is_person(record)]
        sources: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for record in self._said:
            sources[record.content_hash, record.label].add(record.source)
        if self.needed:
            for pair, known in _known_sources(self.classifier, sources).items():
                sources[pair] |= known
        counted = {pair: len(names) for pair, names in sources.items()}
        kept = [replace(one, agreeing=counted.get((one.content_hash, one.label), 1)) for one in going]
        return Step(kept, dropped), [one for one in held if one.feedback_id not in self._rejected]

    def agreed(self, record: Record) -> bool:
        """Whether as many people said the same as `agree:N` asks for."""
        return bool(self.needed) and is_person(record) and record.agreeing >= self.needed

    def settle(self, now: datetime) -> int:
        """Keep who said what of the batch, and approve what enough people have said by now; how many items."""
        if not self.needed or not self._said:
            return 0
        items = _items_of(self.classifier, {(one.content_hash, one.label) for one in self._said})
        keys = [(items.get((one.content_hash, one.label)), one.source) for one in self._said]
        rows = [ItemSource(item_id=item, source=source) for item, source in keys if item]
        ItemSource.objects.bulk_create(rows, ignore_conflicts=True)
        agreed = (
            TrainingDataItem.objects.filter(pk__in=[row.item_id for row in rows], status=Status.REVIEW)
            .filter(reason=WAITS_FOR_PEOPLE, reviews=None)
            .annotate(people=Count("sources"))
            .filter(people__gte=self.needed)
        )
        settled = 0
        for item in agreed:
            rivals = TrainingDataItem.objects.filter(classifier=self.classifier, content_hash=item.content_hash)
            if not rivals.filter(status=Status.APPROVED).exclude(label=item.label).exists():
                item.status, item.decided_at = Status.APPROVED, now
                item.reason = f"{self.needed} people said the same."
                item.save(update_fields=["status", "reason", "decided_at"])
                settled += 1
        return settled

    def recall(self) -> int:
        """Put in quarantine what an earlier curation approved of a flood that was not yet one; how many items.

        What a reviewer has looked at or let out of quarantine stays, and so does the golden set.
        """
        wanted = [key for key, suspicion in self.suspicions.items() if suspicion.kind in QUARANTINING]
        if self.dry_run or not wanted:
            return 0
        recalled = 0
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            rows = Feedback.objects.filter(pk__in=[pk for kind, pk in chunk if kind == "feedback"])
            said = set(rows.exclude(curated_at=None).values_list("interaction_id", "source"))
            items = TrainingDataItem.objects.filter(status__in=[Status.APPROVED, Status.REVIEW], reviews=None)
            items = items.filter(left_quarantine_at=None).exclude(split=TrainingDataItem.Split.TEST)
            given = items.filter(interaction__in={interaction for interaction, _ in said})
            keys = [pk for pk, *word in given.values_list("pk", "interaction_id", "source") if tuple(word) in said]
            keys += items.filter(pk__in=[pk for kind, pk in chunk if kind == "item"]).values_list("pk", flat=True)
            recalled += TrainingDataItem.objects.filter(pk__in=keys).update(
                status=Status.QUARANTINED, reason="Part of a flood that went on.", decided_at=timezone.now()
            )
        return recalled

    def tell(self) -> None:
        """Alerts about what waits in quarantine, and about newcomers of this curation."""
        if self.dry_run:
            return
        quarantine_tell(self.classifier)
        newcomers = sum(suspicion.kind == "newcomers" for suspicion in self.suspicions.values())
        if newcomers:
            message = (
                f"{newcomers} labels for {self.classifier.slug} came within an hour from sources that were new; they "
                "wait for a reviewer. If that is how your users are, raise policy.review.burst."
            )
            alert_open(NEWCOMERS, self.classifier.slug, message)


def _suspicions(classifier: Classifier, burst: int) -> dict[tuple[str, int], Suspicion]:
    since = _since(classifier)
    if since is None:
        return {}
    watch = FloodWatch(burst)
    for word in _words(classifier, since):
        watch.count(word)
    steps = watch.suspicious_steps()
    if not steps:
        return {}
    words = [word for word in _words(classifier, since) if word.step in steps]
    return watch.judge(words, _first_heard(watch.crowded_sources(words)))


def _decided_in_quarantine(
    classifier: Classifier, suspicions: Mapping[tuple[str, int], Suspicion]
) -> tuple[set[tuple[str, int]], set[int]]:
    """Of the words that belong into quarantine: those that a person released from it, and the ids of the feedback that
    a person rejected there."""
    released: set[tuple[str, int]] = set()
    rejected: set[int] = set()
    keys = [pk for (kind, pk), suspicion in suspicions.items() if kind == "feedback" and suspicion.kind in QUARANTINING]
    left = TrainingDataItem.objects.filter(classifier=classifier).exclude(left_quarantine_at=None)
    for start in range(0, len(keys), _CHUNK):
        rows = Feedback.objects.filter(pk__in=keys[start : start + _CHUNK])
        said = {tuple(word): pk for pk, *word in rows.values_list("pk", "interaction_id", "source", "correct_label")}
        items = left.filter(interaction__in={interaction for interaction, *_ in said})
        for status, *word in items.values_list("status", "interaction_id", "source", "label"):
            if (pk := said.get(tuple(word))) is None:
                continue
            if status == Status.REJECTED:
                rejected.add(pk)
            else:
                released.add(("feedback", pk))
    return released, rejected


def _since(classifier: Classifier) -> datetime | None:
    """An hour before the first label that waits; None where none does."""
    first = [
        waiting_feedback(classifier).exclude(correct_label="").aggregate(first=Min("said_at"))["first"],
        waiting_candidates(classifier).aggregate(first=Min("created_at"))["first"],
    ]
    known = [moment for moment in first if moment is not None]
    return min(known) - WINDOW - STEP if known else None


def _words(classifier: Classifier, since: datetime) -> Iterator[Word]:
    """Every label that was named since then, taken in before or not."""
    corrections = Feedback.objects.filter(
        interaction__classifier=classifier,
        interaction__kind=UserInteraction.Kind.CLASSIFY,
        said_at__gte=since,
    ).exclude(correct_label="")
    columns = ("pk", "source", "trusted", "said_at", "correct_label")
    asked = ("api_key_id", "source", "fields", "label", "labels")
    rows = corrections.values_list(*columns, *(f"interaction__{name}" for name in asked))
    for pk, source, trusted, at, label, key, came, fields, answered, several in rows.iterator(chunk_size=2_000):
        if label != (several or answered):
            texts = tuple(fields.get(name, "") for name in classifier.input_fields)
            imported = came == UserInteraction.Source.IMPORTED and trusted
            channel = IMPORT if imported else f"key {key}" if key else ""
            yield Word(("feedback", pk), source, channel, at, texts, label)
    examples = TrainingDataItem.objects.filter(
        classifier=classifier, origin=TrainingDataItem.Origin.EXAMPLE, created_at__gte=since
    )
    found = examples.values_list("pk", "source", "created_at", "fields", "label")
    for pk, source, at, fields, label in found.iterator(chunk_size=2_000):
        texts = tuple(fields.get(name, "") for name in classifier.input_fields)
        yield Word(("item", pk), source, "", at, texts, label)


def _first_heard(sources: set[str]) -> dict[str, datetime]:
    """When each source gave its first feedback of all, here or in what was imported."""
    found: dict[str, datetime] = {}
    names = sorted(sources)
    for start in range(0, len(names), _CHUNK):
        rows = Feedback.objects.filter(source__in=names[start : start + _CHUNK]).order_by()
        for source, written, said in rows.values_list("source").annotate(Min("created_at"), Min("said_at")):
            found[source] = min(written, said or written)
    return found


def _items_of(classifier: Classifier, pairs: set[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """{(content hash, label): id} of the live items."""
    hashes = {content_hash for content_hash, _ in pairs}
    items = TrainingDataItem.objects.filter(classifier=classifier, content_hash__in=hashes, status__in=LIVE)
    return {(digest, label): pk for digest, label, pk in items.values_list("content_hash", "label", "pk")}


def _known_sources(classifier: Classifier, pairs: Collection[tuple[str, str]]) -> dict[tuple[str, str], set[str]]:
    """Who said so before, by (content hash, label)."""
    hashes = {content_hash for content_hash, _ in pairs}
    items = TrainingDataItem.objects.filter(classifier=classifier, content_hash__in=hashes, status__in=LIVE)
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for digest, label, source in items.filter(sources__isnull=False).values_list(
        "content_hash", "label", "sources__source"
    ):
        found[digest, label].add(source)
    return {pair: found[pair] for pair in pairs if pair in found}


# Quarantine -------------------------------------------------------------------------------------------------------


def quarantine_tell(classifier: Classifier) -> None:
    """Open an alert while items of `classifier` lie in quarantine, and close it when none does."""
    count = TrainingDataItem.objects.filter(classifier=classifier, status=Status.QUARANTINED).count()
    if not count:
        alert_over(FLOOD, classifier.slug)
        return
    message = (
        f"{count} items for {classifier.slug} are in quarantine: they came in a flood. Look at them under Training "
        "items, status quarantined, and release or reject them."
    )
    alert_open(FLOOD, classifier.slug, message)


def quarantine_release(items: "QuerySet[TrainingDataItem]", *, reviewer: AbstractBaseUser) -> Left:
    """Let items wait for review like others; how many. What a live item says already is rejected as its duplicate.

    A reviewer's own items stay. What was released stays so, even where its flood goes on.
    """
    return _leave_quarantine(items, reviewer, Status.REVIEW, "Released from quarantine by {}.")


def quarantine_reject(items: "QuerySet[TrainingDataItem]", *, reviewer: AbstractBaseUser) -> int:
    """Reject items that lie in quarantine; how many."""
    return sum(_leave_quarantine(items, reviewer, Status.REJECTED, "Rejected in quarantine by {}."))


def _leave_quarantine(
    items: "QuerySet[TrainingDataItem]", reviewer: AbstractBaseUser, status: str, reason: str
) -> Left:
    name = reviewer.get_username()
    keys = list(items.filter(status=Status.QUARANTINED).values_list("pk", flat=True))
    left, classifiers = Left(0, 0), set()
    for start in range(0, len(keys), _CHUNK):
        with transaction.atomic():
            rows = TrainingDataItem.objects.filter(pk__in=keys[start : start + _CHUNK], status=Status.QUARANTINED)
            locked = list(rows.select_for_update(of=("self",)).select_related("classifier").order_by("pk"))
            if status == Status.REVIEW:
                own = own_items([item.pk for item in locked], reviewer)
                locked = [item for item in locked if item.pk not in own]
            duplicates = 0
            for item in locked:
                duplicates += _leave(item, status, reason.format(name))
                classifiers.add(item.classifier)
            if locked:
                action = f"quarantine.{'release' if status == Status.REVIEW else 'reject'}"
                audit.record(name, action, f"{len(locked)} items", duplicates=duplicates)
        left = Left(left.waiting + len(locked) - duplicates, left.duplicates + duplicates)
    for classifier in classifiers:
        quarantine_tell(classifier)
    return left


def _leave(item: TrainingDataItem, status: str, reason: str) -> bool:
    """Whether a live item says the same, so that this one was rejected rather than released."""
    live = TrainingDataItem.objects.filter(
        classifier=item.classifier, content_hash=item.content_hash, label=item.label, status__in=LIVE
    )
    is_duplicate = status == Status.REVIEW and live.exists()
    if is_duplicate:
        status, reason = Status.REJECTED, "The same text is an item with this label already."
    now = timezone.now()
    item.status, item.reason, item.left_quarantine_at = status, reason, now
    item.decided_at = None if status == Status.REVIEW else now
    item.save(update_fields=["status", "reason", "decided_at", "left_quarantine_at"])
    return is_duplicate


# Own items --------------------------------------------------------------------------------------------------------


def own_sources(reviewer: AbstractBaseUser) -> set[str]:
    """Under which names a reviewer may have said something: as staff, or as a subject that a client calls by the
    reviewer's user name, e-mail address or key."""
    sources = {f"user:{reviewer.pk}"}
    names = {reviewer.get_username(), getattr(reviewer, "email", ""), str(reviewer.pk)} - {""}
    with suppress(Unavailable):  # without a key there are no subjects
        sources |= {f"subject:{pseudonym_of(name)}" for name in names}
    return sources


def own_items(keys: Collection[int], reviewer: AbstractBaseUser) -> set[int]:
    """Those of the items with these keys whose label is what `reviewer` said."""
    own = own_sources(reviewer)
    items = TrainingDataItem.objects.filter(Q(source__in=own) | Q(sources__source__in=own), pk__in=keys)
    return set(items.values_list("pk", flat=True))


def people_behind(item: TrainingDataItem) -> set[str]:
    """The people who said what the item says, reviewers apart."""
    said = set(item.sources.values_list("source", flat=True))
    return said | ({item.source} if item.source.startswith(PEOPLE) else set())
