"""`registry.cascade`: the threshold from which a cheap model may answer."""

import numpy as np
import pytest

from registry.cascade import LEAST_EARLY, LEAST_TEXTS, choose, saving

N, K = 600, 4


def answers(right: np.ndarray, confidence: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Probabilities (n, K) whose best label is the truth where `right`, with that `confidence`."""
    probabilities = np.repeat(((1 - confidence) / (K - 1))[:, None], K, axis=1)
    probabilities[np.arange(len(truth)), np.where(right, truth, (truth + 1) % K)] = confidence
    return probabilities


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_where_the_models_never_differ_every_text_is_answered_early(rng) -> None:
    truth, confidence = rng.integers(0, K, N), rng.uniform(0.4, 1, N)
    right = rng.random(N) < 0.8
    choice = choose(answers(right, confidence, truth), answers(right, confidence, truth), truth)
    assert choice.threshold == pytest.approx(confidence.min())
    assert (choice.early, choice.accuracy) == (1.0, choice.main_accuracy)


def test_the_threshold_lies_where_the_cheap_model_begins_to_lose(rng) -> None:
    truth, confidence = rng.integers(0, K, N), np.linspace(0.4, 1, N)
    cheap_right = confidence > 0.7
    choice = choose(answers(cheap_right, confidence, truth), answers(np.ones(N, bool), confidence, truth), truth)
    assert choice.threshold == pytest.approx(0.7, abs=0.01)
    assert choice.early == pytest.approx(0.5, abs=0.01)
    assert (choice.accuracy, choice.main_accuracy) == (1.0, 1.0)


def test_a_cheap_model_that_is_worse_everywhere_is_not_used(rng) -> None:
    truth, confidence = rng.integers(0, K, N), rng.uniform(0.4, 1, N)
    choice = choose(
        answers(rng.random(N) < 0.7, confidence, truth), answers(rng.random(N) < 0.95, confidence, truth), truth
    )
    assert choice.threshold is None
    assert "without answering worse" in choice.reason


def test_too_few_texts_say_nothing(rng) -> None:
    truth = rng.integers(0, K, LEAST_TEXTS - 1)
    same = answers(np.ones(len(truth), bool), np.full(len(truth), 0.9), truth)
    choice = choose(same, same, truth)
    assert choice.threshold is None
    assert choice.reason == f"only {LEAST_TEXTS - 1} validation texts, and {LEAST_TEXTS} are needed"


def test_texts_of_equal_confidence_are_answered_alike(rng) -> None:
    truth = np.zeros(N, int)
    confidence = np.where(np.arange(N) < N // 2, 0.9, 0.6)
    cheap_right = confidence > 0.8
    choice = choose(answers(cheap_right, confidence, truth), answers(np.ones(N, bool), confidence, truth), truth)
    assert choice.threshold == pytest.approx(0.9)
    assert choice.early == 0.5
    assert choice.early * N >= LEAST_EARLY


def test_answers_must_be_one_per_truth() -> None:
    with pytest.raises(ValueError, match="as many answers as truths"):
        choose(np.zeros((3, K)), np.zeros((2, K)), np.zeros(3, int))


@pytest.mark.parametrize("texts", [200, 400, 2000])
@pytest.mark.parametrize("edge", [0.2, 0.5])
def test_on_fresh_texts_next_to_nothing_is_lost(texts: int, edge: float) -> None:
    """100 validation sets drawn from a world in which the main model is better at every confidence."""
    rng = np.random.default_rng(texts)
    drops = []
    for _ in range(100):
        choice = choose(*world(texts, edge, rng))
        if choice.threshold is not None:
            cheap, main, truth = world(5_000, edge, rng)
            early = cheap.max(axis=1) >= choice.threshold
            main_right = main.argmax(axis=1) == truth
            drops.append((main_right & early).mean() - ((cheap.argmax(axis=1) == truth) & early).mean())
        else:
            drops.append(0.0)
    assert np.mean(drops) < 0.003
    assert np.quantile(drops, 0.9) < 0.01


def world(texts: int, edge: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A calibrated cheap model, and a main one that has `edge` of its errors right besides; both err together."""
    truth = rng.integers(0, K, texts)
    confidence = rng.beta(3, 1.2, texts) * (1 - 1 / K) + 1 / K
    luck = rng.random(texts)
    other = np.where(rng.random(texts) < 0.6, luck, rng.random(texts))
    main_right = other < confidence + edge * (1 - confidence)
    return (
        answers(luck < confidence, np.maximum(confidence, 1 / K + 1e-6), truth),
        answers(main_right, np.full(texts, 0.9), truth),
        truth,
    )


@pytest.mark.parametrize(
    ("early", "cheap_ms", "main_ms", "share"), [(0.5, 0.1, 10, 0.49), (0.0, 1, 10, -0.1), (1.0, 10, 10, 0.0)]
)
def test_the_saving_counts_what_the_cheap_model_costs(early, cheap_ms, main_ms, share) -> None:
    assert saving(early, cheap_ms, main_ms) == pytest.approx(share)
