"""`manage.py backup DIR`: database, models store and keys as one folder."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from kalimtak.backup import backup_make
from kalimtak.core.commands import KalimtakCommand


class Command(KalimtakCommand):
    help = "Backs up the database, the models store and the keys into a new folder, while the installation works."
    example = "manage.py backup /mnt/backups/kalimtak-2026-03-01"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, metavar="DIR", help="a new folder; it appears when it is complete")

    def handle(self, *args: Any, **options: Any) -> None:
        with self.progress("Backing up") as report:
            contents, remarks = backup_make(options["folder"], report=report)
        for remark in remarks:
            self.stderr.write(f"Note: {remark}")
        self.stdout.write(
            f"{options['folder']}: {contents.engine} {contents.engine_version}, {len(contents.files)} files, "
            f"{contents.size / 2**20:.1f} MiB. It holds people's texts and the keys: keep it safe."
        )
