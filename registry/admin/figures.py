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
    "micro_f1": _("micro-F1"),
    "macro_precision": _("macro precision"),
    "macro_recall": _("macro recall"),
    "log_loss": _("log loss"),
    "ece": _("calibration error"),
    "brier": _("Brier score"),
}
MULTI_LABEL_NAMES = NAMES | {"accuracy": _("exact match")}
LESS_IS_BETTER = ("log_loss", "ece", "brier")
NOTICEABLE = 0.01  # a smaller difference is coloured neither way; nor is one whose interval holds 0
SHARES = ("accuracy", "macro_f1", "micro_f1", "macro_precision", "macro_recall", "ece")


def figure(name: str, value: float | None) -> str:
    """`94.2 %` for a share, `0.183` for the rest, a dash for what is not known."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if name in SHARES else f"{value:.3f}"


def figures(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The overall figures in a fixed order, each with its 95 % interval where it has one."""
    rows, multi_label = [], scores.get("multi_label")
    for name, title in (MULTI_LABEL_NAMES if multi_label else NAMES).items():
        if name not in scores or (name == "micro_f1" and not multi_label):  # with one label each it is the accuracy
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
    """Overall figures, then F1 per label; the difference where both saw the same texts, with its interval if known."""
    names = MULTI_LABEL_NAMES if comparison.multi_label else NAMES
    rows = [
        _comparison_row(names[name], name, pair, comparison.differences.get(name), comparison.data_digest is not None)
        for name, pair in comparison.metrics.items()
    ]
    rows += [
        _comparison_row(f"F1 {label}", "macro_f1", pair, None, comparison.data_digest is not None)
        for label, pair in comparison.f1_per_label.items()
    ]
    return rows if any(pair != (None, None) for pair in comparison.metrics.values()) else []


def _comparison_row(
    title: Any, name: str, pair: tuple[float | None, float | None], interval: Interval | None, is_common: bool
) -> dict[str, Any]:
    """Both figures in words and, for a share where more is better, as bars; the difference and whether it is good."""
    live, this = pair
    row = {"title": title, "live": figure(name, live), "this": figure(name, this), "difference": "", "tone": ""}
    if name in SHARES and name not in LESS_IS_BETTER:
        row["bars"] = [f"{value or 0:.4f}" for value in pair]
    if live is None or this is None or not is_common:
        return row
    gain = this - live
    if interval:
        row["difference"] = difference(interval)
    else:
        row["difference"] = signed(100 * gain, 1) if name in SHARES else signed(gain, 3)
    if abs(gain) >= NOTICEABLE and not (interval and interval.low <= 0 <= interval.high):
        row["tone"] = "k-gain" if (gain > 0) != (name in LESS_IS_BETTER) else "k-loss"
    return row


def signed(value: float, digits: int) -> str:
    """`+1.2` or `−0.4`."""
    return f"{value:+.{digits}f}".replace("-", "−")


def difference(interval: Interval) -> str:
    """`+1.2 (−0.4 to +2.8)`, in points of a hundred."""
    point, low, high = (signed(100 * value, 1) for value in interval)
    return f"{point} ({low} … {high})"


def confusion_rows(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The matrix by truth: counts, and each as a share of its row; empty where it would not fit on a page."""
    labels: Sequence[str] = scores.get("labels", ())
    if scores.get("multi_label") or not 2 <= len(labels) <= LABELS_DRAWN:
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


def outcome_rows(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per label of a multi-label version: texts that got it rightly, that missed it, that got it wrongly."""
    if not scores.get("multi_label"):
        return []
    rows = []
    for label, values in scores["per_label"].items():
        right = round(values["recall"] * values["support"])
        missed, wrong = int(values["support"]) - right, int(values["given"]) - right
        share = right / max(right + missed + wrong, 1)
        rows.append({"label": label, "right": right, "missed": missed, "wrong": wrong, "share": f"{share:.4f}"})
    return rows
