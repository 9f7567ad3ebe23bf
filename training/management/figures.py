"""Figures of an evaluation as rows of a terminal's tables."""

from collections.abc import Mapping
from typing import Any

_OVERALL = {
    "accuracy": "Accuracy",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "macro_f1": "Macro-F1",
    "log_loss": "Log loss (nats)",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score (0-2)",
}


def overall_rows(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """`scores` as `registry.metrics.Scores.to_dict` writes them; 95 % intervals in parentheses."""
    return [(title, _with_interval(scores, name)) for name, title in _OVERALL.items()]


def _with_interval(scores: Mapping[str, Any], name: str) -> str:
    interval = scores.get(f"{name}_interval")
    return f"{scores[name]:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else "")


def per_label_rows(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (label, *(f"{row[name]:.4f}" for name in ("precision", "recall", "f1")), f"{row['support']}")
        for label, row in scores["per_label"].items()
    ]


def confusion_rows(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row per true label, a column per answer, in label order."""
    return [(label, *map(str, row)) for label, row in zip(scores["labels"], scores["confusion"], strict=True)]
