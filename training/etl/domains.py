"""What a text is about, where no classifier says it: clusters of texts by the words that they share. Pure.

Spherical k-means (Dhillon & Modha 2001) over TF-IDF vectors of a sample, begun from the texts that lie farthest from
each other, so that the same sample gives the same clusters. A cluster keeps its heaviest words, and any text belongs to
the cluster whose words it holds most weight of: a look-up per word, which a million texts can afford.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.etl import Record

CLUSTERS = 8
LEAST_TEXTS, MOST_TEXTS = 200, 4_000  # of a sample
LEAST_OF_CLUSTER = 0.01  # of the sample; smaller ones are chance
WORDS_KEPT = 80
_ROUNDS = 25
_MOST_WORDS = 4_000  # of the vocabulary
_MOST_COMMON, _LEAST_DOCUMENTS = 0.2, 3  # a word of more texts than this share says nothing
_NAME_WORDS, _NAME_LENGTH = 2, 60

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
    if len(words) < clusters:
        return None
    centroids, members = _spherical_k_means(vectors, clusters)
    named: dict[str, dict[str, float]] = {}
    for centroid, share in zip(centroids, members, strict=True):
        if share < LEAST_OF_CLUSTER:
            continue
        heaviest = [int(index) for index in np.argsort(-centroid, kind="stable")[:WORDS_KEPT] if centroid[index] > 0]
        name = ", ".join(words[index] for index in heaviest[:_NAME_WORDS])[:_NAME_LENGTH]
        named.setdefault(name, {words[index]: round(float(centroid[index]), 4) for index in heaviest})
    return Domains(named) if len(named) > 1 else None


def mark_domains(records: Sequence[Record], domains: Domains) -> list[Record]:
    """The records with their domain."""
    return [replace(record, domain=domains.of(record.fields)) for record in records]


def _vectors(texts: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
    """The vocabulary and TF-IDF rows of length 1 (texts, words); a text without any of its words is all zero."""
    split = [set(_WORD.findall(text.casefold())) for text in texts]
    documents = Counter(word for text in split for word in text)
    most = _MOST_COMMON * len(texts)
    usual = [word for word, count in documents.items() if _LEAST_DOCUMENTS <= count <= most]
    words = sorted(usual, key=lambda word: (-documents[word], word))[:_MOST_WORDS]
    column = {word: index for index, word in enumerate(words)}
    weight = np.log(len(texts) / np.array([documents[word] for word in words] or [1], dtype=np.float32))
    vectors = np.zeros((len(texts), len(words)), dtype=np.float32)
    for row, text in enumerate(split):
        for word in text & column.keys():
            vectors[row, column[word]] = weight[column[word]]
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return words, np.divide(vectors, norms, out=vectors, where=norms > 0)


def _spherical_k_means(vectors: NDArray[np.float32], clusters: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Centroids (clusters, words) of length 1, and the share of the texts that belongs to each."""
    centroids = vectors[_far_apart(vectors, clusters)]
    nearest = np.zeros(len(vectors), dtype=np.int64)
    for _ in range(_ROUNDS):
        similarity = vectors @ centroids.T
        before, nearest = nearest, similarity.argmax(axis=1)
        sums = np.zeros_like(centroids)
        np.add.at(sums, nearest, vectors)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids = np.divide(sums, norms, out=centroids.copy(), where=norms > 0)
        if np.array_equal(before, nearest):
            break
    shares = np.bincount(nearest, minlength=clusters) / len(vectors)
    return centroids, shares


def _far_apart(vectors: NDArray[np.float32], clusters: int) -> list[int]:
    """Rows to begin with: the one nearest to the mean, then each time the one farthest from all chosen."""
    mean = vectors.mean(axis=0)
    chosen = [int((vectors @ mean).argmax())]
    closest = vectors @ vectors[chosen[0]]
    while len(chosen) < clusters:
        chosen.append(int(closest.argmin()))
        closest = np.maximum(closest, vectors @ vectors[chosen[-1]])
    return chosen
