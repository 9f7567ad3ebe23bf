"""`manage.py create_api_key NAME --scope …`: a key for a client, shown once."""

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from kalimtak.core.auth import key_create
from kalimtak.core.commands import KalimtakCommand
from kalimtak.core.errors import InvalidInput
from kalimtak.core.models import Scope

DAYS_AT_MOST = 36_500


class Command(KalimtakCommand):
    help = "Makes an API key and prints it once, alone on the last line; only its hash is kept."
    example = "manage.py create_api_key shop --scope predict feedback"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="whose key it is")
        parser.add_argument(
            "--scope",
            action="extend",
            nargs="+",
            choices=Scope.values,
            required=True,
            help="what it may do",
        )
        parser.add_argument("--rate", default="", help="requests, such as 600/m (default: KALIMTAK_RATELIMIT_KEY)")
        parser.add_argument("--days", type=int, help="days until it expires (default: never)")

    def handle(self, *args: Any, **options: Any) -> None:
        days = options["days"]
        if days is not None and not 1 <= days <= DAYS_AT_MOST:
            raise InvalidInput(f"--days: use a whole number from 1 to {DAYS_AT_MOST}, or leave it out.")
        expires = None if days is None else timezone.now() + timedelta(days=days)
        key, plain = key_create(
            options["name"], options["scope"], actor="command line", rate=options["rate"], expires_at=expires
        )
        self.stdout.write(f"{key.name}: {', '.join(key.scopes)}. It is shown only now.")
        self.stdout.write(plain)
