"""Which texts a reviewer's next minutes are spent on best: pure numpy, without Django.

A queue is laid out slot by slot, and each slot has one reason: the model is unsure (uncertainty sampling, Lewis & Gale
1994; margin, Scheffer et al. 2001), the proposed label is probably wrong (confident learning, Northcutt et al. 2021),
the label is rare, or the text is far from all that is known (k-centre greedy, Sener & Savarese 2018). Whatever fills a
slot, no two texts of a batch are near copies of each other. A sample that shall measure rather than teach is drawn
apart from all that, by `uniform_sample`.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]

NEAR = 0.9  # cosine from which on two texts count as near copies
_ROUNDING = 1e-6  # that much below its class's threshold still counts as confident, as in cleanlab
_BLOCK = 2**22  # similarities that are held at once


class Why(StrEnum):
    """What an item came to its place for."""

    UNSURE = "unsure"
    DOUBTFUL = "doubtful"
    RARE = "rare"
    UNLIKE = "unlike"


# What ten slots are given to, in turn. A list that has run dry leaves its slots to the others.
SLOTS = (
    *(Why.UNSURE, Why.DOUBTFUL, Why.RARE, Why.UNSURE, Why.UNLIKE),
    *(Why.UNSURE, Why.DOUBTFUL, Why.UNSURE, Why.RARE, Why.UNLIKE),
)


# What one text is worth -------------------------------------------------------------------------------------------


def margin(probabilities: Floats) -> Floats:
    """How unsure, 0 (sure) to 1 (torn): one minus the distance of the two highest probabilities.

    `probabilities` is (n, labels), rows that sum to 1; returns (n,).
    """
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities))
    top = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(1 - np.abs(top[:, 1] - top[:, 0]))


def entropy(probabilities: Floats) -> Floats:
    """How unsure over all labels, 0 to 1: Shannon's entropy in units of its greatest value. (n, labels) → (n,)."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities))
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return np.asarray(-(probabilities * logs).sum(axis=1) / np.log(probabilities.shape[1]))


def uncertainty(probabilities: Floats) -> Floats:
    """Mean of `margin` and `entropy`: torn between two labels counts, and so does knowing nothing. (n,), 0 to 1."""
    return (margin(probabilities) + entropy(probabilities)) / 2


def uncertainty_of_sets(probabilities: Floats) -> Floats:
    """How unsure where labels are independent of each other: that of the label nearest to a half. (n,), 0 to 1."""
    return np.asarray((1 - np.abs(2 * probabilities - 1)).max(axis=1, initial=0.0))


def rarity(labels: Indices, counts: Sequence[int]) -> Floats:
    """How scarce each text's label is among what is known: 0 for labels with their even share or more, towards 1.

    `labels` (n,) index into `counts`, the number of known texts per label; -1 for a text without a label, which gets 0.
    """
    known = np.asarray(counts, dtype=float)
    even = max(known.mean(), 1.0) if len(known) else 1.0
    scarce = np.clip(1 - known / even, 0, 1)
    return np.where(labels >= 0, np.append(scarce, 0.0)[labels], 0.0)


@dataclass(frozen=True)
class LabelIssues:
    """Which given labels are probably wrong: `suspected` (n,), the `likely` label (n,) and `self_confidence` (n,)."""

    suspected: NDArray[np.bool_]
    likely: Indices
    self_confidence: Floats

    def ranked(self) -> Indices:
        """The suspected, the least believable label first."""
        found = np.flatnonzero(self.suspected)
        return found[np.argsort(self.self_confidence[found], kind="stable")]


def label_issues(given: Indices, probabilities: Floats) -> LabelIssues:
    """Confident learning (Northcutt, Jiang & Chuang, JAIR 2021): off the diagonal of the confident joint.

    `given` (n,) index the columns of `probabilities` (n, labels), which must be out of sample: from models that did not
    see the text they judge. A text confidently belongs to a label whose probability reaches the mean that this label
    has on texts given it; among several, to the most probable. Where that is not the given label, and the given one is
    not the most probable either, the label is suspected. cleanlab calls this `confident_learning`.
    """
    labels = probabilities.shape[1]
    members = np.bincount(given, minlength=labels)
    own = probabilities[np.arange(len(given)), given]
    sums = np.bincount(given, weights=own, minlength=labels)
    # No text can be confident of a label that was never given: a threshold over 1.
    thresholds = np.where(members > 0, sums / np.maximum(members, 1), 2.0)
    confident = probabilities >= thresholds - _ROUNDING
    likely = np.where(confident, probabilities, -1.0).argmax(axis=1)
    several = confident.sum(axis=1) > 1
    likely = np.where(several, probabilities.argmax(axis=1), likely)
    suspected = confident.any(axis=1) & (likely != given) & (probabilities.argmax(axis=1) != given)
    return LabelIssues(suspected, likely, own)


# Which texts together ---------------------------------------------------------------------------------------------


def unit(vectors: Floats) -> NDArray[np.float32]:
    """Rows scaled to length 1; rows of zeros stay, and are like nothing."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


def nearest(vectors: NDArray[np.float32], known: NDArray[np.float32], count: int) -> tuple[Indices, Floats]:
    """For each of `vectors` (n, width) the `count` most similar rows of `known`, the closest first.

    Both of length 1. Returns indices and cosines, (n, min(count, len(known))) each; never more than 4 M similarities
    are held at once.
    """
    count = min(count, len(known))
    found = np.zeros((len(vectors), count), dtype=np.intp)
    cosines = np.zeros((len(vectors), count), dtype=np.float32)
    step = max(1, _BLOCK // max(len(known), 1))
    for start in range(0, len(vectors) if count else 0, step):
        likeness = vectors[start : start + step] @ known.T
        top = np.argpartition(likeness, -count, axis=1)[:, -count:]
        values = np.take_along_axis(likeness, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        found[start : start + step] = np.take_along_axis(top, order, axis=1)
        cosines[start : start + step] = np.take_along_axis(values, order, axis=1)
    return found, cosines


def k_centre(vectors: NDArray[np.float32], count: int, *, known: NDArray[np.float32] | None = None) -> list[int]:
    """Core-set selection: `count` rows, each the farthest from `known` and from all that were taken before it.

    `vectors` and `known` of length 1. Sener & Savarese, ICLR 2018, algorithm 1: at most twice the optimal radius.
    Stops early where only copies of what was taken are left.
    """
    cover = _Cover(vectors, known)
    taken: list[int] = []
    for _ in range(min(count, len(vectors))):
        place = cover.farthest()
        if place is None:
            break
        cover.take(place)
        taken.append(place)
    return taken


class _Cover:
    """How close each text is to what is known (`to_known`) and to what was taken for this batch (`to_taken`)."""

    def __init__(self, vectors: NDArray[np.float32], known: NDArray[np.float32] | None) -> None:
        self._vectors = vectors
        self.to_known = np.full(len(vectors), -1.0, dtype=np.float32)
        if known is not None and len(known):
            self.to_known = nearest(vectors, known, 1)[1][:, 0].astype(np.float32)
        self.to_taken = np.full(len(vectors), -1.0, dtype=np.float32)

    def take(self, place: int) -> None:
        np.maximum(self.to_taken, self._vectors @ self._vectors[place], out=self.to_taken)
        self.to_taken[place] = 2.0  # a row of zeros is not even like itself

    def is_new(self, place: int, limit: float) -> bool:
        return bool(self.to_taken[place] < limit)

    def farthest(self, limit: float = 1 - _ROUNDING) -> int | None:
        if not len(self.to_taken):
            return None
        closeness = np.maximum(self.to_known, self.to_taken)
        place = int(closeness.argmin())
        return place if self.to_taken[place] < limit else None


@dataclass(frozen=True)
class Pool:
    """Texts among which a batch is chosen. All arrays have a row per text.

    `unsure` and `rare` are 0 to 1; `doubt` is 0 for labels that nobody suspects, else how unbelievable the label is;
    `vectors` of length 1; `known` are the vectors of approved texts.
    """

    unsure: Floats
    doubt: Floats
    rare: Floats
    vectors: NDArray[np.float32]
    known: NDArray[np.float32] | None = None


def batch(pool: Pool, count: int, *, near: float = NEAR) -> list[tuple[int, Why]]:
    """At most `count` rows of the pool in the order to review them, and why each; no two more alike than `near`.

    Ten slots are shared out as `SLOTS` says. O(count · n · width).
    """
    cover = _Cover(pool.vectors, pool.known)
    lists = {
        Why.UNSURE: _falling(pool.unsure),
        Why.DOUBTFUL: _falling(pool.doubt),
        Why.RARE: _falling(pool.rare + pool.unsure * (pool.rare > 0) / 2),
    }
    chosen: list[tuple[int, Why]] = []
    dry: set[Why] = set()
    for why in cycle(SLOTS):
        if len(chosen) >= count or dry == set(Why):
            return chosen
        if why in dry:
            continue
        place = cover.farthest(near) if why is Why.UNLIKE else _first_new(lists[why], cover, near)
        if place is None:
            dry.add(why)
            continue
        cover.take(place)
        chosen.append((place, why))
    return chosen


def _falling(values: Floats) -> Iterator[int]:
    """Rows with a value over 0, the highest first; read once, from where it was left."""
    order = np.argsort(-values, kind="stable")
    return iter(order[values[order] > 0].tolist())


def _first_new(rows: Iterator[int], cover: _Cover, near: float) -> int | None:
    """What is near a taken text stays so, so a row that is passed over need not be looked at again."""
    return next((row for row in rows if cover.is_new(row, near)), None)


def uniform_sample(keys: Iterable[str], count: int, *, salt: str) -> list[str]:
    """`count` of `keys`, every subset of that size equally likely, in one pass over any number of them.

    The keys with the smallest keyed hashes (bottom-k sampling, Cohen & Kaplan 2007): the same keys and salt always give
    the same sample, whatever the order, so a draw that is repeated after a crash draws the same.
    """
    start = hashlib.sha256(salt.encode())

    def rank(key: str) -> bytes:
        digest = start.copy()
        digest.update(b"\0" + key.encode())
        return digest.digest()

    return [key for _, key in heapq.nsmallest(count, ((rank(key), key) for key in keys))]
