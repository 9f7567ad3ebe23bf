"""The job ledger: the row is the truth, the queue is a doorbell.

A verb enqueues in the transaction of its cause and rings after the commit. A worker claims the row by one conditional
UPDATE (attempt + 1, token + 1), renews its lease while it works, and commits each effect only while its token is the
newest, so that a job delivered twice takes effect once and a killed one is picked up by `reaper.reap`. Leases are
measured with the database's clock. Compare Kleppmann, "How to do distributed locking" (2016), on fencing tokens.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connection,
    transaction,
)
from django.db.models import DateTimeField, Expression, ExpressionWrapper, F, Q, QuerySet
from django.db.models.functions import Now
from django.utils.module_loading import import_string

from . import audit
from .crashpoints import crashpoint
from .errors import Conflict, KalimtakError
from .models import Job
from .owners import this_process

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
LONG_LEASE = timedelta(seconds=300)  # rides out a restart of the database
HEARTBEAT_SECONDS = 10.0
PROGRESS_SECONDS = 0.5
RESUME = "done"  # the one of a job's `params` that was not asked for: what another attempt goes on from
DATABASE_AWAY = (OperationalError, InterfaceError)


class JobCancelled(Exception):
    """Somebody asked the job to stop; the handler lets this through after tidying up."""


class JobInterrupted(Exception):
    """This process must end; the job goes back to the queue and the attempt does not count."""


class LeaseLost(Exception):
    """Another worker holds a newer token: nothing of this attempt may be committed any more."""


class Kind(NamedTuple):
    """A row of `settings.KALIMTAK_JOBS`."""

    handler: str
    cluster: str
    is_long: bool


def kind_of(name: str) -> Kind:
    """Raises `KeyError` for a kind this version of the code does not know."""
    return Kind(*settings.KALIMTAK_JOBS[name])


def lease_of(kind: str) -> timedelta:
    """For how long a job of this kind is its process's after each sign of life. Raises `KeyError` as `kind_of`."""
    return LONG_LEASE if kind_of(kind).is_long else LEASE


def last_sign_of(job: Job) -> datetime | None:
    """When the process of a running job last renewed its lease; None where nothing tells."""
    if job.state != Job.State.RUNNING or job.lease_until is None or job.kind not in settings.KALIMTAK_JOBS:
        return None
    return job.lease_until - lease_of(job.kind)


def in_future(delay: timedelta) -> Expression:
    """The database's clock plus `delay`."""
    return ExpressionWrapper(Now() + delay, output_field=DateTimeField())


def drop_broken_connection() -> None:
    """Let the next query of this thread open a fresh connection where the server closed the old one."""
    if not connection.in_atomic_block:
        close_old_connections()


# Asking for work -------------------------------------------------------------------------------------------------


def enqueue(
    kind: str,
    params: dict[str, Any],
    *,
    key: str = "",
    actor: str = "system",
    cluster: str = "",
    max_attempts: int = 3,
    ring: bool = True,
) -> Job:
    """Write a job in the caller's transaction and ring for it after the commit.

    The same `key` never makes a second job: the first one is returned. With `ring=False` the caller runs the job by
    itself. Raises `KeyError` for an unknown `kind`.
    """
    job, created = Job.objects.get_or_create(
        key=key or f"{kind}:{uuid.uuid4()}",
        defaults={
            "kind": kind,
            "params": params,
            "actor": actor,
            "cluster": cluster or kind_of(kind).cluster,
            "max_attempts": max_attempts,
        },
    )
    if created and ring:
        transaction.on_commit(lambda: ring_for(job))
    return job


def ready() -> QuerySet[Job]:
    """Jobs that a worker may claim now and whose kind this code knows, the oldest first."""
    due = Q(not_before=None) | Q(not_before__lte=Now())
    known = list(settings.KALIMTAK_JOBS)
    return Job.objects.filter(due, state=Job.State.QUEUED, kind__in=known).order_by("created_at")


def ring_for(job: Job) -> None:
    """Put a wake-up for `job` into its cluster's queue. A ring that is lost costs a minute: the reaper rings again."""
    from django_q.tasks import async_task

    try:
        async_task("kalimtak.core.tasks.job_wake", str(job.pk), cluster=job.cluster, task_name=f"{job.kind}")
    except Exception:
        logger.exception("Could not ring for job %s", job.pk)


def cancel(job: Job, *, actor: str) -> Job:
    """Cancel a waiting job at once, ask a running one to stop. Raises `Conflict` where it has already finished."""
    with transaction.atomic():
        held = Job.objects.select_for_update().get(pk=job.pk)  # it may go back to the queue between two UPDATEs
        if held.is_finished:
            raise Conflict("This job has already finished.", code="job_finished")
        values: dict[str, Any] = {"cancel_requested": True}
        if held.state == Job.State.QUEUED:
            values |= {"state": Job.State.CANCELLED, "finished_at": Now()}
        Job.objects.filter(pk=job.pk).update(**values)
        audit.record(actor, "job.cancel", f"job {job.pk}", kind=job.kind)
    job.refresh_from_db()
    return job


# Doing work ------------------------------------------------------------------------------------------------------


class JobContext:
    """What a handler may do with the job it runs: report, commit effects, and learn that it should stop."""

    def __init__(self, job: Job, lease: timedelta) -> None:
        self.job = job
        self.params: dict[str, Any] = job.params
        self.token = job.token
        self.stop_asked = threading.Event()
        self._lease = lease
        self._lost = threading.Event()
        self._cancelled = threading.Event()
        self._next_report = 0.0

    @property
    def stopping(self) -> bool:
        """This process was asked to end: checkpoint, then raise `JobInterrupted`."""
        return self.stop_asked.is_set()

    def progress(self, fraction: float, note: str = "") -> None:
        """Report how far the job is (0 to 1) and renew the lease; written at most twice a second.

        A database that is away for a moment costs a report and no more: whatever is committed later still needs the
        token. Raises `JobCancelled` when cancelling was asked for, `LeaseLost` when this attempt was overtaken.
        """
        if time.monotonic() >= self._next_report:
            self._next_report = time.monotonic() + PROGRESS_SECONDS
            values: dict[str, Any] = {"progress": min(max(fraction, 0.0), 1.0), "note": note[:300]}
            if values["progress"] < self.job.progress_before:  # it begins anew, whatever others had done
                self.job.progress_before = values["progress_before"] = 0.0
            try:
                self.beat(**values)
            except DATABASE_AWAY:
                logger.warning("Progress of job %s could not be written", self.job.pk, exc_info=True)
                drop_broken_connection()
        if self._lost.is_set():
            raise LeaseLost(str(self.job.pk))
        if self._cancelled.is_set():
            raise JobCancelled(str(self.job.pk))

    def progress_or_stop(self, fraction: float, note: str = "") -> None:
        """`progress` for a handler that may end between any two reports and be repeated.

        Raises `JobInterrupted`, too, when this process must end.
        """
        self.progress(fraction, note)
        if self.stopping:
            raise JobInterrupted(str(self.job.pk))

    def beat(self, **values: Any) -> None:
        """Renew the lease, note whether it is still ours and whether somebody asked to cancel."""
        if not self._mine().update(lease_until=in_future(self._lease), **values):
            self._lost.set()
        elif Job.objects.filter(pk=self.job.pk, cancel_requested=True).exists():
            self._cancelled.set()

    @contextmanager
    def effect(self) -> Iterator[None]:
        """A transaction that holds only if the token is still the newest. Raises `LeaseLost` otherwise."""
        with transaction.atomic():
            if self._lost.is_set() or not self._mine().update(lease_until=in_future(self._lease)):
                self._lost.set()
                raise LeaseLost(str(self.job.pk))
            yield

    def _mine(self) -> QuerySet[Job]:
        return Job.objects.filter(pk=self.job.pk, token=self.token, state=Job.State.RUNNING)


def run(job_id: Any, *, on_claim: Callable[[JobContext], None] | None = None) -> str:
    """Claim job `job_id` and run its handler in this process; the state it ends in, or "" if it was not to be had.

    `on_claim` gets the context before the handler starts (a supervisor hangs its signal handlers on it).
    """
    claimed = claim(job_id)
    if claimed is None:
        return ""
    kind = kind_of(claimed.kind)
    context = JobContext(claimed, lease_of(claimed.kind))
    if on_claim is not None:
        on_claim(context)
    crashpoint("jobs.after_claim")
    with _heartbeat(context):
        outcome = _outcome(context, kind)
    crashpoint("jobs.before_finish")
    drop_broken_connection()  # the outcome must not fail on one that the handler lost
    return _finish(context, outcome)


def claim(job_id: Any) -> Job | None:
    """Make job `job_id` ours by one conditional UPDATE; None where it is not ready, taken, or its slot is busy.

    A job whose lease ran out is ready, too, unless it was cancelled or has no attempt left: `reaper.reap` ends those.
    """
    ready = Q(state=Job.State.QUEUED) & (Q(not_before=None) | Q(not_before__lte=Now()))
    expired = Q(state=Job.State.RUNNING, lease_until__lt=Now(), cancel_requested=False)
    candidate = Job.objects.filter(pk=job_id).first()
    if candidate is None or candidate.kind not in settings.KALIMTAK_JOBS:
        return None
    lease = lease_of(candidate.kind)
    try:
        with transaction.atomic():
            taken = Job.objects.filter(ready | expired, pk=job_id, attempt__lt=F("max_attempts")).update(
                state=Job.State.RUNNING,
                attempt=F("attempt") + 1,
                token=F("token") + 1,
                lease_until=in_future(lease),
                owner=this_process(),
                slot=slot_of(candidate),
                started_at=Now(),
                progress_before=F("progress"),
                error="",
            )
            # Read before the commit: afterwards the row may already be another's, and its token would pass for ours.
            return Job.objects.get(pk=job_id) if taken else None
    except IntegrityError:  # another job runs in this slot; the end of that one rings again
        return None


def slot_of(job: Job) -> str:
    """Training and evaluation share a device, so one such job runs per host and device; others need no slot."""
    devices = {"training": "cpu", "gpu": "cuda"}
    device = devices.get(job.cluster)
    return f"{settings.KALIMTAK_HOST}:{device}" if device else ""


class _Outcome(NamedTuple):
    state: str
    result: dict[str, Any] | None = None
    error: str = ""
    retry_in: timedelta | None = None
    counts: bool = True


def _outcome(context: JobContext, kind: Kind) -> _Outcome:
    """Run the handler and say in which state its end leaves the job."""
    try:
        result = import_string(kind.handler)(context)
        return _Outcome(Job.State.SUCCEEDED, result=result)
    except JobCancelled:
        return _Outcome(Job.State.CANCELLED, error="Cancelled.")
    except JobInterrupted:
        return _Outcome(Job.State.QUEUED, counts=False)
    except LeaseLost:
        return _Outcome("")
    except KalimtakError as error:
        return _Outcome(Job.State.FAILED, error=error.message)
    except DATABASE_AWAY as error:  # or locked: worth another try
        logger.exception("Job %s met a database error", context.job.pk)
        if context.job.attempt < context.job.max_attempts:
            return _Outcome(Job.State.QUEUED, error=str(error), retry_in=timedelta(seconds=5 * context.job.attempt))
        return _Outcome(Job.State.FAILED, error=str(error))
    except DatabaseError as error:  # PostgreSQL's further lines quote the row, which is people's text
        return _Outcome(Job.State.FAILED, error=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
    except Exception as error:
        logger.exception("Job %s failed", context.job.pk)
        return _Outcome(Job.State.FAILED, error=f"{type(error).__name__}: {error}")


def _finish(context: JobContext, outcome: _Outcome) -> str:
    """Write the outcome if the token is still ours, then ring for whoever waits for the slot; the state written."""
    if not outcome.state:
        return ""
    mine = context._mine()
    try:
        with transaction.atomic():
            state = _write(mine, outcome)
    except DATABASE_AWAY:
        raise
    except (DatabaseError, TypeError, ValueError) as error:  # a result that is no JSON, or has a NUL
        logger.exception("The outcome of job %s could not be stored", context.job.pk)
        said = f"Its outcome could not be stored: {type(error).__name__}."
        state = _write(mine, _Outcome(Job.State.FAILED, error=said))
    if state and context.job.slot and (following := ready().filter(cluster=context.job.cluster).first()):
        ring_for(following)
    return state


def _write(mine: QuerySet[Job], outcome: _Outcome) -> str:
    """Release the row `mine` in the state of `outcome`; the state it got, or "" where it is not ours any more."""
    error = outcome.error.replace("\0", "\ufffd")  # PostgreSQL stores no NUL
    values: dict[str, Any] = {"state": outcome.state, "error": error, "lease_until": None, "slot": ""}
    if outcome.state == Job.State.QUEUED:
        values["not_before"] = in_future(outcome.retry_in) if outcome.retry_in else None
        if not outcome.counts:
            values["attempt"] = F("attempt") - 1
        if mine.filter(cancel_requested=False).update(**values):
            return outcome.state
        return _write(mine, _Outcome(Job.State.CANCELLED, error="Cancelled."))  # nobody wants another attempt
    values |= {"finished_at": Now(), "result": outcome.result}
    if outcome.state == Job.State.SUCCEEDED:
        values |= {"progress": 1.0, "note": ""}
    return outcome.state if mine.update(**values) else ""


@contextmanager
def _heartbeat(context: JobContext) -> Iterator[None]:
    """Renew the lease from a thread, so that a handler deep in a computation keeps its job."""
    done = threading.Event()

    def beat_until_done() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            try:
                close_old_connections()
                context.beat()
            except Exception:
                logger.warning("Heartbeat of job %s failed", context.job.pk, exc_info=True)
        connection.close()

    thread = threading.Thread(target=beat_until_done, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
