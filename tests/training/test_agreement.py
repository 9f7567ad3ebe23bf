"""Agreement beyond chance, against examples that were published with their results."""

import pytest

from training.agreement import SMALL, agreement, cohen_kappa, krippendorff_alpha


def pairs_of(table: list[list[int]]) -> list[tuple[str, str]]:
    return [
        (str(row), str(column))
        for row, cells in enumerate(table)
        for column, count in enumerate(cells)
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        # Fleiss, Levin & Paik, Statistical Methods for Rates and Proportions (3rd ed., 2003), table 18.1: two
        # clinicians, psychotic, neurotic and organic.
        ([[75, 1, 4], [5, 4, 1], [0, 0, 10]], 0.676),
        # scikit-learn's and Wikipedia's: 50 grant proposals, two readers.
        ([[20, 5], [10, 15]], 0.400),
        # The same observed agreement of 60 %, other shares (Wikipedia, after Smeeton, 1985).
        ([[45, 15], [25, 15]], 0.1304),
        ([[25, 35], [5, 35]], 0.2593),
    ],
)
def test_kappa_of_published_tables(table, kappa):
    assert cohen_kappa(pairs_of(table)) == pytest.approx(kappa, abs=5e-4)


def test_kappa_is_that_of_scikit_learn():
    import numpy as np
    from sklearn.metrics import cohen_kappa_score

    generator = np.random.default_rng(3)
    one = generator.integers(4, size=200).astype(str)
    other = np.where(generator.random(200) < 0.6, one, generator.integers(4, size=200).astype(str))
    assert cohen_kappa(list(zip(one, other, strict=True))) == pytest.approx(cohen_kappa_score(one, other))


def test_nothing_to_compare_has_no_figure():
    assert cohen_kappa([]) is None
    assert cohen_kappa([("a", "a")] * 5) is None
    assert krippendorff_alpha([]) is None
    assert krippendorff_alpha([["a"], ["b"]]) is None
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None


# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): A, binary data of two observers; C, nominal data of
# four observers with gaps.
TWO = ("0100000000", "1110010100")
FOUR = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def units(rows):
    return [[answer for answer in column if answer != "."] for column in zip(*rows, strict=True)]


@pytest.mark.parametrize(("rows", "alpha"), [(TWO, 0.095), (FOUR, 0.743)])
def test_alpha_of_published_data(rows, alpha):
    assert krippendorff_alpha(units(rows)) == pytest.approx(alpha, abs=5e-4)


def test_figures_by_pair_and_by_label():
    judged = [{"rami": "joy", "tala": "joy"}] * 40 + [{"rami": "joy", "tala": "fear"}] * 10
    judged += [{"rami": "fear", "tala": "fear", "dina": "fear"}] * 10 + [{"rami": "joy"}] * 5
    found = agreement(judged)
    assert found.texts == 60
    assert not found.is_small
    first, *others = found.pairs
    assert (first.first, first.second, first.texts) == ("rami", "tala", 60)
    assert first.same == pytest.approx(5 / 6)
    assert first.kappa == pytest.approx(cohen_kappa([(u["rami"], u["tala"]) for u in judged if len(u) > 1]))
    assert [(pair.texts, pair.is_small, pair.kappa) for pair in others] == [(10, True, None), (10, True, None)]
    assert [(label.label, label.texts, label.is_small) for label in found.labels] == [
        ("joy", 50, False),
        ("fear", 20, True),
    ]
    assert found.alpha == pytest.approx(found.labels[0].alpha)  # of two answers, either tells all
    assert SMALL == 50


def test_nobody_judged_a_text_twice():
    found = agreement([{"rami": "joy"}])
    assert (found.texts, found.alpha, found.pairs, found.labels) == (0, None, (), ())
