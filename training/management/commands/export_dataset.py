"""`manage.py export_dataset SLUG|SNAPSHOT FILE`: a classifier's items, or what a snapshot froze, as a file."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from kalimtak.core.commands import KalimtakCommand, watched
from kalimtak.core.errors import InvalidInput, NotFound
from registry.models import Classifier
from training import services
from training.exporters import ExportRefused, write_rows
from training.models import DatasetSnapshot

DIGEST_LEAST = 8


class Command(KalimtakCommand):
    help = (
        "Writes the approved items of a classifier, or those of a snapshot, as CSV, JSONL or Parquet by its extension."
    )
    example = "manage.py export_dataset emotion emotion.csv"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("which", metavar="SLUG|SNAPSHOT", help="a classifier's slug, or a snapshot's digest")
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--unreviewed",
            action="store_true",
            help="also items that wait for review, with status=review; an import lets them wait again",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        classifier = Classifier.objects.filter(slug=options["which"]).first()
        if classifier is not None:
            rows, last = services.items_to_export(classifier, unreviewed=options["unreviewed"]), "status"
        else:
            snapshot = _snapshot(options["which"])
            classifier, rows, last = snapshot.classifier, services.snapshot_to_export(snapshot), "weight"
        columns = services.export_columns(classifier, last=last)
        try:
            with self.progress(f"Writing {options['file'].name}") as progress:
                count = write_rows(options["file"], columns, watched(rows, progress))
        except ExportRefused as error:
            raise InvalidInput(str(error)) from error
        except OSError as error:
            raise CommandError(f"{options['file']} cannot be written: {error.strerror}.") from error
        self.stdout.write(f"{count:,} rows written to {options['file']}.")


def _snapshot(digest: str) -> DatasetSnapshot:
    found = DatasetSnapshot.objects.select_related("classifier").filter(digest__startswith=digest.lower())
    snapshots = list(found[:2]) if len(digest) >= DIGEST_LEAST else []
    if len(snapshots) != 1:
        raise NotFound(f"{digest[:80]!r} names neither a classifier nor one snapshot (its digest, 8 digits or more).")
    return snapshots[0]
