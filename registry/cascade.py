"""From which confidence a cheap model may answer in place of a better one, without answering worse. Pure.

Both have answered the same validation texts, which neither learnt from. Texts above a threshold go to the cheap model;
there it loses some that the main model has right and gains some that it has wrong. The lowest threshold is chosen at
which the gains outweigh the losses by a margin for chance.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_TEXTS = 200  # validation texts under which nothing is said
LEAST_EARLY = 50  # texts above the threshold; fewer would save little and show little
MARGIN = 1.645  # standard deviations: by chance alone one threshold in twenty would look so good


@dataclass(frozen=True)
class Choice:
    """A threshold and what it does on the validation texts, shares from 0 to 1; without one, `reason` says why."""

    texts: int
    threshold: float | None = None
    early: float = 0.0
    accuracy: float = 0.0
    main_accuracy: float = 0.0
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        names = ("texts", "early", "accuracy", "main_accuracy", "reason")
        return {name: getattr(self, name) for name in names}


def choose(
    cheap: NDArray[np.floating[Any]], main: NDArray[np.floating[Any]], truth: NDArray[np.integer[Any]]
) -> Choice:
    """The threshold that lets most texts be answered early.

    `cheap` and `main` are calibrated probabilities (n, k) in one order of labels, `truth` (n,) positions in it. With
    `gains` and `losses` among the texts at or over the threshold, gains - losses is at least `MARGIN` times
    sqrt(gains + losses), its standard deviation if the two models were equally good there. Without any disagreement
    nothing has to be outweighed. Texts of equal confidence are answered alike.
    """
    n = len(truth)
    if not len(cheap) == len(main) == n:
        raise ValueError(f"expected as many answers as truths, got {len(cheap)} and {len(main)} for {n}")
    if n < LEAST_TEXTS:
        return Choice(n, reason=f"only {n} validation texts, and {LEAST_TEXTS} are needed")
    cheap_right, main_right = cheap.argmax(axis=1) == truth, main.argmax(axis=1) == truth
    confidence = cheap.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    gains, losses = np.cumsum((cheap_right & ~main_right)[order]), np.cumsum((main_right & ~cheap_right)[order])
    harmless = gains - losses >= MARGIN * np.sqrt(gains + losses)
    harmless[:-1] &= ranked[:-1] > ranked[1:]
    harmless[: LEAST_EARLY - 1] = False
    main_accuracy = float(main_right.mean())
    if not harmless.any():
        reason = "no threshold lets it answer enough texts without answering worse than the main model"
        return Choice(n, main_accuracy=main_accuracy, reason=reason)
    last = int(np.flatnonzero(harmless)[-1])
    early = confidence >= ranked[last]
    accuracy = float(np.where(early, cheap_right, main_right).mean())
    return Choice(n, float(ranked[last]), float(early.mean()), accuracy, main_accuracy)


def saving(early: float, cheap_ms: float, main_ms: float) -> float:
    """The share of computing time that a cascade saves; negative where the cheap model costs more than it saves.

    Every text costs the cheap model, all but the `early` share the main one as well.
    """
    return 1 - (cheap_ms + (1 - early) * main_ms) / main_ms
