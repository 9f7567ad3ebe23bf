"""`manage.py list_runs`: training runs, newest first."""

import json
from typing import Any

from django.core.management.base import CommandParser

from kalimtak.core.commands import KalimtakCommand
from training.management.figures import duration, run_seconds
from training.models import TrainingRun

COLUMNS = (
    *("Run", "Classifier", "Type", "State", "Done", "Version", "Macro-F1", "Took", "Asked by", "Created"),
    "What it says",
)


class Command(KalimtakCommand):
    help = "Lists training runs, newest first, with their state and the version each one made."
    example = "manage.py list_runs --classifier emotion --limit 5"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--classifier", default="", metavar="SLUG", help="only this one's runs")
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: 20)")

    def handle(self, *args: Any, **options: Any) -> None:
        runs = TrainingRun.objects.select_related("job", "classifier", "version__classifier")
        if options["classifier"]:
            runs = runs.filter(classifier__slug=options["classifier"])
        found = list(runs[: max(1, options["limit"])])
        if options["json"]:
            self.stdout.write(json.dumps([_described(run) for run in found], ensure_ascii=False, indent=2))
            return
        rows = [_row(run) for run in found]
        if not rows:
            self.stdout.write("No runs yet; start one with `manage.py train SLUG`.")
            return
        self.table("Training runs", COLUMNS, rows)


def _row(run: TrainingRun) -> tuple[str, ...]:
    macro_f1 = run.version.metrics.get("macro_f1") if run.version else None
    says = run.job.error.splitlines()[0] if run.job.error else run.job.note
    return (
        str(run.pk),
        run.classifier.slug,
        run.family,
        run.job.state,
        f"{run.job.progress:.0%}",
        run.version.ref if run.version else "",
        "" if macro_f1 is None else f"{macro_f1:.4f}",
        duration(run_seconds(run.job)) if run.job.started_at else "",
        run.job.actor,
        run.created_at.strftime("%Y-%m-%d %H:%M"),
        says,
    )


def _described(run: TrainingRun) -> dict[str, Any]:
    """One run in JSON types."""
    return {
        "run": run.pk,
        "job": str(run.job_id),
        "classifier": run.classifier.slug,
        "type": run.family,
        "state": run.job.state,
        "progress": run.job.progress,
        "note": run.job.note,
        "error": run.job.error,
        "version": run.version.ref if run.version else None,
        "metrics": run.version.metrics if run.version else {},
        "facts": run.facts,
        "notes": run.notes,
        "seconds": round(run_seconds(run.job), 1),
        "asked_by": run.job.actor,
        "created": run.created_at.isoformat(timespec="seconds"),
    }
