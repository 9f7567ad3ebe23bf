"""The training app's verbs: what every view, admin action, task and command calls."""

from training.services.evaluations import GoldenSet, evaluate_all, golden_set, version_evaluate, version_judgement
from training.services.execution import run_execute
from training.services.labelled_files import LabelledFile, labelled_file_read
from training.services.runs import FineTuning, fine_tune, new_items_count, run_resume, run_start
from training.services.snapshots import data_digest, golden_digest, golden_reserve, snapshot_freeze

__all__ = [
    "FineTuning",
    "GoldenSet",
    "LabelledFile",
    "data_digest",
    "evaluate_all",
    "fine_tune",
    "golden_digest",
    "golden_reserve",
    "golden_set",
    "labelled_file_read",
    "new_items_count",
    "run_execute",
    "run_resume",
    "run_start",
    "snapshot_freeze",
    "version_evaluate",
    "version_judgement",
]
