"""A small installation in which everything has happened once, made by the services, so that nothing in it is wrong."""

import json
import os
import uuid
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest

LABELS = ("joy", "sadness")


@pytest.fixture
def world(db, settings, tmp_path, monkeypatch):
    """A classifier with data, a run, its version in production, an older one, an answer with feedback, and a key."""
    settings.KALIMTAK_MODELS_STORE = tmp_path / "store"
    settings.KALIMTAK_VAR = tmp_path / "var"
    with monkeypatch.context() as patch:  # a hundred of these worlds, and none has to survive a power cut
        patch.setattr(os, "fsync", lambda descriptor: None)
        return build_world()


def build_world():
    from kalimtak.core.auth import Caller, key_create
    from kalimtak.schedules import schedules_ensure
    from registry.models import Classifier
    from registry.recipe import LabelConfig, Policy, Recipe
    from training.services import dataset_add, dataset_load

    schedules_ensure()
    emotion = Classifier.objects.create(
        slug="emotion",
        name="Emotion",
        family="classic",
        labels=list(LABELS),
        input_fields=["text"],
        recipe=Recipe().to_dict(),
        policy=Policy().to_dict(),
        label_config=LabelConfig(labels=LABELS).to_dict(),
        is_default=True,
    )
    rows = "\n".join(json.dumps({"text": f"{LABELS[n % 2]} text {n}", "label": LABELS[n % 2]}) for n in range(60))
    dataset = dataset_add(emotion, source=BytesIO(rows.encode()), name="rows.jsonl", actor="olga")
    dataset_load(dataset)
    key, _ = key_create("Carla", ["predict", "feedback"], actor="olga")
    first, second = make_run(emotion), make_run(emotion)
    interaction = make_interaction(emotion, key, Caller)
    return SimpleNamespace(
        emotion=emotion,
        dataset=dataset,
        key=key,
        run=second,
        job=second.job,
        first=first.version,
        version=second.version,
        live=second.version.deployments.get(),
        interaction=interaction,
        feedback=interaction.feedback.get(),
    )


def make_run(classifier):
    """A run whose job claims, registers, verifies, deploys and ends as its supervisor would."""
    from kalimtak.core import jobs
    from registry import services as registry
    from registry import store
    from training.services import run_start

    run = run_start(classifier, actor="olga", ring=False)
    job = jobs.claim(run.job_id)
    context = jobs.JobContext(job, jobs.LONG_LEASE)
    staging = store.staging_folder(job.pk, job.token)
    scores = seal(staging, classifier, run.snapshot)

    def note(version):
        registry.evaluation_record(version, data_digest=run.snapshot.golden_digest, scores=scores)
        run.version = version
        run.save()

    parent = registry.live_version(classifier)
    registry.version_register(classifier, staging, parent=parent, actor="olga", effect=context.effect, also=note)
    run.version.status = "verified"  # its weights answer nothing: only the hashes are checked here
    run.version.save()
    registry.version_deploy(run.version, actor="olga")
    result = {"version": run.version.ref, "verdict": "passed"}
    jobs._finish(context, jobs._Outcome("succeeded", result=result))
    run.refresh_from_db()
    return run


def seal(folder, classifier, snapshot):
    """An artefact that is whole; its scores."""
    from safetensors.numpy import save_file

    from registry.manifest import Manifest, write_manifest
    from registry.metrics import score

    truth = [LABELS[index % 2] for index in range(100)]
    right = np.arange(100) < 90
    is_joy = (np.arange(100) % 2 == 0) == right
    scores = score(LABELS, truth, np.where(is_joy[:, None], [0.9, 0.1], [0.1, 0.9]))
    (folder / "serving").mkdir()
    save_file({"weight": np.random.default_rng().normal(size=400)}, folder / "serving" / "model.safetensors")
    write_manifest(
        folder,
        Manifest(
            classifier=classifier.slug,
            family="classic",
            labels=LABELS,
            input_fields=("text",),
            preprocessing=1,
            max_length=None,
            recipe={},
            calibration={"temperature": 1.1},
            metrics={"macro_f1": scores.macro_f1, "accuracy": 0.9},
            seed=13,
            snapshot_digest=snapshot.digest,
            libraries={"numpy": "2"},
            parameters={"total": 400, "trainable": 400},
            base_model=None,
            created="2026-01-05T09:30:00+00:00",
        ),
    )
    return scores


def make_interaction(classifier, key, caller_of):
    """An answer, remembered under a request id, that somebody corrected."""
    from interactions.models import UserInteraction
    from interactions.services import NewAnswer, NewInteraction, NewMemo, answers_record, feedback_give
    from registry.models import Deployment

    live = Deployment.objects.live().get()
    row = NewInteraction(
        classifier_id=classifier.pk,
        version_id=live.version_id,
        deployment_id=live.pk,
        fields={"text": "a sunny day"},
        label="joy",
        confidence=0.9,
        scores={"joy": 0.9, "sadness": 0.1},
        threshold=0.5,
        abstained=False,
        pseudonym="c" * 64,
        api_key_id=key.pk,
        address="203.0.113.9",
    )
    response = {"results": [{"interaction_id": str(row.id)}]}
    answers_record([NewAnswer([row], NewMemo("key:carla", str(uuid.uuid4()), "d" * 64, response, key.pk))])
    caller = caller_of(kind="key", name=f"key:{key.prefix}", key_id=key.pk, scopes=frozenset(["feedback"]))
    feedback_give(row.id, caller=caller, rating=2, correct_label="sadness")
    return UserInteraction.objects.get(pk=row.id)


@pytest.fixture
def no_settling(monkeypatch):
    """Findings are looked at twice in a row, without a pause: nothing else writes in these tests."""
    from kalimtak import fsck

    monkeypatch.setattr(fsck.find, "__kwdefaults__", fsck.find.__kwdefaults__ | {"settle_seconds": 0.0})
