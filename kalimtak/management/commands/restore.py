"""`manage.py restore DIR`: this installation as it was when the backup was made."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from kalimtak.backup import backup_restore
from kalimtak.core.commands import KalimtakCommand


class Command(KalimtakCommand):
    help = (
        "Restores a backup into this installation, whose processes must be stopped. Every hash is checked before "
        "anything is touched; running jobs go back to the queue; ends with fsck. Exit status 1: fsck found something."
    )
    example = "manage.py restore /mnt/backups/kalimtak-2026-03-01"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that `manage.py backup` wrote")
        parser.add_argument("--force", action="store_true", help="move an installation that is not empty aside")

    def handle(self, *args: Any, **options: Any) -> None:
        with self.progress("Restoring") as report:
            done = backup_restore(options["folder"], force=options["force"], actor="command line", report=report)
        for place in done.aside:
            self.stdout.write(f"What was there before: {place}")
        for remark in done.remarks:
            self.stderr.write(f"Note: {remark}")
        for each in done.findings:
            self.stderr.write(f"{each.severity}: {each.where}: {each.what} ({each.remedy})")
        self.stdout.write(
            f"Restored the backup of {done.contents.created}; {done.requeued} running jobs went back to the queue. "
            + ("fsck is clean." if not done.findings else f"fsck found {len(done.findings)}; see above.")
        )
        if done.findings:
            raise SystemExit(1)
