"""The table of near-duplicate bands: who holds a text like this one."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from django.db import connection
from django.db.models import Exists, OuterRef

from registry.models import Classifier
from training.etl import Fields, Record
from training.etl.duplicates import skeletons
from training.etl.extract import BATCH, item_records
from training.etl.load import LIVE
from training.etl.near_duplicates import Text, Twin, find_clusters
from training.models import DuplicateBand, Review, TrainingDataItem

_IMAGINED = 2**60  # ids of items that a dry run would make begin here


class BandTable:
    """The bands of a classifier's items. What it costs does not depend on how many there are."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def holders(self, keys: Iterable[int]) -> Mapping[int, Sequence[int]]:
        """{key: [item id, …]} in the order of the ids; keys that nobody holds are left out."""
        found: defaultdict[int, list[int]] = defaultdict(list)
        with connection.cursor() as cursor:
            cursor.execute(_lookup(), [_listed(keys)])
            for key, item_id in cursor.fetchall():
                found[key].append(item_id)
        return found

    def twins(self, ids: Iterable[int]) -> Mapping[int, Twin]:
        """Those of the items that are live."""
        if not (wanted := list(ids)):
            return {}
        # One that was drawn at random has no label yet, so that it neither agrees nor disagrees.
        items = TrainingDataItem.objects.filter(pk__in=wanted, status__in=LIVE).exclude(label="")
        rows = items.annotate(reviewed=Exists(Review.objects.filter(item=OuterRef("pk"))))
        names = self.classifier.input_fields
        return {
            pk: Twin(pk, label, cluster or 0, (not reviewed, pk), Text(_skeletons(fields, names)))
            for pk, fields, label, cluster, reviewed in rows.values_list("pk", "fields", "label", "cluster", "reviewed")
        }

    def add(self, rows: Collection[tuple[int, int]]) -> None:
        """Keep (key, item id) pairs; those that are there already change nothing."""
        ordered = sorted(rows)  # neighbours in the index, so that each of its pages is written once
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(_insert(), [[key for key, _ in ordered], [item_id for _, item_id in ordered]])
            elif ordered:
                cursor.executemany(_insert(), ordered)

    def forget(self, ids: Collection[int]) -> None:
        """Remove the bands of these items."""
        bands = DuplicateBand.objects.filter(item_id__in=ids)
        bands._raw_delete(bands.db)  # nothing refers to a band, so there is nothing to look for


class ImaginedBands(BandTable):
    """The table as it would be after a dry run's batches so far, which lie in a file that goes with this object."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)
        self._file = sqlite3.connect("")
        self._file.execute("CREATE TABLE bands (key INTEGER, id INTEGER, PRIMARY KEY (key, id)) WITHOUT ROWID")
        self._file.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, label, cluster, skeletons, hash)")
        self._file.execute("CREATE INDEX items_hash ON items (hash)")
        self._next = _IMAGINED

    def holders(self, keys: Iterable[int]) -> Mapping[int, Sequence[int]]:
        wanted = list(keys)
        found = dict(super().holders(wanted))
        query = "SELECT key, id FROM bands WHERE key IN (SELECT value FROM json_each(?)) ORDER BY key, id"
        for key, imagined in self._file.execute(query, [json.dumps(wanted)]):
            found[key] = sorted({*found.get(key, ()), imagined})
        return found

    def twins(self, ids: Iterable[int]) -> Mapping[int, Twin]:
        wanted = list(ids)
        found = dict(super().twins([holder for holder in wanted if holder < _IMAGINED]))
        query = "SELECT id, label, cluster, skeletons FROM items WHERE id IN (SELECT value FROM json_each(?))"
        for imagined, label, cluster, texts in self._file.execute(query, [json.dumps(wanted)]):
            rank = found[imagined].rank if imagined in found else (True, imagined)
            found[imagined] = Twin(imagined, label, cluster, rank, Text(tuple(json.loads(texts))))
        return found

    def add(self, rows: Collection[tuple[int, int]]) -> None:
        self._file.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", rows)

    def imagine(self, records: Iterable[Record]) -> None:
        """Keep records as if they had become items."""
        for record in records:
            texts = json.dumps(record.skeletons)
            row = (self._next, record.label, record.cluster, texts, record.content_hash)
            self._file.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?)", row)
            self.add([(key, self._next) for key in record.keys])
            self._next += 1

    def imagine_compared(self, records: Iterable[Record]) -> None:
        """Keep what is known of items that were only looked at."""
        for record in filter(lambda each: each.label, records):
            row = (record.item_id, record.label, record.cluster, json.dumps(record.skeletons), "")
            self._file.execute("INSERT OR IGNORE INTO items VALUES (?, ?, ?, ?, ?)", row)
            self.add([(key, record.item_id) for key in record.keys if record.item_id is not None])

    def pairs(self, hashes: Iterable[str]) -> list[tuple[str, str]]:
        """(content hash, label) of what was imagined, of these hashes."""
        query = "SELECT hash, label FROM items WHERE hash IN (SELECT value FROM json_each(?)) ORDER BY id"
        return list(self._file.execute(query, [json.dumps(list(hashes))]))


def items_compare(
    classifier: Classifier,
    table: BandTable,
    mark: Callable[[Sequence[Record]], list[Record]],
    *,
    after: int,
    dry_run: bool,
) -> list[tuple[TrainingDataItem, str]]:
    """Compare the next batch of items that nobody has compared, such as imported ones, in the order of their keys.

    None of them is dropped: staff wanted them. `mark` tells their domains. Returns them as they were, and the domains.
    """
    waiting = TrainingDataItem.objects.filter(classifier=classifier, pk__gt=after).to_compare().order_by("pk")
    if not dry_run and connection.features.has_select_for_update_skip_locked:
        waiting = waiting.select_for_update(skip_locked=True)
    items = list(waiting[:BATCH])
    named = item_records(items, classifier.input_fields)
    records = [replace(record, skeletons=skeletons(record.fields)) for record in named]
    records = mark(find_clusters(records, table, salt=classifier.pk))
    if isinstance(table, ImaginedBands):
        table.imagine_compared(records)
    else:
        table.add([(key, record.item_id) for record in records for key in record.keys if record.item_id is not None])
        _note_compared(records)
    return [(item, record.domain) for item, record in zip(items, records, strict=True)]


def items_forget(classifier: Classifier, table: BandTable) -> int:
    """Remove the bands of a batch of items that were taken out since they were compared; how many items."""
    taken_out = TrainingDataItem.objects.filter(classifier=classifier).to_forget().order_by("pk")
    ids = list(taken_out.values_list("pk", flat=True)[:BATCH])
    table.forget(ids)
    TrainingDataItem.objects.filter(pk__in=ids).to_forget().update(compared=False)
    return len(ids)


def _note_compared(records: Iterable[Record]) -> None:
    table = connection.ops.quote_name(TrainingDataItem._meta.db_table)
    rows = [(record.cluster, record.domain, True, record.item_id) for record in records]
    with connection.cursor() as cursor:
        cursor.executemany(f"UPDATE {table} SET cluster = %s, domain = %s, compared = %s WHERE id = %s", rows)  # noqa: S608


def _skeletons(fields: Mapping[str, str], names: Sequence[str]) -> Fields:
    return skeletons([fields.get(name, "") for name in names])


def _listed(keys: Iterable[int]) -> list[int] | str:
    """Keys as one parameter, however many."""
    return list(keys) if connection.vendor == "postgresql" else json.dumps(list(keys))


def _lookup() -> str:
    table = connection.ops.quote_name(DuplicateBand._meta.db_table)
    among = "= ANY(%s::bigint[])" if connection.vendor == "postgresql" else "IN (SELECT value FROM json_each(%s))"
    return f"SELECT key, item_id FROM {table} WHERE key {among} ORDER BY key, item_id"  # noqa: S608  (our own table)


def _insert() -> str:
    table = connection.ops.quote_name(DuplicateBand._meta.db_table)
    rows = "VALUES (%s, %s)"
    if connection.vendor == "postgresql":
        rows = "SELECT * FROM unnest(%s::bigint[], %s::bigint[])"
    return f"INSERT INTO {table} (key, item_id) {rows} ON CONFLICT DO NOTHING"
