"""A job done in the terminal that asked for it, as durable as in a worker: what a crash leaves, a worker takes up."""

import signal
import threading
import time
from contextlib import suppress

from django.core.management.base import CommandError
from django.db import connection

from . import jobs
from .commands import Report
from .errors import Conflict
from .models import Job

ACTOR = "system"
POLL_SECONDS = 0.5
CANCELLED = 130  # exit status, as a shell has it for Ctrl-C


def refuse_unless_succeeded(job: Job, *, what: str, if_cancelled: str) -> None:
    """Raise `CommandError` with the reason where `job`, a finished one, did not succeed; 130 where it was cancelled."""
    if job.state == Job.State.CANCELLED:
        raise CommandError(if_cancelled, returncode=CANCELLED)
    if job.state != Job.State.SUCCEEDED:
        raise CommandError(" ".join(job.error.split()) or f"The {what} is {job.state}.")


def run_here(job: Job, report: Report) -> Job:
    """Be the supervisor of `job` until it is finished; Ctrl-C cancels it, TERM gives it back to the queue."""
    interrupted, terminated = threading.Event(), threading.Event()
    context: list[jobs.JobContext] = []

    def on_interrupt(*_: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait

    def on_terminate(*_: object) -> None:
        terminated.set()
        for each in context:
            each.stop_asked.set()

    def on_claim(claimed: jobs.JobContext) -> None:
        context.append(claimed)
        if terminated.is_set():  # while nothing was ours yet
            claimed.stop_asked.set()

    before = signal.signal(signal.SIGINT, on_interrupt), signal.signal(signal.SIGTERM, on_terminate)
    watcher = _Watcher(job, report, interrupted)
    watcher.start()
    try:
        while not job.is_finished:
            if not terminated.is_set():
                jobs.run(job.pk, on_claim=on_claim)
            job.refresh_from_db()
            if terminated.is_set():
                raise CommandError("Stopped. It waits in the queue for a worker.")
            if not job.is_finished:  # another run has the device, or a worker was quicker
                time.sleep(POLL_SECONDS)
    finally:
        watcher.finish()
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    return job


class _Watcher(threading.Thread):
    """Shows how far the job is, and passes Ctrl-C on to it outside of the signal handler."""

    def __init__(self, job: Job, report: Report, interrupted: threading.Event) -> None:
        super().__init__(name="watcher", daemon=True)
        self._job, self._report, self._interrupted = job, report, interrupted
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            try:
                self._look()
            except jobs.DATABASE_AWAY:  # the job rides it out, and so do we
                jobs.drop_broken_connection()
        connection.close()

    def _look(self) -> None:
        seen = Job.objects.filter(pk=self._job.pk).first()
        if seen is None:  # removed in the admin; whoever runs it notices by itself
            return
        self._report(seen.progress, seen.note or "waits for the device")
        if self._interrupted.is_set() and not seen.cancel_requested:
            with suppress(Conflict):  # it finished just now
                jobs.cancel(seen, actor=ACTOR)

    def finish(self) -> None:
        self._done.set()
        self.join()
