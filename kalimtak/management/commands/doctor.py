"""`manage.py doctor`: what is wrong, and what to do about it."""

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from kalimtak.core.commands import KalimtakCommand
from kalimtak.doctor import Options, examine
from kalimtak.doctor.diagnosis import PROBLEM, WARNING


class Command(KalimtakCommand):
    help = (
        "Looks at database, migrations, cache, disks, keys, models, workers, jobs, clock and settings; names each "
        "fault with its remedy. Exit status 0: works, perhaps with warnings, 1: something does not."
    )
    example = "manage.py doctor --url http://127.0.0.1:8000"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--quick", action="store_true", help="do not load the live versions nor read their files")
        parser.add_argument("--url", default="", help="where a web server should answer; its /readyz is asked")
        parser.add_argument("--json", action="store_true", help="the diagnoses as a JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        with self.progress("Examining") as report:
            found = list(examine(Options(quick=options["quick"], url=options["url"]), report=report))
        problems = sum(each.state == PROBLEM for each in found)
        warnings = sum(each.state == WARNING for each in found)
        if options["json"]:
            body = {"problems": problems, "warnings": warnings, "diagnoses": [asdict(each) for each in found]}
            self.stdout.write(json.dumps(body, ensure_ascii=True, indent=2))
        else:
            rows = [(each.state, each.check, each.what, each.remedy) for each in found]
            self.table("Kalimtak", ("state", "check", "what", "remedy"), rows)
            self.stdout.write(f"{problems} problems, {warnings} warnings.")
        if problems:
            raise SystemExit(1)
