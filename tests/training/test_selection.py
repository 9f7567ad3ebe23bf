"""Which texts are worth a reviewer's time: the arithmetic, the promises about batches, and parity with cleanlab."""

import numpy as np
import pytest
from scipy import stats

from training.selection import (
    Pool,
    Why,
    batch,
    entropy,
    k_centre,
    label_issues,
    margin,
    nearest,
    rarity,
    uncertainty,
    uniform_sample,
    unit,
)


def random_unit(count: int, width: int = 32, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, width)))


def pool_of(vectors: np.ndarray, **values: np.ndarray) -> Pool:
    nothing = np.zeros(len(vectors))
    return Pool(**{"unsure": nothing, "doubt": nothing, "rare": nothing, "vectors": vectors, **values})


def test_margin_and_entropy_run_from_sure_to_torn() -> None:
    rows = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert margin(rows) == pytest.approx([0, 1, 1])
    assert entropy(rows) == pytest.approx([0, np.log(2) / np.log(3), 1])
    assert uncertainty(rows)[2] > uncertainty(rows)[1] > uncertainty(rows)[0]
    assert margin(np.ones((2, 1))).tolist() == entropy(np.ones((2, 1))).tolist() == [0, 0]


def test_a_label_is_rare_below_its_even_share() -> None:
    assert rarity(np.array([0, 1, 2, -1]), [200, 100, 0]).tolist() == [0.0, 0.0, 1.0, 0.0]
    assert rarity(np.array([0, 1]), [0, 0]).tolist() == [1.0, 1.0]


def noisy_labels(seed: int, labels: int = 4, count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Given labels of which a tenth is wrong, and probabilities of a model that knows better, though not always."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(labels, count, p=generator.dirichlet(np.full(labels, 3.0)))
    logits = generator.normal(size=(count, labels)) + 2.5 * np.eye(labels)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    given = np.where(generator.random(count) < 0.1, generator.integers(labels, size=count), truth)
    return given, probabilities


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("labels", [2, 4, 9])
def test_suspected_labels_are_those_of_cleanlab(seed: int, labels: int) -> None:
    from cleanlab.filter import find_label_issues

    given, probabilities = noisy_labels(seed, labels)
    theirs = find_label_issues(
        given,
        probabilities,
        filter_by="confident_learning",
        return_indices_ranked_by="self_confidence",
        min_examples_per_class=0,
        n_jobs=1,
    )
    ours = label_issues(given, probabilities)
    assert len(theirs) > 10
    assert sorted(ours.ranked().tolist()) == sorted(theirs.tolist())
    assert ours.self_confidence[ours.ranked()] == pytest.approx(ours.self_confidence[theirs])


def test_a_label_that_nobody_was_given_is_no_error_of_theirs() -> None:
    from cleanlab.filter import find_label_issues

    given, probabilities = noisy_labels(3, labels=4)
    kept = given != 2
    given, probabilities = given[kept], probabilities[kept]
    ours = label_issues(given, probabilities)
    assert 2 not in ours.likely[ours.suspected]
    theirs = find_label_issues(given, probabilities, filter_by="confident_learning", n_jobs=1)
    assert ours.suspected.tolist() == theirs.tolist()


def test_the_nearest_are_found_in_pieces_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, known = random_unit(50, seed=1), random_unit(30, seed=2)
    likeness = vectors @ known.T
    monkeypatch.setattr("training.selection._BLOCK", 90)
    found, cosines = nearest(vectors, known, 3)
    assert found.tolist() == np.argsort(-likeness, axis=1)[:, :3].tolist()
    assert cosines == pytest.approx(-np.sort(-likeness, axis=1)[:, :3])
    assert nearest(vectors, known[:2], 3)[0].shape == (50, 2)
    assert nearest(vectors, known[:0], 3)[0].shape == (50, 0)


def test_k_centre_covers_every_group_before_it_takes_a_second_of_any() -> None:
    centres = random_unit(8, width=64, seed=4)
    group = np.repeat(np.arange(8), 50)
    vectors = unit(centres[group] + 0.02 * np.random.default_rng(5).normal(size=(400, 64)))
    assert {int(group[place]) for place in k_centre(vectors, 8)} == set(range(8))
    others = k_centre(vectors, 5, known=centres[:3])
    assert {int(group[place]) for place in others} == {3, 4, 5, 6, 7}


def test_k_centre_is_within_twice_the_optimum() -> None:
    vectors = random_unit(14, width=3, seed=6)
    taken = k_centre(vectors, 3)

    def radius(centres: list[int]) -> float:
        distances = np.linalg.norm(vectors[:, None] - vectors[None, centres], axis=2)
        return float(distances.min(axis=1).max())

    from itertools import combinations

    best = min(radius(list(chosen)) for chosen in combinations(range(14), 3))
    assert radius(taken) <= 2 * best + 1e-6


def test_k_centre_takes_each_text_once_and_stops_where_copies_are_left() -> None:
    vectors = np.repeat(random_unit(5, seed=7), 10, axis=0)
    assert len(k_centre(vectors, 50)) == 5


def test_of_five_hundred_near_copies_a_batch_holds_one() -> None:
    original, others = random_unit(1, 64, seed=8), random_unit(300, 64, seed=9)
    copies = unit(original + 0.01 * np.random.default_rng(10).normal(size=(500, 64)))
    vectors = np.vstack([copies, others])
    unsure = np.concatenate([np.linspace(0.9, 1.0, 500), np.linspace(0.1, 0.5, 300)])  # all the copies come first
    chosen = [place for place, _ in batch(pool_of(vectors, unsure=unsure, rare=unsure, doubt=unsure), 100)]
    assert len(chosen) == len(set(chosen)) == 100
    assert sum(place < 500 for place in chosen) == 1
    likeness = vectors[chosen] @ vectors[chosen].T - 2 * np.eye(100)
    assert likeness.max() < 0.9


def test_a_batch_mixes_its_reasons_in_the_order_of_each() -> None:
    vectors = random_unit(400, 64, seed=11)
    generator = np.random.default_rng(12)
    values = {name: generator.random(400) * (generator.random(400) < 0.3) for name in ("unsure", "doubt", "rare")}
    chosen = batch(pool_of(vectors, **values), 100)
    told = [why for _, why in chosen]
    assert {why: told.count(why) for why in Why} == {Why.UNSURE: 40, Why.DOUBTFUL: 20, Why.RARE: 20, Why.UNLIKE: 20}
    assert chosen[0][0] == values["unsure"].argmax()
    assert chosen[1][0] == values["doubt"].argmax()


def test_lists_that_run_dry_leave_their_slots_to_the_others() -> None:
    vectors = random_unit(20, 64, seed=13)
    chosen = batch(pool_of(vectors, unsure=np.linspace(0.1, 1, 20)), 100)
    assert sorted(place for place, _ in chosen) == list(range(20))
    assert {why for _, why in chosen} == {Why.UNSURE, Why.UNLIKE}
    assert batch(pool_of(vectors[:0]), 5) == []


def test_texts_without_any_feature_are_each_other_s_copy_of_nothing() -> None:
    chosen = batch(pool_of(np.zeros((3, 8), dtype=np.float32), unsure=np.ones(3)), 5)
    assert sorted(place for place, _ in chosen) == [0, 1, 2]


def test_the_uniform_sample_is_uniform() -> None:
    """Chi-square over 400 draws of 50 of 1,000: each key is drawn as often as any other."""
    keys = [f"0199-{number:06d}" for number in range(1000)]
    counts = np.zeros(1000)
    for salt in range(400):
        drawn = uniform_sample(keys, 50, salt=f"mood:{salt}")
        assert len(set(drawn)) == 50
        counts[[int(key[-6:]) for key in drawn]] += 1
    assert counts.sum() == 20_000
    blocks = counts.reshape(50, 20).sum(axis=1)  # each of 50 stretches of time alike
    assert stats.chisquare(blocks).pvalue > 0.001
    # Of each key, without the variance that drawing without replacement takes away.
    statistic = ((counts - 20) ** 2 / (20 * 0.95)).sum()
    assert 0.001 < stats.chi2.sf(statistic, 999) < 0.999


def test_a_draw_is_the_same_again_in_any_order() -> None:
    keys = [str(number) for number in range(100)]
    assert uniform_sample(reversed(keys), 10, salt="a") == uniform_sample(keys, 10, salt="a")
    assert uniform_sample(keys, 10, salt="b") != uniform_sample(keys, 10, salt="a")
    assert sorted(uniform_sample(keys[:3], 10, salt="a")) == keys[:3]
