"""The order in which waiting items come to the review desk: computed aside and stored, so that the desk reads an index.

Every waiting item is weighed cheaply, by the scores its answer had. Of the `POOL` most promising the texts are read,
compared with each other and with what is approved, and judged by models that never saw them; the first `BATCH` are laid
out by `training.selection`, the rest of the pool follows by worth, and whatever is left waits in the order it came.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from django.db import connection, transaction
from django.db.models import Count, Q
from numpy.typing import NDArray

from interactions.models import UserInteraction
from kalimtak.core import audit
from kalimtak.core.jobs import enqueue
from registry.families import embedding
from registry.families.base import FamilyError, Silent
from registry.models import Classifier
from training.estimates import out_of_sample, word_vectors
from training.etl.scripts import script_of
from training.models import TrainingDataItem
from training.selection import (
    Floats,
    LabelIssues,
    Pool,
    batch,
    label_issues,
    nearest,
    rarity,
    uncertainty,
    uncertainty_of_sets,
)
from training.services.audit import audit_draw
from training.services.work import encoder_cache

POOL, BATCH, KNOWN = 20_000, 1_000, 10_000
ENCODER_FROM = 500  # items; fewer are soon read, and words tell their near copies
AUDIT_EVERY = 10  # one of so many items is of the random sample, while it lasts
NEIGHBOURS = 3
RANKED = 1.0  # the priority of the first; what reviewers have begun on (`opinions`) comes before it
_CHUNK = 500
_READ = 5_000
_UNKNOWN = 0.5  # how unsure a model may be that was never asked

Why = TrainingDataItem.Why
Status = TrainingDataItem.Status
Progress = Callable[[float, str], None]
Effect = Callable[[], AbstractContextManager[Any]]


@dataclass
class Ranking:
    """What a ranking did: items that `waited`, that were `ranked`, the reasons of the first ones, random `drawn`.

    `vectors`: by what texts were compared, `encoder` or `words`.
    """

    waited: int = 0
    ranked: int = 0
    drawn: int = 0
    vectors: str = ""
    why: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "why": dict(self.why.most_common())}


def queue_rank(
    classifier: Classifier,
    *,
    actor: str = "system",
    progress: Progress | None = None,
    effect: Effect = transaction.atomic,
    with_encoder: bool = True,
) -> Ranking:
    """Draw the audit slice and lay out the queue of `classifier` anew. Repeating it with nothing new changes nothing.

    Memory is bounded by `POOL` and `KNOWN` texts and a few numbers per waiting item; rows are written `_CHUNK` at a
    time, each in a transaction (`effect`). Where few items wait or the encoder cannot be had, words compare texts.
    """
    tell = progress or (lambda fraction, note: None)
    ranking = Ranking(drawn=audit_draw(classifier))
    tell(0.05, "Weighing what waits")
    waiting = _weigh(classifier)
    ranking.waited = len(waiting.keys)
    order: list[TrainingDataItem] = []
    if len(waiting.keys):
        pool = _read_pool(classifier, waiting.best(POOL))
        order, ranking.vectors = _lay_out(classifier, pool, tell, with_encoder)
        ranking.why = Counter(item.why for item in order if item.why)
    ranking.ranked = len(order)
    tell(0.9, "Writing the order")
    _write(order, waiting, effect)
    with effect():
        audit.record(actor, "queue.rank", classifier.slug, **ranking.to_dict())
    return ranking


# Weighing ----------------------------------------------------------------------------------------------------------


@dataclass
class _Waiting:
    """A row per waiting item: its key, its worth by cheap figures, and whether an earlier ranking placed it."""

    keys: NDArray[np.int64]
    worth: NDArray[np.float32]
    placed: NDArray[np.bool_]

    def best(self, count: int) -> list[int]:
        """Mostly the worthiest, and a fifth drawn from all others, so that no kind of text is out of sight for good."""
        if len(self.keys) <= count:
            return [int(key) for key in self.keys]
        order = np.argsort(-self.worth, kind="stable")
        first = count * 4 // 5
        others = np.random.default_rng(len(self.keys)).choice(order[first:], count - first, replace=False)
        return [int(key) for key in self.keys[np.concatenate([order[:first], others])]]


def _weigh(classifier: Classifier) -> _Waiting:
    """One pass over what waits; what reviewers have begun on, and the random sample, have their places already."""
    index = {label: number for number, label in enumerate(classifier.labels)}
    keys, worth, placed = [], [], []
    items = TrainingDataItem.objects.filter(classifier=classifier, status=Status.REVIEW, priority__lte=RANKED)
    columns = ("pk", "label", "priority", "interaction__scores")
    for pk, label, priority, scores in items.exclude(label="").values_list(*columns).iterator(chunk_size=_READ):
        keys.append(pk)
        worth.append(_worth(label, scores, index, classifier.multi_label))
        placed.append(priority > 0)
    order = np.argsort(keys)  # the database gives them in the order of one index or another
    return _Waiting(
        np.array(keys, dtype=np.int64)[order],
        np.array(worth, dtype=np.float32)[order],
        np.array(placed, dtype=bool)[order],
    )


def _worth(label: str, scores: dict[str, float] | None, index: dict[str, int], multi_label: bool) -> float:
    """0 to 2: how unsure the answer was, and how little of it went to the label that is proposed."""
    if not scores:
        return _UNKNOWN
    row = _row(scores, index)
    if multi_label:
        return float(uncertainty_of_sets(row)[0])
    doubt = 1 - row[0, index[label]] if label in index else 1.0
    return float(uncertainty(row)[0] + doubt)


def _row(scores: dict[str, float], index: dict[str, int]) -> NDArray[np.float64]:
    row = np.zeros((1, max(len(index), 1)))
    for label, score in scores.items():
        if label in index:
            row[0, index[label]] = score
    return row


# Reading -----------------------------------------------------------------------------------------------------------


@dataclass
class _Pool:
    """Items in memory, those that wait and those that are approved, with one text each."""

    items: list[TrainingDataItem]
    known: list[TrainingDataItem]

    def texts(self, of: Sequence[TrainingDataItem]) -> list[str]:
        return ["\n".join(map(str, item.fields.values())) for item in of]


def _read_pool(classifier: Classifier, keys: Sequence[int]) -> _Pool:
    columns = ("pk", "classifier_id", "fields", "label", "content_hash", "interaction_id", "priority", "why")
    items: list[TrainingDataItem] = []
    for start in range(0, len(keys), _CHUNK):
        found = TrainingDataItem.objects.only(*columns).in_bulk(keys[start : start + _CHUNK])
        items += sorted(found.values(), key=lambda item: item.pk)
    items.sort(key=lambda item: item.pk)
    approved = TrainingDataItem.objects.filter(classifier=classifier).trainable().order_by("-pk")
    return _Pool(items, list(approved.only(*columns)[:KNOWN]))


def _scores_of(items: Sequence[TrainingDataItem]) -> dict[Any, dict[str, float]]:
    keys = [item.interaction_id for item in items if item.interaction_id]
    found: dict[Any, dict[str, float]] = {}
    for start in range(0, len(keys), _CHUNK):
        rows = UserInteraction.objects.filter(pk__in=keys[start : start + _CHUNK])
        found |= dict(rows.values_list("pk", "scores"))
    return found


# Laying out --------------------------------------------------------------------------------------------------------


def _lay_out(
    classifier: Classifier, pool: _Pool, tell: Progress, with_encoder: bool
) -> tuple[list[TrainingDataItem], str]:
    """The pool in its order, each item with its priority, reason and facts (not yet saved); and what compared texts."""
    texts = pool.texts(pool.items)
    tell(0.1, f"Reading {len(texts):,} texts")
    vectors, known, how = _vectors(texts, pool.texts(pool.known), tell, with_encoder)
    tell(0.6, "Judging the labels")
    figures = _Figures(classifier, pool, texts)
    tell(0.75, "Laying out the queue")
    chosen = batch(Pool(figures.unsure, figures.doubt, figures.rare, vectors, known), BATCH)
    first = {place for place, _ in chosen}
    worth = figures.unsure + figures.doubt + figures.rare
    rest = [int(place) for place in np.argsort(-worth, kind="stable") if int(place) not in first]
    places = [place for place, _ in chosen] + rest
    near, likeness = nearest(vectors[places], known, NEIGHBOURS)
    order = []
    for rank, place in enumerate(places):
        item = pool.items[place]
        item.priority = RANKED * (1 - rank / len(places))
        item.why = chosen[rank][1].value if rank < len(chosen) else ""
        item.script = script_of(texts[place])
        item.queue_facts = figures.facts(place) | {
            "near": [pool.known[one].pk for one, cosine in zip(near[rank], likeness[rank], strict=True) if cosine > 0]
        }
        order.append(item)
    return order, how


def _vectors(
    texts: list[str], known: list[str], tell: Progress, with_encoder: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], str]:
    together = texts + known
    if with_encoder and len(texts) >= ENCODER_FROM:
        try:
            vectors = embedding.encode([(text,) for text in together], encoder_cache(), _Reading(tell))
            return vectors[: len(texts)], vectors[len(texts) :], "encoder"
        except FamilyError:
            tell(0.5, "The encoder cannot be had; comparing words")
    vectors = word_vectors(together)
    return vectors[: len(texts)], vectors[len(texts) :], "words"


class _Reading(Silent):
    """Passes an encoder's progress on, as a part of the whole. The caller raises out of it when it is to stop."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell

    def progress(self, fraction: float, note: str) -> None:
        self._tell(0.1 + 0.5 * fraction, note)


class _Figures:
    """`unsure`, `doubt` and `rare` of each pool item (n,), and what of them a reviewer is told."""

    def __init__(self, classifier: Classifier, pool: _Pool, texts: list[str]) -> None:
        self._items, self._labels = pool.items, list(classifier.labels)
        self._index = {label: number for number, label in enumerate(self._labels)}
        count = len(pool.items)
        self.issues: LabelIssues | None = None
        self.unsure: Floats = np.full(count, _UNKNOWN)
        self.doubt: Floats = np.zeros(count)
        self.rare: Floats = np.zeros(count)
        judged = None
        if not classifier.multi_label:
            given = np.array([self._index.get(item.label, -1) for item in pool.items], dtype=np.intp)
            judged = self._judge(given, pool, texts)
            counts = dict(_known_labels(classifier))
            self.rare = rarity(given, [counts.get(label, 0) for label in self._labels])
        self._weigh(judged, classifier.multi_label)

    def _judge(
        self, given: NDArray[np.intp], pool: _Pool, texts: list[str]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]] | None:
        """Rows of the pool with a known label, and their out-of-sample probabilities; sets `doubt`."""
        rows = np.flatnonzero(given >= 0)
        known = [(item, text) for item, text in zip(pool.known, pool.texts(pool.known), strict=True)]
        known = [(item, text) for item, text in known if item.label in self._index]
        labels = np.concatenate([given[rows], [self._index[item.label] for item, _ in known]]).astype(np.intp)
        all_texts = [texts[row] for row in rows] + [text for _, text in known]
        groups = [pool.items[row].content_hash for row in rows] + [item.content_hash for item, _ in known]
        probabilities = out_of_sample(all_texts, labels, groups, len(self._labels))
        if probabilities is None:
            return None
        found = label_issues(labels, probabilities)
        issues = LabelIssues(np.zeros(len(given), dtype=bool), given.copy(), np.ones(len(given)))
        here = slice(len(rows))
        issues.suspected[rows], issues.likely[rows] = found.suspected[here], found.likely[here]
        issues.self_confidence[rows] = found.self_confidence[here]
        self.issues = issues
        self.doubt = np.where(issues.suspected, 1 - issues.self_confidence, 0.0)
        return rows, probabilities[here]

    def _weigh(self, judged: tuple[NDArray[np.intp], NDArray[np.float64]] | None, multi_label: bool) -> None:
        """`unsure` by the scores of the answer that an item comes from, else by the models that never saw it."""
        if judged is not None:
            rows, probabilities = judged
            self.unsure[rows] = uncertainty(probabilities)
        scores = _scores_of(self._items)
        for place, item in enumerate(self._items):
            if given := scores.get(item.interaction_id):
                row = _row(given, self._index)
                self.unsure[place] = (uncertainty_of_sets(row) if multi_label else uncertainty(row))[0]

    def facts(self, place: int) -> dict[str, Any]:
        if self.issues is None or not self.issues.suspected[place]:
            return {}
        return {"likely": self._labels[int(self.issues.likely[place])]}


def _known_labels(classifier: Classifier) -> Iterator[tuple[str, int]]:
    items = TrainingDataItem.objects.filter(classifier=classifier).trainable()
    yield from items.order_by().values_list("label").annotate(rows=Count("pk"))


# Writing -----------------------------------------------------------------------------------------------------------


def _write(order: Sequence[TrainingDataItem], waiting: _Waiting, effect: Effect) -> None:
    """What somebody began on meanwhile (its priority says so) or decided keeps what it has."""
    for start in range(0, len(order), _CHUNK):
        with effect():
            _update(order[start : start + _CHUNK])
    ranked = {item.pk for item in order}
    stale = [int(key) for key in waiting.keys[waiting.placed] if int(key) not in ranked]
    still = TrainingDataItem.objects.filter(status=Status.REVIEW, priority__lte=RANKED)
    for start in range(0, len(stale), _CHUNK):
        with effect():
            still.filter(pk__in=stale[start : start + _CHUNK]).update(priority=0.0, why="")
    _place_sample(order, effect)


def _update(items: Sequence[TrainingDataItem]) -> None:
    """One statement run for every row: `bulk_update`, with a CASE for each row and column, took many times as long."""
    table = connection.ops.quote_name(TrainingDataItem._meta.db_table)
    columns = "priority = %s, why = %s, queue_facts = %s, script = %s"
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {table} SET {columns} WHERE id = %s AND status = %s AND priority <= %s",  # noqa: S608
            [
                (item.priority, item.why, json.dumps(item.queue_facts), item.script, item.pk, Status.REVIEW, RANKED)
                for item in items
            ],
        )


def _place_sample(order: Sequence[TrainingDataItem], effect: Effect) -> None:
    """Let the random sample stand at every tenth place, the oldest first."""
    if order:
        classifier_id = order[0].classifier_id
        sample = TrainingDataItem.objects.filter(Q(why=Why.AUDIT), classifier_id=classifier_id, status=Status.REVIEW)
        items = list(sample.filter(priority__lte=RANKED).order_by("pk")[:_READ])
        for number, item in enumerate(items, start=1):
            place = min(number * AUDIT_EVERY, len(order)) - 1
            item.priority = order[place].priority - RANKED / (2 * len(order))
        for start in range(0, len(items), _CHUNK):
            with effect():
                TrainingDataItem.objects.bulk_update(items[start : start + _CHUNK], ["priority"])


def queues_rank(
    classifiers: Sequence[Classifier] | None = None,
    *,
    actor: str = "system",
    progress: Progress | None = None,
    effect: Effect = transaction.atomic,
) -> dict[str, Ranking]:
    """Rank the queues of `classifiers`, by default of every enabled one; {slug: what was done}."""
    those = list(Classifier.objects.serving()) if classifiers is None else classifiers
    done = {}
    for number, classifier in enumerate(those):

        def part(fraction: float, note: str, number: int = number, name: str = classifier.slug) -> None:
            if progress:
                progress((number + fraction) / len(those), f"{name}: {note}")

        done[classifier.slug] = queue_rank(classifier, actor=actor, progress=part, effect=effect)
    return done


def queue_rank_later(classifier: Classifier | None, *, actor: str, key: str = "") -> None:
    """Let a worker rank the queue of one classifier or of all, as after a curation."""
    enqueue("rank", {"classifier": classifier.slug if classifier else ""}, key=key, actor=actor)
