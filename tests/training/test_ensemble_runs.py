"""A training run of an ensemble: members are found, copied and never asked for again."""

import dataclasses
import shutil

import pytest

from kalimtak.core import jobs
from kalimtak.core.errors import InvalidInput
from kalimtak.core.models import Job
from registry import services as registry
from registry import store as artefacts
from registry.families import load
from registry.manifest import read_manifest, write_manifest
from registry.models import Classifier, ModelVersion
from registry.recipe import Recipe, apply_overrides
from tests.training.conftest import WORDS
from training import services
from training.models import TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def temper(trained_mood, sealed_run) -> Classifier:
    """Another classifier of the same labels, with one verified version that is not live."""
    temper = Classifier.objects.create(
        slug="temper", name="Temper", family="classic", labels=list(WORDS), input_fields=["text"]
    )
    staging = artefacts.staging_folder(trained_mood.job_id, 2)
    shutil.copytree(sealed_run.out, staging, dirs_exist_ok=True)
    manifest = read_manifest(staging)
    (staging / "manifest.json").unlink()
    write_manifest(staging, dataclasses.replace(manifest, classifier="temper"))
    version = registry.version_register(temper, staging, parent=None, actor="olga")
    ModelVersion.objects.filter(pk=version.pk).update(status=ModelVersion.Status.VERIFIED)
    return temper


@pytest.fixture
def both(temper, teach, monkeypatch) -> Classifier:
    monkeypatch.setattr(jobs, "ring_for", lambda job: None)
    recipe = apply_overrides(Recipe(), ["model_config.members=[mood, temper]"])
    both = Classifier.objects.create(
        slug="both",
        name="Both",
        family="ensemble",
        labels=list(reversed(WORDS)),
        input_fields=["text"],
        recipe=recipe.to_dict(),
        policy={"gate": {"min_samples": 5}},
    )
    teach(both, start=100)
    return both


def test_an_ensemble_is_trained_of_what_is_live_and_outlives_it(both) -> None:
    run = services.run_start(both, actor="olga", then="deploy")
    assert jobs.run(run.job_id) == "succeeded", Job.objects.get(pk=run.job_id).error
    run = TrainingRun.objects.select_related("version__classifier", "job").get(pk=run.pk)
    assert registry.live_version(both) == run.version
    assert "Made of mood/1, temper/1." in run.job.result["notes"]
    for slug in ("mood", "temper"):
        shutil.rmtree(artefacts.version_folder(slug, 1))
    assert registry.version_verify(run.version) == []
    predictor = load(artefacts.version_folder("both", 1))
    (answer,) = predictor.predict([("sunny party, we laugh",)])
    assert predictor.labels == tuple(reversed(WORDS))
    assert predictor.labels[int(answer.probabilities.argmax())] == "glad"


def test_a_member_that_cannot_be_is_told_before_anything_is_queued(both) -> None:
    with pytest.raises(InvalidInput, match="There is no classifier 'tempr'"):
        services.run_start(both, actor="olga", overrides=["model_config.members=[mood, tempr]"])
    with pytest.raises(InvalidInput, match="names no members"):
        services.run_start(both, actor="olga", overrides=["model_config.members=[]"])
    assert not TrainingRun.objects.filter(classifier=both).exists()


def test_a_member_that_broke_meanwhile_ends_the_run_in_one_line(both) -> None:
    run = services.run_start(both, actor="olga")
    (artefacts.version_folder("temper", 1) / "serving" / "model.safetensors").unlink()
    assert jobs.run(run.job_id) == "failed"
    assert "temper/1 cannot be a member: missing from the folder" in Job.objects.get(pk=run.job_id).error
