"""`manage.py export_model SLUG/N DIR`."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from kalimtak.core.commands import KalimtakCommand
from registry.services import version_export, version_get


class Command(KalimtakCommand):
    help = "Writes a version as a folder that needs no Kalimtak: model, scripts that answer from it, and a README."
    example = "manage.py export_model emotion/3 ~/emotion-3"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("version", metavar="SLUG/N", help="the version, as list_models shows it")
        parser.add_argument("folder", type=Path, metavar="DIR", help="a new or empty folder")

    def handle(self, *args: Any, **options: Any) -> None:
        version = version_get(options["version"])
        folder = options["folder"].expanduser().absolute()
        version_export(version, folder, actor="command line")
        self.stdout.write(f"{version.ref} is in {folder}; README.md there says how to use it.")
