"""Jobs for tests: one that waits to be let go, one that kills whoever runs it."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from django.conf import settings

from kalimtak.core import audit
from kalimtak.core.jobs import JobContext


def gate(job: object) -> Path:
    return Path(settings.KALIMTAK_VAR) / f"go-{job}"


def held(context: JobContext) -> dict[str, Any]:
    """Waits until the job's gate is open, then takes effect: one event in the audit trail."""
    while not gate(context.job.pk).exists():
        context.progress_or_stop(0.5, "held")
        time.sleep(0.05)
    with context.effect():
        audit.record("test", "test.effect", f"job {context.job.pk}")
    return {}


def poison(context: JobContext) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}
