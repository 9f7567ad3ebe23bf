"""Texts that nearly say the same, found without comparing all with all. Pure numpy, no Django.

Resemblance is the Jaccard coefficient of two texts' sets of five characters in a row (Broder, "On the resemblance and
containment of documents", 1997). MinHash values in bands find the candidates (Leskovec, Rajaraman and Ullman, "Mining
of Massive Datasets", section 3.4): two texts of resemblance 0.8 share a band with a probability of 0.98.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.7
SHINGLE, ROWS, BANDS = 5, 5, 10
CHARACTERS = 1_000  # that are read of a text
MOST_IN_BAND = 8  # texts of one band that are compared: a flood of like texts costs no square
_NOT_WORDS = re.compile(r"[\W_]+")


class Pair(NamedTuple):
    """Places of two texts, the earlier one second, and their resemblance from `THRESHOLD` to 1."""

    text: int
    twin: int
    resemblance: float


def pairs(texts: Sequence[str], known: Sequence[str] = ()) -> list[Pair]:
    """For each text its most resembling twin: among the texts before it, or where `known` is given among those."""
    forms = [_bare(text) for text in (*known, *texts)]
    shingles: dict[int, frozenset[str]] = {}
    found = []
    for number, twins in sorted(_candidates(_keys(forms), len(known)).items()):
        scored = [(_jaccard(number, twin, forms, shingles), -twin) for twin in twins]
        best, twin = max(scored)
        if best >= THRESHOLD:
            found.append(Pair(number - len(known), -twin, best))
    return found


def _candidates(keys: NDArray[np.uint64], known: int) -> dict[int, set[int]]:
    """For texts that share a key with one before them (from `known` on: with one of the first `known`), which."""
    found: defaultdict[int, set[int]] = defaultdict(set)
    for band in keys.T:
        order = np.argsort(band, kind="stable")
        edges = np.flatnonzero(np.diff(band[order])) + 1
        for run in np.split(order, edges) if len(edges) < len(order) - 1 else ():
            if len(run) < 2:
                continue
            first = [int(number) for number in run[:MOST_IN_BAND] if not known or number < known]
            for number in run[1:].tolist():
                if twins := [twin for twin in first if twin < number and (not known or number >= known)]:
                    found[number].update(twins)
    return found


def _bare(text: str) -> str:
    """Small letters and digits with single blanks: case and punctuation make no other text."""
    return _NOT_WORDS.sub(" ", text[:CHARACTERS].casefold()).strip()


def _jaccard(one: int, other: int, forms: Sequence[str], shingles: dict[int, frozenset[str]]) -> float:
    if forms[one] == forms[other]:
        return 1.0
    for number in (one, other):
        if number not in shingles:
            if len(shingles) > 10_000:
                shingles.clear()
            text = forms[number]
            shingles[number] = frozenset(text[at : at + SHINGLE] for at in range(max(1, len(text) - SHINGLE + 1)))
    mine, theirs = shingles.get(one, frozenset()), shingles.get(other, frozenset())
    shared = len(mine & theirs)
    return shared / ((len(mine) + len(theirs) - shared) or 1)


def _keys(forms: Sequence[str]) -> NDArray[np.uint64]:
    """(n, BANDS) keys."""
    generator = np.random.default_rng(0x5EED)
    factors = generator.integers(1, 2**31, ROWS * BANDS, dtype=np.uint64) | np.uint64(1)
    addends = generator.integers(0, 2**61 - 1, ROWS * BANDS, dtype=np.uint64)
    keys = np.empty((len(forms), BANDS), np.uint64)
    for number, form in enumerate(forms):
        keys[number] = _keys_of(form, factors, addends)
    return keys


def _keys_of(form: str, factors: NDArray[np.uint64], addends: NDArray[np.uint64]) -> NDArray[np.uint64]:
    codes = np.frombuffer(form.ljust(SHINGLE).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(codes, SHINGLE)
    hashes = np.unique((windows * np.uint64(0x9E3779B97F4A7C15) ** np.arange(SHINGLE, dtype=np.uint64)).sum(axis=1))
    hashes ^= hashes >> np.uint64(29)
    least = (np.multiply.outer(factors, hashes) + addends[:, None]).min(axis=1).reshape(BANDS, ROWS)
    weights = np.uint64(0xBF58476D1CE4E5B9) ** np.arange(1, ROWS + 1, dtype=np.uint64)
    mixed: NDArray[np.uint64] = (least * weights).sum(axis=1)
    return mixed
