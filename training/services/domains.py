"""What the texts of a classifier are about: read by a classifier, or clusters that were found once and are kept."""

from collections.abc import Sequence

from kalimtak.core import audit
from registry.models import Classifier
from training.etl import Record
from training.etl.domains import MOST_TEXTS, Domains, find_domains, mark_domains
from training.models import DomainMap, TrainingDataItem
from training.services.balance import NONE
from training.services.readers import Reader, read_domains

CLUSTERS = "clusters"


class DomainMarker:
    """Writes domains on records as `policy.review.domains` wants it.

    Clusters are found in a sample of the set the first time there are enough texts, and stay, so that shares can be
    compared from day to day. A `dry_run` keeps nothing.
    """

    def __init__(self, classifier: Classifier, wanted: str, *, dry_run: bool) -> None:
        self._reader = Reader(wanted, classifier) if wanted not in (NONE, CLUSTERS) else None
        self._domains = domains_of(classifier, keep=not dry_run) if wanted == CLUSTERS else None

    def mark(self, records: Sequence[Record]) -> list[Record]:
        if self._reader is not None:
            return read_domains(self._reader, records)
        return mark_domains(records, self._domains) if self._domains is not None else list(records)


def domains_of(classifier: Classifier, *, keep: bool = True) -> Domains | None:
    """The clusters of `classifier`, found now where there are none yet; None while it has too few texts."""
    known = DomainMap.objects.filter(classifier=classifier).first()
    if known is not None:
        return Domains.from_dict(known.clusters)
    items = TrainingDataItem.objects.filter(classifier=classifier).trainable()
    rows = items.order_by("content_hash").values_list("fields", flat=True)[:MOST_TEXTS]  # as good as drawn at random
    found = find_domains([" ".join(fields.values()) for fields in rows])
    if found is not None and keep:
        row, is_new = DomainMap.objects.get_or_create(classifier=classifier, defaults={"clusters": found.to_dict()})
        if not is_new:
            return Domains.from_dict(row.clusters)
        audit.record("system", "domains.find", classifier.slug, domains=len(found.clusters))
    return found
