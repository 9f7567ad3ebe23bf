"""`manage.py audit_verify`: is the audit trail whole?"""

from typing import Any

from kalimtak.core import audit
from kalimtak.core.commands import KalimtakCommand
from kalimtak.core.models import AuditEvent


class Command(KalimtakCommand):
    help = "Walks the chain of the audit trail and names every event that was changed, added or removed."
    example = "manage.py audit_verify"

    def handle(self, *args: Any, **options: Any) -> None:
        problems = audit.verify()
        for problem in problems:
            self.stdout.write(problem)
        if problems:
            raise SystemExit(1)
        self.stdout.write(f"The audit trail is whole: {AuditEvent.objects.count()} events.")
