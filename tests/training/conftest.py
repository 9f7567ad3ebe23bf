"""A classifier with enough examples to learn from in a second."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry.families.base import Example
from registry.recipe import Recipe
from training.run_process import TrainerProcess
from training.run_spec import EXIT_DONE, RunSpec

if TYPE_CHECKING:  # Django is set up after this file is read
    from django.contrib.auth.models import User

    from interactions.models import Feedback, UserInteraction
    from registry.models import Classifier
    from training.models import TrainingDataItem, TrainingRun

WORDS = {"glad": "sunny smile laugh party", "sad": "tears alone grave loss", "calm": "lake tea quiet breath"}
FILLERS = ("today", "again", "really", "then", "with", "my", "old", "friend", "and", "neighbour", "at", "home", "too")


def sentence(label: str, number: int) -> str:
    """A sentence of its own for each number, with words that give its label away."""
    telling = WORDS[label].split()
    filler = " ".join(FILLERS[(number * step) % len(FILLERS)] for step in (1, 3, 5))
    return f"{telling[number % 4]} {filler} {telling[number // 4 % 4]} {number}"


@pytest.fixture
def store(settings, tmp_path: Path) -> Path:
    """An empty models store and scratch folder of this test's own."""
    settings.KALIMTAK_MODELS_STORE = tmp_path / "store"
    settings.KALIMTAK_VAR = tmp_path / "var"
    return tmp_path / "store"


@pytest.fixture
def mood(store: Path) -> "Classifier":
    """A classic classifier without any items."""
    from registry.models import Classifier

    return Classifier.objects.create(
        slug="mood",
        name="Mood",
        family="classic",
        labels=list(WORDS),
        input_fields=["text"],
        is_default=True,
        policy={"gate": {"min_samples": 5}},
    )


@pytest.fixture
def teach() -> "Callable[..., list[TrainingDataItem]]":
    """Give a classifier `count` approved items per label, numbered from `start`."""
    from training.models import TrainingDataItem

    def teach(classifier: "Classifier", count: int = 30, start: int = 0, **values: object) -> "list[TrainingDataItem]":
        return TrainingDataItem.objects.bulk_create(
            TrainingDataItem(
                classifier=classifier,
                fields={"text": sentence(label, number)},
                label=label,
                content_hash=f"{index:032x}{number:032x}",
                **{"status": "approved", **values},
            )
            for index, label in enumerate(WORDS)
            for number in range(start, start + count)
        )

    return teach


@pytest.fixture
def taught_mood(mood: "Classifier", teach: "Callable[..., list[TrainingDataItem]]") -> "Classifier":
    teach(mood)
    return mood


@pytest.fixture
def ask(mood: "Classifier") -> "Callable[..., UserInteraction]":
    """Record that `mood` answered a text with a label."""
    from django.utils import timezone

    from interactions.models import UserInteraction
    from registry.models import ModelVersion

    version = ModelVersion.objects.create(classifier=mood, number=1, family="classic", artefact_digest="0" * 64)

    def ask(text: str, label: str = "glad", **values: object) -> "UserInteraction":
        return UserInteraction.objects.create(
            classifier=mood,
            version=version,
            fields={"text": text},
            label=label,
            confidence=0.9,
            created_at=timezone.now(),
            **values,
        )

    return ask


@pytest.fixture
def judge() -> "Callable[..., Feedback]":
    """Give feedback on an interaction, as Carla's key unless told otherwise."""
    from django.utils import timezone

    from interactions.models import Feedback

    def judge(interaction: "UserInteraction", source: str = "key:carla", **values: object) -> "Feedback":
        values = {"trusted": True, "updated_at": timezone.now(), **values}
        return Feedback.objects.create(interaction=interaction, source=source, **values)

    return judge


@pytest.fixture
def rami() -> "User":
    """Reviews."""
    from django.contrib.auth.models import User

    return User.objects.create_user("rami", is_staff=True)


@pytest.fixture(scope="session")
def sealed_run(tmp_path_factory: pytest.TempPathFactory) -> RunSpec:
    """A finished run of a real trainer for classifier `mood`: what it sealed lies in `out`. Made once, to be copied."""
    folder = tmp_path_factory.mktemp("sealed")
    for name in ("work", "out", "checkpoints"):
        (folder / name).mkdir()
    spec = RunSpec(
        classifier="mood",
        description="How one feels.",
        label_descriptions={"glad": "smiles"},
        family="classic",
        labels=tuple(WORDS),
        input_fields=("text",),
        recipe=Recipe().to_dict(),
        snapshot_digest="a" * 64,
        golden_digest="b" * 64,
        counts={"train": dict.fromkeys(WORDS, 20)},
        folder=folder / "work",
        out=folder / "out",
        checkpoints=folder / "checkpoints",
        champion=None,
        resume=False,
        supervisor=os.getpid(),
    )
    write_examples(spec)
    spec.write()
    with TrainerProcess(spec, spec.folder / "trainer.json") as trainer:
        while trainer.returncode() is None:
            time.sleep(0.02)
        assert trainer.returncode() == EXIT_DONE, trainer.last_words()
    return spec


def write_examples(spec: RunSpec) -> None:
    for split, numbers in {"train": range(20), "valid": range(20, 25), "golden": range(25, 30)}.items():
        spec.write_examples(
            split, [Example((sentence(label, number),), label) for label in WORDS for number in numbers]
        )


@pytest.fixture
def trained_mood(taught_mood: "Classifier", sealed_run: RunSpec) -> "TrainingRun":
    """The run that made `mood/1`, verified, judged and deployed, as if a trainer had just ended."""
    from kalimtak.core.models import Job
    from registry import services as registry
    from registry import store as artefacts
    from registry.metrics import Scores
    from registry.models import ModelVersion
    from training import services

    run = services.run_start(taught_mood, actor="olga", ring=False)
    staging = artefacts.staging_folder(run.job_id, 1)
    shutil.copytree(sealed_run.out, staging, dirs_exist_ok=True)
    run.version = registry.version_register(taught_mood, staging, parent=None, actor="olga")
    run.save()
    ModelVersion.objects.update(status=ModelVersion.Status.VERIFIED)
    result = json.loads(sealed_run.result.read_text())
    registry.evaluation_record(
        run.version,
        data_digest=run.snapshot.golden_digest,
        scores=Scores.from_dict(result["scores"]),
        slices=result["slices"],
    )
    registry.version_deploy(run.version, actor="olga")
    Job.objects.filter(pk=run.job_id).update(state=Job.State.SUCCEEDED, progress=1.0)
    run.job.refresh_from_db()
    return run


@pytest.fixture
def add(mood):
    """Makes an item of `mood` with a text, by default one that waits for review."""
    from training.etl.duplicates import content_hash
    from training.models import TrainingDataItem

    def add(text, label="glad", status="review", **values):
        return TrainingDataItem.objects.create(
            classifier=mood,
            fields={"text": text},
            label=label,
            status=status,
            content_hash=content_hash([text]),
            **values,
        )

    return add
