"""Labels that are probably wrong: confident learning over a cross-validated linear model. Pure: no Django.

A label is in doubt where a model that never saw the text is at least as sure of another label as it is, on average, of
texts that carry that label (Northcutt, Jiang and Chuang, "Confident Learning", JAIR 2021).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.families.scikit import lean_import

FOLDS = 5
LEAST_TEXTS = 50  # with fewer a cross-validated model knows nothing
LEAST_PER_LABEL = FOLDS
TERMS = 2**18


class Doubt(NamedTuple):
    """Place of a text, the label it was given, the one that is likelier, and how sure the model is of that (0 to 1)."""

    text: int
    given: str
    likelier: str
    confidence: float


def doubts(
    texts: Sequence[str], labels: Sequence[str], progress: Callable[[float], None] = lambda share: None
) -> list[Doubt]:
    """Texts whose label is in doubt, the surest first; none where there is too little to learn from.

    Labels of fewer than five texts are left out. `progress` hears the share done.
    """
    names, given = np.unique(np.array(labels, dtype=object), return_inverse=True)
    kept = np.flatnonzero(np.bincount(given, minlength=len(names))[given] >= LEAST_PER_LABEL)
    if len(kept) < LEAST_TEXTS or len(np.unique(given[kept])) < 2:
        return []
    names, given = np.unique(np.array(labels, dtype=object)[kept], return_inverse=True)
    probabilities = _out_of_sample([texts[place] for place in kept.tolist()], given, len(names), progress)
    own = probabilities[np.arange(len(given)), given]
    sums = np.bincount(given, weights=own, minlength=len(names))
    thresholds = sums / np.maximum(np.bincount(given, minlength=len(names)), 1)
    confident = np.where(probabilities >= thresholds, probabilities, 0.0)
    confident[np.arange(len(given)), given] = 0.0
    likelier = confident.argmax(axis=1)
    sure = confident[np.arange(len(given)), likelier]
    found = [
        Doubt(int(kept[place]), str(names[given[place]]), str(names[likelier[place]]), round(float(sure[place]), 4))
        for place in np.flatnonzero(sure > own)
    ]
    return sorted(found, key=lambda doubt: (-doubt.confidence, doubt.text))


def _out_of_sample(
    texts: Sequence[str], given: NDArray[np.intp], count: int, progress: Callable[[float], None]
) -> NDArray[np.float64]:
    """(n, labels): what a model of the four other fifths thinks of each text."""
    with lean_import():
        from sklearn.feature_extraction.text import HashingVectorizer
        from sklearn.linear_model import SGDClassifier
    vectors = HashingVectorizer(ngram_range=(1, 2), n_features=TERMS, alternate_sign=False).transform(texts)
    folds = _folds(texts, given)
    probabilities = np.zeros((len(texts), count))
    for fold in range(FOLDS):
        held_out = folds == fold
        model = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=20, tol=1e-3, random_state=13)
        model.fit(vectors[~held_out], given[~held_out])
        known = np.asarray(model.classes_)
        probabilities[np.ix_(np.flatnonzero(held_out), known)] = model.predict_proba(vectors[held_out])
        progress((fold + 1) / FOLDS)
    return probabilities


def _folds(texts: Sequence[str], given: NDArray[np.intp]) -> NDArray[np.intp]:
    """Each label spread over the folds; equal texts share one, so that no model judges a text it has seen."""
    order = np.random.default_rng(13).permutation(len(texts))
    folds, next_of, fold_of = np.empty(len(texts), np.intp), dict[int, int](), dict[str, int]()
    for place in order:
        label = int(given[place])
        if texts[place] not in fold_of:
            fold_of[texts[place]] = next_of.get(label, 0) % FOLDS
            next_of[label] = next_of.get(label, 0) + 1
        folds[place] = fold_of[texts[place]]
    return folds
