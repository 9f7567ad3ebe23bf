"""`manage.py deploy SLUG/N`."""

from typing import Any

from django.core.management.base import CommandParser

from kalimtak.core.commands import KalimtakCommand
from registry.services import version_deploy, version_get


class Command(KalimtakCommand):
    help = "Lets a version answer for its classifier, if its files are intact and the gate agrees."
    example = 'manage.py deploy emotion/3\n  manage.py deploy emotion/3 --force --reason "the golden set is wrong"'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("version", metavar="SLUG/N", help="the version, as list_models shows it")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--canary", type=int, metavar="PERCENT", help="begin with this share of requests")
        how.add_argument("--shadow", action="store_true", help="answer beside the live version, unseen")
        parser.add_argument("--force", action="store_true", help="deploy against the gate; needs --reason")
        parser.add_argument("--reason", default="", help="kept in the audit trail")

    def handle(self, *args: Any, **options: Any) -> None:
        strategy = "canary" if options["canary"] is not None else "shadow" if options["shadow"] else "full"
        deployment = version_deploy(
            version_get(options["version"]),
            actor="command line",
            strategy=strategy,
            share=100 if options["canary"] is None else options["canary"],
            force=options["force"],
            may_force=True,
            reason=options["reason"],
        )
        forced = ", against the gate" if deployment.forced else ""
        self.stdout.write(f"{deployment.version.ref} answers in {deployment.role} now{forced}.")
