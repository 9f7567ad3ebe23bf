"""The recurring jobs, a row each. `setup` makes the missing ones and never touches an edited one.

django-q2 fires them from the `default` cluster only. A firing writes a Job whose key is (schedule, intended time), so
that two schedulers make one job.
"""

from datetime import timedelta
from typing import NamedTuple

from croniter import croniter
from django.utils import timezone
from django_q.models import Schedule

from kalimtak.core import jobs


class Recurring(NamedTuple):
    name: str
    cron: str
    purpose: str


RECURRING = (
    Recurring("curate", "0 2 * * *", "turn new feedback into training items, daily"),
    Recurring("fine_tune", "0 3 * * 0", "train where enough new items were approved, weekly"),
    Recurring("evaluate", "0 4 1 * *", "score every live version on its golden set, monthly"),
)
REAPER = "reap"


def schedules_ensure() -> list[str]:
    """Make the schedules that are missing; their names. An existing one is left as it is."""
    made = []
    for row in RECURRING:
        _, created = Schedule.objects.get_or_create(
            name=row.name,
            defaults={
                "func": "kalimtak.schedules.fire",
                "args": repr(row.name),
                "schedule_type": Schedule.CRON,
                "cron": row.cron,
                "next_run": croniter(row.cron, timezone.localtime()).get_next(type(timezone.now())),
                "intended_date_kwarg": "intended",
            },
        )
        made += [row.name] if created else []
    _, created = Schedule.objects.get_or_create(
        name=REAPER,
        defaults={
            "func": "kalimtak.core.tasks.reap",
            "schedule_type": Schedule.MINUTES,
            "minutes": 1,
            "next_run": timezone.now() + timedelta(minutes=1),
        },
    )
    return made + ([REAPER] if created else [])


def reaper_hurry() -> None:
    """Let an overdue reaper run at the worker's next look: a sign of life soon after a start."""
    now = timezone.now()
    Schedule.objects.filter(name=REAPER, next_run__lt=now).update(next_run=now)


def fire(name: str, intended: str = "") -> str:
    """Write the job of schedule `name` for the time it was meant for (ISO 8601), once; the job's id."""
    slot = intended or timezone.now().replace(second=0, microsecond=0).isoformat()
    return str(jobs.enqueue(name, {}, key=f"schedule:{name}:{slot}", actor="schedule").pk)
