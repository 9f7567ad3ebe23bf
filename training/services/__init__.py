"""The training app's verbs: what every view, admin action, task and command calls."""

from training.services.agreements import AgreementReport, agreement_report, audit_accuracy
from training.services.audit import audit_draw
from training.services.cascades import cascade_measure, cascade_refresh, cascades_prepare
from training.services.curation import evidence_waiting, examples_curate, work_waiting
from training.services.curation_stats import CurationStats
from training.services.datasets import (
    dataset_add,
    dataset_add_url,
    dataset_discard,
    dataset_fetch,
    dataset_import_queue,
    dataset_is_discardable,
    dataset_load_queue,
    dataset_role_preview,
    dataset_role_set,
)
from training.services.desk import (
    desk_lease,
    desk_next,
    desk_progress,
    desk_skip,
    lease_holder,
    skips_forget,
    waiting_for,
)
from training.services.evaluations import GoldenSet, evaluate_all, golden_set, version_evaluate, version_judgement
from training.services.examinations import dataset_examine, dataset_examine_queue
from training.services.examples import example_add
from training.services.execution import run_execute
from training.services.exports import export_columns, items_to_export, snapshot_to_export
from training.services.files import dataset_look, dataset_preview
from training.services.imports import dataset_analyse, dataset_load
from training.services.labelled_files import LabelledFile, labelled_file_read
from training.services.past_interactions import (
    interactions_add,
    interactions_columns,
    interactions_load,
    interactions_to_export,
)
from training.services.queue import Ranking, queue_rank, queue_rank_later, queues_rank
from training.services.review import item_review, item_state, items_review
from training.services.runs import FineTuning, fine_tune, new_items_count, run_resume, run_start
from training.services.snapshots import data_digest, golden_digest, golden_reserve, snapshot_freeze
from training.services.trust import own_sources, quarantine_reject, quarantine_release
from training.services.undo import review_undo
from training.services.words import shipped_lists, word_remove, words_add, words_in_force

__all__ = [
    "AgreementReport",
    "CurationStats",
    "FineTuning",
    "GoldenSet",
    "LabelledFile",
    "Ranking",
    "agreement_report",
    "audit_accuracy",
    "audit_draw",
    "cascade_measure",
    "cascade_refresh",
    "cascades_prepare",
    "data_digest",
    "dataset_add",
    "dataset_add_url",
    "dataset_analyse",
    "dataset_discard",
    "dataset_examine",
    "dataset_examine_queue",
    "dataset_fetch",
    "dataset_import_queue",
    "dataset_is_discardable",
    "dataset_load",
    "dataset_load_queue",
    "dataset_look",
    "dataset_preview",
    "dataset_role_preview",
    "dataset_role_set",
    "desk_lease",
    "desk_next",
    "desk_progress",
    "desk_skip",
    "evaluate_all",
    "evidence_waiting",
    "example_add",
    "examples_curate",
    "export_columns",
    "fine_tune",
    "golden_digest",
    "golden_reserve",
    "golden_set",
    "interactions_add",
    "interactions_columns",
    "interactions_load",
    "interactions_to_export",
    "item_review",
    "item_state",
    "items_review",
    "items_to_export",
    "labelled_file_read",
    "lease_holder",
    "new_items_count",
    "own_sources",
    "quarantine_reject",
    "quarantine_release",
    "queue_rank",
    "queue_rank_later",
    "queues_rank",
    "review_undo",
    "run_execute",
    "run_resume",
    "run_start",
    "shipped_lists",
    "skips_forget",
    "snapshot_freeze",
    "snapshot_to_export",
    "version_evaluate",
    "version_judgement",
    "waiting_for",
    "word_remove",
    "words_add",
    "words_in_force",
    "work_waiting",
]
