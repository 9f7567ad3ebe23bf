"""A models store of each test's own, and small artefacts, versions and figures to fill it with."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from registry import store
from registry.manifest import Manifest, write_manifest
from registry.metrics import Scores, score
from registry.recipe import LabelConfig, Policy, Recipe

LABELS = ("joy", "sadness")


@pytest.fixture
def models_store(tmp_path: Path, settings: Any) -> Path:
    settings.KALIMTAK_MODELS_STORE = tmp_path / "store"
    return store.root()


def manifest_of(slug: str = "emotion", **changes: Any) -> Manifest:
    return Manifest(
        **{
            "classifier": slug,
            "family": "classic",
            "labels": LABELS,
            "input_fields": ("text",),
            "preprocessing": 1,
            "max_length": None,
            "recipe": {"training_config": {"C": 5.0}},
            "calibration": {"temperature": 1.2},
            "metrics": {"macro_f1": 0.9, "accuracy": 0.91},
            "seed": 13,
            "snapshot_digest": "a" * 64,
            "libraries": {"numpy": "2.4.6"},
            "parameters": {"total": 12, "trainable": 12},
            "base_model": None,
            "created": "2026-01-05T09:30:00+00:00",
        }
        | changes
    )


@pytest.fixture
def make_manifest() -> Callable[..., Manifest]:
    return manifest_of


@pytest.fixture
def make_staging(models_store: Path) -> Callable[..., Path]:
    """A sealed artefact in the staging area, as an attempt of a job leaves it."""

    def make(slug: str = "emotion", **changes: Any) -> Path:
        folder = store.staging_folder(uuid.uuid4(), 1)
        (folder / "serving").mkdir()
        weight = np.random.default_rng().normal(size=12).astype(np.float32)
        save_file({"weight": weight}, folder / "serving" / "model.safetensors")
        (folder / "serving" / "vocabulary.json").write_text(json.dumps({"سعيد": 0}), encoding="utf-8")
        write_manifest(folder, manifest_of(slug, **changes))
        return folder

    return make


@pytest.fixture
def emotion(db: None, models_store: Path) -> Any:
    from registry.models import Classifier

    return Classifier.objects.create(
        slug="emotion",
        name="emotion",
        family="classic",
        labels=list(LABELS),
        input_fields=["text"],
        recipe=Recipe().to_dict(),
        policy=Policy().to_dict(),
        label_config=LabelConfig(labels=LABELS).to_dict(),
        is_default=True,
    )


@pytest.fixture
def make_version(emotion: Any, make_staging: Callable[..., Path]) -> Callable[..., Any]:
    """A registered version that counts as verified; with `correct`, scored on 100 texts of one golden set."""
    from registry.services import evaluation_record, version_register

    def make(correct: int | None = None, *, status: str = "verified", digest: str = "g" * 64) -> Any:
        version = version_register(emotion, make_staging(), parent=None, actor="system")
        version.status = status
        version.save()
        if correct is not None:
            evaluation_record(version, data_digest=digest, scores=scores_of(correct))
        return version

    return make


def scores_of(correct: int, n: int = 100) -> Scores:
    """Figures of a classifier that answers `correct` of `n` texts right, the labels taking turns."""
    truth = [LABELS[index % 2] for index in range(n)]
    right = np.arange(n) < correct
    is_joy = (np.arange(n) % 2 == 0) == right
    return score(LABELS, truth, np.where(is_joy[:, None], [0.9, 0.1], [0.1, 0.9]))


@pytest.fixture
def score_again() -> Callable[..., Any]:
    """Further figures of a version, on the data with the given digest."""
    from registry.services import evaluation_record

    def record(version: Any, correct: int, *, digest: str) -> Any:
        return evaluation_record(version, data_digest=digest, scores=scores_of(correct))

    return record
