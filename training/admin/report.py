"""A data set's analysis as what its page draws."""

from collections.abc import Mapping
from typing import Any

ERRORS_SHOWN = 50


def report_context(report: Mapping[str, Any]) -> dict[str, Any]:
    """Template context of a report; empty before there is one."""
    counts = report.get("labels") or {}
    largest = max(counts.values(), default=0)
    errors = report.get("errors") or []
    return {
        "report": report,
        "labels": [
            {"label": label, "count": count, "share": f"{count / largest:.4f}" if largest else "0"}
            for label, count in sorted(counts.items(), key=lambda pair: -pair[1])
        ],
        "errors": errors[:ERRORS_SHOWN],
        "errors_left": max(0, len(errors) - ERRORS_SHOWN),
    }
