"""The ledger: claimed once, effective once, taken back from the dead."""

import os
import subprocess
import sys
import threading
import uuid
from datetime import timedelta

import psutil
import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from kalimtak.core import jobs, owners, reaper, tasks
from kalimtak.core.errors import Conflict, InvalidInput
from kalimtak.core.models import AuditEvent, Job

SEEN: list[str] = []


def succeed(context):
    SEEN.append(str(context.job.pk))
    context.progress(0.5, "half way")
    with context.effect():
        pass
    return {"answer": 42}


def refuse(context):
    raise InvalidInput("The file is empty.")


def break_down(context):
    raise RuntimeError("a fault of ours")


def break_a_constraint(context):
    raise IntegrityError('violates "rating"\nDETAIL: Failing row contains (my secret diary).')


def be_overtaken(context):
    Job.objects.filter(pk=context.job.pk).update(token=context.token + 1)
    with context.effect():
        SEEN.append("committed by a zombie")


def be_cancelled(context):
    jobs.cancel(context.job, actor="olga")
    context.progress(0.1)
    SEEN.append("went on after cancel")


def be_interrupted(context):
    raise jobs.JobInterrupted


def begin_anew(context):
    SEEN.append(context.job.progress_before)
    context.progress(0.1)


def report_while_away(context):
    """The database is away for the first report and back for the second."""
    beat, context.beat = context.beat, lose_the_database
    context.progress(0.1)
    context.beat, context._next_report = beat, 0.0
    context.progress(0.2, "still at it")
    return {}


def lose_the_database(**values):
    raise OperationalError("server closed the connection unexpectedly")


def be_stopped(context):
    context.stop_asked.set()
    context.progress_or_stop(0.1)
    SEEN.append("went on while its process should end")


def be_cancelled_and_interrupted(context):
    jobs.cancel(context.job, actor="olga")
    raise jobs.JobInterrupted


def be_cancelled_while_away(context):
    jobs.cancel(context.job, actor="olga")
    lose_the_database()


def quote_a_nul(context):
    raise InvalidInput("No label is called '\0'.")


def answer_with_no_json(context):
    return {"labels": {"joy", "anger"}}


HANDLERS = (
    succeed,
    refuse,
    break_down,
    break_a_constraint,
    be_overtaken,
    be_cancelled,
    be_interrupted,
    begin_anew,
    report_while_away,
    be_stopped,
    be_cancelled_and_interrupted,
    be_cancelled_while_away,
    quote_a_nul,
    answer_with_no_json,
)


@pytest.fixture(autouse=True)
def kinds(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "job_handlers_of_this_test", sys.modules[__name__])
    kinds = {f.__name__: (f"job_handlers_of_this_test.{f.__name__}", "default", False) for f in HANDLERS}
    settings.KALIMTAK_JOBS = {**kinds, "train": ("job_handlers_of_this_test.succeed", "training", True)}
    SEEN.clear()


def waiting_rings(cluster=None):
    from django_q.models import OrmQ

    return OrmQ.objects.filter(**({"key": cluster} if cluster else {})).count()


def expire_leases():
    Job.objects.filter(state="running").update(lease_until=timezone.now() - timedelta(seconds=1))


@pytest.mark.django_db(transaction=True)
def test_a_job_is_rung_for_only_after_its_cause_is_committed():
    with transaction.atomic():
        jobs.enqueue("succeed", {})
        assert waiting_rings() == 0
    assert waiting_rings() == 1
    with pytest.raises(RuntimeError), transaction.atomic():
        jobs.enqueue("succeed", {})
        raise RuntimeError
    assert Job.objects.count() == 1
    assert waiting_rings() == 1


@pytest.mark.django_db
def test_the_same_key_never_makes_a_second_job():
    first = jobs.enqueue("succeed", {"a": 1}, key="weekly:2026-11-21")
    assert jobs.enqueue("succeed", {"a": 2}, key="weekly:2026-11-21").pk == first.pk
    assert Job.objects.get().params == {"a": 1}


@pytest.mark.django_db
def test_a_job_delivered_twice_runs_once():
    job = jobs.enqueue("succeed", {})
    assert jobs.run(job.pk) == "succeeded"
    assert jobs.run(job.pk) == ""
    job.refresh_from_db()
    assert [str(job.pk)] == SEEN
    assert (job.result, job.progress, job.attempt, job.token, job.slot) == ({"answer": 42}, 1.0, 1, 1, "")


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_one_claims():
    job = jobs.enqueue("succeed", {})
    won = []

    def race():
        won.append(jobs.claim(job.pk) is not None)
        connection.close()

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]
    assert Job.objects.get().attempt == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("kind", "state", "error"),
    [
        ("refuse", "failed", "The file is empty."),
        ("break_down", "failed", "RuntimeError: a fault of ours"),
        ("break_a_constraint", "failed", 'IntegrityError: violates "rating"'),
        ("be_cancelled", "cancelled", "Cancelled."),
        ("be_cancelled_and_interrupted", "cancelled", "Cancelled."),
        ("be_cancelled_while_away", "cancelled", "Cancelled."),
        ("quote_a_nul", "failed", "No label is called '\ufffd'."),
        ("answer_with_no_json", "failed", "Its outcome could not be stored: TypeError."),
    ],
)
def test_a_job_ends_with_its_reason(kind, state, error):
    job = jobs.enqueue(kind, {})
    assert jobs.run(job.pk) == state
    job.refresh_from_db()
    assert (job.state, job.error) == (state, error)
    assert job.finished_at is not None
    assert SEEN == []


@pytest.mark.django_db
def test_a_zombie_commits_nothing():
    job = jobs.enqueue("be_overtaken", {})
    assert jobs.run(job.pk) == ""
    assert SEEN == []
    assert Job.objects.get().state == Job.State.RUNNING  # it belongs to the newer token


@pytest.mark.django_db
def test_an_interrupted_attempt_does_not_count():
    job = jobs.enqueue("be_interrupted", {})
    assert jobs.run(job.pk) == "queued"
    job.refresh_from_db()
    assert (job.state, job.attempt, job.lease_until) == ("queued", 0, None)


@pytest.mark.django_db
def test_an_attempt_knows_what_earlier_ones_had_done_until_it_begins_anew():
    job = jobs.enqueue("begin_anew", {})
    Job.objects.filter(pk=job.pk).update(progress=0.4)
    assert jobs.run(job.pk) == "succeeded"
    job.refresh_from_db()
    assert (SEEN, job.progress_before) == ([0.4], 0.0)


@pytest.mark.django_db
def test_a_report_that_cannot_be_written_does_not_end_the_job():
    job = jobs.enqueue("report_while_away", {})
    assert jobs.run(job.pk) == "succeeded"


@pytest.mark.django_db
def test_a_handler_that_can_be_repeated_ends_when_its_process_must():
    job = jobs.enqueue("be_stopped", {})
    assert jobs.run(job.pk) == "queued"
    job.refresh_from_db()
    assert (job.state, job.attempt) == ("queued", 0)
    assert SEEN == []


@pytest.mark.django_db
def test_one_training_at_a_time_on_a_device():
    first, second = jobs.enqueue("train", {}), jobs.enqueue("train", {})
    held = jobs.claim(first.pk)
    assert jobs.claim(second.pk) is None
    assert jobs._finish(jobs.JobContext(held, jobs.LEASE), jobs._Outcome("succeeded")) == "succeeded"
    assert jobs.claim(second.pk) is not None


@pytest.mark.django_db
def test_a_waiting_job_is_cancelled_at_once_and_the_act_is_audited():
    job = jobs.cancel(jobs.enqueue("succeed", {}), actor="olga")
    assert job.state == Job.State.CANCELLED
    assert jobs.run(job.pk) == ""
    assert AuditEvent.objects.get().action == "job.cancel"
    with pytest.raises(Conflict):
        jobs.cancel(job, actor="olga")


@pytest.mark.django_db
def test_a_cancelled_job_whose_lease_ran_out_is_not_begun_again():
    job = jobs.enqueue("succeed", {})
    jobs.claim(job.pk)
    jobs.cancel(job, actor="olga")
    expire_leases()
    assert jobs.run(job.pk) == ""
    assert reaper.reap() == 1
    job.refresh_from_db()
    assert (job.state, SEEN) == ("cancelled", [])


@pytest.mark.django_db
def test_a_job_whose_retry_is_not_due_gets_no_process(monkeypatch):
    monkeypatch.setattr(tasks, "supervisor_spawn", lambda job: pytest.fail("a process was started"))
    job = jobs.enqueue("train", {}, ring=False)
    Job.objects.update(not_before=timezone.now() + timedelta(seconds=5))
    assert tasks.job_wake(str(job.pk)) == "nothing to do"


class TestOwner:
    def test_lives_while_its_process_does(self):
        assert owners.owner_is_dead(owners.this_process()) is False
        assert owners.owner_is_dead(f"another-host:{os.getpid()}:1") is False

    def test_is_told_from_a_later_process_with_its_number_however_soon_that_started(self):
        host, pid, start = owners.this_process().split(":")
        assert owners.owner_is_dead(f"{host}:{pid}:{int(start) - 1}") is True

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the start is a time of day")
    def test_lives_on_when_the_clock_is_set(self, monkeypatch):
        owner = owners.this_process()
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: 1.0)
        assert psutil.Process().create_time() < 10**9, "the clock of this test does not show"
        assert owners.owner_is_dead(owner) is False


@pytest.mark.django_db
class TestReaper:
    def test_takes_back_what_outlived_its_lease(self):
        job = jobs.enqueue("succeed", {})
        jobs.claim(job.pk)
        assert reaper.reap() == 0
        expire_leases()
        assert reaper.reap() == 1
        assert jobs.run(job.pk) == "succeeded"
        job.refresh_from_db()
        assert job.attempt == 2

    def test_takes_back_at_once_from_a_process_that_died(self):
        job = jobs.enqueue("succeed", {})
        child = subprocess.Popen([sys.executable, "-c", "pass"])
        child.wait()
        jobs.claim(job.pk)
        Job.objects.update(owner=f"{jobs.settings.KALIMTAK_HOST}:{child.pid}:1")
        assert reaper.reap() == 1

    def test_quarantines_a_job_that_kills_its_process_every_time(self):
        job = jobs.enqueue("succeed", {}, max_attempts=2)
        for _ in range(2):
            jobs.claim(job.pk)
            expire_leases()
            reaper.reap()
        job.refresh_from_db()
        assert job.state == Job.State.QUARANTINED
        assert "died 2 times" in job.error
        assert jobs.run(job.pk) == ""

    def test_never_touches_kinds_it_does_not_know(self):
        Job.objects.create(kind="of-tomorrow", key="x", state="running", lease_until=timezone.now() - timedelta(days=1))
        assert reaper.reap() == 0

    def test_rings_again_for_what_waits(self):
        jobs.enqueue("succeed", {}, ring=False)
        assert waiting_rings() == 0
        reaper.reap()
        assert waiting_rings() == 1

    def test_rings_for_one_of_those_that_need_the_same_slot(self):
        for kind in ("train", "train", "succeed", "succeed"):
            jobs.enqueue(kind, {}, ring=False)
        reaper.reap()
        reaper.reap()
        assert waiting_rings("training") == 1
        assert waiting_rings("default") == 4

    def test_does_not_ring_for_kinds_it_does_not_know(self):
        Job.objects.create(kind="of-tomorrow", key="x", cluster="training")
        jobs.enqueue("train", {}, ring=False)
        reaper.reap()
        assert waiting_rings() == 1

    def test_takes_back_a_job_whose_lease_was_written_by_a_clock_that_was_set_back_since(self):
        job = jobs.enqueue("succeed", {})
        jobs.claim(job.pk)
        Job.objects.update(owner="another-host:7:1", lease_until=timezone.now() + timedelta(days=1))
        assert reaper.reap() == 0
        assert Job.objects.get().lease_until < timezone.now() + jobs.LONG_LEASE + timedelta(seconds=1)
        expire_leases()
        assert reaper.reap() == 1

    def test_asks_once_how_full_the_queues_are_and_never_overfills_them(
        self, monkeypatch, django_assert_max_num_queries
    ):
        monkeypatch.setattr(reaper, "RINGS_AT_MOST", 3)
        for _ in range(8):
            jobs.enqueue("succeed", {}, ring=False)
        with django_assert_max_num_queries(4 + 3):
            reaper.reap()
        assert waiting_rings() == 3


@pytest.mark.django_db
def test_unknown_jobs_are_named_by_the_command(capsys):
    from django.core.management import CommandError, call_command

    for unknown in ("nonsense", str(uuid.uuid4())):
        with pytest.raises(CommandError, match="There is no job"):
            call_command("run_job", unknown)
