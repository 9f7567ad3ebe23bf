"""The ledger as a state machine: two workers on connections of their own, interleaved between any two statements.

KALIMTAK_TEST_EXAMPLES=2000 pytest tests/core/test_ledger_states.py    # a thorough search
KALIMTAK_TEST_SEED=17 pytest tests/core/test_ledger_states.py          # the search that a failure printed
"""

import logging
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from kalimtak.core import jobs, reaper
from tests.core.ledger_machine import WORKERS, Ledger, Plan, expire
from tests.core.stepping import Crash, Worker

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

EXAMPLES = int(os.environ.get("KALIMTAK_TEST_EXAMPLES", "40"))
SEED = int(os.environ.get("KALIMTAK_TEST_SEED", random.randrange(2**32)))


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    handler = "tests.core.ledger_machine.handle"
    settings.KALIMTAK_JOBS = {"short": (handler, "default", False), "long": (handler, "training", True)}
    monkeypatch.setattr(jobs, "PROGRESS_SECONDS", 0.0)
    logging.disable(logging.CRITICAL)  # each fault would be told with its traceback
    WORKERS[:] = [Worker(), Worker()]
    yield
    for worker in WORKERS:
        while worker.busy:
            worker.step(Crash())
        worker.end()
    logging.disable(logging.NOTSET)


def test_no_order_of_statements_breaks_the_ledger(two_workers: None) -> None:
    print(f"KALIMTAK_TEST_SEED={SEED} KALIMTAK_TEST_EXAMPLES={EXAMPLES}")
    run_state_machine_as_test(
        seed(SEED)(Ledger),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


# Meetings that went wrong once -----------------------------------------------------------------------------------

DONE = Plan(("a", "b"), False, "done")


class TestMeetings:
    """Worker 0 stands where it once went wrong, worker 1 comes between; the machine judges each commit."""

    @pytest.fixture
    def ledger(self, two_workers: None) -> Ledger:
        ledger = Ledger()
        ledger.begin_with_some_work()
        return ledger

    def stand_before(self, ledger: Ledger, *starts: str) -> None:
        while not WORKERS[0].outcome.startswith(starts):
            ledger.step(0)

    def test_a_job_is_cancelled_between_the_reapers_look_and_its_update(self, ledger: Ledger) -> None:
        job = ledger.rows["short-0"]
        ledger.run(1, job, DONE)
        ledger.go_on(1, 4)
        assert ledger.rows[job.key].state == "running"
        ledger.kill(1)
        ledger.call(0, reaper.reap)
        self.stand_before(ledger, "SELECT")
        ledger.go_on(0, "to a write")
        ledger.cancel(1, job)
        ledger.go_on(1)
        ledger.go_on(0)
        assert ledger.rows[job.key].state == "running", "the next round of the reaper ends it"
        ledger.teardown()
        assert ledger.rows[job.key].state == "cancelled"

    def test_a_job_goes_back_to_the_queue_while_it_is_cancelled(self, ledger: Ledger) -> None:
        job = ledger.rows["short-0"]
        ledger.run(1, job, Plan((), False, "interrupted"))
        ledger.go_on(1, "to a write")
        ledger.go_on(1, "to a write")
        assert ledger.rows[job.key].state == "running"
        ledger.cancel(0, job)
        ledger.step(0)
        ledger.go_on(1)
        ledger.go_on(0)
        assert ledger.rows[job.key].state == "cancelled"
        ledger.teardown()

    def test_a_zombie_goes_on_after_another_has_done_its_job(self, ledger: Ledger) -> None:
        job = ledger.rows["short-0"]
        ledger.run(0, job, DONE)
        while not ledger.effects:
            ledger.step(0)
        expire(job)
        ledger.call(1, reaper.reap)
        ledger.run(1, job, DONE)
        while ledger.rows[job.key].token < 3:
            ledger.step(1)
        ledger.go_on(0)
        assert len(ledger.effects) == 1, "worker 0 has the old token"
        ledger.go_on(1)
        assert ledger.rows[job.key].state == "succeeded"
        ledger.teardown()

    def test_a_job_is_overtaken_as_soon_as_it_was_claimed(self, ledger: Ledger) -> None:
        job = ledger.rows["short-0"]
        ledger.run(0, job, DONE)
        while ledger.rows[job.key].state != "running":
            ledger.step(0)
        expire(job)
        ledger.run(1, job, DONE)
        while ledger.rows[job.key].token == 1:
            ledger.step(1)
        ledger.go_on(0)
        assert not ledger.effects, "worker 0 works with a token that is not its own"
        ledger.go_on(1)
        assert ledger.rows[job.key].state == "succeeded"
        ledger.teardown()

    def test_no_attempt_is_begun_after_the_last(self, ledger: Ledger) -> None:
        job = ledger.rows["short-0"]
        for attempt in range(1, job.max_attempts + 1):
            ledger.run(0, job, DONE)
            while ledger.rows[job.key].attempt < attempt:
                ledger.step(0)
            ledger.kill(0)
            expire(job)
            ledger.only_what_may_change_has_changed()
        ledger.run(1, job, DONE)
        ledger.go_on(1)
        assert WORKERS[1].outcome == "", "worker 1 had a job without an attempt left"
        assert (ledger.rows[job.key].state, ledger.rows[job.key].attempt) == ("running", job.max_attempts)
        ledger.teardown()
        assert ledger.rows[job.key].state == "quarantined"
