"""`manage.py run_job ID`: what a supervisor process runs."""

import signal
import uuid
from typing import Any

from django.core.management.base import CommandParser

from kalimtak.core import jobs
from kalimtak.core.commands import KalimtakCommand
from kalimtak.core.errors import NotFound
from kalimtak.core.models import Job


class Command(KalimtakCommand):
    help = "Claims one job of the ledger and runs it in this process; TERM makes it checkpoint and requeue."
    example = "manage.py run_job 01990f9e-5f6b-7c3e-a4c1-0a4f3a6e2b11"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", help="the job's id, as `manage.py jobs` lists it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            known = Job.objects.filter(pk=uuid.UUID(options["id"])).exists()
        except ValueError:
            known = False
        if not known:
            raise NotFound(f"There is no job {options['id']!r}.")
        state = jobs.run(options["id"], on_claim=self._stop_on_term)
        self.stdout.write(state or "not claimed: it is finished, taken, or waits for its slot")

    def _stop_on_term(self, context: jobs.JobContext) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: context.stop_asked.set())
