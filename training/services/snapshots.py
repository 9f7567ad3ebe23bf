"""Freezing data: the golden set that every version is judged on, and the snapshot of what one run sees.

All choices follow a hash of the content, so that the same items give the same golden set, the same splits and the same
digest on every machine, whatever the order in which they came.
"""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import Q

from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import Conflict
from registry.labels import label_set
from registry.models import Classifier
from registry.recipe import DataConfig, Recipe
from training.models import Dataset, DatasetSnapshot, SnapshotItem, TrainingDataItem
from training.services.held_out import copies_of_held_out

GOLDEN_SHARE, GOLDEN_LEAST, GOLDEN_MOST = 0.10, 50, 1_000
GOLDEN_LIMIT = 0.20  # of all items, so that a tiny set keeps something to learn from
VALID_SHARE = 0.10
VALID_LEAST_ROWS = 5  # a label with fewer rows spares none for validation
COMMON_SET = 10  # rows of one set of labels that are drawn from by themselves
LEAST_ITEMS = 5
BATCH = 1_000

TRAIN, VALID, TEST = TrainingDataItem.Split.TRAIN, TrainingDataItem.Split.VALID, TrainingDataItem.Split.TEST


@dataclass(frozen=True, slots=True)
class Row:
    """An approved item as a snapshot sees it. `stratum` is the group it is drawn in; empty: its label."""

    item_id: int
    content_hash: str
    label: str
    split: str
    weight: float
    is_rehearsal: bool
    stratum: str = ""


RowT = TypeVar("RowT", bound=Row)


# The golden set --------------------------------------------------------------------------------------------------


def golden_reserve(classifier: Classifier) -> int:
    """Hold out a golden set where there is none yet; how many items were set aside now.

    10 % of the approved items, at least 50, at most 1,000, never more than a fifth, stratified by label (of a
    multi-label classifier as `strata` says); a label never gives more than half of its items.
    """
    if TrainingDataItem.objects.filter(classifier=classifier).golden().exists():
        return 0
    rows = strata(list(_rows(classifier, correction_weight=1.0)), classifier)
    size = min(max(GOLDEN_LEAST, round(len(rows) * GOLDEN_SHARE)), GOLDEN_MOST, int(len(rows) * GOLDEN_LIMIT))
    chosen = stratified(rows, size, salt="golden", most=0.5)
    crashpoint("snapshot.before_golden")
    for start in range(0, len(chosen), BATCH):
        ids = [row.item_id for row in chosen[start : start + BATCH]]
        TrainingDataItem.objects.filter(pk__in=ids).update(split=TEST)
    return len(chosen)


def golden_digest(classifier: Classifier) -> str:
    """SHA-256 over the sorted (content hash, label) of the golden items; "" where there are none."""
    golden = TrainingDataItem.objects.filter(classifier=classifier).golden()
    return data_digest(golden.values_list("content_hash", "label"))


def data_digest(rows: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over (content hash, label) pairs, independent of their order; "" for none."""
    ordered = sorted(rows)
    return rows_digest(ordered) if ordered else ""


def rows_digest(rows: Iterable[Sequence[Any]]) -> str:
    """SHA-256 over the rows as JSON, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


# The snapshot ----------------------------------------------------------------------------------------------------


@transaction.atomic
def snapshot_freeze(
    classifier: Classifier, *, seed: int, recipe: Recipe | None = None, learns: bool = True
) -> DatasetSnapshot:
    """Freeze what a run of `classifier` would see now: rows to train on, to validate on, and the golden set.

    The same items give the same snapshot row. `recipe` is the classifier's own unless given. Raises `Conflict` with
    code `no_data` or `one_class`, but for a run that `learns` nothing and needs no example.
    """
    recipe = recipe or classifier.get_recipe()
    rows = list(_rows(classifier, correction_weight=recipe.training.correction_weight))
    golden = [row for row in rows if row.split == TEST]
    held_out, copies = {row.content_hash for row in golden}, copies_of_held_out(classifier)
    others = [row for row in rows if row.content_hash not in held_out]
    usable = [row for row in others if row.item_id not in copies]
    if learns:
        _check_enough(classifier, usable)
    train, valid, replayed = _splits(strata(usable, classifier), recipe.data, seed)
    if learns:
        _check_labels(classifier, train)
    frozen = sorted([*train, *valid, *golden], key=lambda row: row.item_id)
    digest = rows_digest([row.item_id, row.content_hash, row.label, row.split, row.weight] for row in frozen)
    known = DatasetSnapshot.objects.filter(classifier=classifier, digest=digest).first()
    if known is not None:
        return known
    left_out = {
        "same text in the golden set": len(rows) - len(golden) - len(others),
        "nearly the same text in the golden set": len(others) - len(usable),
        "over the sample sizes or the rehearsal share": len(usable) - len(train) - len(valid),
    }
    snapshot = DatasetSnapshot.objects.create(
        classifier=classifier,
        digest=digest,
        golden_digest=data_digest((row.content_hash, row.label) for row in golden),
        counts=_counts(frozen) | {"left_out": left_out},
        replay_share=replayed / max(len(train), 1),
    )
    _write_rows(snapshot, frozen)
    crashpoint("snapshot.before_commit")
    return snapshot


def labels_of(snapshot: DatasetSnapshot, classifier: Classifier) -> tuple[str, ...]:
    """The labels of a run over `snapshot`: the classifier's, else all that the rows show, in alphabetical order."""
    if classifier.labels:
        return tuple(classifier.labels)
    texts = {text for split in TrainingDataItem.Split.values for text in snapshot.counts.get(split, {})}
    return tuple(sorted({label for text in texts for label in classifier.label_parts(text)}))


def _rows(classifier: Classifier, *, correction_weight: float) -> Iterator[Row]:
    """What may be learnt from and the golden items, in order of id; a correction counts `correction_weight` times."""
    items = TrainingDataItem.objects.filter(classifier=classifier).approved().order_by("pk")
    items = items.filter(Q(selected=True) | Q(split=TEST))
    columns = items.values_list("pk", "content_hash", "label", "split", "weight", "origin", "dataset__role")
    for pk, content_hash, label, split, weight, origin, role in columns.iterator(chunk_size=BATCH):
        factor = correction_weight if origin == TrainingDataItem.Origin.CORRECTED else 1.0
        yield Row(pk, content_hash, label, split, weight * factor, role == Dataset.Role.REHEARSAL)


def _check_enough(classifier: Classifier, rows: Sequence[Row]) -> None:
    slug = classifier.slug
    if len(rows) < LEAST_ITEMS:
        have = f"has only {len(rows)} approved examples" if rows else "has no approved examples yet"
        raise Conflict(
            f"{slug} {have}. Import some with `manage.py import_dataset FILE --classifier {slug}`, make samples with "
            "`manage.py make_sample_data`, or approve what waits for review.",
            code="no_data",
        )


def _check_labels(classifier: Classifier, train: Sequence[Row]) -> None:
    """Validation rows teach nothing, so they do not count."""
    slug = classifier.slug
    labels = {row.label for row in train}
    if not labels:
        raise Conflict(
            f"All approved examples of {slug} are set aside for validation; import some to train on.", code="no_data"
        )
    if len(labels) == 1:
        raise Conflict(
            f"All approved examples of {slug} to train on say {labels.pop()!r}, and a classifier needs at least two "
            "labels. Import examples of the others.",
            code="one_class",
        )


def _splits(rows: Sequence[Row], data: DataConfig, seed: int) -> tuple[list[Row], list[Row], int]:
    """(train, valid, how many of train are rehearsal), within the sample sizes and the rehearsal share."""
    salt = str(seed)
    fresh = [row for row in rows if not row.is_rehearsal]
    rehearsal = [row for row in rows if row.is_rehearsal]
    if not fresh:  # nothing but rehearsal: then that is the training set
        fresh, rehearsal = rehearsal, []
    valid = [row for row in fresh if row.split == VALID] or _spare_for_validation(fresh, salt)
    if data.valid_sample_size:
        valid = stratified(valid, data.valid_sample_size, salt)
    spared = {row.item_id for row in valid}
    train = [row for row in fresh if row.split == TRAIN and row.item_id not in spared]
    replay: list[Row] = []
    if rehearsal:
        share = data.replay_share
        replay_size = min(len(rehearsal), round(len(train) * share / (1 - share)))
        if data.train_sample_size:
            replay_size = min(replay_size, round(data.train_sample_size * share))
        replay = stratified(rehearsal, replay_size, salt)
    if data.train_sample_size:
        train = stratified(train, data.train_sample_size - len(replay), salt)
    train = [replace(row, split=TRAIN) for row in (*train, *replay)]
    return train, [replace(row, split=VALID) for row in valid], len(replay)


def _spare_for_validation(rows: Sequence[Row], salt: str) -> list[Row]:
    """A tenth of every label, at least one of each that can spare it."""
    return [
        row
        for group in _by_label(rows, f"valid:{salt}").values()
        if len(group) >= VALID_LEAST_ROWS
        for row in group[: max(1, round(len(group) * VALID_SHARE))]
    ]


def stratified(rows: Sequence[RowT], size: int, salt: str, *, most: float = 1.0) -> list[RowT]:
    """`size` rows, each label in its share (largest remainders), chosen by a hash of `salt` and the content.

    No label gives more than the share `most` of its rows, so fewer than `size` may come back.
    """
    if size >= len(rows) and most >= 1:
        return list(rows)
    groups = _by_label(rows, salt)
    exact = {label: size * len(group) / len(rows) for label, group in groups.items()}
    quota = {label: math.floor(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (quota[label] - exact[label], label))
    for label in by_remainder[: max(0, size - sum(quota.values()))]:
        quota[label] += 1
    return [row for label, group in groups.items() for row in group[: min(quota[label], int(len(group) * most))]]


def strata(rows: Sequence[Row], classifier: Classifier) -> Sequence[Row]:
    """The rows, those of a multi-label classifier with the group in which they are drawn.

    That is their set of labels; a set of fewer than `COMMON_SET` rows goes with the rarest of its labels, after the
    idea of Sechidis et al. (ECML PKDD 2011), or what is rare would be in no draw.
    """
    if not classifier.multi_label:
        return rows
    sets = Counter(row.label for row in rows)
    labels = Counter(label for row in rows for label in label_set(row.label))

    def stratum(text: str) -> str:
        parts = label_set(text)
        return text if sets[text] >= COMMON_SET or not parts else min(parts, key=lambda label: (labels[label], label))

    group = {text: stratum(text) for text in sets}
    return [replace(row, stratum=group[row.label]) for row in rows]


def _by_label(rows: Iterable[RowT], salt: str) -> dict[str, list[RowT]]:
    """Rows per label, labels in order, rows in an order that only `salt` and their content decide."""
    groups: dict[str, list[RowT]] = defaultdict(list)
    for row in rows:
        groups[row.stratum or row.label].append(row)

    def rank(row: RowT) -> tuple[str, int]:
        return hashlib.sha256(f"{salt}:{row.content_hash}".encode()).hexdigest(), row.item_id

    return {label: sorted(groups[label], key=rank) for label in sorted(groups)}


def _counts(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """{split: {label: rows}}."""
    counter = Counter((row.split, row.label) for row in rows)
    counts: dict[str, dict[str, int]] = {TRAIN.value: {}, VALID.value: {}, TEST.value: {}}
    for (split, label), number in sorted(counter.items()):
        counts[split][label] = number
    return counts


def _write_rows(snapshot: DatasetSnapshot, rows: Sequence[Row]) -> None:
    for start in range(0, len(rows), BATCH):
        crashpoint("snapshot.before_rows")
        SnapshotItem.objects.bulk_create(
            SnapshotItem(
                snapshot=snapshot,
                item_id=row.item_id,
                content_hash=row.content_hash,
                label=row.label,
                split=row.split,
                weight=row.weight,
            )
            for row in rows[start : start + BATCH]
        )
