"""`manage.py rollback SLUG`."""

from typing import Any

from django.core.management.base import CommandParser

from kalimtak.core.commands import KalimtakCommand
from registry.services import classifier_get, version_rollback


class Command(KalimtakCommand):
    help = "Takes the newest deployment of a classifier back; the version before it answers again."
    example = 'manage.py rollback emotion --reason "answers look odd"'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("classifier", metavar="SLUG", help="the classifier")
        parser.add_argument("--to", type=int, metavar="N", help="go back to version N, not just to the one before")
        parser.add_argument("--reason", default="", help="kept in the audit trail")

    def handle(self, *args: Any, **options: Any) -> None:
        deployment = version_rollback(
            classifier_get(options["classifier"]),
            actor="command line",
            to=options["to"],
            reason=options["reason"],
        )
        self.stdout.write(f"{deployment.version.ref} answers in {deployment.role} now.")
