"""Nearly the same text with the same label is one item; with another label a reviewer decides. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

from training.etl import Dropped, Fields, Record, Step
from training.etl.sketches import THRESHOLD, is_short, keys_of, resemblance, shingles

MOST_VERIFIED = 16  # candidates whose texts are compared, those with the most keys in common first
MOST_PER_KEY = 64  # texts that are kept under one key: no flood of like texts makes the next ones dear


class Text:
    """A text given as skeletons of its fields, and what of it is worked out once."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields

    @cached_property
    def shingles(self) -> tuple[frozenset[str], ...]:
        return tuple(shingles(field) for field in self.fields)

    def resembles(self, other: "Text") -> bool:
        """Every field resembles the other's; a short one only where it is equal.

        All of them, since a question makes another pair of the same context.
        """
        if self.fields == other.fields:
            return True
        for number, (mine, theirs) in enumerate(zip(self.fields, other.fields, strict=True)):
            if mine != theirs and (is_short(mine) or is_short(theirs)):
                return False
            if mine != theirs and resemblance(self.shingles[number], other.shingles[number]) < THRESHOLD:
                return False
        return True


@dataclass(frozen=True, slots=True)
class Twin:
    """Who holds a text that others may resemble: an item, or (`item_id` None) a record that came before.

    `cluster` is shared by texts that resemble each other in a chain; `rank` orders twins, the lowest survives.
    """

    item_id: int | None
    label: str
    cluster: int
    rank: tuple[bool, int]
    text: Text = field(compare=False)
    record: Record | None = None


class Neighbours(Protocol):
    """Texts that were kept before."""

    def holders(self, keys: Iterable[int]) -> Mapping[int, Sequence[int]]:
        """Who holds each of these keys, in the order of their ids: {key: [id]}."""

    def twins(self, ids: Iterable[int]) -> Mapping[int, Twin]:
        """The holders with these ids that still count."""


def cluster_of(content_hash: str) -> int:
    """The cluster that begins with this text: the first 60 bits of its content hash."""
    return int(content_hash[:15], 16)


def drop_near_duplicates(records: Sequence[Record], neighbours: Neighbours, *, salt: int) -> Step:
    """Give each record its keys and its cluster; drop those that resemble a text with the same label, and doubt those
    that resemble a text with another one.

    Of several texts that one resembles, those with its own label come first, then those a reviewer has seen, then the
    oldest. Comparing costs the same however many texts there are: `MOST_PER_KEY` and `MOST_VERIFIED` bound it.
    """
    search = Search(records, neighbours, salt=salt)
    kept, dropped = [], []
    for number, record in enumerate(records):
        found = search.twins_of(number)
        twin = _survivor(record, found)
        cluster = twin.cluster if twin else cluster_of(record.content_hash)
        if twin and twin.label == record.label:
            dropped.append(Dropped(replace(record, cluster=cluster), "near_duplicate", _same(twin), twin=twin.record))
            continue
        if twin and not any(doubt.kind == "conflict" for doubt in record.doubts):
            record = record.doubted("conflict", _other(twin))
        record = replace(record, cluster=cluster)
        kept.append(replace(record, keys=search.add(number, record)))
    return Step(kept, dropped)


def find_clusters(records: Sequence[Record], neighbours: Neighbours, *, salt: int) -> list[Record]:
    """The records, none left out, with their clusters and the keys under which they have to be kept."""
    search = Search(records, neighbours, salt=salt)
    found = []
    for number, record in enumerate(records):
        twin = _survivor(record, search.twins_of(number))
        record = replace(record, cluster=twin.cluster if twin else cluster_of(record.content_hash))
        found.append(replace(record, keys=search.add(number, record)))
    return found


def _survivor(record: Record, found: Sequence[Twin]) -> Twin | None:
    return min(found, key=lambda twin: (twin.label != record.label, twin.rank), default=None)


def _same(twin: Twin) -> str:
    return f"Nearly the same text as item {twin.item_id or '{twin}'}, with the same label."


def _other(twin: Twin) -> str:
    where = f" (item {twin.item_id})" if twin.item_id else ""
    return f"Nearly the same text is already labelled {twin.label!r}{where}."


class Search:
    """Looks for what resembles each of `records`, among neighbours and the records before it."""

    def __init__(self, records: Sequence[Record], neighbours: Neighbours, *, salt: int) -> None:
        self.records = records
        self.keys = keys_of([record.skeletons for record in records], salt=salt)
        self._texts = [Text(record.skeletons) for record in records]
        self._held = neighbours.holders({key for keys in self.keys for key in keys})
        self._candidates = [self._most_in_common(keys) for keys in self.keys]
        self._twins = neighbours.twins({holder for some in self._candidates for holder in some})
        self._came_before: defaultdict[int, list[int]] = defaultdict(list)
        self._kept: dict[int, Twin] = {}

    def _most_in_common(self, keys: Sequence[int]) -> list[int]:
        held = [self._held[key] for key in keys if key in self._held]
        if not held:
            return []
        shared = Counter(holder for some in held for holder in some)
        return sorted(shared, key=lambda holder: (-shared[holder], holder))[:MOST_VERIFIED]

    def twins_of(self, number: int) -> list[Twin]:
        """What the text of this record resembles."""
        text, keys = self._texts[number], self.keys[number]
        earlier = Counter(other for key in keys for other in self._came_before.get(key, ()))
        likely = sorted(earlier, key=lambda other: (-earlier[other], other))[:MOST_VERIFIED]
        candidates = [self._twins[holder] for holder in self._candidates[number] if holder in self._twins]
        candidates += [self._kept[other] for other in likely]
        return [twin for twin in candidates if text.resembles(twin.text)]

    def add(self, number: int, record: Record) -> tuple[int, ...]:
        """Let later records find this one; the keys under which it has to be kept."""
        cluster = record.cluster if record.cluster is not None else cluster_of(record.content_hash)
        rank = (True, 2**63 + number)  # younger than every item
        self._kept[number] = Twin(None, record.label, cluster, rank, self._texts[number], record)
        room = []
        for key in self.keys[number]:
            before = self._came_before[key]
            if len(self._held.get(key, ())) + len(before) < MOST_PER_KEY:
                before.append(number)
                room.append(key)
        return tuple(room)
