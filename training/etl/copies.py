"""Texts that come again and again with small changes, within hours. Pure.

Texts are copies of one another where they resemble each other as near-duplicates do (`training.etl.near_duplicates`).
There can be very many of them, so all are looked at twice. A first pass counts their keys in a table of fixed size,
which tells for each text how many others could be found by its keys, at least as many as are: where those are fewer
than the burst there is nothing to compare. The second takes the others one by one. Each is compared with at most
`MOST_VERIFIED` texts before it that resemble none before them, and counts for each of these that it resembles.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.etl import Fields
from training.etl.duplicates import skeletons
from training.etl.near_duplicates import MOST_PER_KEY, MOST_VERIFIED, Text
from training.etl.sketches import keys_of

AT_ONCE = 1_000  # texts whose keys are made together
MOST_SHINGLED = 1_024  # texts whose shingles are kept, the last ones looked at

_CELL_BITS = 22  # 16 MiB: a million long texts leave two or three in a cell by chance
_STEP = np.uint64(0x9E3779B97F4A7C15)

Said = tuple[Fields, int]  # a text and the half hour it came in
Keys = list[tuple[int, ...]]


class CopyWatch:
    """Counts all texts first (`count`), then tells those that came `burst` times within an hour (`copies`)."""

    def __init__(self, burst: int) -> None:
        self.burst = burst
        self._cells = np.zeros(1 << _CELL_BITS, np.uint32)
        self._uncounted: list[Said] = []
        self._steps: set[int] = set()

    def count(self, fields: Fields, step: int) -> None:
        self._uncounted.append((skeletons(fields), step))
        if len(self._uncounted) >= AT_ONCE:
            self._count_them()

    def suspicious_steps(self) -> set[int]:
        """The half hours in which a text may have reached the burst, each with its neighbours."""
        self._count_them()
        return self._steps

    def _count_them(self) -> None:
        if not self._uncounted:
            return
        keys = keys_of([fields for fields, _ in self._uncounted], salt=0)
        steps = [step for _, step in self._uncounted]
        np.add.at(self._cells, _cells_of(*_flat(keys, steps)), 1)
        # Whoever comes last of those that reach it finds all the others counted.
        for step, findable in zip(steps, self._findable(keys, steps), strict=True):
            if findable >= self.burst:
                self._steps |= {step - 1, step, step + 1}
        self._uncounted = []

    def _findable(self, keys: Keys, steps: Sequence[int]) -> list[int]:
        """How many texts of an hour could be found by the keys of each, at most; itself is one."""
        flat, at = _flat(keys, steps)
        starts = np.cumsum([0, *(len(some) for some in keys[:-1])])
        before, now, after = (
            np.add.reduceat(self._cells[_cells_of(flat, at + shift)].astype(np.int64), starts) for shift in (-1, 0, 1)
        )
        found = now + np.maximum(before, after) - np.array([len(some) for some in keys]) + 1
        return [int(number) for number in found]

    def copies(self, said: Sequence[Said]) -> dict[int, int]:
        """{place in `said`: how many texts within an hour resemble one that it resembles}, where they reach the burst.

        `said` is all that came in the suspicious half hours.
        """
        kinds = _Kinds()
        alike: dict[int, list[int]] = {}
        for number, (fields, keys) in self._suspects(said):
            alike[number] = kinds.of(fields, keys, said[number][1])
        counts = {
            number: max((kinds.most(kind, said[number][1]) for kind in found), default=0)
            for number, found in alike.items()
        }
        return {number: count for number, count in counts.items() if count >= self.burst}

    def _suspects(self, said: Sequence[Said]) -> Iterator[tuple[int, tuple[Fields, tuple[int, ...]]]]:
        for start in range(0, len(said), AT_ONCE):
            some = said[start : start + AT_ONCE]
            texts = [skeletons(fields) for fields, _ in some]
            keys = keys_of(texts, salt=0)
            for place, findable in enumerate(self._findable(keys, [step for _, step in some])):
                if findable >= self.burst:
                    yield start + place, (texts[place], keys[place])


class _Kinds:
    """Texts that resemble none before them, and how many resemble each in each half hour."""

    def __init__(self) -> None:
        self._firsts: list[Fields] = []
        self._by_key: defaultdict[int, list[int]] = defaultdict(list)
        self._counted: Counter[tuple[int, int]] = Counter()
        self._text = lru_cache(maxsize=MOST_SHINGLED)(Text)

    def of(self, fields: Fields, keys: Sequence[int], step: int) -> list[int]:
        """The kinds that this text is of, a new one where it is of none before; counted in its half hour."""
        shared = Counter(kind for key in keys for kind in self._by_key.get(key, ()))
        likely = sorted(shared, key=lambda kind: (-shared[kind], kind))[:MOST_VERIFIED]
        text = self._text(fields)
        found = [kind for kind in likely if text.resembles(self._text(self._firsts[kind]))]
        if not found:
            found = self._begin(fields, keys)
        for kind in found:
            self._counted[kind, step] += 1
        return found

    def _begin(self, fields: Fields, keys: Sequence[int]) -> list[int]:
        room = [key for key in keys if len(self._by_key[key]) < MOST_PER_KEY]
        if not room:
            return []
        self._firsts.append(fields)
        for key in room:
            self._by_key[key].append(len(self._firsts) - 1)
        return [len(self._firsts) - 1]

    def most(self, kind: int, step: int) -> int:
        """The most of a kind in an hour that this half hour is part of."""
        counted = self._counted
        return counted[kind, step] + max(counted[kind, step - 1], counted[kind, step + 1])


def _flat(keys: Keys, steps: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All keys one after the other, and the half hour of each."""
    flat = np.array([key for some in keys for key in some], np.int64)
    return flat, np.repeat(np.array(steps, np.int64), [len(some) for some in keys])


def _cells_of(keys: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where a key of a half hour is counted; keys are evenly spread already."""
    mixed = keys.astype(np.uint64) + steps.astype(np.uint64) * _STEP
    return (mixed >> np.uint64(64 - _CELL_BITS)).astype(np.int64)
