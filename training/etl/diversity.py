"""No single source, label or domain may take over the set. Pure."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from training.etl import Dropped, Record, Step

SOURCE_LEAST = 5  # a source may always contribute so many, or a small set could never grow
BALANCE_FROM = 200  # items below which no label or domain is called over-represented
BALANCE_FACTOR = 2.0  # times the fair share of a label or domain
BALANCE_MOST = 0.8  # of the set, for one among two
SHARES_TOLD = 12  # of each kind; the rest is one entry
OTHERS = "others"


@dataclass(frozen=True)
class SetCounts:
    """What the approved set holds now: items per label, per domain ("" where it was not told), and per source those
    that were approved without a reviewer."""

    labels: Mapping[str, int]
    sources: Mapping[str, int]
    domains: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.labels.values())


def cap_labels(records: Sequence[Record], counts: SetCounts, classes: int) -> Step:
    """Drop mere confirmations of a label that already has twice its fair share.

    They repeat what the model says most, and so make it say it more.
    """
    return _cap(records, counts.labels, classes, lambda record: record.label, "over_represented")


def cap_domains(records: Sequence[Record], counts: SetCounts) -> Step:
    """Drop mere confirmations of texts from a domain that already has twice its fair share.

    Fair is among the domains that the set knows; texts whose domain nobody could tell are not capped.
    """
    known = {name: count for name, count in counts.domains.items() if name}
    if len(known) < 2:
        return Step(records)
    return _cap(records, known, len(known), lambda record: record.domain, "over_domain")


def _cap(
    records: Sequence[Record], held: Mapping[str, int], classes: int, group_of: Callable[[Record], str], kind: str
) -> Step:
    counted, kept, dropped = Counter(held), [], []
    total = counted.total()
    for record in records:
        group = group_of(record)
        most = min(BALANCE_FACTOR / max(classes, 1), BALANCE_MOST) * total
        is_crowded = bool(group) and total >= BALANCE_FROM and counted[group] > most
        if is_crowded and not record.is_human_label:
            dropped.append(Dropped(record, kind, f"{group!r} already has {counted[group]} of {total} items."))
            continue
        if group:
            counted[group] += 1
            total += 1
        kept.append(record)
    return Step(kept, dropped)


def cap_sources(records: Sequence[Record], counts: SetCounts, share: float) -> Step:
    """Doubt records by which a source would exceed `share` (0 to 1) of the set."""
    gives: Counter[str] = Counter()  # in this batch; beside the set's, for a set has as many sources as people
    total, kept = counts.total, []
    for record in records:
        allowance = max(SOURCE_LEAST, int(share * (total + 1)))
        gave = counts.sources.get(record.source, 0) + gives[record.source]
        if record.doubts or not record.trusted:
            kept.append(record)  # waits for a reviewer anyway, and counts against nobody
        elif gave >= allowance:
            given = f"Its source gave {gave} approved items already; its share is {share:.0%}."
            kept.append(record.doubted("over_share", given))
        else:
            gives[record.source] += 1
            total += 1
            kept.append(record)
    return Step(kept)


def shares(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, list[float]]:
    """{name: [share before, share after]} of the set, 0 to 1, the greatest first; the smallest are one entry."""
    total_before, total_after = max(sum(before.values()), 1), max(sum(after.values()), 1)
    names = sorted(
        (before.keys() | after.keys()) - {OTHERS}, key=lambda name: (-after.get(name, 0), -before.get(name, 0), name)
    )
    told = {
        name: [round(before.get(name, 0) / total_before, 4), round(after.get(name, 0) / total_after, 4)]
        for name in names[:SHARES_TOLD]
    }
    rest = [*names[SHARES_TOLD:], *({OTHERS} & (before.keys() | after.keys()))]
    if rest:
        held = [sum(counts.get(name, 0) for name in rest) for counts in (before, after)]
        told[OTHERS] = [round(held[0] / total_before, 4), round(held[1] / total_after, 4)]
    return told
