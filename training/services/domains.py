"""What the texts of a classifier are about: read by a classifier, or clusters that were found once and are kept."""

from collections.abc import Sequence
from copy import copy

from django.db.models import F, Q, QuerySet

from kalimtak.core import audit
from registry.models import Classifier
from training.etl import Record
from training.etl.domains import LEAST_TEXTS, MOST_TEXTS, Domains, find_domains, mark_domains
from training.etl.extract import BATCH, item_records
from training.models import DomainMap, TrainingDataItem
from training.services.balance import NONE
from training.services.readers import Reader, read_domains

CLUSTERS = "clusters"

Told = list[tuple[TrainingDataItem, str]]
"""Items as they were, and the domain of each."""


class DomainMarker:
    """Writes domains on records as `policy.review.domains` wants it, and on the items from before it wanted so.

    Clusters are found in a sample of the set the first time there are enough texts, and stay, so that shares can be
    compared from day to day; `note` says why there are none. A `dry_run` keeps nothing.
    """

    def __init__(self, classifier: Classifier, wanted: str, *, dry_run: bool) -> None:
        self.classifier, self.wanted, self.dry_run, self.note = classifier, wanted, dry_run, ""
        self._reader = Reader(wanted, classifier) if wanted not in (NONE, CLUSTERS) else None
        self._domains = domains_of(classifier, keep=not dry_run) if wanted == CLUSTERS else None
        self._is_silent = self._reader is None and self._domains is None  # nobody can tell domains
        if wanted == CLUSTERS and self._is_silent:
            self.note = _why_none(classifier)
        if wanted == NONE:
            self._begin_anew()
        self._state = self._begun()

    def mark(self, records: Sequence[Record]) -> list[Record]:
        """The records with their domain; as they are where nobody can tell it now."""
        read = None
        if self._domains is not None:
            read = mark_domains(records, self._domains)
        elif self._reader is not None and records:
            read = read_domains(self._reader, records)
            if read is None:
                self._is_silent = True
                self._begin_anew()
        return list(records) if read is None else read

    def earlier(self) -> "QuerySet[TrainingDataItem]":
        """Items that were compared before domains were told, or while nobody could tell them."""
        if self._is_silent or self._state.told_to >= self._state.told_until:
            return TrainingDataItem.objects.none()
        items = TrainingDataItem.objects.alias(own=F("classifier") + 0)  # by key, not by an index of the classifier's
        is_live = Q(status=TrainingDataItem.Status.APPROVED) | Q(status=TrainingDataItem.Status.REVIEW)
        span = Q(pk__gt=self._state.told_to, pk__lte=self._state.told_until)
        return items.filter(is_live, span, own=self.classifier.pk, compared=True).order_by("pk")

    def tell_earlier(self) -> Told:
        """Mark the next batch of those, in the order of their keys; none when all are marked.

        Called in a transaction, which also keeps how far it came.
        """
        items = list(self.earlier()[:BATCH])
        records = self.mark(item_records(items, self.classifier.input_fields))
        if self._is_silent:
            return []
        told = [(item, record.domain) for item, record in zip(items, records, strict=True)]
        self._state.told_to = items[-1].pk if items else self._state.told_until
        if not self.dry_run and (items or self._state.pk is None):
            rows = [(copy(item), domain) for item, domain in told if item.domain != domain]
            for row, domain in rows:
                row.domain = domain
            TrainingDataItem.objects.bulk_update([row for row, _ in rows], ["domain"])
            reached = {name: getattr(self._state, name) for name in ("teller", "told_to", "told_until")}
            self._state, _ = DomainMap.objects.update_or_create(classifier=self.classifier, defaults=reached)
        return told

    def _begun(self) -> DomainMap:
        """How far earlier items are told: not at all, where another told them before."""
        known = DomainMap.objects.filter(classifier=self.classifier).first()
        if known is not None and known.teller == self.wanted:
            return known
        newest = TrainingDataItem.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        return DomainMap(classifier=self.classifier, teller=self.wanted, told_until=newest)

    def _begin_anew(self) -> None:
        """What comes while nobody tells domains is told with all the others when somebody does again."""
        told = DomainMap.objects.filter(classifier=self.classifier).exclude(teller="")
        if not self.dry_run and told.exists():
            told.update(teller="")


def domains_of(classifier: Classifier, *, keep: bool = True) -> Domains | None:
    """The clusters of `classifier`, found now where there are none yet; None where its texts do not tell any."""
    known = DomainMap.objects.filter(classifier=classifier).first()
    if known is not None and known.clusters:
        return Domains.from_dict(known.clusters)
    items = TrainingDataItem.objects.filter(classifier=classifier).trainable()
    rows = items.order_by("content_hash").values_list("fields", flat=True)[:MOST_TEXTS]  # as good as drawn at random
    found = find_domains([" ".join(fields.values()) for fields in rows])
    if found is not None and keep:
        row, is_new = DomainMap.objects.get_or_create(classifier=classifier, defaults={"clusters": found.to_dict()})
        if not is_new and row.clusters:
            return Domains.from_dict(row.clusters)
        if not is_new:  # another classifier told the domains so far
            DomainMap.objects.filter(pk=row.pk).update(clusters=found.to_dict())
        audit.record("system", "domains.find", classifier.slug, domains=len(found.clusters))
    return found


def _why_none(classifier: Classifier) -> str:
    texts = TrainingDataItem.objects.filter(classifier=classifier).trainable().count()
    if texts < LEAST_TEXTS:
        return f"No domains are told: the set has {texts} texts, and clusters are found from {LEAST_TEXTS} on."
    return "No domains are told: the texts share too few words to find clusters by."
