"""`manage.py jobs`: the ledger."""

from typing import Any

from django.core.management.base import CommandParser

from kalimtak.core import jobs
from kalimtak.core.commands import KalimtakCommand
from kalimtak.core.errors import NotFound
from kalimtak.core.models import Job


class Command(KalimtakCommand):
    help = "Lists the newest jobs of the ledger, or cancels one."
    example = "manage.py jobs --cancel 0a4f3a6e2b11"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--cancel", metavar="ID", help="the job's id, or the end of it")
        parser.add_argument("--limit", type=int, default=20, help="how many to list (default 20)")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["cancel"]:
            job = jobs.cancel(self._find(options["cancel"]), actor="command line")
            self.stdout.write(f"{job}: {job.state if job.is_finished else 'asked to stop'}")
            return
        newest = Job.objects.all()[: max(options["limit"], 1)]
        rows = [
            (job.pk, job.kind, job.state, f"{job.progress:.0%}", job.attempt, job.note or job.error) for job in newest
        ]
        if not rows:
            self.stdout.write("No job yet.")
            return
        self.table("Jobs", ("id", "kind", "state", "progress", "attempt", "note"), rows)

    def _find(self, end_of_id: str) -> Job:
        wanted = end_of_id.replace("-", "").lower()
        found = [job for job in Job.objects.all()[:10_000] if job.pk.hex.endswith(wanted)]
        if len(found) != 1:
            raise NotFound(f"{len(found)} jobs have an id that ends in {end_of_id!r}.")
        return found[0]
