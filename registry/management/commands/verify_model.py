"""`manage.py verify_model SLUG/N`."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from kalimtak.core.commands import KalimtakCommand
from registry.services import version_get, version_verify


class Command(KalimtakCommand):
    help = "Checks every hash of a version and lets a fresh process reproduce its probes."
    example = "manage.py verify_model emotion/3"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("version", metavar="SLUG/N", help="the version, as list_models shows it")

    def handle(self, *args: Any, **options: Any) -> None:
        version = version_get(options["version"])
        if problems := version_verify(version, actor="command line"):
            raise CommandError(f"{version.ref} is corrupt: {'; '.join(problems)}")
        self.stdout.write(f"{version.ref} is intact: every hash and every probe agrees.")
