"""`manage.py compare SLUG/A SLUG/B`."""

import json
from typing import Any

from django.core.management.base import CommandParser

from kalimtak.core.commands import KalimtakCommand
from registry.services import Comparison, version_get, versions_compare


class Command(KalimtakCommand):
    help = "Shows the stored figures of two versions side by side, their difference with a 95 % interval."
    example = "manage.py compare emotion/2 emotion/3"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("a", metavar="SLUG/A", help="the version to compare with")
        parser.add_argument("b", metavar="SLUG/B", help="the other version")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        comparison = versions_compare(version_get(options["a"]), version_get(options["b"]))
        if options["json"]:
            self.stdout.write(json.dumps(comparison.to_dict(), ensure_ascii=False, indent=2))
            return
        columns = ("", comparison.a, comparison.b, "difference (95 % interval)")
        self.table(f"{comparison.a} and {comparison.b}", columns, _rows(comparison))
        self.stdout.write(_conclusion(comparison))


def _rows(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, (a, b) in comparison.metrics.items():
        interval = comparison.differences.get(name)
        difference = f"{interval.point:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})" if interval else ""
        title = "exact match" if comparison.multi_label and name == "accuracy" else name.replace("_", " ")
        rows.append((title, _figure(a), _figure(b), difference))
    for label, (a, b) in comparison.f1_per_label.items():
        rows.append((f"F1 of {label}", _figure(a), _figure(b), ""))
    return rows


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _conclusion(comparison: Comparison) -> str:
    """What the figures allow to say, in one sentence."""
    if not comparison.differences:
        return "They were not scored on the same texts, so their figures cannot be set against each other."
    interval = comparison.differences["macro_f1"]
    on = f"on the same {comparison.rows} texts"
    if interval.low > 0:
        return f"{comparison.b} is better {on}."
    if interval.high < 0:
        return f"{comparison.b} is worse {on}."
    return f"No difference in macro-F1 can be told {on}."
