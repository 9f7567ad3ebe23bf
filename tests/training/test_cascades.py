"""Measuring a cascade: when it happens, on which texts, and what is kept for the pair."""

import pytest

from kalimtak.core import jobs
from kalimtak.core.commands import silent
from kalimtak.core.errors import Conflict
from kalimtak.core.models import Job
from registry import cascade
from registry import services as registry
from registry import store as artefacts
from registry.models import Cascade, Classifier
from tests.training.conftest import WORDS
from training import services
from training.models import SnapshotItem, TrainingRun
from training.services.cascades import validation_examples

# Rows are few and plain here, trainings many; tests/training/test_runs.py trains on both databases.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.own_servers]

POLICY = {"gate": {"min_samples": 5}}


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    monkeypatch.setattr(cascade, "LEAST_TEXTS", 10)
    monkeypatch.setattr(cascade, "LEAST_EARLY", 5)
    monkeypatch.setattr(jobs, "ring_for", lambda job: None)


def trained(classifier: Classifier) -> TrainingRun:
    run = services.run_start(classifier, actor="olga", then="deploy", ring=False)
    assert jobs.run(run.job_id) == "succeeded", Job.objects.get(pk=run.job_id).error
    return TrainingRun.objects.select_related("version__classifier", "job").get(pk=run.pk)


@pytest.fixture
def quick(mood, teach) -> Classifier:
    """A second classifier of the same labels that learnt from other texts."""
    quick = Classifier.objects.create(
        slug="quick", name="Quick", family="classic", labels=list(WORDS)[::-1], input_fields=["text"], policy=POLICY
    )
    teach(quick, count=40, start=500)
    trained(quick)
    return quick


@pytest.fixture
def pair(mood, teach, quick) -> tuple[Classifier, Classifier]:
    """`mood` names `quick` as its cascade and has a live version."""
    mood.policy = POLICY | {"cascade": "quick"}
    mood.save()
    teach(mood, count=60)
    trained(mood)
    return mood, quick


def test_a_training_measures_the_pair_before_its_version_answers(pair) -> None:
    row = Cascade.objects.get()
    assert (row.version.ref, row.cheap.ref) == ("mood/1", "quick/1")
    assert row.figures["texts"] >= 15
    assert row.figures["main_ms"] > 0 < row.figures["cheap_ms"]
    assert row.figures["main_accuracy"] > 0.9
    assert row.threshold is None or row.figures["saving"] > 0
    assert not Job.objects.filter(kind="cascade").exists()


def test_texts_that_the_cheap_version_learnt_from_are_left_out(pair) -> None:
    version, cheap = (registry.live_version(each) for each in pair)
    before = validation_examples(version, cheap)
    own, theirs = (TrainingRun.objects.get(classifier=each).snapshot_id for each in pair)
    valid = SnapshotItem.objects.filter(snapshot=own, split="valid").first()
    learnt = SnapshotItem.objects.filter(snapshot=theirs, split="train").first()
    SnapshotItem.objects.filter(pk=learnt.pk).update(content_hash=valid.content_hash)
    after = validation_examples(version, cheap)
    assert len(after) == len(before) - 1
    golden = set(SnapshotItem.objects.filter(snapshot=own, split="test").values_list("item__fields__text", flat=True))
    assert not golden & {example.fields[0] for example in before}


def test_a_new_cheap_version_is_measured_before_it_is_deployed(pair, teach) -> None:
    teach(pair[1], count=20, start=900)
    trained(pair[1])
    assert {str(row) for row in Cascade.objects.all()} == {"quick/1 → mood/1", "quick/2 → mood/1"}
    assert not Job.objects.filter(kind="cascade").exists()


def test_a_pair_that_comes_about_by_hand_is_measured_by_a_job(pair, teach) -> None:
    teach(pair[1], count=20, start=900)
    trained(pair[1])
    Cascade.objects.all().delete()
    registry.version_rollback(pair[1], actor="dina")
    (job,) = Job.objects.filter(kind="cascade")
    assert job.params == {"classifier": "mood", "pair": ["mood/1", "quick/1"]}
    registry.cascades_queue([pair[0]], actor="olga")
    assert Job.objects.filter(kind="cascade").count() == 1
    assert jobs.run(job.pk) == "succeeded"
    assert str(Cascade.objects.get()) == "quick/1 → mood/1"
    job.refresh_from_db()
    assert (job.result["version"], job.result["cheap"]) == ("mood/1", "quick/1")


def test_a_policy_from_the_file_or_the_admin_asks_for_the_measurement(mood, teach, quick) -> None:
    teach(mood, count=60)
    trained(mood)
    mood.policy = POLICY | {"cascade": "quick"}
    mood.save()
    registry.cascades_queue([mood], actor="olga")
    assert Job.objects.get(kind="cascade").params["pair"] == ["mood/1", "quick/1"]


def test_too_few_texts_and_a_version_without_a_run_leave_a_reason(pair, monkeypatch) -> None:
    version, cheap = (registry.live_version(each) for each in pair)
    monkeypatch.setattr(cascade, "LEAST_TEXTS", 1_000)
    row = services.cascade_measure(version, cheap, progress=silent)
    assert row.threshold is None
    assert "validation texts that quick/1 did not learn from, and 1000 are needed" in row.figures["reason"]
    TrainingRun.objects.filter(version=version).update(version=None)
    row = services.cascade_measure(version, cheap, progress=silent)
    assert row.figures["reason"].startswith("mood/1 has 0 validation texts")
    assert Cascade.objects.count() == 1


def test_a_cheap_version_that_costs_as_much_as_it_saves_is_not_used(pair, monkeypatch) -> None:
    version, cheap = (registry.live_version(each) for each in pair)
    monkeypatch.setattr(cascade, "saving", lambda *_: -0.1)
    row = services.cascade_measure(version, cheap, progress=silent)
    assert row.threshold is None
    assert "more than it would save" in row.figures["reason"] or "answering worse" in row.figures["reason"]


def test_a_version_that_cannot_be_loaded_is_named_and_spoils_no_training(pair, teach) -> None:
    path = artefacts.version_folder("quick", 1) / "serving" / "features.json"
    path.write_bytes(path.read_bytes() + b" ")
    version, cheap = (registry.live_version(each) for each in pair)
    with pytest.raises(Conflict, match="quick/1 cannot be loaded"):
        services.cascade_measure(version, cheap, progress=silent)
    teach(pair[0], count=10, start=300)
    assert trained(pair[0]).version.ref == "mood/2"
    assert Job.objects.filter(kind="cascade").exists()  # asked for by the deployment
