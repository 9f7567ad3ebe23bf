"""`registry.calibration`: a temperature that is found again, and confidence that means what it says."""

import numpy as np
import pytest

from registry.calibration import (
    TEMPERATURE_BOUNDS,
    Calibration,
    choose_thresholds,
    fit_sigmoid_temperature,
    fit_temperature,
    sigmoid,
    softmax,
    threshold_for_precision,
)
from registry.metrics import expected_calibration_error


def draw(n: int, k: int = 6, scale: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is exactly the distribution that the truths are drawn from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * scale
    cumulative = softmax(logits).cumsum(axis=1)
    truth = (rng.random((n, 1)) > cumulative).sum(axis=1).clip(max=k - 1)
    return logits, truth


@pytest.mark.parametrize("temperature", [0.25, 0.5, 1.0, 2.0, 5.0])
def test_a_known_temperature_is_found_again(temperature: float) -> None:
    logits, truth = draw(20_000)
    assert fit_temperature(logits * temperature, truth) == pytest.approx(temperature, rel=0.03)


def test_an_overconfident_model_is_calibrated_on_texts_it_was_not_fitted_on() -> None:
    logits, truth = draw(6000)
    logits *= 3
    temperature = fit_temperature(logits[:3000], truth[:3000])
    before = expected_calibration_error(softmax(logits[3000:]), truth[3000:])
    after = expected_calibration_error(softmax(logits[3000:], temperature), truth[3000:])
    assert before > 0.1
    assert after < 0.03


def test_a_validation_set_without_errors_does_not_make_the_model_certain() -> None:
    logits = np.tile([3.0, 0.0, 0.0], (100, 1))
    temperature = fit_temperature(logits, np.zeros(100, dtype=int))
    assert TEMPERATURE_BOUNDS[0] < temperature
    assert softmax(logits, temperature)[0, 0] == pytest.approx(1 - 1 / 102, abs=1e-3)


def test_the_temperature_stays_within_its_bounds() -> None:
    rng = np.random.default_rng(0)
    hopeless = fit_temperature(rng.normal(size=(500, 4)) * 1000, rng.integers(0, 4, 500))
    timid = fit_temperature(np.tile([1e-6, 0.0], (500, 1)), np.zeros(500, dtype=int))
    assert hopeless == pytest.approx(TEMPERATURE_BOUNDS[1], rel=0.01)
    assert timid == pytest.approx(TEMPERATURE_BOUNDS[0], rel=0.01)


def test_without_texts_nothing_is_changed() -> None:
    assert fit_temperature(np.empty((0, 3)), np.empty(0, dtype=int)) == 1.0


def test_calibration_keeps_the_answer() -> None:
    logits, truth = draw(500)
    temperature = fit_temperature(logits * 4, truth)
    assert (softmax(logits, temperature).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_softmax_is_stable_for_large_logits() -> None:
    probabilities = softmax(np.array([[10_000.0, 0.0], [-10_000.0, -10_000.0]]))
    assert probabilities == pytest.approx(np.array([[1.0, 0.0], [0.5, 0.5]]))


def test_logits_of_a_diverged_model_are_refused() -> None:
    with pytest.raises(ValueError, match="diverged"):
        fit_temperature(np.array([[np.nan, 0.0]]), np.array([0]))


def test_logits_that_do_not_fit_the_truth_are_refused() -> None:
    with pytest.raises(ValueError, match="one row of logits per text"):
        fit_temperature(np.zeros((3, 2)), np.array([0]))


def test_what_a_manifest_holds_is_read_back() -> None:
    for calibration in (
        Calibration(1.5),
        Calibration(0.8, threshold=0.7),
        Calibration(2.0, multi_label=True, thresholds={"a": 0.3, "b": 0.6}),
    ):
        assert Calibration.from_dict(calibration.to_dict()) == calibration
    assert Calibration(1.5).to_dict() == {"temperature": 1.5}


def test_independent_labels_have_probabilities_of_their_own() -> None:
    logits = np.array([[0.0, 4.0, 4.0], [-1000.0, 1000.0, 0.0]])
    independent = Calibration(2.0, multi_label=True).probabilities(logits)
    np.testing.assert_allclose(independent[0], [0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-2))])
    np.testing.assert_allclose(independent[1], [0, 1, 0.5], atol=1e-9)
    np.testing.assert_allclose(Calibration(2.0).probabilities(logits).sum(axis=1), 1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_of_independent_labels_is_found_again(temperature: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(8000, 4)) * 2
    truth = rng.random(logits.shape) < sigmoid(logits)
    assert fit_sigmoid_temperature(logits * temperature, truth) == pytest.approx(temperature, rel=0.05)


def test_a_threshold_lies_where_f1_is_highest() -> None:
    probabilities = np.array([[0.9], [0.8], [0.4], [0.35], [0.3], [0.2], [0.1], [0.05]])
    truth = np.array([[1], [1], [1], [1], [1], [0], [0], [0]])
    assert choose_thresholds(probabilities, truth) == pytest.approx([0.25])
    assert choose_thresholds(probabilities[:3], truth[:3]) == pytest.approx([0.5])  # too few texts to tell
    assert choose_thresholds(probabilities, np.ones((8, 1))) == pytest.approx([0.5])  # nothing to tell apart


def test_equal_probabilities_are_given_together() -> None:
    probabilities = np.array([[0.9]] * 5 + [[0.6]] * 4)
    truth = np.array([[1]] * 5 + [[1], [1], [1], [0]])
    (threshold,) = choose_thresholds(probabilities, truth)
    assert threshold == pytest.approx(0.3)


def test_answers_above_the_threshold_reach_the_target_precision_on_other_texts() -> None:
    logits, truth = draw(20_000, scale=3.0)
    probabilities = softmax(logits)
    threshold = threshold_for_precision(probabilities[:4000], truth[:4000], 0.9)
    assert threshold is not None
    answered = probabilities[4000:].max(axis=1) >= threshold
    right = (probabilities[4000:].argmax(axis=1) == truth[4000:])[answered].mean()
    assert 0.89 < right < 0.93
    assert answered.mean() > 0.2


def test_a_precision_out_of_reach_has_no_threshold() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    assert threshold_for_precision(probabilities, np.array([0, 0]), 0.95) is None
    assert threshold_for_precision(probabilities, np.array([1, 1]), 0.5) is None
