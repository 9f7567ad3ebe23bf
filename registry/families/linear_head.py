"""Logistic regression on dense vectors: the head of a frozen encoder, and what weighs the members of an ensemble.

Multinomial where each text has one label; one for each label, against the rest, where it may have several. Fitted by
L-BFGS to the optimum, which is the same whatever the order of the texts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.families.base import FitRequest
from registry.families.scikit import lean_import
from registry.families.targets import example_weights, positive_weights, truth_index, truth_matrix

MOST_ITERATIONS = 1000

Vectors = NDArray[np.floating[Any]]
Head = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Coefficients (width, labels) and intercepts (labels,): `vector @ coefficients + intercepts` are logits."""


def fit_head(request: FitRequest, vectors: Vectors) -> Head:
    """The head for the training texts, whose `vectors` (n, width) are given; regularised by the recipe's `C`."""
    weights, strength = example_weights(request), request.recipe.training.C
    if not request.multi_label:
        truth = truth_index(request, request.train)
        return one_label(vectors, truth, weights, labels=len(request.labels), strength=strength)
    shown = truth_matrix(request, request.train)
    rows = weights[:, np.newaxis]
    return several_labels(vectors, shown, np.where(shown > 0, rows * positive_weights(request), rows), strength)


def one_label(
    vectors: Vectors, truth: NDArray[np.integer[Any]], weights: NDArray[np.float64], *, labels: int, strength: float
) -> Head:
    """Of texts of one label each, `truth` (n,) with `weights` (n,); `strength` is scikit-learn's C.

    A label without any text gets no coefficients and the prior of an event not seen in n trials.
    """
    model = _regression(strength).fit(vectors, truth, sample_weight=weights)
    learned, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # one score for the second class; split, softmax gives the same probability
        learned, bias = np.vstack([-learned, learned]) / 2, np.concatenate([-bias, bias]) / 2
    coefficients = np.zeros((vectors.shape[1], labels), dtype=np.float32)
    intercepts = np.full(labels, -np.log(len(truth) + 1), dtype=np.float32)
    coefficients[:, model.classes_] = learned.T
    intercepts[model.classes_] = bias
    return coefficients, intercepts


def several_labels(
    vectors: Vectors, truth: NDArray[np.floating[Any]], weights: NDArray[np.float64], strength: float
) -> Head:
    """Of texts of any number of labels: `truth`, of 0 and 1, and `weights` are (n, labels).

    A label that all texts or none show gets no coefficients and its smoothed prior.
    """
    shown = truth.sum(axis=0)
    coefficients = np.zeros((vectors.shape[1], truth.shape[1]), dtype=np.float32)
    intercepts = np.log((shown + 1) / (len(truth) - shown + 1)).astype(np.float32)
    for label in np.flatnonzero((shown > 0) & (shown < len(truth))):
        model = _regression(strength).fit(vectors, truth[:, label] > 0, sample_weight=weights[:, label])
        coefficients[:, label], intercepts[label] = model.coef_[0], model.intercept_[0]
    return coefficients, intercepts


def _regression(strength: float) -> Any:
    with lean_import():
        from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=MOST_ITERATIONS)
