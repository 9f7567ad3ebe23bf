"""Figures of a classifier on labelled texts: what the gate, the model card and `evaluate` quote.

Truths are labels, answers are probabilities `(n, k)` in label order; an answer is the label of highest probability. Of
a multi-label classifier truths are sets of labels, and an answer is all labels that reach their thresholds.
Own implementation on numpy (scikit-learn would cost the web process two seconds of import); the tests hold it against
scikit-learn.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

ECE_BINS = 15
BOOTSTRAP_SAMPLES = 1000
CONFIDENCE = 0.95
_Z = 1.959963984540054  # the normal quantile of a two-sided 95 % interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MetricName = Literal["macro_f1", "accuracy"]


class Interval(NamedTuple):
    """A figure with its 95 % interval."""

    point: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """One evaluation. Shares lie in 0-1; `log_loss` is in nats; `brier` in 0-2.

    Macro figures average over the labels that occur in the truth, so that two versions judged on the same texts are
    averaged over the same labels. `per_label` holds precision, recall, f1 (0 where undefined) and support (a count).
    `confusion[i][j]` counts texts of label i answered j, both in label order.

    With `multi_label`, `accuracy` is the share of texts whose set of labels is answered exactly, `log_loss`, `ece` and
    `brier` (0-1) are means over all decisions, one for each text and label, and there is no confusion matrix:
    `per_label` also holds how many texts were `given` a label.
    """

    n: int
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    log_loss: float
    ece: float
    brier: float
    accuracy_interval: tuple[float, float]
    macro_f1_interval: tuple[float, float]
    labels: tuple[str, ...]
    per_label: dict[str, dict[str, float]]
    confusion: list[list[int]]
    micro_f1: float = 0.0
    multi_label: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self) | {
            "accuracy_interval": list(self.accuracy_interval),
            "macro_f1_interval": list(self.macro_f1_interval),
            "labels": list(self.labels),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises `KeyError` or `TypeError` for anything else."""
        tuples = {key: tuple(raw[key]) for key in ("accuracy_interval", "macro_f1_interval", "labels")}
        return cls(**{**raw, **tuples})


def score(labels: Sequence[str], truth: Sequence[str], probabilities: NDArray[np.floating[Any]]) -> Scores:
    """Judge `probabilities` (n, k) against `truth` (n labels). Raises `ValueError` where they do not fit together."""
    truth_index = index_truth(labels, truth)
    answers = _checked_probabilities(probabilities, n=len(truth_index), k=len(labels))
    confusion = _confusion(truth_index, answers.argmax(axis=1), k=len(labels))
    precision, recall, f1 = _per_label(confusion)
    support = confusion.sum(axis=1)
    present = support > 0
    correct = int(np.trace(confusion))
    return Scores(
        n=len(truth_index),
        accuracy=correct / len(truth_index),
        macro_precision=float(precision[present].mean()),
        macro_recall=float(recall[present].mean()),
        macro_f1=float(f1[present].mean()),
        log_loss=log_loss(answers, truth_index),
        ece=expected_calibration_error(answers, truth_index),
        brier=brier_score(answers, truth_index),
        accuracy_interval=wilson_interval(correct, len(truth_index)),
        macro_f1_interval=_macro_f1_interval(confusion),
        labels=tuple(labels),
        per_label={
            label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for label, p, r, f, s in zip(labels, precision, recall, f1, support, strict=True)
        },
        confusion=confusion.tolist(),
        micro_f1=correct / len(truth_index),
    )


def score_sets(
    labels: Sequence[str],
    truth: Sequence[Collection[str]],
    probabilities: NDArray[np.floating[Any]],
    thresholds: Mapping[str, float] | None = None,
) -> Scores:
    """Judge independent `probabilities` (n, k) against n sets of labels; a label without a threshold has 0.5.

    Raises `ValueError` where they do not fit together.
    """
    shown = _truth_sets(labels, truth)
    answers = np.asarray(probabilities, dtype=np.float64)
    if answers.shape != shown.shape:
        raise ValueError(f"expected probabilities of shape {shown.shape}, one row per text, got {answers.shape}")
    if not (np.isfinite(answers).all() and (answers >= 0).all() and (answers <= 1).all()):
        raise ValueError("the probabilities of independent labels must lie in 0 to 1")
    given = answers >= np.array([(thresholds or {}).get(label, 0.5) for label in labels])
    hits, support, said = (shown & given).sum(axis=0), shown.sum(axis=0), given.sum(axis=0)
    precision, recall, f1 = _ratio(hits, said), _ratio(hits, support), _ratio(2 * hits, support + said)
    present = support > 0 if support.any() else np.ones(len(labels), dtype=bool)
    exact = int((shown == given).all(axis=1).sum())
    likelihood = np.clip(np.where(shown, answers, 1 - answers), np.finfo(np.float64).eps, 1.0)
    return Scores(
        n=len(shown),
        accuracy=exact / len(shown),
        macro_precision=float(precision[present].mean()),
        macro_recall=float(recall[present].mean()),
        macro_f1=float(f1[present].mean()),
        log_loss=float(-np.log(likelihood).mean()),
        ece=_binary_calibration_error(answers, shown),
        brier=float(((answers - shown) ** 2).mean()),
        accuracy_interval=wilson_interval(exact, len(shown)),
        macro_f1_interval=_macro_f1_interval_of_sets(shown, given),
        labels=tuple(labels),
        per_label={
            label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s), "given": int(g)}
            for label, p, r, f, s, g in zip(labels, precision, recall, f1, support, said, strict=True)
        },
        confusion=[],
        micro_f1=float(_ratio(2 * hits.sum(keepdims=True), (support + said).sum(keepdims=True))[0]),
        multi_label=True,
    )


def paired_difference(
    labels: Sequence[str],
    truth: Sequence[str],
    probs_a: NDArray[np.floating[Any]],
    probs_b: NDArray[np.floating[Any]],
    metric: MetricName = "macro_f1",
    samples: int = BOOTSTRAP_SAMPLES,
    seed: int = 0,
) -> Interval:
    """How much better B is than A on the same texts, metric(B) - metric(A), with a 95 % interval.

    Paired bootstrap (Koehn, "Statistical significance tests for machine translation evaluation", EMNLP 2004): whole
    texts are drawn with replacement, so what both versions find hard or easy cancels out. Texts of equal (truth, A's
    answer, B's answer) are interchangeable, hence one multinomial draw over those cells stands for n draws of texts.
    """
    k = len(labels)
    truth_index = index_truth(labels, truth)
    answer_a = _checked_probabilities(probs_a, n=len(truth_index), k=k).argmax(axis=1)
    answer_b = _checked_probabilities(probs_b, n=len(truth_index), k=k).argmax(axis=1)
    cells, counts = np.unique(np.stack([truth_index, answer_a, answer_b]), axis=1, return_counts=True)
    drawn = _resample(counts, samples, seed)
    differences = _metric(metric, cells[0], cells[2], drawn, k) - _metric(metric, cells[0], cells[1], drawn, k)
    once = counts[None, :]
    point = _metric(metric, cells[0], cells[2], once, k)[0] - _metric(metric, cells[0], cells[1], once, k)[0]
    low, high = _percentiles(differences)
    return Interval(float(point), low, high)


def index_truth(labels: Sequence[str], truth: Sequence[str]) -> Ints:
    """Positions of `truth` in `labels`, (n,). Raises `ValueError` for repeated or unknown labels, or no truth."""
    position = {label: index for index, label in enumerate(labels)}
    if len(position) != len(labels):
        raise ValueError("the labels are not distinct")
    if not truth:
        raise ValueError("there is nothing to score: no labelled texts were given")
    unknown = sorted(set(truth) - position.keys())
    if unknown:
        raise ValueError(f"these labels of the truth are not among the classifier's: {', '.join(unknown)}")
    return np.fromiter((position[label] for label in truth), dtype=np.int64, count=len(truth))


def log_loss(probabilities: Floats, truth_index: Ints) -> float:
    """Mean negative log-likelihood of the truth, in nats; probabilities are kept off 0 by the float's epsilon."""
    likelihood = probabilities[np.arange(len(truth_index)), truth_index]
    return float(-np.log(np.clip(likelihood, np.finfo(np.float64).eps, 1.0)).mean())


def brier_score(probabilities: Floats, truth_index: Ints) -> float:
    """Mean squared distance between answer and one-hot truth, summed over labels (Brier 1950), 0 to 2."""
    squared = (probabilities**2).sum(axis=1)
    likelihood = probabilities[np.arange(len(truth_index)), truth_index]
    return float((squared - 2 * likelihood + 1).mean())


def expected_calibration_error(probabilities: Floats, truth_index: Ints, bins: int = ECE_BINS) -> float:
    """Mean gap between confidence and accuracy over equal-width confidence bins (Guo et al., ICML 2017, eq. 3)."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth_index
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # bins are (i/m, (i+1)/m]
    gap = np.bincount(which, weights=confidence, minlength=bins) - np.bincount(which, weights=correct, minlength=bins)
    return float(np.abs(gap).sum() / len(truth_index))


def wilson_interval(successes: float, n: float) -> tuple[float, float]:
    """95 % score interval of a share (Wilson, JASA 1927): honest for small n and for shares near 0 or 1."""
    share = successes / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _truth_sets(labels: Sequence[str], truth: Sequence[Collection[str]]) -> NDArray[np.bool_]:
    """Whether a text (n) shows a label (k). Raises `ValueError` for repeated or unknown labels, or no truth."""
    position = {label: index for index, label in enumerate(labels)}
    if len(position) != len(labels):
        raise ValueError("the labels are not distinct")
    if not truth:
        raise ValueError("there is nothing to score: no labelled texts were given")
    if unknown := sorted({label for chosen in truth for label in chosen} - position.keys()):
        raise ValueError(f"these labels of the truth are not among the classifier's: {', '.join(unknown)}")
    shown = np.zeros((len(truth), len(labels)), dtype=bool)
    for row, chosen in enumerate(truth):
        shown[row, [position[label] for label in chosen]] = True
    return shown


def _binary_calibration_error(probabilities: Floats, shown: NDArray[np.bool_], bins: int = ECE_BINS) -> float:
    """`expected_calibration_error` of n x k decisions: mean gap between a label's probability and its frequency."""
    flat, truth = probabilities.ravel(), shown.ravel()
    which = np.clip(np.ceil(flat * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(which, weights=flat, minlength=bins) - np.bincount(which, weights=truth, minlength=bins)
    return float(np.abs(gap).sum() / len(flat))


def _macro_f1_interval_of_sets(
    shown: NDArray[np.bool_], given: NDArray[np.bool_], samples: int = BOOTSTRAP_SAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap over whole texts."""
    hits, sizes = (shown & given).astype(np.float64), shown.astype(np.float64) + given
    drawn = _resample(np.ones(len(shown), dtype=np.int64), samples, seed).astype(np.float64)
    f1, present = _ratio(2 * (drawn @ hits), drawn @ sizes), drawn @ shown > 0
    return _percentiles((f1 * present).sum(axis=1) / np.maximum(present.sum(axis=1), 1))


def _checked_probabilities(probabilities: NDArray[np.floating[Any]], *, n: int, k: int) -> Floats:
    """As float64 (n, k); raises `ValueError` unless every row is a distribution."""
    answers = np.asarray(probabilities, dtype=np.float64)
    if answers.shape != (n, k):
        raise ValueError(f"expected probabilities of shape ({n}, {k}), one row per text, got {answers.shape}")
    if not np.isfinite(answers).all() or (answers < 0).any() or np.abs(answers.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("the probabilities of a text must be non-negative and sum to 1")
    return answers


def _confusion(truth_index: Ints, answer_index: NDArray[np.intp], k: int) -> Ints:
    """(k, k) counts, rows the truth, columns the answer."""
    return np.bincount(truth_index * k + answer_index, minlength=k * k).reshape(k, k).astype(np.int64)


def _per_label(confusion: Ints) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 per label, (k,) each; 0 where undefined."""
    hits = np.diag(confusion).astype(np.float64)
    truths, answers = confusion.sum(axis=1), confusion.sum(axis=0)
    return _ratio(hits, answers), _ratio(hits, truths), _ratio(2 * hits, truths + answers)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    """Element-wise quotient, 0 where the denominator is."""
    quotient: Floats = np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0)
    return quotient


def _macro_f1_interval(confusion: Ints, samples: int = BOOTSTRAP_SAMPLES, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap (Efron 1979) over the occupied cells of the confusion matrix."""
    truth, answer = np.nonzero(confusion)
    drawn = _resample(confusion[truth, answer], samples, seed)
    return _percentiles(_metric("macro_f1", truth, answer, drawn, k=len(confusion)))


def _resample(counts: Ints, samples: int, seed: int) -> Ints:
    """(samples, cells): each row redistributes the texts over the cells by their observed shares."""
    total = int(counts.sum())
    return np.random.default_rng(seed).multinomial(total, counts / total, size=samples)


def _metric(metric: MetricName, truth: NDArray[np.intp], answer: NDArray[np.intp], counts: Ints, k: int) -> Floats:
    """The metric of each row of `counts` (samples, cells), the cells having the given truths and answers (cells,)."""
    agree = truth == answer
    if metric == "accuracy":
        accuracy: Floats = counts[:, agree].sum(axis=1) / counts.sum(axis=1)
        return accuracy
    weights = counts.astype(np.float64)
    labels = np.arange(k)
    of_truth = (truth[:, None] == labels).astype(np.float64)
    of_answer = (answer[:, None] == labels).astype(np.float64)
    truths = weights @ of_truth
    hits = weights @ (of_truth * agree[:, None])
    f1 = _ratio(2 * hits, truths + weights @ of_answer)
    present = truths > 0  # a label that a resample misses has no recall there; it must not count as zero
    macro: Floats = (f1 * present).sum(axis=1) / present.sum(axis=1)
    return macro


def _percentiles(values: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
