"""Classifiers that answer by the installation's own code: from models.yaml to a version, with and without data."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from kalimtak import fsck
from kalimtak.core import jobs
from kalimtak.core.errors import InvalidInput
from registry.config import models_sync
from registry.models import Classifier
from training import services
from training.models import TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)

YAML = """
- name: Mood
  type: {type}
  loader: tests.training.own_mood:load
  label_config: {{labels: [glad, sad, calm]}}
"""


@pytest.fixture(autouse=True)
def no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ring_for", lambda job: None)


@pytest.fixture
def own_mood(store: Path, tmp_path: Path) -> Classifier:
    path = tmp_path / "models.yaml"
    path.write_text(YAML.format(type="custom"))
    models_sync(path, actor="olga")
    return Classifier.objects.get(slug="mood")


def train(*options: str) -> str:
    out = StringIO()
    call_command("train", "mood", *options, stdout=out)
    return out.getvalue()


def test_without_data_the_code_is_checked_and_becomes_a_version(own_mood: Classifier) -> None:
    printed = train("--deploy")
    assert "Type custom is not trained; its code was checked and evaluated." in printed
    assert "There is no golden set to judge it on" in printed
    assert "Gate: passed. This is the first version" in printed
    assert "Deployed to production." in printed
    version = own_mood.versions.get()
    assert (version.family, version.status, version.metrics) == ("custom", "verified", {})
    assert not version.evaluations.exclude(scores={}).exists()
    assert not fsck.find(settle_seconds=0)


def test_with_data_it_is_judged_on_the_golden_set(own_mood: Classifier, teach: Callable[..., object]) -> None:
    teach(own_mood)
    printed = train()
    assert "eval_accuracy\t1.0000" in printed
    assert own_mood.versions.get().metrics["macro_f1"] == 1.0


def test_a_classic_entry_with_a_loader_is_the_same(own_mood: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(YAML.format(type="classic"))
    models_sync(path, actor="olga")
    own_mood.refresh_from_db()
    assert (own_mood.family, own_mood.loader) == ("custom", "tests.training.own_mood:load")


def test_an_entry_that_lost_its_loader_loses_it_here(own_mood: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("- name: Mood\n  type: classic\n  label_config: {labels: [glad, sad, calm]}\n")
    models_sync(path, actor="olga")
    own_mood.refresh_from_db()
    assert (own_mood.family, own_mood.loader) == ("classic", "")


def test_the_weekly_job_leaves_it_alone(own_mood: Classifier, teach: Callable[..., object]) -> None:
    teach(own_mood)
    (outcome,) = services.fine_tune(key="week 7")
    assert outcome.outcome == "skipped, type custom is not trained"
    assert not TrainingRun.objects.exists()


def test_a_classifier_without_a_loader_cannot_be_of_that_type(taught_mood: Classifier) -> None:
    with pytest.raises(InvalidInput, match=r"mood has none: add it to models\.yaml"):
        services.run_start(taught_mood, actor="olga", family="custom")


def test_a_config_for_one_run_names_no_code(taught_mood: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(YAML.format(type="custom"))
    with pytest.raises(CommandError, match=r"takes effect through models\.yaml alone") as refused:
        train("--config", str(path))
    assert refused.value.returncode == 2
