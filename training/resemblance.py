"""Texts that nearly say the same, found in memory without comparing all with all. Pure, no Django.

What resembles what, and how candidates are found, is `training.etl.sketches`, as curation does it.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from training.etl.folding import comparable, skeleton
from training.etl.sketches import THRESHOLD, keys_of, resemblance, shingles

CHARACTERS = 1_000  # that are read of a text
MOST_PER_KEY = 8  # texts that are compared for one key: a flood of like texts costs no square
_SETS_KEPT = 10_000


class Pair(NamedTuple):
    """Places of two texts, the earlier one second, and their resemblance from `THRESHOLD` to 1."""

    text: int
    twin: int
    resemblance: float


def pairs(texts: Sequence[str], known: Sequence[str] = ()) -> list[Pair]:
    """For each text its most resembling twin: among the texts before it, or where `known` is given among those."""
    forms = [skeleton(comparable(text[:CHARACTERS])) for text in (*known, *texts)]
    keys = keys_of([(form,) for form in forms], salt=0)
    compare = _Comparison(forms)
    held: defaultdict[int, list[int]] = defaultdict(list)
    found = []
    for number in range(len(forms)):
        if number >= len(known):
            twins = {twin for key in keys[number] for twin in held.get(key, ())}
            best, place = max(((compare(number, twin), -twin) for twin in twins), default=(0.0, 0))
            if best >= THRESHOLD:
                found.append(Pair(number - len(known), -place, best))
        if number < len(known) or not known:
            for key in keys[number]:
                if len(held[key]) < MOST_PER_KEY:
                    held[key].append(number)
    return found


class _Comparison:
    """Resemblance of two of `forms` by their places; the sets of the last ones are kept."""

    def __init__(self, forms: Sequence[str]) -> None:
        self._forms = forms
        self._sets: dict[int, frozenset[str]] = {}

    def __call__(self, one: int, other: int) -> float:
        if self._forms[one] == self._forms[other]:
            return 1.0
        return resemblance(self._set(one), self._set(other))

    def _set(self, number: int) -> frozenset[str]:
        if number not in self._sets:
            if len(self._sets) >= _SETS_KEPT:
                self._sets.clear()
            self._sets[number] = shingles(self._forms[number])
        return self._sets[number]
