"""Labels of a data set that are probably wrong, found as the review queue finds them. Pure: no Django."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from training.estimates import FOLDS, out_of_sample
from training.selection import label_issues

LEAST_PER_LABEL = FOLDS


class Doubt(NamedTuple):
    """Place of a text, the label it was given, the one that is likelier, and how sure the model is of that (0 to 1)."""

    text: int
    given: str
    likelier: str
    confidence: float


def doubts(texts: Sequence[str], labels: Sequence[str]) -> list[Doubt]:
    """Texts whose label is in doubt by confident learning (`training.selection.label_issues`), the surest first.

    None where there is too little to learn from; labels of fewer than five texts are left out.
    """
    names, given = np.unique(np.array(labels, dtype=object), return_inverse=True)
    kept = np.flatnonzero(np.bincount(given, minlength=len(names))[given] >= LEAST_PER_LABEL)
    names, given = np.unique(np.array(labels, dtype=object)[kept], return_inverse=True)
    read = [texts[place] for place in kept.tolist()]
    probabilities = out_of_sample(read, given, read, len(names))
    if probabilities is None:
        return []
    issues = label_issues(given, probabilities)
    found = [
        Doubt(
            int(kept[place]),
            str(names[given[place]]),
            str(names[issues.likely[place]]),
            round(float(probabilities[place, issues.likely[place]]), 4),
        )
        for place in np.flatnonzero(issues.suspected)
    ]
    return sorted(found, key=lambda doubt: (-doubt.confidence, doubt.text))
