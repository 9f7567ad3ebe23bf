"""What the API answers for one text: the contract's result, made from a model's probabilities. Pure."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any
from uuid import UUID

from inference.guard import flags_of
from registry.calibration import DEFAULT_THRESHOLD, Calibration
from registry.families.base import Answer, Fields

DIGITS = 6  # 1,000 labels rounded so still sum to 1 within 0.001
ALTERNATIVES = 2
ALTERNATIVE_SHARE = 0.2  # of the top score
NEAR_SHARE = 0.5  # of its own threshold, for a label that is independent of the others


class BrokenScores(Exception):
    """A model answered something that is no probability."""


def result_of(
    answer: Answer,
    fields: Fields,
    *,
    labels: Sequence[str],
    calibration: Calibration,
    floor: float,
    interaction_id: UUID,
    classifier: str,
    model_version: str,
    deployment: str,
    latency_ms: float,
) -> dict[str, Any]:
    """The contract's result with every score, best first. Raises `BrokenScores`.

    The threshold of a single-label answer is the version's own where it was trained for a target precision, else the
    classifier's confidence `floor`. A multi-label answer gives every label that reaches its own threshold, best first
    in `labels`; it abstains where none does, and `threshold` is that of the top label.
    """
    scores = ranked_scores(labels, answer, independent=calibration.multi_label)
    (label, confidence), *others = scores.items()
    if calibration.multi_label:
        threshold = _threshold(calibration, label)
        given = [each for each, score in scores.items() if score >= _threshold(calibration, each)]
        abstained, several = not given, {"labels": given}
        options = near_misses(others, given, calibration)
    else:
        threshold = floor if calibration.threshold is None else calibration.threshold
        abstained, several = confidence < threshold, {}
        options = alternatives(confidence, others, abstained=abstained)
    return {
        "interaction_id": str(interaction_id),
        "classifier": classifier,
        "label": label,
        **several,
        "confidence": confidence,
        "scores": scores,
        "abstained": abstained,
        "threshold": threshold,
        "alternatives": options,
        "source": answer.source,
        "model_version": model_version,
        "deployment": deployment,
        "flags": flags_of("\n".join(fields), abstained=abstained, truncated=answer.truncated, earned=answer.flags),
        "latency_ms": round(latency_ms, 2),
    }


def ranked_scores(labels: Sequence[str], answer: Answer, *, independent: bool = False) -> dict[str, float]:
    """Label → rounded probability, best first; equal ones in the classifier's order. Raises `BrokenScores`."""
    if answer.probabilities.shape != (len(labels),):
        raise BrokenScores(f"{len(labels)} labels got {answer.probabilities.size} scores")
    values: list[float] = answer.probabilities.tolist()  # a handful, for which numpy's own sorting takes longer
    if not _are_probabilities(values, independent):
        raise BrokenScores(f"{len(labels)} labels got scores that are no probabilities")
    ranked = sorted(zip(labels, values, strict=True), key=itemgetter(1), reverse=True)
    return {label: round(value, DIGITS) for label, value in ranked}


def _are_probabilities(values: Sequence[float], independent: bool) -> bool:
    """Each in 0 to 1, or all summing to 1; not so for NaN."""
    if independent:
        return all(0 <= value <= 1 for value in values)
    return abs(sum(values) - 1) < 1e-3


def _threshold(calibration: Calibration, label: str) -> float:
    return calibration.thresholds.get(label, DEFAULT_THRESHOLD)


def near_misses(others: Sequence[tuple[str, float]], given: Sequence[str], calibration: Calibration) -> list[str]:
    """Independent labels worth showing beside those given; the runner-up to the top one where nothing was given."""
    missed = [(label, score) for label, score in others if label not in given]
    near = [label for label, score in missed if score >= NEAR_SHARE * _threshold(calibration, label)]
    return near[:ALTERNATIVES] or ([] if given else [missed[0][0]])


def alternatives(top: float, others: Sequence[tuple[str, float]], *, abstained: bool) -> list[str]:
    """The next labels worth showing: those near the top one, and the runner-up wherever the answer abstained."""
    near = [label for label, score in others[:ALTERNATIVES] if score >= ALTERNATIVE_SHARE * top]
    return near or ([others[0][0]] if abstained else [])


def shown(result: dict[str, Any], *, top_k: int | None = None, label_field: str = "") -> dict[str, Any]:
    """The result as one caller asked for it: `top_k` scores only, the label under the classifier's own name too."""
    changes: dict[str, Any] = {}
    if top_k is not None:
        changes["scores"] = dict(list(result["scores"].items())[:top_k])
    if label_field:
        changes[label_field] = result["label"]
    return result | changes
