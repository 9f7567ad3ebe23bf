"""Temperature scaling: one number that makes confidence mean what it says (Guo et al., ICML 2017, section 4.2)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

TEMPERATURE_BOUNDS = (0.05, 20.0)


def softmax(logits: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (n, k) of `logits` (n, k) divided by `temperature`; rows sum to 1."""
    exponentials = np.exp(_log_softmax(logits, temperature))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def fit_temperature(logits: NDArray[np.floating[Any]], truth_index: NDArray[np.integer[Any]]) -> float:
    """The temperature that minimises the negative log-likelihood of held-out texts, within `TEMPERATURE_BOUNDS`.

    `logits` are (n, k), `truth_index` (n,) positions in 0..k-1. A temperature over 1 softens an overconfident model.
    Targets are smoothed by one imagined error among n + 2 texts, as Platt (1999) does for the same reason: without it
    a validation set that holds no error at all would drive the temperature to its lower bound and every confidence
    to 1. Without texts there is nothing to learn from, and the answer is 1. Raises `ValueError` for logits that are
    not finite or do not fit the truth.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(truth_index):
        raise ValueError(f"expected one row of logits per text, got {values.shape} for {len(truth_index)} texts")
    if not np.isfinite(values).all():
        raise ValueError("the logits are not finite; the model diverged")
    if len(values) == 0:
        return 1.0
    from scipy.optimize import minimize_scalar

    targets = _smoothed_targets(np.asarray(truth_index), *values.shape)

    def loss(log_temperature: float) -> float:
        return float(-(targets * _log_softmax(values, np.exp(log_temperature))).sum(axis=1).mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURE_BOUNDS)), method="bounded", options={"xatol": 1e-4})
    return float(np.clip(np.exp(found.x), *TEMPERATURE_BOUNDS))


def _smoothed_targets(truth_index: NDArray[np.integer[Any]], n: int, k: int) -> NDArray[np.float64]:
    """One-hot rows (n, k) that give 1 / (n + 2) of their mass to the other labels, in equal parts."""
    error = 1 / (n + 2)
    targets = np.full((n, k), error / max(k - 1, 1))
    targets[np.arange(n), truth_index] = 1 - error
    return targets


def _log_softmax(logits: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    shifted = scaled - scaled.max(axis=-1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised
