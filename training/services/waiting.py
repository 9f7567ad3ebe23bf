"""The front of the queue, to be looked through: filters that stay quick however much waits behind it."""

from dataclasses import dataclass
from typing import Any

from django.db.models import OuterRef, Q, QuerySet, Subquery

from interactions.models import UserInteraction
from registry.labels import SEPARATOR
from registry.models import Classifier
from training.models import TrainingDataItem

WINDOW = 20_000  # what a ranking puts in order; filters look no further
CONFIDENCES = {"low": (0.0, 0.5), "middling": (0.5, 0.8), "high": (0.8, 1.01)}

Items = "QuerySet[TrainingDataItem]"


@dataclass(frozen=True)
class WaitingFilter:
    """What to show of the window; empty: everything. `like` is an item's key: those of its cluster, or with its text.

    `confidence` is a key of `CONFIDENCES`, and speaks of items that come from an answer.
    """

    label: str = ""
    why: str = ""
    source: str = ""
    confidence: str = ""
    script: str = ""
    domain: str = ""
    like: int | None = None


def waiting_window(classifier: Classifier) -> "QuerySet[TrainingDataItem]":
    """The first `WINDOW` waiting items of `classifier` in the order of the desk."""
    waiting = TrainingDataItem.objects.filter(classifier=classifier, status=TrainingDataItem.Status.REVIEW)
    waiting = waiting.order_by("-priority", "id")
    last = waiting.values_list("priority", "pk")[WINDOW - 1 : WINDOW].first()
    if last is None:
        return waiting
    priority, key = last
    # The first condition is the one that an index serves.
    return waiting.filter(priority__gte=priority).filter(Q(priority__gt=priority) | Q(pk__lte=key))


def waiting_filter(window: "QuerySet[TrainingDataItem]", wanted: WaitingFilter) -> "QuerySet[TrainingDataItem]":
    """The items of `window` that `wanted` describes."""
    exact = {name: getattr(wanted, name) for name in ("why", "source", "script", "domain")}
    found = window.filter(**{name: value for name, value in exact.items() if value})
    if wanted.label:
        within = Q(label__startswith=wanted.label + SEPARATOR) | Q(label__endswith=SEPARATOR + wanted.label)
        within |= Q(label__contains=SEPARATOR + wanted.label + SEPARATOR)
        found = found.filter(Q(label=wanted.label) | within)
    if wanted.confidence:
        low, high = CONFIDENCES[wanted.confidence]
        # Looked up row by row: as a join PostgreSQL took it for a reason to read all items of all answers.
        answer = UserInteraction.objects.filter(pk=OuterRef("interaction")).values("confidence")[:1]
        found = found.annotate(sureness=Subquery(answer)).filter(sureness__gte=low, sureness__lt=high)
    if wanted.like is not None:
        example = TrainingDataItem.objects.filter(pk=wanted.like).first()
        found = found.filter(alike(example)) if example else found.none()
    return found


def alike(item: TrainingDataItem) -> Q:
    """Items with the same text or, where near duplicates are grouped, of the same group."""
    cluster: Any = getattr(item, "cluster", None)
    same = Q(content_hash=item.content_hash)
    return same if cluster is None else same | Q(cluster=cluster)
