"""Stored figures as what a page shows: shares with intervals, the table per label, the confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.translation import gettext_lazy as _

from registry.metrics import Interval
from registry.services import Comparison

LABELS_DRAWN = 40

NAMES = {
    "accuracy": _("accuracy"),
    "macro_f1": _("macro-F1"),
    "macro_precision": _("macro precision"),
    "macro_recall": _("macro recall"),
    "log_loss": _("log loss"),
    "ece": _("calibration error"),
    "brier": _("Brier score"),
}
SHARES = ("accuracy", "macro_f1", "macro_precision", "macro_recall", "ece")


def figure(name: str, value: float | None) -> str:
    """`94.2 %` for a share, `0.183` for the rest, a dash for what is not known."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if name in SHARES else f"{value:.3f}"


def figures(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The overall figures in a fixed order, each with its 95 % interval where it has one."""
    rows = []
    for name, title in NAMES.items():
        if name not in scores:
            continue
        low_high = scores.get(f"{name}_interval")
        interval = f"{100 * low_high[0]:.1f} – {100 * low_high[1]:.1f} %" if low_high else ""
        rows.append({"title": title, "value": figure(name, scores[name]), "interval": interval})
    return rows


def label_rows(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Precision, recall and F1 per label, in label order."""
    rows = []
    for label, values in scores.get("per_label", {}).items():
        shares = [f"{100 * values[name]:.1f} %" for name in ("precision", "recall", "f1")]
        rows.append({"label": label, "shares": shares, "support": int(values["support"]), "f1": f"{values['f1']:.4f}"})
    return rows


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Overall figures, then F1 per label; the difference with its interval where both saw the same texts."""
    rows = []
    for name, (live, this) in comparison.metrics.items():
        interval = comparison.differences.get(name)
        rows.append(
            {
                "title": NAMES[name],
                "live": figure(name, live),
                "this": figure(name, this),
                "difference": difference(interval) if interval else "",
            }
        )
    for label, (live, this) in comparison.f1_per_label.items():
        rows.append({"title": f"F1 {label}", "live": figure("macro_f1", live), "this": figure("macro_f1", this)})
    return rows if any(pair != (None, None) for pair in comparison.metrics.values()) else []


def difference(interval: Interval) -> str:
    """`+1.2 (−0.4 to +2.8)`, in points of a hundred."""
    point, low, high = (f"{100 * value:+.1f}".replace("-", "−") for value in interval)
    return f"{point} ({low} … {high})"


def confusion_rows(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The matrix by truth: counts, and each as a share of its row; empty where it would not fit on a page."""
    labels: Sequence[str] = scores.get("labels", ())
    if not 2 <= len(labels) <= LABELS_DRAWN:
        return []
    rows = []
    for truth, counts in zip(labels, scores["confusion"], strict=True):
        total = sum(counts)
        cells = [
            {
                "count": count,
                "share": f"{count / total:.3f}" if total else "0",
                "answer": answer,
                "right": answer == truth,
            }
            for answer, count in zip(labels, counts, strict=True)
        ]
        rows.append({"truth": truth, "cells": cells})
    return rows
