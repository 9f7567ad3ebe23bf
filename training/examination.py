"""What the items of a data set are like, and which of them somebody should look at. Pure: no Django.

Everything that is counted names items behind it. What needs all texts at once (near duplicates, leakage, doubtful
labels) is worked out over a sample where there are very many, so that memory stays bounded; the figures say how many.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kalimtak.core import pii
from training.analysis import NO_SCRIPT
from training.etl.languages import language_of
from training.etl.scripts import script_of
from training.label_doubts import doubts
from training.resemblance import pairs

COMPARED = 50_000  # texts of the data set that are compared with each other and with others
OTHERS = 50_000  # texts of other data sets that they are compared with
JUDGED = 20_000  # texts whose labels a cross-validated model judges
PERSONAL = 20_000  # texts that are searched for personal data
NAMED = 100  # items that are named behind a figure
SHOWN = 20  # pairs and doubts that are shown
LENGTHS = (20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120)  # characters: upper ends of the bars but for the last

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Item:
    """An item as it is examined. `labels` are its label or labels, `source` is the data set it is from."""

    id: int
    text: str
    labels: tuple[str, ...]
    source: str = ""


@dataclass
class Named:
    """A count, and the first items that were counted."""

    count: int = 0
    ids: list[int] = field(default_factory=list)

    def add(self, item_id: int) -> None:
        self.count += 1
        if len(self.ids) < NAMED:
            self.ids.append(item_id)

    def to_dict(self) -> dict[str, Any]:
        return {"count": self.count, "ids": self.ids}


class Distributions:
    """Labels, lengths, scripts, languages and personal data, gathered item by item."""

    def __init__(self) -> None:
        self.items = 0
        self._labels: Counter[str] = Counter()
        self._lengths = [Named() for _ in range(len(LENGTHS) + 1)]
        self._scripts: dict[str, Named] = {}
        self._languages: dict[str, Named] = {}
        self._personal, self._kinds = Named(), Counter[str]()

    def add(self, item: Item) -> None:
        self.items += 1
        self._labels.update(item.labels)
        size = len(item.text)
        self._lengths[next((place for place, end in enumerate(LENGTHS) if size <= end), -1)].add(item.id)
        script = script_of(item.text)
        self._scripts.setdefault(script or NO_SCRIPT, Named()).add(item.id)
        if language := language_of(item.text.split(), script):
            self._languages.setdefault(language, Named()).add(item.id)
        if self.items <= PERSONAL and (findings := pii.redact(item.text).findings):
            self._personal.add(item.id)
            self._kinds.update(finding.kind for finding in findings)

    def to_dict(self) -> dict[str, Any]:
        bars = [
            {"over": low, "to": high, **named.to_dict()}
            for low, high, named in zip((0, *LENGTHS), (*LENGTHS, None), self._lengths, strict=True)
        ]
        personal = {"looked_at": min(self.items, PERSONAL), "kinds": dict(self._kinds.most_common())}
        return {
            "labels": dict(self._labels.most_common(1_000)),
            "lengths": bars,
            "scripts": _ordered(self._scripts),
            "languages": _ordered(self._languages),
            "personal": personal | self._personal.to_dict(),
        }


def _ordered(named: dict[str, Named]) -> dict[str, Any]:
    return {name: each.to_dict() for name, each in sorted(named.items(), key=lambda pair: -pair[1].count)}


def twins(items: Sequence[Item]) -> dict[str, Any]:
    """Texts that nearly repeat another one of the data set, and those among them that carry other labels."""
    same, other, shown = Named(), Named(), list[dict[str, Any]]()
    found = pairs([item.text for item in items])
    for pair in found:
        item, twin = items[pair.text], items[pair.twin]
        (same if item.labels == twin.labels else other).add(item.id)
    for pair in sorted(found, key=lambda pair: (items[pair.text].labels == items[pair.twin].labels, -pair.resemblance)):
        if len(shown) < SHOWN:
            shown.append(_pair(items[pair.text], items[pair.twin], pair.resemblance))
    return {"compared": len(items), "same_label": same.to_dict(), "other_label": other.to_dict(), "pairs": shown}


def leaks(items: Sequence[Item], known: Sequence[Item]) -> dict[str, Any]:
    """Texts that stand, or nearly stand, among `known` ones as well, and in which data sets these are."""
    exact, near, sources, shown = Named(), Named(), Counter[str](), list[dict[str, Any]]()
    for pair in pairs([item.text for item in items], [item.text for item in known]) if known else ():
        item, twin = items[pair.text], known[pair.twin]
        (exact if pair.resemblance == 1.0 else near).add(item.id)
        sources[twin.source] += 1
        if len(shown) < SHOWN:
            shown.append(_pair(item, twin, pair.resemblance))
    return {
        "compared": len(items),
        "with": len(known),
        "same": exact.to_dict(),
        "near": near.to_dict(),
        "sources": dict(sources.most_common(SHOWN)),
        "pairs": shown,
    }


def _pair(item: Item, twin: Item, resemblance: float) -> dict[str, Any]:
    return {"item": item.id, "twin": twin.id, "resemblance": round(resemblance, 3)}


def doubtful(items: Sequence[Item]) -> dict[str, Any]:
    """Items whose label a cross-validated model finds wrong; of texts with one label each."""
    judged = [item for item in items if len(item.labels) == 1][:JUDGED]
    found = doubts([item.text for item in judged], [item.labels[0] for item in judged])
    named = Named()
    for doubt in found:
        named.add(judged[doubt.text].id)
    shown = [
        {"item": judged[doubt.text].id, "given": doubt.given, "likelier": doubt.likelier, "sure": doubt.confidence}
        for doubt in found[:SHOWN]
    ]
    return {"judged": len(judged), "shown": shown, **named.to_dict()}


def examine(
    items: Iterable[Item],
    sample: Sequence[Item],
    golden: Sequence[Item],
    others: Sequence[Item],
    *,
    one_label: bool,
    progress: Progress,
) -> dict[str, Any]:
    """All figures as JSON. `items` are all of the data set; `sample`, at most `COMPARED` of them, is compared with
    itself, with the `golden` items and with `others`, at most `OTHERS`, of other data sets."""
    distributions = Distributions()
    for item in items:
        distributions.add(item)
        if distributions.items % 1_000 == 0:
            progress(0.0, f"looked at {distributions.items:,} items")
    figures = {"items": distributions.items, **distributions.to_dict()}
    progress(0.4, f"looks for near duplicates among {len(sample):,}")
    figures["twins"] = twins(sample)
    progress(0.55, f"compares with {len(golden):,} golden items")
    figures["golden"] = leaks(sample, golden)
    progress(0.65, f"compares with {len(others):,} items of other data sets")
    figures["others"] = leaks(sample, others)
    progress(0.8, "lets a model judge the labels")
    figures["doubtful"] = doubtful(sample) if one_label else None
    return figures
