"""What a text is about, where no classifier says it: clusters of texts by the words that they share. Pure.

Spherical k-means (Dhillon & Modha 2001) over TF-IDF vectors of a sample, begun several times from texts that lie far
from each other (greedy k-means++, Arthur & Vassilvitskii 2007) with a fixed seed, so that the same sample gives the
same clusters. A cluster is named by words that are frequent in it and rare elsewhere (c-TF-IDF, Grootendorst 2022),
function words left out. It keeps its heaviest words, and any text belongs to the cluster whose words it holds most
weight of: a look-up per word, which a million texts can afford.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.etl import Record

CLUSTERS = 8
LEAST_TEXTS, MOST_TEXTS = 200, 4_000  # of a sample
LEAST_OF_CLUSTER = 0.01  # of the sample; smaller ones are chance
WORDS_KEPT = 80
_BEGINNINGS, _DRAWN, _ROUNDS = 5, 4, 25
_SAME = 1e-6  # apart is less than arithmetic can tell
_MOST_WORDS = 4_000  # of the vocabulary
_MOST_COMMON, _LEAST_DOCUMENTS = 0.2, 3  # a word of more texts than this share says nothing
_NAME_WORDS, _NAME_LENGTH = 2, 60
_LAST = 1e-6  # as much a function word tells: it names a cluster that has no other
_FUNCTION_WORDS = Path(__file__).with_name("function_words.txt")

# Four letters and more, or two of scripts that write whole words with so few.
_WORD = re.compile(r"[^\W\d_]{4,40}|[\u0600-\u06ff\u0590-\u05ff\u3040-\u9fff\uac00-\ud7af]{2,40}")


@dataclass(frozen=True)
class Domains:
    """The clusters of a classifier: {name: {word: weight}}. `to_dict` and `from_dict` are JSON types."""

    clusters: Mapping[str, Mapping[str, float]]

    @cached_property
    def _weights(self) -> dict[str, list[tuple[str, float]]]:
        weights: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
        for name, words in self.clusters.items():
            for word, weight in words.items():
                weights[word].append((name, weight))
        return dict(weights)

    def of(self, texts: Iterable[str]) -> str:
        """The domain of an input with these texts; "" where it holds no word of any."""
        totals: defaultdict[str, float] = defaultdict(float)
        weights = self._weights
        for text in texts:
            for word in set(_WORD.findall(text.casefold())):
                for name, weight in weights.get(word, ()):
                    totals[name] += weight
        return min(totals, key=lambda name: (-totals[name], name)) if totals else ""

    def to_dict(self) -> dict[str, Any]:
        return {name: dict(words) for name, words in self.clusters.items()}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Domains":
        return cls(
            {str(name): {str(word): float(weight) for word, weight in words.items()} for name, words in raw.items()}
        )


def find_domains(texts: Sequence[str], clusters: int = CLUSTERS) -> Domains | None:
    """The domains of a sample; None for one of fewer than `LEAST_TEXTS` texts, or without words to go by."""
    if len(texts) < LEAST_TEXTS:
        return None
    words, vectors = _vectors(texts[:MOST_TEXTS])
    if len(words) < clusters or len(vectors) < clusters:
        return None
    centroids, nearest = _best_clusters(vectors, clusters)
    sizes = np.bincount(nearest, minlength=clusters)
    kept = [number for number in range(clusters) if sizes[number] >= LEAST_OF_CLUSTER * len(vectors)]
    telling = _telling(vectors, nearest, kept)
    telling[:, [word in function_words() for word in words]] *= _LAST
    named: dict[str, dict[str, float]] = {}
    for number, tells in zip(kept, telling, strict=True):
        heaviest = np.argsort(-centroids[number], kind="stable")[:WORDS_KEPT]
        weights = {words[index]: round(float(centroids[number][index]), 4) for index in heaviest}
        best = [words[index] for index in np.argsort(-tells, kind="stable")]
        named[_free_name(best, named)] = {word: weight for word, weight in weights.items() if weight > 0}
    return Domains(named) if len(named) > 1 else None


def mark_domains(records: Sequence[Record], domains: Domains) -> list[Record]:
    """The records with their domain."""
    return [replace(record, domain=domains.of(record.fields)) for record in records]


@cache
def function_words() -> frozenset[str]:
    """The words of `function_words.txt`."""
    lines = _FUNCTION_WORDS.read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


def _vectors(texts: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
    """The vocabulary and TF-IDF rows of length 1 (texts, words), of those texts alone that hold any of its words.

    A text that holds none is like no other: it would be the farthest from all, and as a beginning attract nothing.
    """
    split = [set(_WORD.findall(text.casefold())) for text in texts]
    documents = Counter(word for text in split for word in text)
    most = _MOST_COMMON * len(texts)
    usual = [word for word, count in documents.items() if _LEAST_DOCUMENTS <= count <= most]
    words = sorted(usual, key=lambda word: (-documents[word], word))[:_MOST_WORDS]
    column = {word: index for index, word in enumerate(words)}
    weight = np.log(len(texts) / np.array([documents[word] for word in words] or [1], dtype=np.float32))
    held = [text & column.keys() for text in split]
    vectors = np.zeros((sum(map(bool, held)), len(words)), dtype=np.float32)
    for row, text in enumerate(filter(None, held)):
        for word in text:
            vectors[row, column[word]] = weight[column[word]]
    return words, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _best_clusters(vectors: NDArray[np.float32], clusters: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The tightest of some clusterings: a single one depends much on where it begins."""
    draw = np.random.default_rng(0)
    found = [_spherical_k_means(vectors, _far_apart(vectors, clusters, draw)) for _ in range(_BEGINNINGS)]
    _, centroids, nearest = max(found, key=lambda each: each[0])
    return centroids, nearest


def _spherical_k_means(
    vectors: NDArray[np.float32], first: Sequence[int]
) -> tuple[float, NDArray[np.float32], NDArray[np.int64]]:
    """How like their centroids the texts are on average (0 to 1), the centroids (clusters, words) of length 1, and the
    number of each text's. Begins with the rows `first`."""
    centroids = vectors[list(first)]
    similarity = vectors @ centroids.T
    nearest = similarity.argmax(axis=1)
    for _ in range(_ROUNDS):
        member = np.zeros((len(first), len(vectors)), dtype=np.float32)
        member[nearest, np.arange(len(vectors))] = 1
        sums = member @ vectors
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids = np.divide(sums, norms, out=centroids.copy(), where=norms > 0)
        similarity = vectors @ centroids.T
        before, nearest = nearest, similarity.argmax(axis=1)
        if np.array_equal(before, nearest):
            break
    return float(similarity.max(axis=1).mean()), centroids, nearest


def _far_apart(vectors: NDArray[np.float32], clusters: int, draw: np.random.Generator) -> list[int]:
    """Different rows to begin with: of a few that are drawn by their distance from the nearest of those chosen, each
    time the one that leaves the least distance.

    Where all texts are equal to chosen ones, fewer than `clusters`.
    """
    chosen = [int(draw.integers(len(vectors)))]
    apart = 1 - vectors @ vectors[chosen[0]]  # half the square of the distance
    while len(chosen) < clusters:
        apart[chosen] = 0
        odds = np.cumsum(np.maximum(apart, 0), dtype=np.float64)
        if odds[-1] <= _SAME * len(vectors):
            break
        drawn = np.searchsorted(odds, draw.random(_DRAWN) * odds[-1], side="right")
        left = np.minimum(apart, 1 - vectors[drawn] @ vectors.T)  # (drawn, texts)
        best = int(left.sum(axis=1).argmin())
        chosen.append(int(drawn[best]))
        apart = left[best]
    return chosen


def _telling(vectors: NDArray[np.float32], nearest: NDArray[np.int64], kept: Sequence[int]) -> NDArray[np.float64]:
    """(kept clusters, words): how much a word tells a cluster apart, c-TF-IDF over the texts that hold it."""
    counts = np.array([(vectors[nearest == number] > 0).sum(axis=0) for number in kept], dtype=np.float64)
    of_cluster = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    telling: NDArray[np.float64] = counts / of_cluster * np.log1p(of_cluster.mean() / np.maximum(counts.sum(axis=0), 1))
    return telling


def _free_name(words: Sequence[str], taken: Collection[str]) -> str:
    """Of the first words; where another cluster is called so, of the next ones."""
    names = (", ".join(words[begin : begin + _NAME_WORDS])[:_NAME_LENGTH] for begin in range(len(words)))
    return next(name for name in names if name not in taken)
