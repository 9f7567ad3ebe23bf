"""`manage.py quickstart`: `setup` plus the demo."""

import time
from typing import Any

from django.conf import settings

from kalimtak.core.commands import KalimtakCommand
from kalimtak.installation import prepare


class Command(KalimtakCommand):
    help = "Prepares this installation and fills it with the demo; offline, safe to repeat."
    example = "manage.py quickstart"

    def handle(self, *args: Any, **options: Any) -> None:
        started = time.monotonic()
        prepare(lambda line: self.stdout.write(f"· {line}"), actor="quickstart")
        from kalimtak.demo import classifier_ready, staff_ensure
        from training.samples import SETS

        staff_ensure()
        for slug in SETS:
            with self.progress(slug) as report:
                done = classifier_ready(slug, report)
            self.stdout.write(f"· {done}")
            self.stdout.flush()
        self.stdout.write(
            f"Ready after {time.monotonic() - started:.0f} s. Names and passwords of the demo staff, and an API key: "
            f"{settings.KALIMTAK_VAR / 'demo.json'}"
        )
