"""Tables of how judgement becomes a version: data sets, items, reviews, snapshots, runs."""

from training.models.curation import BlockedWord, DomainMap
from training.models.datasets import Dataset
from training.models.items import DuplicateBand, ItemQuerySet, ItemSource, TrainingDataItem
from training.models.reviews import AuditDraw, Review, ReviewLease, ReviewSkip
from training.models.runs import DatasetSnapshot, SnapshotItem, TrainingRun

__all__ = [
    "AuditDraw",
    "BlockedWord",
    "Dataset",
    "DatasetSnapshot",
    "DomainMap",
    "DuplicateBand",
    "ItemQuerySet",
    "ItemSource",
    "Review",
    "ReviewLease",
    "ReviewSkip",
    "SnapshotItem",
    "TrainingDataItem",
    "TrainingRun",
]
