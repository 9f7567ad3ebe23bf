"""Two versions side by side."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kalimtak.core.errors import InvalidInput
from registry.metrics import Interval
from registry.models import Evaluation, ModelVersion
from registry.services.evaluations import comparable_evaluations

METRICS = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "log_loss", "ece", "brier")
MULTI_LABEL_METRICS = (*METRICS[:4], "micro_f1", *METRICS[4:])


@dataclass(frozen=True)
class Comparison:
    """Figures of versions `a` and `b`; a figure that one of them lacks is None.

    `data_digest` and `differences` (b - a with a 95 % interval, by metric) only where both were scored on one set of
    `rows` texts; else the figures come from different texts and their difference says nothing. With `multi_label` the
    accuracy is the share of texts whose whole set of labels is answered.
    """

    a: str
    b: str
    data_digest: str | None
    rows: int | None
    metrics: dict[str, tuple[float | None, float | None]]
    f1_per_label: dict[str, tuple[float | None, float | None]]
    differences: dict[str, Interval]
    multi_label: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        differences = {name: interval._asdict() for name, interval in self.differences.items()}
        return asdict(self) | {"differences": differences}


def versions_compare(a: ModelVersion, b: ModelVersion) -> Comparison:
    """Stored figures of two versions of one classifier. Raises `InvalidInput` for versions of different ones."""
    if a.classifier_id != b.classifier_id:
        raise InvalidInput(f"{a.ref} and {b.ref} answer different questions; compare versions of one classifier.")
    ours, theirs = comparable_evaluations(a, b)
    is_common = theirs is not None
    if theirs is None:
        theirs, _ = comparable_evaluations(b, None)
    old, new = _scores(ours), _scores(theirs)
    multi_label = a.classifier.multi_label
    return Comparison(
        a=a.ref,
        b=b.ref,
        data_digest=ours.data_digest if ours and is_common else None,
        rows=ours.rows if ours and is_common else None,
        metrics={name: (old.get(name), new.get(name)) for name in (MULTI_LABEL_METRICS if multi_label else METRICS)},
        f1_per_label=_f1_per_label(old, new),
        differences={name: _difference(old, new, name) for name in ("accuracy", "macro_f1")} if is_common else {},
        multi_label=multi_label,
    )


def _scores(evaluation: Evaluation | None) -> Mapping[str, Any]:
    return evaluation.scores if evaluation else {}


def _f1_per_label(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    before, after = old.get("per_label", {}), new.get("per_label", {})
    return {
        label: (before.get(label, {}).get("f1"), after.get(label, {}).get("f1"))
        for label in dict.fromkeys([*before, *after])
    }


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], metric: str) -> Interval:
    """new - old with an interval made of the intervals of both (Zou and Donner, Statistics in Medicine 27, 2008).

    It takes the two as independent. Versions scored on the same texts tend to err on the same ones, which narrows the
    true interval: this one errs on the side of "cannot tell".
    """
    (old_low, old_high), (new_low, new_high) = old[f"{metric}_interval"], new[f"{metric}_interval"]
    point = new[metric] - old[metric]
    low = point - math.hypot(new[metric] - new_low, old_high - old[metric])
    high = point + math.hypot(new_high - new[metric], old[metric] - old_low)
    return Interval(point, max(-1.0, low), min(1.0, high))
