"""What always holds between the rows of the floor: the ledger's states, API keys, the audit chain."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, Q
from django.db.models.functions import Coalesce, Now

from kalimtak.core import audit, jobs, owners
from kalimtak.core.env import RATE
from kalimtak.core.findings import Check, Finding, Look, error, outside, warning
from kalimtak.core.models import ApiKey, Job, Scope

REAPER_LATE = timedelta(minutes=3)  # it looks once a minute
QUEUE_LATE = timedelta(minutes=15)
FINISHED = (Job.State.SUCCEEDED, Job.State.FAILED, Job.State.CANCELLED, Job.State.QUARANTINED)
NEEDS_SLOT = ("training", "gpu")

_JOB_COLUMNS = (
    *("kind", "cluster", "state", "attempt", "max_attempts", "token", "lease_until", "owner", "slot"),
    *("progress", "result", "error", "started_at", "finished_at"),
)
_BY_HAND = "No verb writes this: it was changed by hand, or this is a bug. `manage.py jobs --cancel ID` ends it."
_NO_REAPER = "Is a worker of cluster `default` running? It fires `reap` every minute; `manage.py doctor` says more."


def database_now() -> datetime:
    """The database's clock, by which leases are measured."""
    from django.db import connection

    vendor_now = "SELECT statement_timestamp()" if connection.vendor == "postgresql" else None
    with connection.cursor() as cursor:
        cursor.execute(vendor_now or "SELECT STRFTIME('%Y-%m-%dT%H:%M:%f+00:00', 'NOW')")
        value: Any = cursor.fetchone()[0]
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


# The ledger ------------------------------------------------------------------------------------------------------


def job_states_fit_their_fields(look: Look) -> Iterator[Finding]:
    """A state says which of lease, slot, owner and end a job has."""
    for job in look.rows(Job.objects.values_list("pk", *_JOB_COLUMNS, named=True)):
        for what in _contradictions(job):
            yield error(f"job {job.pk} ({job.kind})", what, _BY_HAND)
    for column, value, rows in outside(Job, "state"):
        yield error("jobs", f"{rows} with the unknown {column} {value!r}", _BY_HAND)


def _contradictions(job: Any) -> Iterator[str]:
    if job.attempt > job.max_attempts:
        yield f"it had {job.attempt} attempts of at most {job.max_attempts}"
    if not 0 <= job.progress <= 1:
        yield f"its progress is {job.progress}"
    if job.state == Job.State.RUNNING:
        yield from _contradictions_running(job)
    elif job.lease_until is not None or job.slot:
        yield f"it is {job.state} and still holds a {'lease' if job.lease_until else 'slot'}"
    if job.state in FINISHED:
        if job.finished_at is None:
            yield f"it is {job.state} without a time of its end"
        if job.state in (Job.State.FAILED, Job.State.QUARANTINED) and not job.error:
            yield f"it is {job.state} without saying why"
        if job.state == Job.State.SUCCEEDED and job.error:
            yield "it succeeded with an error"
    elif job.finished_at is not None or job.result is not None:
        yield f"it is {job.state} and has {'an end' if job.finished_at else 'a result'}"


def _contradictions_running(job: Any) -> Iterator[str]:
    missing = [name for name in ("lease_until", "owner", "started_at", "attempt", "token") if not getattr(job, name)]
    if missing:
        yield f"it is running without {', '.join(missing)}"
    if job.cluster in NEEDS_SLOT and job.slot.partition(":")[0] != job.owner.partition(":")[0]:
        yield f"it runs at {job.owner!r} in the slot {job.slot!r}"


def slots_are_held_once(look: Look) -> Iterator[Finding]:
    """One job per host and device: two trainings would starve each other."""
    running = Job.objects.filter(state=Job.State.RUNNING).exclude(slot="").order_by()
    for slot, holders in running.values_list("slot").annotate(holders=Count("pk")).filter(holders__gt=1):
        yield error(f"slot {slot}", f"{holders} running jobs hold it", "Cancel all but one with `manage.py jobs`.")


def reaper_is_in_time(look: Look) -> Iterator[Finding]:
    """A job whose process died, or whose lease ran out, is taken back within a minute or so."""
    now = database_now()
    for job in look.rows(Job.objects.filter(state=Job.State.RUNNING)):
        if job.lease_until is None or job.kind not in settings.KALIMTAK_JOBS:
            continue
        silent_since = job.lease_until - jobs.lease_of(job.kind)
        if job.lease_until < now - REAPER_LATE:
            yield warning(f"job {job.pk} ({job.kind})", "its lease ran out and nobody takes it back", _NO_REAPER)
        elif silent_since < now - REAPER_LATE and owners.owner_is_dead(job.owner):
            yield warning(f"job {job.pk} ({job.kind})", "its process is gone and nobody takes it back", _NO_REAPER)


def waiting_jobs_are_taken_up(look: Look) -> Iterator[Finding]:
    """A job that never ran, is ready, and whose cluster does nothing else has no worker."""
    busy = set(Job.objects.filter(state=Job.State.RUNNING).values_list("cluster", flat=True))
    ready = Job.objects.filter(Q(not_before=None) | Q(not_before__lte=Now()), state=Job.State.QUEUED, token=0)
    late = ready.annotate(since=Coalesce("not_before", "created_at")).filter(since__lt=database_now() - QUEUE_LATE)
    for cluster, count in late.order_by().values_list("cluster").annotate(count=Count("pk")):
        if cluster not in busy:
            minutes = int(QUEUE_LATE.total_seconds() // 60)
            what = f"{count} jobs have waited for over {minutes} minutes while none runs"
            yield warning(f"queue {cluster}", what, f"Start a worker: `Q_CLUSTER_NAME={cluster} manage.py qcluster`.")
    known = list(settings.KALIMTAK_JOBS)
    for kind, count in (
        Job.objects.filter(state__in=[Job.State.QUEUED, Job.State.RUNNING])
        .exclude(kind__in=known)
        .order_by()
        .values_list("kind")
        .annotate(count=Count("pk"))
    ):
        yield warning("jobs", f"{count} of the unknown kind {kind!r} wait", "Finish the upgrade, or cancel them.")


# Keys and the audit trail ----------------------------------------------------------------------------------------


def api_keys_are_well_formed(look: Look) -> Iterator[Finding]:
    """A key without a digest lets nobody in; a scope that does not exist grants nothing."""
    remedy = "Revoke it in the admin and make a new one."
    for key in look.rows(ApiKey.objects.all()):
        scopes = key.scopes if isinstance(key.scopes, list) else [key.scopes]
        if unknown := [scope for scope in scopes if scope not in Scope.values]:
            yield error(f"API key {key.prefix}", f"its scopes {unknown} do not exist", remedy)
        if not re.fullmatch("[0-9a-f]{64}", key.secret_hash):
            yield error(f"API key {key.prefix}", "it holds no SHA-256 of its secret", remedy)
        if key.rate and not re.fullmatch(RATE, key.rate):
            yield error(f"API key {key.prefix}", f"its rate {key.rate!r} cannot be read", "Write it as 600/m.")


def audit_chain_is_whole(look: Look) -> Iterator[Finding]:
    """Every event carries the hash of the one before."""
    remedy = "Somebody changed the table beside Kalimtak. Compare with a backup, and find out who has access."
    for problem in audit.verify():
        yield error("audit trail", problem, remedy)


CHECKS: tuple[Check, ...] = (
    job_states_fit_their_fields,
    slots_are_held_once,
    reaper_is_in_time,
    waiting_jobs_are_taken_up,
    api_keys_are_well_formed,
    audit_chain_is_whole,
)
