"""What a fit learns towards, and how its logits on the validation texts become a calibration. For every family.

Truths are indices (n,) where each text has one label, and matrices (n, k) of 0 and 1 where it may have several.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.calibration import (
    Calibration,
    choose_thresholds,
    fit_sigmoid_temperature,
    fit_temperature,
    sigmoid,
    softmax,
    threshold_for_precision,
)
from registry.families.base import Example, FitRequest, balanced_weights, labels_of
from registry.metrics import Scores, score, score_sets

MOST_POSITIVE_WEIGHT = 20.0  # a label shown by one text in a thousand must not drown the others


def truth_matrix(request: FitRequest, examples: Sequence[Example]) -> NDArray[np.float32]:
    """1 where a text (n) shows a label (k), else 0; one 1 in a row unless the classifier is multi-label."""
    position = {label: index for index, label in enumerate(request.labels)}
    truth = np.zeros((len(examples), len(request.labels)), dtype=np.float32)
    for row, example in enumerate(examples):
        for label in labels_of(request, example):
            truth[row, position[label]] = 1
    return truth


def truth_index(request: FitRequest, examples: Sequence[Example]) -> NDArray[np.intp]:
    """The position (n,) of each text's label. For single-label classifiers."""
    position = {label: index for index, label in enumerate(request.labels)}
    return np.array([position[example.label] for example in examples], dtype=np.intp)


def example_weights(request: FitRequest) -> NDArray[np.float64]:
    """The weights (n,) of the training texts, their mean 1; labels of equal share where `class_weights` is balanced.

    A multi-label classifier is balanced by `positive_weights` instead.
    """
    weights = np.array([example.weight for example in request.train])
    if request.recipe.training.class_weights == "balanced" and not request.multi_label:
        truth = truth_index(request, request.train)
        weights *= balanced_weights(truth, len(request.labels))[truth]
    scaled: NDArray[np.float64] = weights / weights.mean()
    return scaled


def positive_weights(request: FitRequest) -> NDArray[np.float32]:
    """How much a text that shows a label counts against one that does not, (k,); ones unless balanced.

    Balanced: texts without over texts with the label, from 1 to `MOST_POSITIVE_WEIGHT`.
    """
    if request.recipe.training.class_weights != "balanced":
        return np.ones(len(request.labels), dtype=np.float32)
    shown = truth_matrix(request, request.train).sum(axis=0)
    ratio = (len(request.train) - shown) / np.maximum(shown, 1)
    weights: NDArray[np.float32] = np.clip(ratio, 1, MOST_POSITIVE_WEIGHT).astype(np.float32)
    return weights


def calibrate(
    request: FitRequest, logits: NDArray[np.floating[Any]], examples: Sequence[Example]
) -> tuple[Calibration, list[str]]:
    """Temperature and thresholds from the `logits` (n, k) of validation texts, and what people should know of them.

    Without texts nothing is calibrated. Raises `ValueError` for logits that are not finite.
    """
    if not examples:
        return Calibration(multi_label=request.multi_label), ["No validation texts: confidence is not calibrated."]
    if request.multi_label:
        truth = truth_matrix(request, examples)
        temperature = fit_sigmoid_temperature(logits, truth)
        chosen = choose_thresholds(sigmoid(logits, temperature), truth)
        thresholds = dict(zip(request.labels, chosen.round(6).tolist(), strict=True))
        return Calibration(temperature, multi_label=True, thresholds=thresholds), []
    index = truth_index(request, examples)
    temperature = fit_temperature(logits, index)
    if request.target_precision is None:
        return Calibration(temperature), []
    threshold = threshold_for_precision(softmax(logits, temperature), index, request.target_precision)
    wanted = f"{request.target_precision:.1%} of the answers right"
    if threshold is None:
        note = f"No confidence reaches {wanted} on the {len(examples):,} validation texts: every answer abstains."
        return Calibration(temperature, threshold=1.0), [note]
    kept = float((softmax(logits, temperature).max(axis=1) >= threshold).mean())
    note = (
        f"From a confidence of {threshold:.3f} on, {wanted} on the validation texts; that answers {kept:.1%} of them."
    )
    return Calibration(temperature, threshold=threshold), [note]


def validation_scores(
    request: FitRequest, logits: NDArray[np.floating[Any]], examples: Sequence[Example]
) -> dict[str, float]:
    """`eval_accuracy`, `eval_macro_f1` and `eval_micro_f1` of `logits` (n, k), with even thresholds."""
    scores = _scores(request, logits, examples)
    return {
        "eval_accuracy": scores.accuracy,
        "eval_macro_f1": scores.macro_f1,
        "eval_micro_f1": scores.micro_f1,
    }


def _scores(request: FitRequest, logits: NDArray[np.floating[Any]], examples: Sequence[Example]) -> Scores:
    if request.multi_label:
        return score_sets(request.labels, [labels_of(request, example) for example in examples], sigmoid(logits))
    return score(request.labels, [example.label for example in examples], softmax(logits))
