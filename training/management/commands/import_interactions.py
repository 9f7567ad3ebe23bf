"""`manage.py import_interactions FILE`: past questions, answers and ratings, as if they had been asked here."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from kalimtak.core.commands import KalimtakCommand
from kalimtak.core.foreground import refuse_unless_succeeded, run_here
from registry.services import classifier_get
from training import services
from training.streams import ENCODINGS

ACTOR = "command line"
ERRORS_PRINTED = 20


class Command(KalimtakCommand):
    help = (
        "Records past interactions with their ratings from a CSV, TSV, JSON, JSONL or Parquet file (each optionally "
        "gzipped). A thumb up or down counts as 5 or 1. The next curation takes the feedback in."
    )
    example = "manage.py import_interactions log.csv --classifier emotion --rating-field thumbs"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--classifier", default="", metavar="SLUG", help="whose they are; else as each row says, or the default's"
        )
        parser.add_argument(
            "--text-field", action="append", default=[], metavar="COLUMN", help="once for each input, in order"
        )
        parser.add_argument("--label-field", default="", metavar="COLUMN", help="the label that was answered")
        parser.add_argument("--rating-field", default="", metavar="COLUMN", help="1 to 5, or up and down")
        parser.add_argument(
            "--encoding", choices=sorted(ENCODINGS), default="", help="of a text file that is not UTF-8"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        if not path.is_file():
            raise CommandError(f"There is no file {path}.")
        told = {name: options[name] for name in ("label_field", "rating_field", "encoding") if options[name]}
        if options["text_field"]:
            told["text_fields"] = options["text_field"]
        dataset = services.interactions_add(
            classifier_get(options["classifier"]),
            source=path,
            name=path.name,
            options=told | ({} if options["classifier"] else {"any_classifier": True}),
            actor=ACTOR,
            ring=False,
        )
        assert dataset.job is not None
        with self.progress(f"Importing {path.name}") as progress:
            job = run_here(dataset.job, progress)
        refuse_unless_succeeded(job, what="job", if_cancelled="Cancelled. Import it again: nothing comes twice.")
        dataset.refresh_from_db()
        self._print(dataset.report)

    def _print(self, report: dict[str, Any]) -> None:
        write, outcome = self.stdout.write, report["outcome"]
        for sentence in report["why"]:
            write(f"  {sentence}")
        for error in report["errors"][:ERRORS_PRINTED]:
            write(f"{report['file']['unit']} {error['line']}: {error['reason']}")
        if report["error_count"] > ERRORS_PRINTED:
            write(f"… and {report['error_count'] - ERRORS_PRINTED:,} more rows with errors.")
        ratings = ", ".join(f"{rating}: {count:,}" for rating, count in report["ratings"].items()) or "none"
        write(f"Ratings: {ratings}. Corrections: {report['corrected']:,}.")
        write(
            f"{report['rows']:,} rows: {outcome['recorded']:,} interactions recorded, {outcome['repeated']:,} there "
            f"already, {outcome['feedback']:,} feedback recorded, {outcome['changed']:,} changed, "
            f"{report['error_count']:,} with errors."
        )
