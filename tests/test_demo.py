"""A quickstart that was interrupted goes on instead of beginning again."""

from pathlib import Path

import pytest
from django.conf import settings
from django.core.management.base import CommandError

from kalimtak import demo
from kalimtak.core import jobs
from kalimtak.core.commands import silent
from kalimtak.core.models import Job
from registry.families import FAMILIES
from registry.models import Classifier
from training.models import Dataset, TrainingDataItem, TrainingRun
from training.samples import CLASSIFIERS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgres]


@pytest.fixture
def sentiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Classifier:
    monkeypatch.setattr(settings, "KALIMTAK_MODELS_STORE", tmp_path / "store")
    monkeypatch.setattr(settings, "KALIMTAK_VAR", tmp_path)
    monkeypatch.setattr(jobs, "ring_for", lambda job: None)
    monkeypatch.setitem(demo.ROWS, "classic", 150)
    fields = list(CLASSIFIERS["sentiment"].input_fields)
    return Classifier.objects.create(slug="sentiment", name="Sentiment", family="classic", input_fields=fields)


def test_a_sample_set_that_was_half_loaded_is_loaded_to_its_end(sentiment: Classifier) -> None:
    whole = demo.samples_load(sentiment, silent)
    rows = whole.rows
    Dataset.objects.update(state="loading", rows=0)
    TrainingDataItem.objects.filter(pk__gt=TrainingDataItem.objects.order_by("pk")[50].pk).delete()
    demo.samples_load(sentiment, silent)
    assert Dataset.objects.get().rows == rows
    assert Dataset.objects.get().state == "ready"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_classifier_of_any_type_gets_samples(
    family: str, sentiment: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(demo.ROWS, "encoder", 90)
    sentiment.family = family
    assert demo.samples_load(sentiment, silent).rows == (150 if family == "classic" else 90)


def test_the_run_of_a_killed_quickstart_is_gone_on_with(sentiment: Classifier) -> None:
    demo.samples_load(sentiment, silent)
    run = demo.run_start(sentiment, actor=demo.ACTOR, then="deploy", ring=False)
    assert jobs.claim(run.job_id) is not None
    Job.objects.update(owner=f"{settings.KALIMTAK_HOST}:999999999:1")
    assert demo.classifier_ready("sentiment", silent) == "sentiment/1 trained and deployed"
    assert TrainingRun.objects.get() == run
    assert Job.objects.get().state == "succeeded"
    assert demo.classifier_ready("sentiment", silent) == "sentiment/1 is live already"


def test_the_run_that_ctrl_c_cancelled_is_gone_on_with(sentiment: Classifier) -> None:
    demo.samples_load(sentiment, silent)
    first = demo.run_start(sentiment, actor=demo.ACTOR, then="deploy", ring=False)
    jobs.cancel(first.job, actor=demo.ACTOR)
    assert demo.classifier_ready("sentiment", silent) == "sentiment/1 trained and deployed"
    second = TrainingRun.objects.get(job__state="succeeded")
    assert second.job.params["resume_of"] == str(first.job_id)
    assert second.snapshot == first.snapshot


def test_a_quickstart_that_is_cancelled_says_how_to_go_on(
    sentiment: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(job: Job, report: object) -> Job:
        return jobs.cancel(job, actor=demo.ACTOR)

    monkeypatch.setattr(demo, "run_here", cancelled)
    with pytest.raises(CommandError, match="The same command again goes on") as refusal:
        demo.classifier_ready("sentiment", silent)
    assert refusal.value.returncode == 130
