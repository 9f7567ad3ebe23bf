"""`manage.py export_interactions FILE`: what was asked, answered and judged, as a file that can be imported again."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from kalimtak.core import audit
from kalimtak.core.commands import KalimtakCommand, watched
from kalimtak.core.errors import InvalidInput
from registry.services import classifier_get
from training import services
from training.exporters import ExportRefused, write_rows

ACTOR = "command line"


class Command(KalimtakCommand):
    help = (
        "Writes the interactions with their newest feedback as CSV, JSONL or Parquet by the file's extension. People "
        "are pseudonyms; addresses and browsers are left out."
    )
    example = "manage.py export_interactions interactions.jsonl --classifier emotion"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--classifier", default="", metavar="SLUG", help="of one classifier alone")

    def handle(self, *args: Any, **options: Any) -> None:
        classifier = classifier_get(options["classifier"]) if options["classifier"] else None
        columns, rows = services.interactions_columns(classifier), services.interactions_to_export(classifier)
        try:
            with self.progress(f"Writing {options['file'].name}") as progress:
                count = write_rows(options["file"], columns, watched(rows, progress))
        except ExportRefused as error:
            raise InvalidInput(str(error)) from error
        except OSError as error:
            raise CommandError(f"{options['file']} cannot be written: {error.strerror}.") from error
        audit.record(ACTOR, "interactions.export", options["classifier"] or "all classifiers", rows=count)
        self.stdout.write(f"{count:,} interactions written to {options['file']}.")
