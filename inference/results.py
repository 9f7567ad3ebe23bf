"""What the API answers for one text: the contract's result, made from a model's probabilities. Pure."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np

from inference.guard import flags_of
from registry.families.base import Answer, Fields

DIGITS = 6  # 1,000 labels rounded so still sum to 1 within 0.001
ALTERNATIVES = 2
ALTERNATIVE_SHARE = 0.2  # of the top score


class BrokenScores(Exception):
    """A model answered something that is no probability distribution."""


def result_of(
    answer: Answer,
    fields: Fields,
    *,
    labels: Sequence[str],
    threshold: float,
    interaction_id: UUID,
    classifier: str,
    model_version: str,
    deployment: str,
    latency_ms: float,
) -> dict[str, Any]:
    """The contract's result with every score, best first. Raises `BrokenScores`."""
    scores = ranked_scores(labels, answer)
    (label, confidence), *others = scores.items()
    abstained = confidence < threshold
    return {
        "interaction_id": str(interaction_id),
        "classifier": classifier,
        "label": label,
        "confidence": confidence,
        "scores": scores,
        "abstained": abstained,
        "threshold": threshold,
        "alternatives": alternatives(confidence, others, abstained=abstained),
        "source": "model",
        "model_version": model_version,
        "deployment": deployment,
        "flags": flags_of("\n".join(fields), abstained=abstained, truncated=answer.truncated),
        "latency_ms": round(latency_ms, 2),
    }


def ranked_scores(labels: Sequence[str], answer: Answer) -> dict[str, float]:
    """Label → rounded probability, best first; equal ones in the classifier's order."""
    probabilities = answer.probabilities.astype(np.float64)
    if probabilities.shape != (len(labels),) or not abs(float(probabilities.sum()) - 1) < 1e-3:
        raise BrokenScores(f"{len(labels)} labels got scores that are no probabilities")
    order = np.argsort(-probabilities, kind="stable")
    rounded = probabilities.round(DIGITS).tolist()
    return {labels[index]: rounded[index] for index in order.tolist()}


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
