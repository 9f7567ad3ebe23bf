"""Figures of an evaluation as rows of a terminal's tables."""

from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from kalimtak.core.models import Job

_OVERALL = {
    "accuracy": "Accuracy",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "macro_f1": "Macro-F1",
    "log_loss": "Log loss (nats)",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score (0-2)",
}
_TRAINERS = {
    "eval_accuracy": "accuracy",
    "eval_f1": "macro_f1",
    "eval_precision": "macro_precision",
    "eval_recall": "macro_recall",
    "eval_loss": "log_loss",
}


_MULTI_LABEL = {"accuracy": "Exact match", "brier": "Brier score (0-1)"}


def overall_rows(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """`scores` as `registry.metrics.Scores.to_dict` writes them; 95 % intervals in parentheses."""
    titles = _OVERALL
    if scores.get("multi_label"):
        titles = {"accuracy": "", "macro_f1": "", "micro_f1": "Micro-F1"} | _OVERALL | _MULTI_LABEL
    return [(title, _with_interval(scores, name)) for name, title in titles.items()]


def _with_interval(scores: Mapping[str, Any], name: str) -> str:
    interval = scores.get(f"{name}_interval")
    return f"{scores[name]:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else "")


def trainer_rows(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The main figures under the names that Hugging Face's Trainer prints; F1, precision and recall are macro means."""
    return [(name, f"{scores[key]:.4f}") for name, key in _TRAINERS.items()]


def run_seconds(job: Job) -> float:
    """How long the last attempt of a run's job has taken so far."""
    if job.started_at is None:
        return 0.0
    return ((job.finished_at or timezone.now()) - job.started_at).total_seconds()


def duration(seconds: float) -> str:
    """`12.3 s`, `6 min 20 s`, `1 h 02 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def per_label_rows(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (label, *(f"{row[name]:.4f}" for name in ("precision", "recall", "f1")), f"{row['support']}")
        for label, row in scores["per_label"].items()
    ]


def confusion_rows(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row per true label, a column per answer, in label order; none of a multi-label version."""
    return [
        (label, *map(str, row))
        for label, row in zip(scores["labels"], scores["confusion"], strict=not scores.get("multi_label"))
    ]
