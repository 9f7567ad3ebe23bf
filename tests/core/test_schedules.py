"""The recurring jobs: made once, edited freely, one job per slot."""

from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import Schedule

from kalimtak.core.models import Job
from kalimtak.schedules import fire, reaper_hurry, schedules_ensure

pytestmark = pytest.mark.django_db


def test_missing_schedules_are_made_and_an_edited_one_is_left_alone():
    assert schedules_ensure() == ["curate", "fine_tune", "evaluate", "reap"]
    Schedule.objects.filter(name="curate").update(cron="30 5 * * *")
    Schedule.objects.filter(name="evaluate").delete()
    assert schedules_ensure() == ["evaluate"]
    assert Schedule.objects.get(name="curate").cron == "30 5 * * *"


def test_the_first_run_lies_ahead_at_the_time_of_the_contract():
    schedules_ensure()
    runs = {row.name: timezone.localtime(row.next_run) for row in Schedule.objects.exclude(name="reap")}
    assert all(run > timezone.now() for run in runs.values())
    assert (runs["curate"].hour, runs["fine_tune"].hour, runs["evaluate"].hour) == (2, 3, 4)
    assert (runs["fine_tune"].isoweekday(), runs["evaluate"].day) == (7, 1)


def test_two_schedulers_that_fire_the_same_slot_make_one_job():
    slot = "2026-11-22T03:00:00+00:00"
    assert fire("fine_tune", intended=slot) == fire("fine_tune", intended=slot)
    fire("fine_tune", intended="2026-11-29T03:00:00+00:00")
    assert Job.objects.filter(kind="fine_tune").count() == 2


@pytest.mark.django_db(transaction=True)
def test_the_scheduler_of_the_queue_fires_a_due_schedule_into_the_ledger():
    from django_q.models import OrmQ
    from django_q.scheduler import scheduler
    from django_q.signing import SignedPackage

    schedules_ensure()
    due = timezone.now() - timedelta(seconds=5)
    Schedule.objects.filter(name="curate").update(next_run=due)
    scheduler()
    (task,) = [SignedPackage.loads(row.payload) for row in OrmQ.objects.all()]
    assert (task["func"], task["args"]) == ("kalimtak.schedules.fire", ("curate",))
    fire(*task["args"], **task["kwargs"])
    job = Job.objects.get()
    assert job.key.startswith("schedule:curate:")
    assert due.isoformat()[:16] in job.key


def test_an_overdue_reaper_is_hurried_and_nothing_else():
    schedules_ensure()
    Schedule.objects.update(next_run=timezone.now() - timedelta(hours=1))
    reaper_hurry()
    fresh = Schedule.objects.filter(next_run__gt=timezone.now() - timedelta(minutes=1))
    assert [row.name for row in fresh] == ["reap"]
