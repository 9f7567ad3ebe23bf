"""What the watchdogs of the queue's clusters last noted: `$KALIMTAK_VAR/run/qcluster-<name>.json`."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from django.conf import settings
from django.utils import timezone

PULSE_LATE = timedelta(seconds=60)


def pulse_file(cluster: str) -> Path:
    return Path(settings.KALIMTAK_VAR) / "run" / f"qcluster-{cluster}.json"


def pulse_of(cluster: str) -> dict[str, Any] | None:
    """The last note with the pulse's `age` and whether its process is `gone`; None where there is no readable one."""
    try:
        pulse = json.loads(pulse_file(cluster).read_text(encoding="utf-8"))
        pulse["age"] = timezone.now() - datetime.fromisoformat(pulse["pulse"])
        pulse["gone"] = pulse.get("host") in (None, settings.KALIMTAK_HOST) and not psutil.pid_exists(int(pulse["pid"]))
        return dict(pulse)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def worker_is_seen(cluster: str) -> bool:
    """Whether a worker of `cluster` is at work on a machine that shares this one's `KALIMTAK_VAR`."""
    pulse = pulse_of(cluster)
    return pulse is not None and not pulse["gone"] and pulse["age"] <= PULSE_LATE
