"""From logits to answers: a temperature that makes confidence mean what it says, and thresholds that answers must pass.

Temperature scaling is Guo et al.'s (ICML 2017, section 4.2); for labels that are independent of each other it comes
before the sigmoid instead of the softmax.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

TEMPERATURE_BOUNDS = (0.05, 20.0)
DEFAULT_THRESHOLD = 0.5  # of a label's own probability
LEAST_POSITIVES = 5  # texts that show a label; fewer say little about where its threshold should lie


@dataclass(frozen=True)
class Calibration:
    """What a version does with its logits. `to_dict` is the manifest's `calibration`.

    `threshold`: of a single-label version with a target precision, the confidence from which its answers reach it.
    `thresholds`: of a multi-label version, {label: the probability from which it is given}.
    """

    temperature: float = 1.0
    threshold: float | None = None
    multi_label: bool = False
    thresholds: dict[str, float] = field(default_factory=dict)

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Probabilities of `logits`, both (k,) or (n, k): rows that sum to 1, or independent of each other."""
        return sigmoid(logits, self.temperature) if self.multi_label else softmax(logits, self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """JSON types; only what says something."""
        said: dict[str, Any] = {"temperature": self.temperature}
        if self.threshold is not None:
            said["threshold"] = self.threshold
        return said | ({"multi_label": True, "thresholds": dict(self.thresholds)} if self.multi_label else {})

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; what is absent takes its default."""
        known = ("temperature", "threshold", "multi_label", "thresholds")
        return cls(**{name: raw[name] for name in known if name in raw})


def softmax(logits: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (n, k) of `logits` (n, k) divided by `temperature`; rows sum to 1."""
    exponentials = np.exp(_log_softmax(logits, temperature))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def sigmoid(logits: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float64]:
    """Independent probabilities of `logits` of any shape divided by `temperature`."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    probabilities: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -scaled))
    return probabilities


def fit_temperature(logits: NDArray[np.floating[Any]], truth_index: NDArray[np.integer[Any]]) -> float:
    """The temperature that minimises the negative log-likelihood of held-out texts, within `TEMPERATURE_BOUNDS`.

    `logits` are (n, k), `truth_index` (n,) positions in 0..k-1. A temperature over 1 softens an overconfident model.
    Targets are smoothed by one imagined error among n + 2 texts, as Platt (1999) does for the same reason: without it
    a validation set that holds no error at all would drive the temperature to its lower bound and every confidence
    to 1. Without texts there is nothing to learn from, and the answer is 1. Raises `ValueError` for logits that are
    not finite or do not fit the truth.
    """
    values = _checked_logits(logits, len(truth_index))
    if len(values) == 0:
        return 1.0
    targets = _smoothed_targets(np.asarray(truth_index), *values.shape)

    def loss(temperature: float) -> float:
        return float(-(targets * _log_softmax(values, temperature)).sum(axis=1).mean())

    return _best_temperature(loss)


def fit_sigmoid_temperature(logits: NDArray[np.floating[Any]], truth: NDArray[Any]) -> float:
    """`fit_temperature` for labels independent of each other: `logits` and `truth`, of 0 and 1, are both (n, k)."""
    values = _checked_logits(logits, len(truth))
    if len(values) == 0:
        return 1.0
    error = 1 / (len(values) + 2)
    targets = np.clip(np.asarray(truth, dtype=np.float64), error, 1 - error)

    def loss(temperature: float) -> float:
        scaled = values / temperature
        return float((np.logaddexp(0.0, scaled) - targets * scaled).mean())

    return _best_temperature(loss)


def choose_thresholds(probabilities: NDArray[np.floating[Any]], truth: NDArray[Any]) -> NDArray[np.float64]:
    """For each label the threshold (k,) of highest F1 on held-out texts; both arguments are (n, k).

    A threshold lies half-way between two neighbouring probabilities. A label that fewer than `LEAST_POSITIVES` texts
    show, or all of them, keeps `DEFAULT_THRESHOLD`.
    """
    thresholds = np.full(probabilities.shape[1], DEFAULT_THRESHOLD)
    for label in range(probabilities.shape[1]):
        shown = np.asarray(truth)[:, label] > 0
        if LEAST_POSITIVES <= shown.sum() < len(shown):
            thresholds[label] = _best_threshold(np.asarray(probabilities)[:, label], shown)
    return thresholds


def _best_threshold(probabilities: NDArray[np.floating[Any]], shown: NDArray[np.bool_]) -> float:
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], np.cumsum(shown[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + shown.sum())
    f1[:-1][ranked[:-1] == ranked[1:]] = -1  # equal probabilities are given together or not at all
    last = int(f1.argmax())
    following = float(ranked[last + 1]) if last + 1 < len(ranked) else 0.0
    return float((ranked[last] + following) / 2)


def threshold_for_precision(
    probabilities: NDArray[np.floating[Any]], truth_index: NDArray[np.integer[Any]], target: float
) -> float | None:
    """The lowest confidence from which the answers (n, k) to held-out texts are right in the share `target` of cases.

    One imagined error is counted in, so that a handful of confident texts does not promise what it cannot keep. None
    where no confidence reaches the target.
    """
    confidence, answers = probabilities.max(axis=1), probabilities.argmax(axis=1)
    order = np.argsort(-confidence, kind="stable")
    ranked, hits = confidence[order], np.cumsum(answers[order] == np.asarray(truth_index)[order])
    reached = hits / (np.arange(1, len(ranked) + 1) + 1) >= target
    reached[:-1] &= ranked[:-1] > ranked[1:]  # texts of equal confidence are answered together or not at all
    return float(ranked[np.flatnonzero(reached)[-1]]) if reached.any() else None


def _checked_logits(logits: NDArray[np.floating[Any]], texts: int) -> NDArray[np.float64]:
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or len(values) != texts:
        raise ValueError(f"expected one row of logits per text, got {values.shape} for {texts} texts")
    if not np.isfinite(values).all():
        raise ValueError("the logits are not finite; the model diverged")
    return values


def _best_temperature(loss: Callable[[float], float]) -> float:
    from scipy.optimize import minimize_scalar

    bounds = tuple(np.log(TEMPERATURE_BOUNDS))
    found = minimize_scalar(lambda x: loss(np.exp(x)), bounds=bounds, method="bounded", options={"xatol": 1e-4})
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
