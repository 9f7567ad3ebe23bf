"""No single source and no single label may take over the set. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.etl import Dropped, Record, Step

SOURCE_LEAST = 5  # a source may always contribute so many, or a small set could never grow
BALANCE_FROM = 200  # items below which no label is called over-represented
BALANCE_FACTOR = 2.0  # times the fair share of a label
BALANCE_MOST = 0.8  # of the set, for a label among two


@dataclass(frozen=True)
class SetCounts:
    """What the approved set holds now: items per label, and items per source that were approved without a reviewer."""

    labels: Mapping[str, int]
    sources: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.labels.values())


def cap_labels(records: Sequence[Record], counts: SetCounts, classes: int) -> Step:
    """Drop mere confirmations of a label that already has twice its fair share.

    They repeat what the model says most, and so make it say it more. Domains are not known, so labels stand for them.
    """
    per_label, kept, dropped = Counter(counts.labels), [], []
    for record in records:
        most = min(BALANCE_FACTOR / max(classes, 1), BALANCE_MOST) * per_label.total()
        is_crowded = per_label.total() >= BALANCE_FROM and per_label[record.label] > most
        if is_crowded and not record.is_human_label:
            reason = f"{record.label!r} already has {per_label[record.label]} of {per_label.total()} items."
            dropped.append(Dropped(record, "over_represented", reason))
            continue
        per_label[record.label] += 1
        kept.append(record)
    return Step(kept, dropped)


def cap_sources(records: Sequence[Record], counts: SetCounts, share: float) -> Step:
    """Doubt records by which a source would exceed `share` (0 to 1) of the set."""
    per_source, total, kept = Counter(counts.sources), counts.total, []
    for record in records:
        allowance = max(SOURCE_LEAST, int(share * (total + 1)))
        if record.doubts or not record.trusted:
            kept.append(record)  # waits for a reviewer anyway, and counts against nobody
        elif per_source[record.source] >= allowance:
            given = f"Its source gave {per_source[record.source]} approved items already; its share is {share:.0%}."
            kept.append(record.doubted("over_share", given))
        else:
            per_source[record.source] += 1
            total += 1
            kept.append(record)
    return Step(kept)
