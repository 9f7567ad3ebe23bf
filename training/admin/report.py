"""A data set's analysis as what its page draws."""

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

LABELS_DRAWN = 50
ERRORS_SHOWN = 50


def report_context(report: Mapping[str, Any]) -> dict[str, Any]:
    """Template context of `training.analysis.Analysis.report()`; nothing drawn before there is one."""
    if not report:
        return {}
    labels = report["labels"]
    return {
        "report": report,
        "facts": _facts(report),
        "labels": bars(dict(list(labels.items())[:LABELS_DRAWN])),
        "labels_left": max(0, len(labels) - LABELS_DRAWN),
        "lengths": _lengths(report),
        **_bad_rows(report),
        "unknown": list(report["unknown_labels"].items()),
        "dropped": list(report.get("dropped", {}).items()),
        "personal": report.get("personal", {}),
    }


def log_context(report: Mapping[str, Any]) -> dict[str, Any]:
    """Template context of the report on a log of past interactions."""
    if not report:
        return {}
    outcome = report.get("outcome", {})
    names = {
        "recorded": _("Interactions recorded"),
        "repeated": _("Already there"),
        "feedback": _("Feedback recorded"),
        "changed": _("Feedback changed"),
    }
    return {
        "report": report,
        "facts": [
            (_("Rows"), f"{report['rows']:,}"),
            (_("Corrections"), f"{report['corrected']:,}"),
            *((names[name], f"{count:,}") for name, count in outcome.items() if name in names),
        ],
        "ratings": bars(report["ratings"]),
        "labels": bars(dict(list(report["labels"].items())[:LABELS_DRAWN])),
        **_bad_rows(report),
    }


def _bad_rows(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "errors": sorted(report["errors"], key=lambda error: error["line"])[:ERRORS_SHOWN],
        "errors_left": max(0, report["error_count"] - ERRORS_SHOWN),
    }


def bars(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Counts with their share of the largest, as CSS reads it."""
    largest = max(counts.values(), default=0) or 1
    return [{"label": label, "count": count, "share": f"{count / largest:.4f}"} for label, count in counts.items()]


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures of the file, and what loading it did where it was loaded."""
    fields, outcome = report["fields"], report.get("outcome", {})
    facts = [
        (_("Task"), report["task"]),
        (_("Text columns"), ", ".join(fields["inputs"])),
        (_("Label column"), fields["label"] or "–"),
        (_("Rows"), f"{report['rows']:,}"),
        (_("Usable"), f"{report['good']:,}"),
        (_("Left out by their label"), f"{report.get('dropped_count', 0):,}"),
        *_reviewed(report),
        (_("The same text again"), f"{report['duplicates']:,}"),
        (_("The same text, another label"), f"{report['conflicts']:,}"),
        (_("Scripts"), _mix(report["scripts"])),
        (_("Languages"), _mix(report["languages"])),
    ]
    names = {
        "loaded": _("Loaded"),
        "duplicates": _("Already there"),
        "for_review": _("Sent to review"),
        "refused_before": _("Rejected before"),
        "pii_redacted": _("Personal data replaced"),
        "held_out": _("Copies of held-out texts"),
    }
    return facts + [(names[name], f"{count:,}") for name, count in outcome.items() if name in names]


def _reviewed(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a column that says what was approved made of the rows; nothing where the file has none."""
    if not report["fields"].get("status"):
        return []
    skipped = sum(report["skipped"].values())
    return [(_("Not approved yet"), f"{report['unreviewed']:,}"), (_("Left out by their status"), f"{skipped:,}")]


def _mix(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.capitalize()} {count:,}" for name, count in list(counts.items())[:6]) or "–"


def _lengths(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row of percentiles for characters and one for words."""
    columns = ("min", "p5", "p50", "p95", "p99", "max")
    rows = ((_("characters"), report["characters"]), (_("words"), report["words"]))
    return [{"name": name, "values": [values[column] for column in columns]} for name, values in rows if values]
