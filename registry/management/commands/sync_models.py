"""`manage.py sync_models`: models.yaml → classifiers."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from kalimtak.core.commands import KalimtakCommand
from registry.config import models_sync


class Command(KalimtakCommand):
    help = "Applies the entries of models.yaml that changed since the last time; an edit made in the admin stays."
    example = "manage.py sync_models --config models.yaml --prune"

    def add_arguments(self, parser: CommandParser) -> None:
        default = settings.KALIMTAK_MODELS_FILE
        parser.add_argument("--config", type=Path, default=default, metavar="FILE", help=f"default: {default.name}")
        parser.add_argument("--prune", action="store_true", help="disable classifiers that left the file")

    def handle(self, *args: Any, **options: Any) -> None:
        report = models_sync(options["config"], actor="command line", prune=options["prune"])
        for name in ("created", "updated", "unchanged", "disabled"):
            if slugs := getattr(report, name):
                self.stdout.write(f"{name}: {', '.join(slugs)}")
        if report.missing:
            self.stdout.write(
                f"no longer in the file, still served: {', '.join(report.missing)} (--prune disables them)"
            )
