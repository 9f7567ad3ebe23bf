"""How far reviewers agree, and how often the model was right on answers that were drawn at random."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model

from registry.models import Classifier
from training.agreement import Agreement, Unit, agreement
from training.estimates import Share, weighted_share
from training.models import AuditDraw, Review

TEXTS = 5_000  # the newest that two or more judged; what people thought long ago says little of now
DRAWN = 5_000
REJECTED = "–"  # the answer of who rejects a text: it has none of the labels, or is of no use


@dataclass(frozen=True)
class AgreementReport:
    """`figures` over the newest `TEXTS`, `names` of the reviewers in them, and the model's `accuracy` by the sample."""

    figures: Agreement
    names: dict[int, str]
    accuracy: Share | None


def agreement_report(classifier: Classifier) -> AgreementReport:
    """Over independent opinions only: who knew another's word, or settled a dispute, says nothing of agreement."""
    second = Review.objects.filter(opinion__gte=2, item__classifier=classifier).order_by("-pk")
    items = list(dict.fromkeys(second.values_list("item", flat=True)[:TEXTS]))
    units: dict[int, dict[Any, str]] = defaultdict(dict)
    for start in range(0, len(items), 500):
        reviews = Review.objects.filter(item__in=items[start : start + 500], opinion__gte=1).order_by("pk")
        for item, reviewer, verdict, label in reviews.values_list("item", "reviewer", "verdict", "label"):
            units[item][reviewer] = REJECTED if verdict == Review.Verdict.REJECT else label
    ready: list[Unit] = list(units.values())
    people = {reviewer for unit in ready for reviewer in unit}
    users: Any = get_user_model()._default_manager
    names = {user.pk: str(user.get_username()) for user in users.filter(pk__in=people)}
    return AgreementReport(agreement(ready), names, audit_accuracy(classifier))


def audit_accuracy(classifier: Classifier) -> Share | None:
    """The share of all answers that were right, estimated from those drawn at random that have a reviewer's label.

    Each window counts with the answers it stood for, since the same number is drawn of many and of few. None before
    any was labelled. Texts that reviewers rejected are not in it.
    """
    draws = AuditDraw.objects.filter(item__classifier=classifier).exclude(interaction__reviewed_label="")
    columns = ("window_end", "seen", "interaction__label", "interaction__labels", "interaction__reviewed_label")
    windows: dict[Any, list[tuple[int, bool]]] = defaultdict(list)
    for end, seen, label, labels, reviewed in draws.order_by("-pk").values_list(*columns)[:DRAWN]:
        windows[end].append((seen, (labels or label) == reviewed))
    weighted = [(right, seen / len(rows)) for rows in windows.values() for seen, right in rows]
    return weighted_share(weighted)
