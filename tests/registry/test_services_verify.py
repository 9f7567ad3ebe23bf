"""`version_verify` with a really trained model: a fresh process reproduces its probes, or says what differs."""

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from registry import store
from registry.families import family
from registry.families.base import Example, FitRequest, Silent
from registry.families.probes import write_probes
from registry.manifest import MANIFEST_NAME, Manifest, write_manifest
from registry.models import Classifier, ModelVersion
from registry.recipe import Recipe
from registry.services import version_register, version_verify

pytestmark = pytest.mark.django_db
TEXTS = {"joy": ["what a lovely day", "so happy", "great news"], "sadness": ["i miss her", "so sad", "i cried"]}


def train(slug: str, checkpoints: Path, make_manifest: Any) -> Path:
    """A staged artefact of the classic family, with its probes."""
    examples = [Example((text,), label) for label, texts in TEXTS.items() for text in texts * 4]
    out = store.staging_folder(uuid.uuid4(), 1)
    request = FitRequest(
        labels=tuple(TEXTS),
        input_fields=("text",),
        recipe=Recipe(),
        train=examples,
        valid=examples,
        out=out,
        checkpoints=checkpoints,
        reporter=Silent(),
    )
    fitted = family("classic").fit(request)
    manifest: Manifest = make_manifest(slug, calibration=fitted.calibration, parameters=fitted.parameters)
    write_probes(out, family("classic").load(out, manifest))
    write_manifest(out, manifest)
    return out


@pytest.fixture
def trained(emotion: Classifier, tmp_path: Path, make_manifest: Any) -> ModelVersion:
    staging = train("emotion", tmp_path / "checkpoints", make_manifest)
    return version_register(emotion, staging, parent=None, actor="tala")


def test_a_version_that_reproduces_its_probes_is_verified(trained: ModelVersion) -> None:
    assert trained.status == "registered"
    assert version_verify(trained) == []
    trained.refresh_from_db()
    assert (trained.status, trained.problems) == ("verified", [])


def test_ctrl_c_in_a_terminal_does_not_reach_the_fresh_process(
    trained: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport json, os\n"
        'print(json.dumps({"ok": os.getsid(0) == os.getpid(), "problems": ["shares the session of its parent"]}))\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert version_verify(trained) == []


def test_a_version_that_answers_otherwise_is_corrupt(emotion: Classifier, tmp_path: Path, make_manifest: Any) -> None:
    """Every hash agrees, but the answers are not those that were given when the probes were written."""
    staging = train("emotion", tmp_path / "checkpoints", make_manifest)
    probes = staging / "probes.json"
    probes.write_text(json.dumps(_shifted(json.loads(probes.read_text("utf-8")))), encoding="utf-8")
    sealed = Manifest.from_dict(json.loads((staging / MANIFEST_NAME).read_text("utf-8")))
    (staging / MANIFEST_NAME).unlink()
    write_manifest(staging, sealed)
    version = version_register(emotion, staging, parent=None, actor="tala")
    assert version_verify(version)
    version.refresh_from_db()
    assert version.status == "corrupt"


def _shifted(value: Any) -> Any:
    """The same JSON, every list of probabilities turned round."""
    if isinstance(value, dict):
        return {key: _shifted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        is_answer = bool(value) and all(isinstance(entry, float) for entry in value)
        return value[::-1] if is_answer else [_shifted(entry) for entry in value]
    return value
