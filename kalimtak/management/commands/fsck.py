"""`manage.py fsck`: is everything as it must always be?"""

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from kalimtak import fsck
from kalimtak.core.commands import KalimtakCommand


class Command(KalimtakCommand):
    help = (
        "Checks every invariant between rows and files; changes nothing, and may run beside a busy installation. "
        "Exit status 0: nothing found, 1: something is not as it must be."
    )
    example = "manage.py fsck --quick"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--quick", action="store_true", help="do not read the contents of files and texts")
        parser.add_argument("--json", action="store_true", help="the findings as a JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        with self.progress("Checking") as report:
            findings = fsck.find(quick=options["quick"], report=report)
        if options["json"]:
            body = {"clean": not findings, "findings": [asdict(finding) for finding in findings]}
            self.stdout.write(json.dumps(body, ensure_ascii=True, indent=2))
        elif findings:
            rows = [(each.severity, each.where, each.what, each.remedy) for each in findings]
            self.table("Findings", ("severity", "where", "what", "remedy"), rows)
        else:
            self.stdout.write(f"Clean: {len(fsck.CHECKS)} checks found nothing.")
        if findings:
            raise SystemExit(1)
