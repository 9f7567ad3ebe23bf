"""`manage.py curate`: the daily ETL, now."""

from typing import Any

from django.core.management.base import CommandParser

from kalimtak.core.commands import KalimtakCommand
from registry.services import classifier_get
from training import services


class Command(KalimtakCommand):
    help = "Turns waiting feedback into training items and prints what became of it."
    example = "manage.py curate --classifier emotion --dry-run"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--classifier", default="", metavar="SLUG", help="only this one (default: all)")
        parser.add_argument("--dry-run", action="store_true", help="look only, write nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        classifier = classifier_get(options["classifier"]) if options["classifier"] else None
        with self.progress("Curating") as progress:
            stats = services.examples_curate(
                classifier=classifier, dry_run=options["dry_run"], actor="command line", progress=progress
            ).to_dict()
        if not options["dry_run"]:
            services.queue_rank_later(classifier, actor="command line")
        reasons, shares, notes = stats.pop("reasons"), stats.pop("shares"), stats.pop("notes")
        title = "Curation (nothing was written)" if options["dry_run"] else "Curation"
        self.table(title, ("", "count"), list(stats.items()))
        if reasons:
            self.table("Reasons", ("reason", "count"), list(reasons.items()))
        for slug, kinds in shares.items():
            rows = [
                (kind, name or "–", f"{before:.1%}", f"{after:.1%}")
                for kind, found in kinds.items()
                for name, (before, after) in found.items()
            ]
            if rows:
                self.table(f"Shares of {slug}", ("", "name", "before", "after"), rows)
        for slug, note in notes.items():
            self.stdout.write(f"{slug}: {note}")
