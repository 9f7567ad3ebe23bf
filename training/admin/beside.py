"""What the desk shows beside a text: why it is here, the labels to choose from, and texts like it."""

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from interactions.models import UserInteraction
from training.models import TrainingDataItem
from training.services.waiting import alike

KEYS = 9  # labels that a digit chooses
SHOWN = 5
TORN = 0.2  # the two highest scores are this close where a model was torn between two labels

Why = TrainingDataItem.Why


@dataclass(frozen=True)
class Told:
    """What a reviewer may see of an item beside its text: what the model `answered`, `others` like it, `reviews`.

    A random item measures the model, and a second opinion is one only where the first is not known.
    """

    answer: bool
    others: bool
    reviews: bool

    @classmethod
    def of(cls, item: TrainingDataItem) -> "Told":
        waits = item.status == TrainingDataItem.Status.REVIEW
        is_blind = waits and not item.label
        return cls(answer=not is_blind, others=not is_blind, reviews=not waits or item.why == Why.DISPUTE)


def why(item: TrainingDataItem) -> str:
    """Why the item is where it is, in a sentence; where no reason was noted, where it came from."""
    return item.reason or str(item.get_origin_display())


def why_here(item: TrainingDataItem, told: Told) -> list[str]:
    """Sentences: what brought it to its place in the queue, and why it waits at all."""
    if item.status != TrainingDataItem.Status.REVIEW:
        return [why(item)]
    likely = item.queue_facts.get("likely", "")
    place = {
        Why.DISPUTE: _("Two reviewers disagree: your word decides."),
        Why.SECOND: _("A second opinion is wanted; you do not see the first."),
        Why.AUDIT: _("Drawn at random to measure the model, so its answer is not shown."),
        Why.UNSURE: _unsure(item),
        Why.DOUBTFUL: _("Its words speak for another label: %(label)s.") % {"label": likely},
        Why.RARE: _("Few texts with this label are known."),
        Why.UNLIKE: _("It is unlike all that is known so far."),
    }.get(item.why, "")
    begun = item.why in (Why.DISPUTE, Why.SECOND, Why.AUDIT)
    return [place] if begun else [part for part in (place, why(item)) if part]


def _unsure(item: TrainingDataItem) -> str:
    scores = sorted(item.interaction.scores.items(), key=lambda pair: -pair[1]) if item.interaction else []
    if len(scores) > 1 and scores[0][1] - scores[1][1] <= TORN:
        return _("The model was torn between %(first)s and %(second)s.") % {
            "first": scores[0][0],
            "second": scores[1][0],
        }
    return _("The model was unsure.")


def label_choices(item: TrainingDataItem, answer: UserInteraction | None) -> list[dict[str, Any]]:
    """The classifier's labels with their descriptions, and the digit that chooses each of the first nine.

    `current` are those that the item has, `likely` the one that its words speak for, `percent` what the model gave it.
    """
    described = item.classifier.get_label_config().descriptions
    scores = answer.scores if answer else {}
    likely = item.queue_facts.get("likely") if item.label else None
    return [
        {
            "label": label,
            "description": described.get(label, ""),
            "key": str(number) if number <= KEYS else "",
            "current": label in item.label_parts,
            "likely": label == likely,
            "percent": f"{scores[label]:.0%}" if label in scores else "",
        }
        for number, label in enumerate(item.classifier.labels, start=1)
    ]


def beside(item: TrainingDataItem) -> list[dict[str, Any]]:
    """Other items with the same text, then the approved ones most like it; as the list tells them apart."""
    same = list(_same(item)[:SHOWN])
    keys = [key for key in item.queue_facts.get("near", []) if isinstance(key, int)]
    near = TrainingDataItem.objects.approved().filter(classifier=item.classifier_id).in_bulk(keys)
    shown = {one.pk for one in same}
    groups = [
        {"title": _("The same text"), "items": same},
        {
            "title": _("Most like it, of what is approved"),
            "items": [near[key] for key in keys if key in near and key not in shown],
        },
    ]
    for group in groups:
        for one in group["items"]:
            one.classifier = item.classifier  # the same one, without a query for each
    return [group for group in groups if group["items"]]


def _same(item: TrainingDataItem) -> Any:
    same = TrainingDataItem.objects.filter(alike(item), classifier=item.classifier_id)
    return same.exclude(pk=item.pk).exclude(label="").order_by("-pk")
