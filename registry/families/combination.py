"""How the probabilities of several members become one answer: a weighted vote, or stacking. Which is better is tried.

Vote: a mixture of the members' probabilities. Its weights are the mixture's maximum likelihood on held-out texts,
found by expectation maximisation (Dempster, Laird & Rubin, 1977). Stacking: a logistic regression over the members'
log-probabilities (Wolpert, 1992), which can learn whom to believe on which label.

Both are judged by the log loss on texts that they were not fitted to, by cross-validation.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from registry.families.linear_head import Head, one_label, several_labels

LEAST_TEXTS = 50  # validation texts; with fewer all members count alike
FOLDS = 5
VOTE, STACK = "vote", "stack"
_STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # of stacking; scikit-learn's C
_FLOOR = 1e-6  # of a probability, before its logarithm is taken
_ROUNDS = 200  # of expectation maximisation

Opinions = NDArray[np.float64]
"""What the members say: probabilities (texts, members, labels)."""


class Combiner(Protocol):
    """`logits` of opinions; the softmax of them, or the sigmoid of independent labels, are probabilities."""

    method: str

    def logits(self, opinions: Opinions) -> NDArray[np.float64]:
        """(texts, labels)."""
        ...

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """What was learnt."""
        ...


@dataclass(frozen=True)
class Vote:
    """`weights` (members,) sum to 1."""

    weights: NDArray[np.float32]
    multi_label: bool
    method = VOTE

    def logits(self, opinions: Opinions) -> NDArray[np.float64]:
        mixed = np.einsum("m,tml->tl", self.weights.astype(np.float64), opinions)
        return _log_odds(mixed) if self.multi_label else _log(mixed)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        return {"weights": self.weights}


@dataclass(frozen=True)
class Stack:
    """A linear head over the members' log-probabilities, side by side (log-odds where labels are independent)."""

    head: Head
    multi_label: bool
    method = STACK

    def logits(self, opinions: Opinions) -> NDArray[np.float64]:
        coefficients, intercepts = self.head
        logits: NDArray[np.float64] = _features(opinions, self.multi_label) @ coefficients + intercepts
        return logits

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        return {"coefficients": self.head[0], "intercepts": self.head[1]}


def combiner_of(method: str, arrays: dict[str, NDArray[np.float32]], *, multi_label: bool) -> Combiner:
    """The inverse of `arrays`. Raises KeyError for arrays that are not the method's."""
    if method == VOTE:
        return Vote(arrays["weights"], multi_label)
    return Stack((arrays["coefficients"], arrays["intercepts"]), multi_label)


@dataclass(frozen=True)
class Choice:
    """`combiner`, learnt from all texts; the `held_out` logits (texts, labels) of folds that it had not seen.

    `losses`: the log loss of each method on texts that it had not seen; empty where nothing was tried, without
    stacking where the texts show too few labels for it.
    """

    combiner: Combiner
    held_out: NDArray[np.float64]
    losses: dict[str, float]


def choose(opinions: Opinions, truth: NDArray[np.float32], *, multi_label: bool, seed: int) -> Choice:
    """The better of vote and stacking for `truth` (texts, labels) of 0 and 1, by `FOLDS`-fold cross-validation."""
    texts, members, _ = opinions.shape
    if texts < LEAST_TEXTS:
        even = Vote(np.full(members, 1 / members, dtype=np.float32), multi_label)
        return Choice(even, even.logits(opinions), {})
    folds = np.random.default_rng(seed).permutation(texts) % FOLDS
    tried: list[_Method] = [_Vote(multi_label)]
    if multi_label or _tells_apart(truth, folds):
        tried += [_Stack(multi_label, strength) for strength in _STRENGTHS]
    held_out = [_cross_validated(method, opinions, truth, folds) for method in tried]
    losses = [log_loss(logits, truth, multi_label=multi_label) for logits in held_out]
    best = int(np.argmin(losses))  # the first of equals, and the vote comes first
    said = {VOTE: losses[0]} | ({STACK: min(losses[1:])} if losses[1:] else {})
    return Choice(tried[best].fit(opinions, truth), held_out[best], said)


def _tells_apart(truth: NDArray[np.float32], folds: NDArray[np.integer[Any]]) -> bool:
    """Whether two labels or more are left to learn from, whichever fold is held out."""
    return all(np.count_nonzero(truth[folds != fold].sum(axis=0)) > 1 for fold in range(FOLDS))


def log_loss(logits: NDArray[np.float64], truth: NDArray[np.float32], *, multi_label: bool) -> float:
    """Of a text; of a single decision where labels are independent."""
    if multi_label:
        return float((np.logaddexp(0.0, logits) - truth * logits).mean())
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-(truth * normalised).sum(axis=1).mean())


class _Method(Protocol):
    def fit(self, opinions: Opinions, truth: NDArray[np.float32]) -> Combiner: ...


@dataclass(frozen=True)
class _Vote:
    multi_label: bool

    def fit(self, opinions: Opinions, truth: NDArray[np.float32]) -> Combiner:
        """Expectation: whose answer each truth was, given the weights; maximisation: their mean share."""
        shown = truth[:, np.newaxis, :] > 0
        if self.multi_label:  # every decision is one observation
            given = np.where(shown, opinions, 1 - opinions).swapaxes(1, 2).reshape(-1, opinions.shape[1])
        else:
            given = (opinions * shown).sum(axis=2)
        given = np.maximum(given, _FLOOR)
        weights = np.full(opinions.shape[1], 1 / opinions.shape[1])
        for _ in range(_ROUNDS):
            shares = weights * given
            weights = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
        return Vote(weights.astype(np.float32), self.multi_label)


@dataclass(frozen=True)
class _Stack:
    multi_label: bool
    strength: float

    def fit(self, opinions: Opinions, truth: NDArray[np.float32]) -> Combiner:
        features = _features(opinions, self.multi_label)
        if self.multi_label:
            return Stack(several_labels(features, truth, np.ones(truth.shape), self.strength), True)
        index, even = truth.argmax(axis=1), np.ones(len(truth))
        return Stack(one_label(features, index, even, labels=truth.shape[1], strength=self.strength), False)


def _cross_validated(
    method: _Method, opinions: Opinions, truth: NDArray[np.float32], folds: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Logits of each text from what was fitted to the other folds."""
    logits = np.zeros(truth.shape)
    for fold in range(FOLDS):
        chosen = folds == fold
        logits[chosen] = method.fit(opinions[~chosen], truth[~chosen]).logits(opinions[chosen])
    return logits


def _features(opinions: Opinions, multi_label: bool) -> NDArray[np.float64]:
    said = _log_odds(opinions) if multi_label else _log(opinions)
    return said.reshape(len(opinions), -1)


def _log(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    logarithms: NDArray[np.float64] = np.log(np.maximum(probabilities, _FLOOR))
    return logarithms


def _log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = np.clip(probabilities, _FLOOR, 1 - _FLOOR)
    odds: NDArray[np.float64] = np.log(bounded / (1 - bounded))
    return odds
