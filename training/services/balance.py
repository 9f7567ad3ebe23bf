"""What the set of a classifier is made of while a curation adds to it."""

from collections import Counter
from collections.abc import Iterable

from django.db.models import Count, QuerySet

from registry.models import Classifier
from training.etl import Record
from training.etl.diversity import OTHERS, SetCounts, shares
from training.etl.quality import usual_scripts
from training.models import TrainingDataItem

NONE = "none"  # what `policy.review.domains` says where nobody tells domains
IMPORTS = "imports"
_SCRIPT_SAMPLE = 1_000
_SOURCE_SHOWN = 20  # characters; enough to find it among items
_SOURCES_NOTED = 1_000

Held = dict[str, dict[str, int]]
"""{label, domain, source: {name: items}}."""


class Balance:
    """Trainable items per label and domain, and those that came from evidence per source.

    What is imported has no source that could take over the set, and counts as one (`IMPORTS`). Domains are counted
    where the classifier's policy tells them: no index does that.
    """

    def __init__(self, classifier: Classifier) -> None:
        items = TrainingDataItem.objects.filter(classifier=classifier).trainable()
        # By part as well, which is how the index orders them: counted without sorting.
        self._labels = Counter[str]()
        for label, _, count in items.order_by().values_list("label", "split").annotate(rows=Count("pk")):
            self._labels[label] += count
        is_told = classifier.get_policy().review.domains != NONE
        self._domains = _counted(items, "domain") if is_told else Counter[str]()
        self._sources = _counted(items.exclude(origin=TrainingDataItem.Origin.IMPORT), "source")

    def counts(self) -> SetCounts:
        return SetCounts(self._labels, self._sources, self._domains)

    def add(self, record: Record) -> None:
        """Count a record that was approved."""
        self._labels[record.label] += 1
        self._domains[record.domain] += 1
        self._sources[record.source] += 1

    def told(self, items: Iterable[tuple[TrainingDataItem, str]]) -> None:
        """Count items of the set, as they were counted, under the domains that were found since."""
        for item, domain in items:
            if item.status == TrainingDataItem.Status.APPROVED and item.split != TrainingDataItem.Split.TEST:
                self._domains[item.domain] -= 1
                self._domains[domain] += 1
        self._domains = +self._domains

    def held(self) -> Held:
        """What the set holds now, as JSON can keep it: of very many sources the smallest are one entry."""
        return {"label": dict(self._labels), "domain": dict(self._domains), "source": self._by_source()}

    def shares(self, before: Held) -> dict[str, dict[str, list[float]]]:
        """{label, domain, source: {name: [share before this curation, share now]}}; nothing where nothing is told.

        `before` is what the set held when the curation began, perhaps another attempt of it.
        """
        told = {"label": shares(before["label"], self._labels)}
        told["source"] = shares(before["source"], self._by_source())
        if any(self._domains):
            told["domain"] = shares(before["domain"], self._domains)
        return {kind: found for kind, found in told.items() if found}

    def _by_source(self) -> dict[str, int]:
        """All of the set: a share of it is what the policy's `source_share` speaks of."""
        imports = self._labels.total() - self._sources.total()
        return ({IMPORTS: imports} if imports > 0 else {}) | _noted(self._sources)


def _counted(items: "QuerySet[TrainingDataItem]", column: str) -> Counter[str]:
    return Counter(dict(items.order_by().values_list(column).annotate(rows=Count("pk"))))


def _noted(counts: Counter[str]) -> dict[str, int]:
    """Under the beginning of each source: it is found by it among the items, and the whole is nobody's business."""
    found: Counter[str] = Counter()
    for source, count in counts.items():
        found[source if len(source) <= _SOURCE_SHOWN else source[:_SOURCE_SHOWN] + "…"] += count
    noted = dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:_SOURCES_NOTED])
    rest = found.total() - sum(noted.values())
    return noted | ({OTHERS: rest} if rest else {})


def scripts_of_set(classifier: Classifier) -> frozenset[str]:
    """The scripts that the classifier's texts are written in; none while they are too few to tell."""
    items = TrainingDataItem.objects.filter(classifier=classifier).trainable()
    rows = items.order_by("content_hash").values_list("fields", flat=True)[:_SCRIPT_SAMPLE]
    return usual_scripts([" ".join(fields.values()) for fields in rows])
