"""The training app's verbs: what every view, admin action, task and command calls."""

from training.services.cascades import cascade_measure, cascade_refresh, cascades_prepare
from training.services.curation import CurationStats, evidence_waiting, examples_curate, work_waiting
from training.services.datasets import (
    dataset_add,
    dataset_add_url,
    dataset_analyse,
    dataset_fetch,
    dataset_import_queue,
    dataset_load,
)
from training.services.evaluations import GoldenSet, evaluate_all, golden_set, version_evaluate, version_judgement
from training.services.examples import example_add
from training.services.execution import run_execute
from training.services.exports import items_to_export, snapshot_to_export
from training.services.labelled_files import LabelledFile, labelled_file_read
from training.services.review import item_review, items_review
from training.services.runs import FineTuning, fine_tune, new_items_count, run_resume, run_start
from training.services.snapshots import data_digest, golden_digest, golden_reserve, snapshot_freeze

__all__ = [
    "CurationStats",
    "FineTuning",
    "GoldenSet",
    "LabelledFile",
    "cascade_measure",
    "cascade_refresh",
    "cascades_prepare",
    "data_digest",
    "dataset_add",
    "dataset_add_url",
    "dataset_analyse",
    "dataset_fetch",
    "dataset_import_queue",
    "dataset_load",
    "evaluate_all",
    "evidence_waiting",
    "example_add",
    "examples_curate",
    "fine_tune",
    "golden_digest",
    "golden_reserve",
    "golden_set",
    "item_review",
    "items_review",
    "items_to_export",
    "labelled_file_read",
    "new_items_count",
    "run_execute",
    "run_resume",
    "run_start",
    "snapshot_freeze",
    "snapshot_to_export",
    "version_evaluate",
    "version_judgement",
    "work_waiting",
]
