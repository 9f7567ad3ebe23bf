"""How far people agree beyond chance. Pure Python, without Django.

Cohen's kappa for two (Educational and Psychological Measurement 20, 1960), Krippendorff's alpha for any number with
gaps (nominal data; "Computing Krippendorff's Alpha-Reliability", 2011). 1 is full agreement, 0 what chance would give.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

Unit = Mapping[Hashable, str]
"""What each person said of one text: {person: answer}."""

SMALL = 50  # texts that two or more judged; a figure from fewer may be chance


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Kappa over what two people said of each text; None without texts, or where both only ever say the same one thing.

    (observed − expected) / (1 − expected), expected from each one's own shares.
    """
    total = len(pairs)
    first, second = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    expected = sum(first[answer] * second[answer] for answer in first) / total**2 if total else 1.0
    if expected >= 1:
        return None
    observed = sum(one == other for one, other in pairs) / total
    return (observed - expected) / (1 - expected)


def krippendorff_alpha(units: Iterable[Sequence[str]]) -> float | None:
    """Nominal alpha over the answers that each text got; texts with a single answer say nothing and are left out.

    1 − observed / expected disagreement, from the coincidence matrix. None where all answers are the same or there are
    none to compare.
    """
    coincidences: Counter[tuple[str, str]] = Counter()
    for answers in units:
        if len(answers) > 1:
            for one, other in permutations(answers, 2):
                coincidences[one, other] += 1 / (len(answers) - 1)  # type: ignore[assignment]
    totals: Counter[str] = Counter()
    for (one, _), count in coincidences.items():
        totals[one] += count
    values = sum(totals.values())
    expected = values**2 - sum(total**2 for total in totals.values())
    if expected <= 0:
        return None
    observed = sum(count for (one, other), count in coincidences.items() if one != other)
    return 1 - (values - 1) * observed / expected


@dataclass(frozen=True)
class Pair:
    """Two people: `texts` that both judged, the share on which they said the same, and kappa."""

    first: Hashable
    second: Hashable
    texts: int
    same: float
    kappa: float | None

    @property
    def is_small(self) -> bool:
        return self.texts < SMALL


@dataclass(frozen=True)
class LabelAgreement:
    """One answer against all others: `texts` of which somebody gave it, and alpha over all texts."""

    label: str
    texts: int
    alpha: float | None

    @property
    def is_small(self) -> bool:
        return self.texts < SMALL


@dataclass(frozen=True)
class Agreement:
    """Over all `texts` that two or more judged: `alpha`, and by pair of people and by answer."""

    texts: int
    alpha: float | None
    pairs: tuple[Pair, ...]
    labels: tuple[LabelAgreement, ...]

    @property
    def is_small(self) -> bool:
        return self.texts < SMALL


def agreement(units: Iterable[Unit]) -> Agreement:
    """All figures of texts judged by two or more; pairs with most texts in common first, labels likewise."""
    shared = [unit for unit in units if len(unit) > 1]
    answers = [list(unit.values()) for unit in shared]
    said: dict[tuple[Hashable, Hashable], list[tuple[str, str]]] = {}
    for unit in shared:
        for first, second in combinations(sorted(unit, key=str), 2):
            said.setdefault((first, second), []).append((unit[first], unit[second]))
    pairs = [
        Pair(*people, len(both), sum(one == other for one, other in both) / len(both), cohen_kappa(both))
        for people, both in said.items()
    ]
    labels = [_of_label(label, answers) for label in sorted({answer for each in answers for answer in each})]
    return Agreement(
        len(shared),
        krippendorff_alpha(answers),
        tuple(sorted(pairs, key=lambda pair: -pair.texts)),
        tuple(sorted(labels, key=lambda label: -label.texts)),
    )


def _of_label(label: str, answers: Sequence[Sequence[str]]) -> LabelAgreement:
    given = [["yes" if answer == label else "no" for answer in each] for each in answers]
    return LabelAgreement(label, sum("yes" in each for each in given), krippendorff_alpha(given))
