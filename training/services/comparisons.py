"""Two snapshots side by side: what came, what went, what changed its label, and why. A page at a time."""

from collections.abc import Sequence
from typing import NamedTuple

from django.core.cache import cache
from django.db.models import Exists, OuterRef, QuerySet

from kalimtak.core.errors import InvalidInput
from training.models import DatasetSnapshot, SnapshotItem, TrainingDataItem

KINDS = ("came", "went", "relabelled")
PAGE = 50
CACHED_SECONDS = 7 * 86_400  # snapshots never change

Status = TrainingDataItem.Status


class Change(NamedTuple):
    """A row of one snapshot that the other one has not, or has with another label. `why` is the reason in words."""

    row: SnapshotItem
    other_label: str
    why: str


class Page(NamedTuple):
    """Changes in the order of their content hashes; `after` is where the next page begins, None on the last one."""

    changes: list[Change]
    after: str | None


def snapshots_compare(older: DatasetSnapshot, newer: DatasetSnapshot) -> dict[str, int]:
    """How many texts `newer` has that `older` has not (`came`), the reverse (`went`), and with which a text of both has
    another label (`relabelled`). Raises `InvalidInput` for snapshots of different classifiers."""
    if older.classifier_id != newer.classifier_id:
        raise InvalidInput("These snapshots are of different classifiers; choose two of one.")
    key = f"snapshots:{older.digest}:{newer.digest}"
    counts: dict[str, int] | None = cache.get(key)
    if counts is None:
        counts = {kind: changed_rows(older, newer, kind).count() for kind in KINDS}
        cache.set(key, counts, CACHED_SECONDS)
    return counts


def changed_rows(older: DatasetSnapshot, newer: DatasetSnapshot, kind: str) -> "QuerySet[SnapshotItem]":
    """The rows of one kind of change: of the newer snapshot, or what went of the older one."""
    here, there = (older, newer) if kind == "went" else (newer, older)
    same = SnapshotItem.objects.filter(snapshot=there, content_hash=OuterRef("content_hash"))
    rows = SnapshotItem.objects.filter(snapshot=here)
    if kind == "relabelled":
        return rows.filter(Exists(same), ~Exists(same.filter(label=OuterRef("label"))))
    return rows.filter(~Exists(same))


def snapshot_changes(older: DatasetSnapshot, newer: DatasetSnapshot, kind: str, *, after: str = "") -> Page:
    """The next page of the changes of one kind: those whose content hash comes after `after`; few queries whatever the
    size. Hashes are uniform, so that a page is filled soon where changes are not very rare."""
    rows = _page_rows(older, newer, kind, after)
    more = len(rows) > PAGE
    if more:
        last = rows.pop().content_hash
        rows = [row for row in rows if row.content_hash != last] or rows  # rows of one text are not parted
    others = _labels_in(older, rows) if kind == "relabelled" else {}
    because = _because_of_leaving if kind == "went" else _because_of_coming
    changes = [Change(row, others.get(row.content_hash, ""), because(row)) for row in rows]
    return Page(changes, rows[-1].content_hash if more else None)


def _page_rows(older: DatasetSnapshot, newer: DatasetSnapshot, kind: str, after: str) -> list[SnapshotItem]:
    """The rows of a page and one more. What is on the first page is remembered: rare changes are looked for among all
    rows, and everybody begins there."""
    name = f"snapshots:{older.pk}:{older.digest}:{newer.pk}:{newer.digest}:{kind}"
    keys: list[int] | None = None if after else cache.get(name)
    if keys is None:
        found = changed_rows(older, newer, kind).filter(content_hash__gt=after)
    else:
        found = SnapshotItem.objects.filter(pk__in=keys)
    rows = list(found.select_related("item").order_by("content_hash", "pk")[: PAGE + 1])
    if keys is None and not after:
        cache.set(name, [row.pk for row in rows], CACHED_SECONDS)
    return rows


def _labels_in(snapshot: DatasetSnapshot, rows: Sequence[SnapshotItem]) -> dict[str, str]:
    held = SnapshotItem.objects.filter(snapshot=snapshot, content_hash__in={row.content_hash for row in rows})
    return dict(held.values_list("content_hash", "label"))


def _because_of_coming(row: SnapshotItem) -> str:
    return row.item.reason if row.item else GONE


def _because_of_leaving(row: SnapshotItem) -> str:
    """Why an item that was frozen once was not frozen again."""
    item = row.item
    if item is None:
        return GONE
    if item.status != Status.APPROVED:
        return item.reason or f"It is {item.get_status_display()} now."
    if not item.selected:
        return "It is not selected for training any more."
    return "It is still approved; the sample sizes, the rehearsal share or a golden row with its text left it out."


GONE = "The item is gone."
