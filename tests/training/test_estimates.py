"""What is known of texts before anybody looked: vectors, probabilities out of sample, scripts."""

import numpy as np
import pytest

from tests.training.conftest import WORDS, sentence
from training.estimates import out_of_sample, word_vectors


def material(count: int = 40) -> tuple[list[str], np.ndarray]:
    texts = [sentence(label, number) for number in range(count) for label in WORDS]
    return texts, np.arange(len(texts)) % len(WORDS)


def test_near_copies_are_close_and_other_texts_are_not() -> None:
    one, copy, other = word_vectors(
        ["My parcel is late, please help me!", "my parcel is late please help me", "The lake was quiet at dawn."]
    )
    assert one @ copy > 0.9
    assert one @ other < 0.5
    assert word_vectors([]).shape == (0, 512)
    assert not word_vectors([""]).any()


def test_probabilities_out_of_sample_know_the_labels() -> None:
    texts, given = material()
    probabilities = out_of_sample(texts, given, texts, len(WORDS))
    assert probabilities is not None
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(texts)))
    assert (probabilities.argmax(axis=1) == given).mean() > 0.95
    again = out_of_sample(texts, given, texts, len(WORDS))
    assert again is not None
    assert np.array_equal(probabilities, again)


def test_no_model_judges_a_text_it_has_seen_under_another_row() -> None:
    """A wrong label that stands on five copies of a text: a fold with one copy must not have learnt it elsewhere."""
    texts, given = material()
    copies = [texts[0]] * 5
    wrong = np.full(5, 1)
    probabilities = out_of_sample(texts[1:] + copies, np.append(given[1:], wrong), texts[1:] + copies, len(WORDS))
    assert probabilities is not None
    assert (probabilities[-5:].argmax(axis=1) == 0).all()


def test_too_little_to_learn_from_gives_nothing() -> None:
    texts, given = material(5)
    assert out_of_sample(texts, given, texts, 3) is None
    assert out_of_sample(["a"] * 60, np.zeros(60, dtype=int), [str(n) for n in range(60)], 3) is None
