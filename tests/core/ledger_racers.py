"""Workers that race for the jobs of the ledger while faults strike them; `test_ledger_races.py` counts what they did.

A racer runs, reaps and cancels the same jobs as all others, each in the same order. A fault is the end of its process
(in a thread: of the call), before or after a commit, or a lease that runs out under it while it goes on.
"""

import json
import os
import random
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.utils import timezone

from kalimtak.core import jobs, reaper
from kalimtak.core.errors import Conflict
from kalimtak.core.models import Job

KINDS = {"race": ("tests.core.ledger_racers.handle", "default", False)}
EFFECTS = ("a", "b")
CREATE_EFFECTS = "CREATE TABLE race_effect (job varchar(36), name varchar(1), token bigint)"  # nothing in it is unique
OPEN = (Job.State.QUEUED, Job.State.RUNNING)
REAPS, CANCELS = 0.06, 0.02  # of what a racer does
PATIENCE_SECONDS = 120  # many times what it takes, for a machine that has other things to do


class Crash(BaseException):
    """The process of this thread is gone."""


class Racer:
    """One worker. `die` does not return; `rate` is the chance of a fault at each place where there may be one."""

    def __init__(self, seed: str, rate: float, die: Callable[[], None]) -> None:
        self.random, self.rate, self.die = random.Random(seed), rate, die
        self.counts: Counter[str] = Counter()
        self.context: jobs.JobContext | None = None

    def race(self, ids: list[str]) -> None:
        """Until every job has ended. Raises `TimeoutError` when that takes too long."""
        here.racer = self
        until = time.monotonic() + PATIENCE_SECONDS
        while ids := self.still_open(ids):
            if time.monotonic() > until:
                raise TimeoutError("jobs that never end")
            for job_id in ids:
                try:
                    self.act(job_id)
                except Crash:
                    self.leave_behind()

    def still_open(self, ids: list[str]) -> list[str]:
        found = set(Job.objects.filter(pk__in=ids, state__in=OPEN).values_list("pk", flat=True))
        return [job_id for job_id in ids if uuid.UUID(job_id) in found]

    def act(self, job_id: str) -> None:
        self.context = None
        dice = self.random.random()
        if dice < REAPS:
            self.counts["taken back"] += reaper.reap()
        elif dice < REAPS + CANCELS:
            self.cancel(job_id)
        else:
            self.counts[jobs.run(job_id, on_claim=self.hold) or "not had"] += 1

    def cancel(self, job_id: str) -> None:
        try:
            jobs.cancel(Job(pk=job_id, kind="race"), actor="olga")
        except Conflict:
            return
        self.counts["cancelling asked"] += 1

    def hold(self, context: jobs.JobContext) -> None:
        self.context = context

    def is_struck(self) -> bool:
        return self.random.random() < self.rate

    def maybe_die(self) -> None:
        if self.is_struck():
            self.counts["crashes"] += 1
            self.die()

    def maybe_lose_lease(self) -> None:
        """As after a long stop of this process: another takes the job, and this one does not know."""
        if self.is_struck():
            self.counts["leases lost"] += 1
            self.leave_behind()
            if self.random.random() < 0.5:
                reaper.reap()

    def leave_behind(self) -> None:
        """The lease of the job at hand runs out."""
        if self.context is not None:
            past = timezone.now() - timedelta(seconds=1)
            mine = Job.objects.filter(pk=self.context.job.pk, token=self.context.token, state=Job.State.RUNNING)
            mine.update(lease_until=past)


class Here(threading.local):
    racer: Racer


here = Here()


def handle(context: jobs.JobContext) -> dict[str, Any]:
    """The handler of every job: each effect once, whatever an earlier attempt has done."""
    racer = here.racer
    for name in EFFECTS:
        racer.maybe_lose_lease()
        try:
            with context.effect():
                if not is_done(context.job, name):
                    with connection.cursor() as cursor:
                        cursor.execute(
                            "INSERT INTO race_effect VALUES (%s, %s, %s)", [str(context.job.pk), name, context.token]
                        )
                racer.maybe_die()
        except jobs.LeaseLost:
            racer.counts["zombies refused"] += 1
            raise
        racer.maybe_die()
        context.progress(0.5)
    return {"by": os.getpid()}


def is_done(job: Job, name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM race_effect WHERE job = %s AND name = %s", [str(job.pk), name])
        return cursor.fetchone() is not None


def crashpoint(name: str) -> None:
    """Takes the place of `jobs.crashpoint`, so that faults strike after the claim and before the end, too."""
    here.racer.maybe_die()


# Processes -------------------------------------------------------------------------------------------------------


def main() -> None:
    """Fork racers, and new ones for those that die, until all jobs have ended; prints how many died.

    The argument is JSON: `database`, `seed`, `rate`, `workers`, `ids`.
    """
    order = json.loads(sys.argv[1])
    settings.KALIMTAK_JOBS = KINDS
    jobs.crashpoint = crashpoint
    connection.settings_dict["NAME"] = order["database"]
    racing, deaths = {fork(order, number) for number in range(order["workers"])}, 0
    while racing:
        pid, status = os.wait()
        racing.remove(pid)
        if os.WIFSIGNALED(status):
            deaths += 1
            racing.add(fork(order, order["workers"] + deaths))
        elif status:
            sys.exit(f"a racer ended with {os.waitstatus_to_exitcode(status)}")
    print(deaths)


def fork(order: dict[str, Any], number: int) -> int:
    """The pid of a new racer, which has a connection of its own: this process has none."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        racer = Racer(f"{order['seed']}:{number}", order["rate"], lambda: os.kill(os.getpid(), signal.SIGKILL))
        racer.race(order["ids"])
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)
