"""Looking after the job ledger: take jobs back from processes that are gone, ring again for what waits."""

from collections import Counter
from typing import Any

from django.conf import settings
from django.db.models import Count, F, QuerySet
from django.db.models.functions import Now

from . import jobs
from .models import Job
from .owners import owner_is_dead

RINGS_AT_MOST = 100  # waiting in one queue: more would only repeat themselves


def reap() -> int:
    """Take jobs back from processes that are gone and ring for everything that is ready; how many were taken back.

    A job is taken back when its lease has run out, or at once when its owner was a process of this host that no
    longer lives. Kinds this code does not know are left alone. Safe to run at any time, by any number of processes.
    """
    running = Job.objects.filter(state=Job.State.RUNNING, kind__in=list(settings.KALIMTAK_JOBS))
    _shorten_leases(running)
    taken_back = 0
    for job in running.all():
        # Only what we judge by: cancelled in this moment, it would go back to the queue and run again.
        held = running.filter(pk=job.pk, token=job.token, cancel_requested=job.cancel_requested)
        if not owner_is_dead(job.owner):
            held = held.filter(lease_until__lt=Now())
        taken_back += held.update(**_after_crash(job))
    _ring_for_what_waits()
    return taken_back


def _shorten_leases(running: QuerySet[Job]) -> None:
    """Where the database's clock was set back, leases reach so far ahead that a dead owner would keep its job."""
    longest = jobs.in_future(jobs.LONG_LEASE)
    running.filter(lease_until__gt=jobs.in_future(jobs.LONG_LEASE + jobs.LEASE)).update(lease_until=longest)


def _after_crash(job: Job) -> dict[str, Any]:
    released: dict[str, Any] = {"lease_until": None, "slot": "", "token": F("token") + 1}
    if job.cancel_requested:
        return released | {"state": Job.State.CANCELLED, "finished_at": Now()}
    if job.attempt >= job.max_attempts:
        error = f"Its process died {job.attempt} times; the newest log may say why."
        return released | {"state": Job.State.QUARANTINED, "error": error, "finished_at": Now()}
    return released | {"state": Job.State.QUEUED, "note": "Its process died; waiting for another attempt."}


def _ring_for_what_waits() -> None:
    """Fill the queues up to their limit. Of jobs that need the same slot one is rung for: its end rings for the next.

    A busy slot is no reason to be silent: another host that hears this queue may have a free one.
    """
    waiting = _rings_waiting()
    for job in jobs.ready():
        if waiting[job.cluster] < (1 if jobs.slot_of(job) else RINGS_AT_MOST):
            waiting[job.cluster] += 1
            jobs.ring_for(job)


def _rings_waiting() -> Counter[str]:
    """How many wake-ups wait in each cluster's queue."""
    from django_q.models import OrmQ

    return Counter(dict(OrmQ.objects.order_by().values_list("key").annotate(Count("pk"))))
