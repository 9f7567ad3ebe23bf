"""`registry.metrics` against scikit-learn, against its own definitions, and against known coverage."""

import json
import time

import numpy as np
import pytest
from sklearn import metrics as sk

from registry.metrics import (
    Scores,
    expected_calibration_error,
    paired_difference,
    score,
    score_sets,
    wilson_interval,
)

LABELS = ("joy", "sadness", "anger", "fear")


def make_answers(n: int, labels: tuple[str, ...], skill: float = 1.5, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Truths drawn unevenly, and probabilities that lean towards them."""
    rng = np.random.default_rng(seed)
    k = len(labels)
    weights = np.arange(1, k + 1) / np.arange(1, k + 1).sum()
    truth = rng.choice(k, size=n, p=weights)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), truth] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return [labels[index] for index in truth], probabilities


@pytest.fixture(scope="module")
def answers() -> tuple[list[str], np.ndarray]:
    return make_answers(700, LABELS)


def test_figures_are_those_of_scikit_learn(answers: tuple[list[str], np.ndarray]) -> None:
    truth, probabilities = answers
    predicted = [LABELS[index] for index in probabilities.argmax(axis=1)]
    scores = score(LABELS, truth, probabilities)
    precision, recall, f1, support = sk.precision_recall_fscore_support(truth, predicted, labels=LABELS)
    assert scores.accuracy == pytest.approx(sk.accuracy_score(truth, predicted))
    assert scores.macro_precision == pytest.approx(precision.mean())
    assert scores.macro_recall == pytest.approx(recall.mean())
    assert scores.macro_f1 == pytest.approx(sk.f1_score(truth, predicted, labels=LABELS, average="macro"))
    assert scores.confusion == sk.confusion_matrix(truth, predicted, labels=LABELS).tolist()
    for position, label in enumerate(LABELS):
        expected = {"precision": precision, "recall": recall, "f1": f1, "support": support}
        assert scores.per_label[label] == pytest.approx({name: row[position] for name, row in expected.items()})


def test_probability_figures_are_those_of_scikit_learn(answers: tuple[list[str], np.ndarray]) -> None:
    truth, probabilities = answers
    scores = score(LABELS, truth, probabilities)
    order = np.argsort(LABELS)
    in_order, sorted_labels = probabilities[:, order], [LABELS[index] for index in order]
    assert scores.log_loss == pytest.approx(sk.log_loss(truth, in_order, labels=sorted_labels))
    one_hot = np.array([[label == each for label in LABELS] for each in truth], dtype=float)
    assert scores.brier == pytest.approx(((probabilities - one_hot) ** 2).sum(axis=1).mean())


def test_a_label_without_texts_does_not_count_in_the_macro_figures() -> None:
    truth, probabilities = ["joy", "joy", "sadness"], np.eye(4)[[0, 2, 1]]
    predicted = ["joy", "anger", "sadness"]
    scores = score(LABELS, truth, probabilities)
    assert scores.macro_f1 == pytest.approx(sk.f1_score(truth, predicted, labels=["joy", "sadness"], average="macro"))
    assert scores.per_label["anger"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_calibration_error_follows_its_definition(answers: tuple[list[str], np.ndarray]) -> None:
    """Guo et al., equations 2 and 3, spelt out bin by bin."""
    truth, probabilities = answers
    index = np.array([LABELS.index(label) for label in truth])
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == index
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(probabilities, index) == pytest.approx(expected)


def test_certain_and_right_answers_are_perfectly_calibrated() -> None:
    scores = score(LABELS, list(LABELS), np.eye(4))
    assert (scores.ece, scores.brier, scores.log_loss, scores.macro_f1) == (0, 0, 0, 1)


def test_a_certain_but_wrong_answer_has_a_finite_log_loss() -> None:
    assert np.isfinite(score(LABELS, ["joy", "joy"], np.eye(4)[[1, 1]]).log_loss)


def test_wilson_intervals_are_the_published_ones() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, n), interval in published.items():
        assert wilson_interval(successes, n) == pytest.approx(interval, abs=5e-5)


def test_the_macro_f1_interval_covers_the_true_value_about_as_often_as_it_says() -> None:
    """The true macro-F1 of this generator is taken from a very large sample; 60 samples of 400 are judged by it."""
    truth, probabilities = make_answers(200_000, LABELS, seed=99)
    expected = score(LABELS, truth, probabilities).macro_f1
    covered = 0
    for seed in range(60):
        low, high = score(LABELS, *make_answers(400, LABELS, seed=seed)).macro_f1_interval
        covered += low <= expected <= high
    assert 51 <= covered <= 60


def test_the_same_answers_do_not_differ_from_themselves(answers: tuple[list[str], np.ndarray]) -> None:
    truth, probabilities = answers
    assert paired_difference(LABELS, truth, probabilities, probabilities) == (0, 0, 0)


def test_a_better_version_is_told_from_a_worse_one() -> None:
    truth, worse = make_answers(800, LABELS, skill=1.0)
    better = worse.copy()
    rows = np.arange(0, 800, 4)
    better[rows] = np.eye(4)[[LABELS.index(truth[row]) for row in rows]]
    for metric in ("macro_f1", "accuracy"):
        gain = paired_difference(LABELS, truth, worse, better, metric=metric)
        loss = paired_difference(LABELS, truth, better, worse, metric=metric)
        assert 0 < gain.low < gain.point < gain.high
        assert gain.point == pytest.approx(-loss.point)


def test_the_paired_point_is_the_difference_of_the_figures(answers: tuple[list[str], np.ndarray]) -> None:
    truth, first = answers
    second = make_answers(700, LABELS, skill=0.5, seed=5)[1]
    a, b = score(LABELS, truth, first), score(LABELS, truth, second)
    assert paired_difference(LABELS, truth, first, second).point == pytest.approx(b.macro_f1 - a.macro_f1)
    difference = paired_difference(LABELS, truth, first, second, metric="accuracy")
    assert difference.point == pytest.approx(b.accuracy - a.accuracy)


def test_cell_resampling_agrees_with_drawing_texts_one_by_one() -> None:
    truth, first = make_answers(150, LABELS, seed=1)
    second = make_answers(150, LABELS, skill=0.5, seed=2)[1]
    index = np.array([LABELS.index(label) for label in truth])
    right_a, right_b = first.argmax(axis=1) == index, second.argmax(axis=1) == index
    rows = np.random.default_rng(3).integers(0, 150, size=(4000, 150))
    slow = np.quantile(right_b[rows].mean(axis=1) - right_a[rows].mean(axis=1), [0.025, 0.975])
    fast = paired_difference(LABELS, truth, first, second, metric="accuracy", samples=4000)
    assert (fast.low, fast.high) == pytest.approx(tuple(slow), abs=0.015)


def test_scores_survive_json(answers: tuple[list[str], np.ndarray]) -> None:
    scores = score(LABELS, *answers)
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict(), allow_nan=False))) == scores


@pytest.mark.parametrize(
    ("labels", "truth", "probabilities", "message"),
    [
        (LABELS, [], np.empty((0, 4)), "nothing to score"),
        (LABELS, ["rage"], np.eye(4)[:1], "not among the classifier's: rage"),
        (LABELS, ["joy"], np.eye(3)[:1], r"shape \(1, 4\)"),
        (LABELS, ["joy"], np.full((1, 4), np.nan), "sum to 1"),
        (LABELS, ["joy"], np.array([[2.0, -1, 0, 0]]), "non-negative"),
        (LABELS, ["joy"], np.full((1, 4), 0.9), "sum to 1"),
        (("joy", "joy"), ["joy"], np.eye(2)[:1], "not distinct"),
    ],
)
def test_figures_of_ill_fitting_data_are_refused(labels, truth, probabilities, message) -> None:
    with pytest.raises(ValueError, match=message):
        score(labels, truth, probabilities)


def test_single_precision_answers_are_accepted(answers: tuple[list[str], np.ndarray]) -> None:
    truth, probabilities = answers
    assert (
        score(LABELS, truth, probabilities.astype(np.float32)).accuracy == score(LABELS, truth, probabilities).accuracy
    )


@pytest.mark.parametrize(("k", "n"), [(8, 2000), (150, 2000)])
def test_two_thousand_texts_are_scored_with_a_thousand_resamples_in_no_time(k: int, n: int) -> None:
    """About 12 ms for 8 labels on one idle core; the limit is for a busy machine."""
    labels = tuple(f"label {index}" for index in range(k))
    truth, probabilities = make_answers(n, labels)
    started = time.thread_time()
    score(labels, truth, probabilities)
    assert time.thread_time() - started < (0.3 if k == 8 else 3.0)


def test_figures_of_label_sets_are_scikit_learns() -> None:
    rng = np.random.default_rng(5)
    labels = ("a", "b", "c", "d")
    probabilities = rng.random((200, 4))
    shown = rng.random((200, 4)) < probabilities * np.array([1.0, 0.8, 0.3, 0.0])
    truth = [{labels[index] for index in np.flatnonzero(row)} for row in shown]
    thresholds = {"a": 0.4, "b": 0.5, "c": 0.7}
    given = probabilities >= np.array([0.4, 0.5, 0.7, 0.5])
    scores = score_sets(labels, truth, probabilities, thresholds)
    assert scores.multi_label
    assert scores.accuracy == pytest.approx(sk.accuracy_score(shown, given))
    assert scores.micro_f1 == pytest.approx(sk.f1_score(shown, given, average="micro"))
    of_those_shown = sk.f1_score(shown[:, :3], given[:, :3], average="macro")
    assert scores.macro_f1 == pytest.approx(of_those_shown)
    low, high = scores.macro_f1_interval
    assert low < scores.macro_f1 < high
    assert scores.per_label["d"]["support"] == 0
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict()))) == scores


@pytest.mark.parametrize(
    ("truth", "probabilities", "told"),
    [
        ([], np.empty((0, 2)), "nothing to score"),
        ([{"z"}], np.array([[0.5, 0.5]]), "not among the classifier's: z"),
        ([{"a"}], np.array([[0.5]]), "expected probabilities of shape"),
        ([{"a"}], np.array([[0.5, 1.5]]), "must lie in 0 to 1"),
    ],
)
def test_label_sets_that_do_not_fit_are_refused(truth: list, probabilities: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        score_sets(("a", "b"), truth, probabilities)
