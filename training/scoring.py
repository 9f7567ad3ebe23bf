"""Judging a predictor on labelled examples: the figures, and the same by length of text. Knows nothing of Django."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.families.base import Example, Predictor
from registry.labels import label_set
from registry.metrics import Scores, score, score_sets

CHUNK = 64  # texts between two reports of progress
LENGTH_BUCKETS = ((1, 8), (9, 16), (17, 32), (33, 64), (65, None))  # words over all fields, both ends included

OnProgress = Callable[[float], None]
Scorer = Callable[[Sequence[str], NDArray[np.float64]], Scores]


@dataclass(frozen=True)
class Judgement:
    """`slices` {"length": [{"slice", "n", "accuracy", "macro_f1"}]} holds the lengths that occur."""

    scores: Scores
    slices: dict[str, list[dict[str, Any]]]

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {"scores": self.scores.to_dict(), "slices": self.slices}


def judge_predictor(
    predictor: Predictor, labels: Sequence[str], examples: Sequence[Example], on_progress: OnProgress
) -> Judgement:
    """Figures of `predictor` on `examples`, whose truths lie in `labels`; `on_progress` gets 0 to 1.

    A predictor that knows other labels (an older version) is judged over both sets: what it cannot answer has
    probability 0. Raises `ValueError` where there are no examples.
    """
    every_label = tuple(dict.fromkeys((*labels, *predictor.labels)))
    answers = _spread(_predict(predictor, examples, on_progress), predictor.labels, every_label)
    truth = [example.label for example in examples]
    figures = _scorer(predictor, every_label)
    return Judgement(figures(truth, answers), {"length": _by_length(figures, examples, answers)})


def _scorer(predictor: Predictor, labels: Sequence[str]) -> Scorer:
    """What turns truths and answers into figures, by the kind of answer the predictor gives."""
    calibration = predictor.calibration
    if not calibration.multi_label:
        return lambda truth, answers: score(labels, truth, answers)
    return lambda truth, answers: score_sets(
        labels, [label_set(each) for each in truth], answers, calibration.thresholds
    )


def _predict(predictor: Predictor, examples: Sequence[Example], on_progress: OnProgress) -> NDArray[np.float64]:
    """Probabilities (n, k) in the predictor's order of labels."""
    rows: list[NDArray[np.float32]] = []
    for start in range(0, len(examples), CHUNK):
        chunk = [example.fields for example in examples[start : start + CHUNK]]
        rows.extend(answer.probabilities for answer in predictor.predict(chunk))
        on_progress(len(rows) / len(examples))
    return np.asarray(rows, dtype=np.float64).reshape(len(examples), len(predictor.labels))


def _spread(answers: NDArray[np.float64], known: Sequence[str], labels: Sequence[str]) -> NDArray[np.float64]:
    """Columns of `known` labels put where `labels` has them, zeros elsewhere."""
    position = {label: index for index, label in enumerate(labels)}
    spread = np.zeros((len(answers), len(labels)))
    spread[:, [position[label] for label in known]] = answers
    return spread


def _by_length(figures: Scorer, examples: Sequence[Example], answers: NDArray[np.float64]) -> list[dict[str, Any]]:
    words = np.array([sum(len(text.split()) for text in example.fields) for example in examples])
    slices = []
    for low, high in LENGTH_BUCKETS:
        chosen = np.flatnonzero((words >= low) & (words <= (high or words.max(initial=low))))
        if len(chosen):
            scores = figures([examples[int(index)].label for index in chosen], answers[chosen])
            name = f"{low}-{high} words" if high else f"{low} words and more"
            slices.append({"slice": name, "n": scores.n, "accuracy": scores.accuracy, "macro_f1": scores.macro_f1})
    return slices
