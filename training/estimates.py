"""What the review queue needs to know of texts before anybody looked at them. No Django, no torch.

Out-of-sample probabilities come from a small linear model that never saw the text it judges: the live version may have
been trained on the very label that is in doubt.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.families.scikit import lean_import
from registry.metrics import wilson_interval
from training.selection import unit

FOLDS = 5
LEAST_TEXTS = 50  # with fewer a cross-validated model knows nothing
_WIDTH = 512
_TERMS = 2**17
_PASSES, _MOST_PASSES, _STEPS = 8, 30, 20_000
_NOT_WORDS = re.compile(r"[\W_]+")


def word_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, 512) vectors of length 1 from hashed character 3- and 4-grams (Weinberger et al., ICML 2009).

    They tell copies and near copies as well as an encoder does, and nothing of meaning.
    """
    with lean_import():
        from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(
        analyzer="char_wb", ngram_range=(3, 4), n_features=_WIDTH, dtype=np.float32, preprocessor=_bare
    )
    return unit(hashing.transform(texts).toarray()) if len(texts) else np.zeros((0, _WIDTH), dtype=np.float32)


def _bare(text: str) -> str:
    """Small letters and digits with single blanks: case and punctuation make no other text."""
    return _NOT_WORDS.sub(" ", text.lower()).strip()


def out_of_sample(
    texts: Sequence[str], given: NDArray[np.intp], groups: Sequence[str], labels: int, *, seed: int = 13
) -> NDArray[np.float64] | None:
    """Probabilities (n, labels) for each text by a model of the other folds; None where there is too little to learn.

    `given` (n,) index the labels. Texts of one group (the same content hash) share a fold, so that no model judges a
    text it has seen. TF-IDF of words and pairs of words under logistic regression, fitted by SGD; linear in n.
    """
    if len(texts) < LEAST_TEXTS or len(np.unique(given)) < 2:
        return None
    matrix = _words(texts)
    names = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    places = np.random.default_rng(seed).permutation(len(names)) % FOLDS
    fold = places[np.array([names[group] for group in groups])]
    probabilities = np.zeros((len(texts), labels))
    for number in range(FOLDS):
        inside, outside = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        if not len(inside):
            continue
        if len(np.unique(given[outside])) < 2:
            return None
        model = _fitted(matrix[outside], given[outside], seed)
        probabilities[np.ix_(inside, model.classes_)] = model.predict_proba(matrix[inside])
    return probabilities


def _words(texts: Sequence[str]) -> Any:
    with lean_import():
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    hashing = HashingVectorizer(ngram_range=(1, 2), n_features=_TERMS, alternate_sign=False, norm=None)
    return TfidfTransformer(sublinear_tf=True).fit_transform(hashing.transform(texts)).tocsr()


def _fitted(matrix: Any, truth: NDArray[np.intp], seed: int) -> Any:
    with lean_import():
        from sklearn.linear_model import SGDClassifier

    passes = max(_PASSES, min(_MOST_PASSES, _STEPS // len(truth)))
    model = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=passes, tol=None, average=True)
    return model.set_params(random_state=seed).fit(matrix, truth)


@dataclass(frozen=True)
class Share:
    """An estimated share with its 95 % interval, from so many texts."""

    share: float
    low: float
    high: float
    texts: int


def weighted_share(rows: Sequence[tuple[bool, float]]) -> Share | None:
    """The share of True among weighted rows; None without any.

    Wilson's interval for as many rows as equal weights would need to know as much (Kish's effective sample size).
    """
    weights = sum(weight for _, weight in rows)
    if not weights:
        return None
    share = sum(weight for value, weight in rows if value) / weights
    size = weights**2 / sum(weight**2 for _, weight in rows)
    low, high = wilson_interval(share * size, size)
    return Share(share, low, high, len(rows))
