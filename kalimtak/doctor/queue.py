"""Is anybody there to do the work, and does the work move?"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import Count, Min
from django.db.models.functions import Coalesce
from django.utils import timezone
from django_q.models import OrmQ, Schedule

from kalimtak.core import jobs
from kalimtak.core.invariants import database_now
from kalimtak.core.models import Job
from kalimtak.core.owners import owner_is_dead
from kalimtak.core.pulses import PULSE_LATE, pulse_of
from kalimtak.doctor.diagnosis import Diagnosis, Options, ago, ok, problem, warning
from kalimtak.schedules import REAPER, RECURRING

REAPER_LATE = timedelta(minutes=3)
QUEUE_LATE = timedelta(minutes=5)
BACKLOG = 1_000  # wake-ups; the reaper adds at most a hundred to a queue
QUARANTINE_SHOWN = timedelta(days=7)


# Workers ---------------------------------------------------------------------------------------------------------


def workers_are_alive(options: Options) -> Iterator[Diagnosis]:
    """A cluster tells by its watchdog's pulse that it lives, and the `default` one by the reaper it fires."""
    clusters = ["default", "training"]
    if settings.KALIMTAK_DEVICE == "cuda" or Job.objects.filter(cluster="gpu", state=Job.State.QUEUED).exists():
        clusters.append("gpu")
    reaper = Schedule.objects.filter(name=REAPER).first()
    overdue = timezone.now() - reaper.next_run if reaper and reaper.next_run else timedelta(0)
    for cluster in clusters:
        pulse = pulse_of(cluster)
        if pulse is not None:
            yield _by_pulse(cluster, pulse)
        elif cluster != "default":
            what = "no worker on this machine, so far as is known"
            yield warning(f"worker {cluster}", what, f"{_start(cluster)} Another machine may have one.")
        elif reaper and overdue < REAPER_LATE:
            yield _by_reaper(reaper)
    if reaper and overdue > REAPER_LATE:
        what = f"the reaper is {ago(overdue.total_seconds())} late: no worker, or a frozen one"
        yield problem("worker default", what, f"{_start('default')} One that is frozen its watchdog starts again.")
    missing = {row.name for row in RECURRING} | {REAPER}
    missing -= set(Schedule.objects.filter(name__in=missing).values_list("name", flat=True))
    if missing:
        yield problem("schedules", f"missing: {', '.join(sorted(missing))}", "`manage.py setup` makes them.")


def _by_reaper(reaper: Schedule) -> Diagnosis:
    if reaper.task:  # it was fired, and lately
        return ok("worker default", "none on this machine; the reaper is in time, so another has one")
    return warning("worker default", "none yet on any machine", _start("default"))


def _by_pulse(cluster: str, pulse: dict[str, Any]) -> Diagnosis:
    name, late = f"worker {cluster}", ago(pulse["age"].total_seconds())
    if pulse["gone"]:
        return problem(name, f"its process {pulse['pid']} is gone, last seen at work {late} ago", _start(cluster))
    if pulse["age"] > PULSE_LATE:
        remedy = f"Its watchdog should start it again; if it does not, end process {pulse['pid']}. {_start(cluster)}"
        return problem(name, f"frozen: no progress for {late}", remedy)
    if restarts := int(pulse.get("restarts") or 0):
        what = f"alive, started again {restarts} times, the last time because {pulse.get('last_restart') or 'it died'}"
        return warning(name, what, "If it goes on: the logs and the audit trail (`queue.restart`) say why.")
    return ok(name, f"alive, process {pulse['pid']}, at work {late} ago")


def _start(cluster: str) -> str:
    return f"Start one: `Q_CLUSTER_NAME={cluster} manage.py qcluster`."


# Jobs ------------------------------------------------------------------------------------------------------------


def jobs_move(options: Options) -> Iterator[Diagnosis]:
    """What is ready is taken up, what runs keeps its lease, what was given up is looked at."""
    found = [*_held_by_nobody(), *_waiting(), *_quarantined()]
    yield from found
    if not found:
        running = Job.objects.filter(state=Job.State.RUNNING).count()
        yield ok("jobs", f"{running} running, {Job.objects.filter(state=Job.State.QUEUED).count()} waiting")


def _held_by_nobody() -> Iterator[Diagnosis]:
    """Jobs whose process is gone: the reaper, once a minute, gives them to another."""
    now = database_now()
    for job in Job.objects.filter(state=Job.State.RUNNING):
        expired = now - job.lease_until if job.lease_until else timedelta(0)
        if expired <= timedelta(0) and not owner_is_dead(job.owner):
            continue
        why = f"its lease ran out {ago(expired.total_seconds())} ago" if expired > timedelta(0) else "its process died"
        what = f"{job.kind} {job.pk}, held by {job.owner}: {why}"
        if expired > REAPER_LATE:
            yield problem("jobs", what, f"The reaper should have taken it back. {_start('default')}")
        else:
            remedy = "Nothing to do: the reaper takes it back within a minute, and it goes on from its last checkpoint."
            yield warning("jobs", what, remedy)


def _waiting() -> Iterator[Diagnosis]:
    now = database_now()
    busy = set(Job.objects.filter(state=Job.State.RUNNING).values_list("cluster", flat=True))
    ready = jobs.ready().order_by().annotate(since=Coalesce("not_before", "created_at")).values_list("cluster")
    for cluster, count, since in ready.annotate(count=Count("pk"), oldest=Min("since")):
        if cluster not in busy and since < now - QUEUE_LATE:
            waited = ago((now - since).total_seconds())
            what = f"{count} wait in cluster {cluster}, the oldest for {waited}, and none runs"
            yield problem("queue", what, f"{_start(cluster)} If one runs, end it: it is frozen.")
    for cluster, count in OrmQ.objects.order_by().values_list("key").annotate(count=Count("pk")):
        if count > BACKLOG:
            what = f"{count} wake-ups wait in cluster {cluster}"
            yield warning("queue", what, f"More workers, or one that is stuck. {_start(cluster)}")


def _quarantined() -> Iterator[Diagnosis]:
    since = timezone.now() - QUARANTINE_SHOWN
    for job in Job.objects.filter(state=Job.State.QUARANTINED, finished_at__gt=since)[:10]:
        log = Path(settings.KALIMTAK_VAR) / "logs" / "jobs" / f"{job.pk}.log"
        where = f"Look into {log}" if log.is_file() else "Look into the worker's log"
        what = f"{job.kind} {job.pk} was given up after {job.attempt} attempts: {(job.error or '?').splitlines()[0]}"
        yield warning("quarantine", what, f"{where}, mend what kills it, then ask for the work again.")
