"""`manage.py setup`: prepares a real installation, and again after each upgrade."""

from typing import Any

from kalimtak.core.commands import KalimtakCommand
from kalimtak.installation import prepare


class Command(KalimtakCommand):
    help = "Prepares this installation: keys, tables, static files, roles, schedules, classifiers. Safe to repeat."
    example = "manage.py setup"

    def handle(self, *args: Any, **options: Any) -> None:
        prepare(lambda line: self.stdout.write(f"· {line}"))
        self.stdout.write("Ready. Make yourself an account with: manage.py createsuperuser")
