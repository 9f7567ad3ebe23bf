"""The daily ETL: what people said about answers becomes items, with a reason for each that does not."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from interactions.models import Feedback
from kalimtak.core import audit
from kalimtak.core.crashpoints import crashpoint
from registry.models import Classifier
from registry.recipe import ReviewPolicy
from training.etl import Dropped, Record, Step
from training.etl.clean import clean
from training.etl.conflicts import mark_conflicts
from training.etl.content import filter_content
from training.etl.diversity import cap_domains, cap_labels, cap_sources
from training.etl.duplicates import drop_duplicates
from training.etl.extract import (
    BATCH,
    Evidence,
    Said,
    candidate_evidence,
    feedback_evidence,
    taken_in_before,
    waiting_candidates,
    waiting_feedback,
)
from training.etl.held_out import drop_held_out
from training.etl.load import Known, decided_items, items_insert, known_items, new_items, rejected_items
from training.etl.near_duplicates import drop_near_duplicates
from training.etl.quality import score_quality
from training.etl.trust import is_held
from training.models import TrainingDataItem
from training.services.balance import Balance, scripts_of_set
from training.services.curation_stats import CurationStats
from training.services.domains import DomainMarker, Told
from training.services.held_out import held_out_of
from training.services.neighbours import BandTable, ImaginedBands, items_compare, items_forget
from training.services.readers import SecondOpinion
from training.services.trust import WAITS_FOR_PEOPLE, Trust
from training.services.words import words_in_force

logger = logging.getLogger(__name__)

Status = TrainingDataItem.Status
Progress = Callable[[float, str], None]
Effect = Callable[[], AbstractContextManager[Any]]


def examples_curate(
    *,
    classifier: Classifier | None = None,
    dry_run: bool = False,
    actor: str = "system",
    progress: Progress | None = None,
    effect: Effect = transaction.atomic,
    stats: CurationStats | None = None,
) -> CurationStats:
    """Take in all new or changed feedback and all candidates, of one classifier or of all enabled ones.

    Each batch is one transaction (`effect`), audited and added to `stats` in it. Running it again changes nothing;
    `dry_run` writes nothing at all.
    """
    stats = stats if stats is not None else CurationStats()
    classifiers = [classifier] if classifier else list(Classifier.objects.serving())
    # What earlier attempts did counts in what is done and in the whole: progress never goes back.
    whole = stats.extracted + stats.looked_at + sum(work_waiting(each) for each in classifiers)
    for each in classifiers:
        run = _Curation(each, dry_run, effect, stats, actor)
        run.recall()
        if run.domains.note:
            stats.notes[each.slug] = run.domains.note
            logger.warning("%s: %s", each.slug, run.domains.note)
        stats.before.setdefault(each.slug, run.balance.held())
        whole += run.domains.earlier().count()
        for batch in (run.next_forgotten, run.next_told, run.next_compared, run.next_candidates, run.next_feedback):
            while batch():
                if progress:
                    done = stats.extracted + stats.looked_at
                    progress(min(done / max(whole, 1), 1.0), f"{each}: {done:,} of {whole:,}")
        run.trust.tell()
        stats.shares[each.slug] = run.balance.shares(stats.before[each.slug])
    return stats


def evidence_waiting(classifier: Classifier) -> int:
    """How many feedback rows and candidates a curation would take in now."""
    return waiting_feedback(classifier).count() + waiting_candidates(classifier).count()


def work_waiting(classifier: Classifier) -> int:
    """The same with the items that it would compare, such as imported ones."""
    items = TrainingDataItem.objects.filter(classifier=classifier)
    return evidence_waiting(classifier) + items.to_compare().count()


class _Curation:
    """The curation of one classifier: where it is in the rows, and what the set holds."""

    def __init__(self, classifier: Classifier, dry_run: bool, effect: Effect, stats: CurationStats, actor: str) -> None:
        self.classifier, self.dry_run, self.effect, self.stats, self.actor = classifier, dry_run, effect, stats, actor
        self.policy: ReviewPolicy = classifier.get_policy().review
        self.trust = Trust(classifier, self.policy, dry_run=dry_run)
        self.balance = Balance(classifier)
        self.words = words_in_force(classifier)
        self.scripts = scripts_of_set(classifier)
        self.domains = DomainMarker(classifier, self.policy.domains, dry_run=dry_run)
        self.opinion = SecondOpinion(classifier, self.policy.moderation)
        self.held_out = held_out_of(classifier)
        self.bands = ImaginedBands(classifier) if dry_run else BandTable(classifier)
        self.last_compared = self.last_item = self.last_feedback = 0

    def recall(self) -> None:
        """Take back what earlier curations approved of a flood; the balance is counted without it."""
        if self.trust.suspicions and not self.dry_run:
            with self._transaction():
                recalled = self.trust.recall()
                if recalled:
                    audit.record(self.actor, "quarantine.recall", self.classifier.slug, items=recalled)
            self.balance = Balance(self.classifier)

    def next_forgotten(self) -> bool:
        """Remove what is kept of a batch of items that were taken out; False when there was none left."""
        if self.dry_run:
            return False
        with self._transaction():
            forgotten = items_forget(self.classifier, self.bands)
        crashpoint("curation.after_forgetting")
        return forgotten == BATCH

    def next_told(self) -> bool:
        """Mark a batch of items from before domains were told; False when there was none left."""
        with self._transaction():
            told = self.domains.tell_earlier()
            self._count_looked_at(told)
        crashpoint("curation.after_telling")
        return len(told) == BATCH

    def next_compared(self) -> bool:
        """Compare a batch of items that came another way, such as an import; False when there was none left."""
        with self._transaction():
            compared = items_compare(
                self.classifier, self.bands, self.domains.mark, after=self.last_compared, dry_run=self.dry_run
            )
            self._count_looked_at(compared)
        crashpoint("curation.after_comparing")
        self.last_compared = compared[-1][0].pk if compared else self.last_compared
        return len(compared) == BATCH

    def _count_looked_at(self, items: Told) -> None:
        """In the transaction that keeps it."""
        self.balance.told(items)
        self.stats.looked_at += len(items)

    def next_candidates(self) -> bool:
        """Take in a batch of candidates; False when there was none left."""
        with self._transaction():
            evidence = candidate_evidence(self.classifier, self.last_item)
            self.last_item = evidence.last
            if evidence.items:
                self._take_in(evidence)
        crashpoint("curation.after_batch")
        return not evidence.is_last

    def next_feedback(self) -> bool:
        """Take in a batch of feedback; False when there was none left."""
        with self._transaction():
            evidence = feedback_evidence(
                self.classifier, self.last_feedback, min_rating=self.policy.min_rating, lock=not self.dry_run
            )
            self.last_feedback = evidence.last
            if evidence.feedback:
                self._take_in(evidence)
        crashpoint("curation.after_batch")
        return not evidence.is_last

    def _transaction(self) -> AbstractContextManager[Any]:
        return transaction.atomic() if self.dry_run else self.effect()

    def _take_in(self, evidence: Evidence) -> None:
        if not self.dry_run:
            for feedback, label in taken_in_before(evidence):
                withdraw(feedback, unless=label)
        step = self._transform(evidence)
        for record in step.kept:
            if not record.doubts:
                self.balance.add(record)
        batch = CurationStats()
        batch.count(evidence.size, step)
        self.stats.add(batch)
        if isinstance(self.bands, ImaginedBands):
            self.bands.imagine(record for record in step.kept if not is_held(record))
        else:
            self._write(evidence, step)
            audit.record(self.actor, "examples.curate", self.classifier.slug, **batch.figures())

    def _transform(self, evidence: Evidence) -> Step:
        """All steps between extract and load."""
        dropped = list(evidence.step.dropped)

        def after(step: Step) -> list[Record]:
            dropped.extend(step.dropped)
            return list(step.kept)

        step, held = self.trust.hold_back(after(clean(evidence.step.kept)))
        records = after(step)
        known = self._known(records)
        records = after(_drop_refused(records, known))
        records = after(drop_duplicates(records, known.pairs))
        records = after(drop_held_out(records, self.held_out))
        records = after(filter_content(records, self.classifier.labels, self.words))
        records = after(mark_conflicts(records, known.labels))
        records = after(score_quality(records, self.scripts))
        records = self.domains.mark(records)
        counts = self.balance.counts()
        records = after(cap_labels(records, counts, len(self.classifier.labels)))
        records = after(cap_domains(records, counts))
        # The last step that drops: what stays in the place of another must not be dropped itself.
        records = after(drop_near_duplicates(records, self.bands, salt=self.classifier.pk))
        records = [_by_policy(record, self.policy, self.trust) for record in records]
        records = self.opinion.doubt(records)
        records = after(cap_sources(records, counts, self.policy.source_share))
        return Step([*records, *held], dropped)

    def _known(self, records: list[Record]) -> Known:
        hashes = {record.content_hash for record in records}
        own = [record.item_id for record in records if record.item_id is not None]
        known = known_items(self.classifier, hashes, except_ids=own)
        if isinstance(self.bands, ImaginedBands):
            for digest, label in self.bands.pairs(hashes):
                known.add(digest, label)
        self.rejected = known.rejected
        return known

    def _write(self, evidence: Evidence, step: Step) -> None:
        now = timezone.now()
        crashpoint("curation.before_load")
        kept = [record for record in step.kept if not is_held(record)]
        ids = items_insert(new_items(self.classifier, kept, now=now))
        items_insert(new_items(self.classifier, filter(is_held, step.kept), now=now))
        rejected = rejected_items(self.classifier, step.dropped, known=self.rejected, made=ids, now=now)
        items_insert(rejected)
        candidates = {item.pk: item for item in evidence.items}
        decided = decided_items(candidates, step.kept, step.dropped, made=ids, now=now)
        changed = ["status", "reason", "quality", "domain", "decided_at", "cluster", "compared"]
        TrainingDataItem.objects.bulk_update(decided, changed)
        self.bands.add(
            [(key, record.item_id or ids[record.content_hash, record.label]) for record in kept for key in record.keys]
        )
        self.trust.settle(now)
        crashpoint("curation.before_mark")
        # The rows are locked, so what is marked is what was read; a word given later is newer, and comes up again.
        keys = [feedback.pk for feedback in evidence.feedback]
        Feedback.objects.filter(pk__in=keys).update(curated_at=F("updated_at"))


def _drop_refused(records: list[Record], known: Known) -> Step:
    refused = [record for record in records if (record.content_hash, record.label) in known.refused]
    reason = "A reviewer refused this label for this text."
    kept = [record for record in records if (record.content_hash, record.label) not in known.refused]
    return Step(kept, [Dropped(record, "refused_before", reason) for record in refused])


def _by_policy(record: Record, policy: ReviewPolicy, trust: Trust) -> Record:
    """Doubts that follow from who said it and from how the classifier wants to be taught."""
    if not record.trusted:
        record = record.doubted("anonymous", "Anonymous evidence waits for a reviewer.")
    if policy.approve == "manual":
        record = record.doubted("policy", "The classifier's policy asks for a reviewer.")
    elif policy.approve != "auto" and not trust.agreed(record):
        record = record.doubted("policy", WAITS_FOR_PEOPLE)
    return record


def withdraw(feedback: Said, *, unless: str) -> int:
    """Take back the items that an earlier word of the same source made, those with the label `unless` excepted.

    What a reviewer has looked at stays, and so does the golden set.
    """
    items = TrainingDataItem.objects.filter(
        interaction_id=feedback.interaction_id,
        source=feedback.source,
        status__in=[Status.APPROVED, Status.REVIEW, Status.QUARANTINED],
        reviews=None,
    ).exclude(Q(split=TrainingDataItem.Split.TEST) | Q(label=unless))
    keys = list(items.values_list("pk", flat=True))
    reason = "The same person said something else later."
    return TrainingDataItem.objects.filter(pk__in=keys).update(
        status=Status.REJECTED, reason=reason, decided_at=timezone.now()
    )
