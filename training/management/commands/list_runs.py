"""`manage.py list_runs`: training runs, newest first."""

from typing import Any

from django.core.management.base import CommandParser

from kalimtak.core.commands import KalimtakCommand
from training.models import TrainingRun

COLUMNS = ("Run", "Classifier", "Type", "State", "Done", "Version", "Macro-F1", "Asked by", "Created", "Error")


class Command(KalimtakCommand):
    help = "Lists training runs, newest first, with their state and the version each one made."
    example = "manage.py list_runs --classifier emotion --limit 5"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--classifier", default="", metavar="SLUG", help="only this one's runs")
        parser.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: 20)")

    def handle(self, *args: Any, **options: Any) -> None:
        runs = TrainingRun.objects.select_related("job", "classifier", "version__classifier")
        if options["classifier"]:
            runs = runs.filter(classifier__slug=options["classifier"])
        rows = [_row(run) for run in runs[: max(1, options["limit"])]]
        if not rows:
            self.stdout.write("No runs yet; start one with `manage.py train SLUG`.")
            return
        self.table("Training runs", COLUMNS, rows)


def _row(run: TrainingRun) -> tuple[str, ...]:
    macro_f1 = run.version.metrics.get("macro_f1") if run.version else None
    error = run.job.error.splitlines()[0] if run.job.error else ""
    return (
        str(run.pk),
        run.classifier.slug,
        run.family,
        run.job.state,
        f"{run.job.progress:.0%}",
        run.version.ref if run.version else "",
        "" if macro_f1 is None else f"{macro_f1:.4f}",
        run.job.actor,
        run.created_at.strftime("%Y-%m-%d %H:%M"),
        error,
    )
