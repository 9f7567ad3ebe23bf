"""Texts as sets of character shingles, and MinHash bands by which those that share most of them are found. Pure.

Resemblance is the Jaccard coefficient of two texts' sets of `SHINGLE` characters in a row (Broder, "On the resemblance
and containment of documents", 1997). It is the probability that a random hash function has its smallest value over
the one set and over the other at the same member. `ROWS` such smallest values make a band, and two texts of resemblance
s have one of their `BANDS` bands in common with the probability 1 - (1 - s^ROWS)^BANDS, an S-curve that is steepest
near (1 / BANDS)^(1 / ROWS) = 0.63 (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4):

    s            0.4   0.5   0.6   0.7   0.8   0.9
    probability  0.10  0.27  0.56  0.84  0.98  1.00

Five characters are what that book advises for texts as short as e-mails. Everything is numpy over many texts at once,
with hash functions that are written out here: bands that were stored by one release or machine are found by another.
"""

import hashlib
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from training.etl import Fields

SHINGLE = 5
ROWS = 5
BANDS = 10
THRESHOLD = 0.7
LEAST_WORDS, LEAST_CHARACTERS = 6, 40  # a text below both is short

_SEED = 0x5EED
_TEXTS = 1_000  # at once, so that what is worked on stays in the processor's cache
Words = NDArray[np.uint64]


def is_short(skeleton: str) -> bool:
    """Whether a word more or less makes it another text: then only an equal one is its duplicate."""
    return len(skeleton) < LEAST_CHARACTERS and skeleton.count(" ") + 1 < LEAST_WORDS


def shingles(skeleton: str) -> frozenset[str]:
    return frozenset([skeleton[start : start + SHINGLE] for start in range(max(1, len(skeleton) - SHINGLE + 1))])


def resemblance(one: frozenset[str], other: frozenset[str]) -> float:
    """The Jaccard coefficient, 0 to 1."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def keys_of(texts: Sequence[Fields], *, salt: int) -> list[tuple[int, ...]]:
    """The keys, signed 64-bit numbers, of texts given as skeletons: `BANDS` of them, or one where all fields are short.

    Texts that resemble each other share a key with the probability above, equal ones share all; keys with different
    `salt` have nothing to do with each other.
    """
    joined = ["\x1f".join(fields) for fields in texts]
    is_long = [not all(is_short(field) for field in fields) for fields in texts]
    long = [text for text, it_is in zip(joined, is_long, strict=True) if it_is]
    bands = (keys for start in range(0, len(long), _TEXTS) for keys in _bands(long[start : start + _TEXTS], salt))
    return [tuple(next(bands)) if it_is else (_whole(text, salt),) for text, it_is in zip(joined, is_long, strict=True)]


def _bands(texts: Sequence[str], salt: int) -> list[list[int]]:
    values, starts = _shingle_hashes([text.ljust(SHINGLE) for text in texts])
    multipliers, addends = _functions()
    keys = np.empty((BANDS, len(texts)), np.uint64)
    scratch = np.empty_like(values)
    for band in range(BANDS):
        key = np.full(len(texts), (salt * BANDS + band) % 2**64, np.uint64)
        for row in range(band * ROWS, (band + 1) * ROWS):
            np.multiply(values, multipliers[row], out=scratch)
            np.add(scratch, addends[row], out=scratch)
            key = _mixed(key ^ np.minimum.reduceat(scratch, starts))
        keys[band] = key
    return keys.T.astype(np.int64).tolist()


def _whole(text: str, salt: int) -> int:
    """One key for a text as a whole."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt.to_bytes(8, "big"))
    return int.from_bytes(digest.digest(), "big", signed=True)


def _shingle_hashes(texts: Sequence[str]) -> tuple[Words, NDArray[np.int64]]:
    """A hash for each shingle of each text, one text after the other, and where each text begins."""
    codes, starts = _characters(texts)
    last = len(codes) - SHINGLE + 1
    values = codes[:last].copy()
    for offset in range(1, SHINGLE):
        values *= np.uint64(0x9E3779B97F4A7C15)
        values ^= codes[offset : last + offset]
    is_within = np.ones(len(codes), np.bool_)  # no shingle reaches over the end of its text
    for offset in range(1, SHINGLE):
        is_within[starts[1:] - offset] = False
    counts = np.array([len(text) - SHINGLE + 1 for text in texts])
    return _mixed(values[is_within[:last]]), np.concatenate(([0], np.cumsum(counts)[:-1]))


def _characters(texts: Sequence[str]) -> tuple[Words, NDArray[np.int64]]:
    """Code points of all texts, and where each begins."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    return codes, np.array([0, *accumulate(map(len, texts[:-1]))], np.int64)


def _mixed(values: Words) -> Words:
    """Every bit of a value decides about every bit of the result, in place (SplitMix64; Steele et al., OOPSLA 2014)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _functions() -> tuple[Words, Words]:
    """Multipliers, odd so that no two shingles fall together, and addends of the hash functions."""
    counter = np.arange(1, 2 * BANDS * ROWS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    numbers = _mixed(counter + np.uint64(_SEED))
    return numbers[: BANDS * ROWS] | np.uint64(1), numbers[BANDS * ROWS :]
