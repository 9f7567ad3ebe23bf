"""The ledger's state machine: what two workers may do, and what must hold after each commit.

Where a worker stands still (see `stepping.py`), the machine decides who goes on, who dies, who loses the database.
`MOVES` names each change of a row that one commit may make.
"""

import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db import OperationalError
from django.utils import timezone
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from kalimtak.core import audit, jobs, reaper
from kalimtak.core.errors import Conflict, InvalidInput
from kalimtak.core.models import AuditEvent, Job
from tests.core.stepping import Crash, Worker

TERMINAL = {"succeeded", "failed", "cancelled", "quarantined"}

MOVES = {  # state before, state after, growth of the token, growth of the attempts
    ("queued", "running", 1, 1),
    ("queued", "cancelled", 0, 0),
    ("running", "running", 0, 0),  # a beat, an effect, or cancelling was asked for
    ("running", "running", 1, 1),  # claimed after its lease ran out
    ("running", "queued", 0, 0),  # the database was away: another try
    ("running", "queued", 0, -1),  # interrupted, which does not count
    ("running", "queued", 1, 0),  # taken back
    ("running", "succeeded", 0, 0),
    ("running", "failed", 0, 0),
    ("running", "cancelled", 0, 0),
    ("running", "cancelled", 1, 0),  # taken back, and not wanted any more
    ("running", "quarantined", 1, 0),
}


class Plan(NamedTuple):
    """What a handler is going to do."""

    effects: tuple[str, ...]
    dies_before_commit: bool
    end: str


class Plans(threading.local):
    now: Plan


plans = Plans()


def handle(context: jobs.JobContext) -> dict[str, Any]:
    """The handler of every job here: each effect once, as `plans.now` says."""
    plan = plans.now
    for effect in plan.effects:
        with context.effect():
            target = f"{context.job.pk} {effect}"
            if not AuditEvent.objects.filter(action="effect", target=target).exists():
                audit.record("worker", "effect", target, token=context.token)
            if plan.dies_before_commit:
                raise Crash
        context.progress(0.5)
    if plan.end == "refused":
        raise InvalidInput("The file is empty.")
    if plan.end == "interrupted":
        raise jobs.JobInterrupted
    if plan.end == "away":
        raise OperationalError("server closed the connection unexpectedly")
    return {"answer": 42}


# The machine -----------------------------------------------------------------------------------------------------

WORKERS: list[Worker] = []
PLANS = st.builds(
    Plan,
    effects=st.sampled_from([("a", "b"), ("a", "b"), ("a",), ()]),
    dies_before_commit=st.sampled_from([False, False, False, True]),
    end=st.sampled_from(["done", "done", "done", "refused", "interrupted", "away"]),
)
WORKER = st.integers(0, 1)
NTH = st.integers(0, 5)
STATEMENTS = st.sampled_from([0, 1, 2, 4, "to a write", "to a write", "to a write", "to the end"])


class Ledger(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        Job.objects.all().delete()
        AuditEvent.objects.all().delete()
        self.rows: dict[str, Job] = {}
        self.effects: Counter[str] = Counter()
        self.claims: list[tuple[Any, int]] = []
        self.held: list[tuple[Any, int] | None] = [None] * len(WORKERS)
        self.given_back: Counter[Any] = Counter()
        self.at_end: list[Callable[[Any], None]] = [lambda outcome: None] * len(WORKERS)
        self.failed = True

    @initialize()
    def begin_with_some_work(self) -> None:
        for key in ("short-0", "long-1"):
            self.enqueue(0, key)
            self.go_on(0)

    # What the machine may decide. Each call goes on for some statements and then stands still for what comes next.

    @rule(worker=WORKER, nth=NTH, plan=PLANS, statements=STATEMENTS)
    def run_a_job(self, worker: int, nth: int, plan: Plan, statements: int | str) -> None:
        worker = self.free_one(worker)
        if job := self.pick(nth):
            self.run(worker, job, plan)
        else:
            self.enqueue(worker, f"{'long' if nth % 2 else 'short'}-{len(self.rows)}")
        self.go_on(worker, statements)

    @rule(worker=WORKER, nth=NTH, statements=STATEMENTS)
    def cancel_a_job(self, worker: int, nth: int, statements: int | str) -> None:
        worker = self.free_one(worker)
        if job := self.pick(nth, running=True):
            self.cancel(worker, job)
            self.go_on(worker, statements)

    @rule(worker=WORKER, statements=STATEMENTS)
    def reap(self, worker: int, statements: int | str) -> None:
        worker = self.free_one(worker)
        self.call(worker, reaper.reap)
        self.go_on(worker, statements)

    @rule(worker=WORKER, nth=NTH, again=st.booleans(), statements=STATEMENTS)
    def enqueue_a_job(self, worker: int, nth: int, again: bool, statements: int | str) -> None:
        worker = self.free_one(worker)
        if again and (job := self.pick(nth)):
            self.enqueue(worker, job.key)
        elif len(self.open_jobs()) < 3:
            self.enqueue(worker, f"{'long' if nth % 2 else 'short'}-{len(self.rows)}")
        self.go_on(worker, statements)

    @rule(worker=WORKER, statements=STATEMENTS)
    def go_on(self, worker: int, statements: int | str = "to the end") -> None:
        gone = 0
        while WORKERS[worker].busy and gone != statements:
            self.step(worker)
            gone += 1
            if statements == "to a write" and WORKERS[worker].stands_before_a_write():
                break

    @rule(nth=NTH)
    def let_time_pass(self, nth: int) -> None:
        if job := self.pick(nth, running=True):
            expire(job)
            self.only_what_may_change_has_changed()

    @rule(worker=WORKER)
    def kill(self, worker: int) -> None:
        if WORKERS[worker].busy:
            if held := self.held[worker]:
                pk, token = held
                Job.objects.filter(pk=pk, token=token, state=Job.State.RUNNING).update(owner=nobody())
            self.step(worker, Crash())

    @rule(worker=WORKER)
    def take_the_database_away(self, worker: int) -> None:
        if WORKERS[worker].busy:
            self.step(worker, OperationalError("server closed the connection unexpectedly"))

    # What a worker is told, and what must hold when it is done

    def enqueue(self, worker: int, key: str) -> None:
        def same_job(outcome: Any) -> None:
            assert isinstance(outcome, BaseException) or outcome.pk == self.rows[key].pk

        kind = key.partition("-")[0]
        self.call(worker, lambda: jobs.enqueue(kind, {}, key=key, max_attempts=3), same_job)

    def run(self, worker: int, job: Job, plan: Plan) -> None:
        def note(context: jobs.JobContext) -> None:
            self.held[worker] = (job.pk, context.token)
            self.claims.append((job.pk, context.token))

        def run() -> str:
            plans.now = plan
            return jobs.run(job.pk, on_claim=note)

        def is_so(outcome: Any) -> None:
            if outcome in TERMINAL:
                assert self.rows[job.key].state == outcome
            if outcome == "succeeded":
                assert all(self.effects[f"{job.pk} {effect}"] == 1 for effect in plan.effects)

        self.call(worker, run, is_so)

    def cancel(self, worker: int, job: Job) -> None:
        def is_so(outcome: Any) -> None:
            if isinstance(outcome, Conflict):
                assert self.rows[job.key].state in TERMINAL, "cancelling was refused to a job that has not finished"
            elif not isinstance(outcome, BaseException):
                assert self.rows[job.key].cancel_requested

        self.call(worker, lambda: jobs.cancel(Job(pk=job.pk, kind=job.kind), actor="olga"), is_so)

    # How it is done

    def open_jobs(self) -> list[Job]:
        return [job for _, job in sorted(self.rows.items()) if job.state not in TERMINAL]

    def pick(self, nth: int, running: bool = False) -> Job | None:
        """A job that has not ended, or one that runs; now and then any at all."""
        known = list(self.rows.values())
        if nth:
            known = [job for job in self.open_jobs() if job.state == "running" or not running]
        return known[nth % len(known)] if known else None

    def call(self, worker: int, call: Callable[[], Any], at_end: Callable[[Any], None] = lambda outcome: None) -> None:
        self.go_on(worker)
        self.at_end[worker], self.held[worker] = at_end, None
        WORKERS[worker].begin(call)
        self.look(worker)

    def free_one(self, worker: int) -> int:
        """The other one where `worker` stands in the middle of a call, and that one does not."""
        return 1 - worker if WORKERS[worker].busy and not WORKERS[1 - worker].busy else worker

    def step(self, worker: int, fault: BaseException | None = None) -> None:
        WORKERS[worker].step(fault)
        self.look(worker)

    def look(self, worker: int) -> None:
        self.only_what_may_change_has_changed()
        if not WORKERS[worker].busy:
            self.at_end[worker](WORKERS[worker].outcome)

    def only_what_may_change_has_changed(self) -> None:
        """Called after each commit, so that it never sees two changes as one."""
        self.failed = True
        before, self.rows = self.rows, {job.key: job for job in Job.objects.order_by()}
        done = AuditEvent.objects.filter(action="effect").order_by().values_list("target", "data")
        effects = Counter(target for target, _ in done)
        assert max(effects.values(), default=0) <= 1, "an effect was committed twice"
        for target in effects - self.effects:
            old, token = next((job, dict(done)[target]["token"]) for job in before.values() if str(job.pk) in target)
            assert (old.state, old.token) == ("running", token), "a zombie committed an effect"
        assert not self.effects - effects
        self.effects = effects
        assert len(set(self.claims)) == len(self.claims), "two processes hold the same token"
        assert set(before) <= set(self.rows)
        for key, job in self.rows.items():
            is_whole(job)
            may_follow(before.get(key), job)
            if key in before and before[key].attempt > job.attempt:
                self.given_back[job.pk] += 1
        slots = Counter(job.slot for job in self.rows.values() if job.slot)
        assert max(slots.values(), default=0) <= 1, "two jobs share a slot"
        self.failed = False

    def teardown(self) -> None:
        """Whatever happened, every job ends, and its attempts were counted."""
        if self.failed:
            while any(worker.busy for worker in WORKERS):
                for worker in WORKERS:
                    if worker.busy:
                        worker.step(Crash())
            return
        for worker in range(len(WORKERS)):
            self.go_on(worker)
        for _ in range(4):
            for job in self.open_jobs():
                expire(job)
                self.only_what_may_change_has_changed()
            self.call(0, reaper.reap)
            self.go_on(0)
            for job in self.open_jobs():
                self.run(0, job, Plan((), False, "done"))
                self.go_on(0)
        assert not self.open_jobs()
        for job in self.rows.values():
            assert sum(pk == job.pk for pk, _ in self.claims) == job.attempt + self.given_back[job.pk]


def expire(job: Job) -> None:
    """Its lease runs out, or its next try falls due."""
    past = timezone.now() - timedelta(seconds=1)
    Job.objects.filter(pk=job.pk, state=Job.State.RUNNING).update(lease_until=past)
    Job.objects.filter(pk=job.pk, state=Job.State.QUEUED, not_before__gt=past).update(not_before=past)


def nobody() -> str:
    """The owner that a process of this host was which no longer runs: no process has the number 0."""
    return f"{settings.KALIMTAK_HOST}:0:1"


def is_whole(job: Job) -> None:
    """What holds for a row at any moment."""
    running = job.state == "running"
    assert 0 <= job.attempt <= job.max_attempts
    assert (job.lease_until is not None) == running
    assert bool(job.slot) == (running and job.kind == "long")
    assert (job.result is not None) == (job.state == "succeeded")
    assert (job.finished_at is not None) == (job.state in TERMINAL)
    assert not (job.cancel_requested and job.state == "queued"), "a cancelled job would run again"


def may_follow(old: Job | None, new: Job) -> None:
    """Whether one commit may make `new` of `old`."""
    if old is None:
        assert (new.state, new.token, new.attempt) == ("queued", 0, 0)
        return
    assert (old.pk, old.kind, old.params) == (new.pk, new.kind, new.params)
    if old.state in TERMINAL:
        assert all(getattr(old, f.attname) == getattr(new, f.attname) for f in Job._meta.fields), "it was final"
        return
    grown = new.token - old.token, new.attempt - old.attempt
    assert (old.state, new.state, *grown) in MOVES or (old.state == new.state and grown == (0, 0))
    assert new.cancel_requested or not old.cancel_requested
    if old.state == "running" and grown[0]:
        assert old.lease_until < timezone.now() or old.owner == nobody(), "it was taken from somebody at work"
        assert new.state != "running" or not old.cancel_requested, "cancelled, it was begun again"
    if new.state == "quarantined":
        assert old.attempt == old.max_attempts
