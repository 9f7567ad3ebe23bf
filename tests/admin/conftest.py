"""The cast with their roles, and a small installation in which everything has happened once."""

import json
import uuid
from types import SimpleNamespace

import numpy as np
import pytest
from django.utils import timezone

LABELS = ("joy", "sadness", "anger", "fear")
HOSTILE = '<script>alert("x")</script> سعيد جدا \u202e'


@pytest.fixture
def people(db):
    """Olga, Rami, Tala, Dina and Nadia, by name."""
    from django.contrib.auth.models import Group, User

    from kalimtak.roles import roles_ensure

    roles_ensure()
    cast = {"olga": None, "rami": "annotator", "tala": "trainer", "dina": "deployer", "vera": "viewer", "nadia": None}
    for name, role in cast.items():
        user = User.objects.create(username=name, is_staff=True, is_superuser=name == "olga")
        if role:
            user.groups.add(Group.objects.get(name=role))
        cast[name] = user
    return SimpleNamespace(**cast)


@pytest.fixture
def sign_in(client, people):
    """A client with the session of somebody of the cast."""

    def sign_in(name):
        client.force_login(getattr(people, name))
        return client

    return sign_in


@pytest.fixture
def world(people, settings, tmp_path):
    """One row or more of every table, made by the services where there is one."""
    settings.KALIMTAK_MODELS_STORE = tmp_path / "store"
    settings.KALIMTAK_VAR = tmp_path / "var"
    return build_world(people.tala)


def build_world(trainer):
    from kalimtak.core import audit
    from kalimtak.core.alerts import alert_open
    from kalimtak.core.auth import key_create
    from kalimtak.core.models import Alert
    from kalimtak.schedules import schedules_ensure
    from registry.models import Classifier
    from registry.recipe import LabelConfig, Policy, Recipe
    from registry.services import version_deploy, version_judge

    schedules_ensure()
    described = {"joy": "😊 gladness", "sadness": "😢 sorrow", "anger": "😠 fury", "fear": "😨 dread"}
    emotion = Classifier.objects.create(
        slug="emotion",
        name="Emotion",
        family="classic",
        labels=list(LABELS),
        input_fields=["text"],
        recipe=Recipe().to_dict(),
        policy=Policy().to_dict(),
        label_config=LabelConfig(labels=LABELS, descriptions=described).to_dict(),
        is_default=True,
    )
    first, second = make_version(emotion, right=80), make_version(emotion, right=85)
    version_deploy(first, actor="dina", reason="the first")
    version_judge(second)
    key, _ = key_create("Carla", ["predict"], actor="olga")
    alert_open("version_load", "emotion", f"emotion/2 cannot be loaded: {HOSTILE}")
    audit.record("olga", "test.happened", "emotion")
    interaction = make_interaction(emotion, first)
    items = make_items(emotion, interaction)
    return SimpleNamespace(
        emotion=emotion,
        first=first,
        second=second,
        key=key,
        alert=Alert.objects.get(),
        interaction=interaction,
        items=items,
        feedback=interaction.feedback.get(),
        **make_learning(emotion, first, trainer),
    )


def make_version(classifier, *, right):
    """A published version that answers `right` of 100 golden texts right."""
    from safetensors.numpy import save_file

    from registry import store
    from registry.manifest import Manifest, write_manifest
    from registry.metrics import score
    from registry.services import evaluation_record, version_register

    truth = [LABELS[index % len(LABELS)] for index in range(100)]
    answered = [(index % len(LABELS) + (index >= right)) % len(LABELS) for index in range(100)]
    probabilities = np.full((100, len(LABELS)), 0.05)
    probabilities[np.arange(100), answered] = 0.85
    scores = score(LABELS, truth, probabilities)
    folder = store.staging_folder(uuid.uuid4(), 1)
    (folder / "serving").mkdir()
    save_file({"weight": np.random.default_rng().normal(size=4)}, folder / "serving" / "model.safetensors")
    (folder / "model_card.md").write_text(f"# emotion\n\n{HOSTILE}\n", encoding="utf-8")
    (folder / "confusion_matrix.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    manifest = Manifest(
        classifier=classifier.slug,
        family="classic",
        labels=LABELS,
        input_fields=("text",),
        preprocessing=1,
        max_length=None,
        recipe={},
        calibration={"temperature": 1.1},
        metrics={"macro_f1": scores.macro_f1, "accuracy": scores.accuracy},
        seed=13,
        snapshot_digest="a" * 64,
        libraries={"numpy": "2"},
        parameters={"total": 4, "trainable": 4},
        base_model=None,
        created="2026-01-05T09:30:00+00:00",
    )
    write_manifest(folder, manifest)
    version = version_register(classifier, folder, parent=None, actor="tala")
    version.status = "verified"
    version.save()
    evaluation_record(version, data_digest="g" * 64, scores=scores)
    return version


def make_interaction(classifier, version):
    """An answer to a hostile text, with a personal record and a correction."""
    from interactions.models import Feedback, PersonalRecord, UserInteraction

    interaction = UserInteraction.objects.create(
        classifier=classifier,
        version=version,
        fields={"text": HOSTILE},
        label="joy",
        confidence=0.7,
        scores={"joy": 0.7, "sadness": 0.2, "anger": 0.06, "fear": 0.04},
        created_at=timezone.now(),
        rating=2,
        comment=HOSTILE,
        correction="sadness",
    )
    PersonalRecord.objects.create(
        interaction=interaction, address="203.0.113.9", user_agent="curl/8", created_at=timezone.now()
    )
    Feedback.objects.create(
        interaction=interaction,
        source="key:abc",
        trusted=True,
        rating=2,
        comment=HOSTILE,
        correct_label="sadness",
        updated_at=timezone.now(),
    )
    return interaction


def make_items(classifier, interaction):
    """Five items that wait for review, the first from the interaction, and forty that are approved."""
    from training.models import TrainingDataItem

    waiting = [
        TrainingDataItem.objects.create(
            classifier=classifier,
            interaction=interaction if number == 0 else None,
            origin="corrected" if number == 0 else "import",
            source="key:abc",
            fields={"text": HOSTILE if number == 0 else f"waiting text {number}"},
            label="sadness",
            status="review",
            reason=HOSTILE if number == 0 else "two sources disagree",
            content_hash=f"{number:064x}",
        )
        for number in range(5)
    ]
    TrainingDataItem.objects.bulk_create(
        TrainingDataItem(
            classifier=classifier,
            fields={"text": f"approved {LABELS[number % 4]} number {number}"},
            label=LABELS[number % 4],
            status="approved",
            content_hash=f"{number:063x}f",
        )
        for number in range(40)
    )
    return waiting


def make_learning(classifier, version, trainer):
    """A data set, a finished run with its curve, its snapshot and its job."""
    from kalimtak.core.models import Job
    from training.models import Dataset, DatasetSnapshot, Review, SnapshotItem, TrainingDataItem, TrainingRun
    from training.services import words_add

    words_add(["grr*", "حمق"], effect="block", classifier=classifier, actor="tala")
    job = Job.objects.create(
        kind="train", key="train:1", state="succeeded", progress=1.0, result={"version": version.ref}, actor="tala"
    )
    waiting = Job.objects.create(kind="import", key="import:1", actor="tala", note=HOSTILE, params={"name": HOSTILE})
    snapshot = DatasetSnapshot.objects.create(
        classifier=classifier, digest="d" * 64, counts={"train": {"joy": 10}, "valid": {}, "test": {"joy": 2}}
    )
    SnapshotItem.objects.create(
        snapshot=snapshot,
        item=TrainingDataItem.objects.filter(status="review").first(),
        content_hash="0" * 64,
        label="sadness",
        split="train",
    )
    history = [
        {"step": step, "epoch": step / 10, "loss": 1 / step, "learning_rate": 1e-4 / step, "samples_per_second": 133.0}
        for step in range(1, 31)
    ]
    history += [
        {"step": 10 * epoch, "epoch": float(epoch), "eval_loss": 0.5, "eval_accuracy": 0.9, "eval_macro_f1": macro_f1}
        for epoch, macro_f1 in ((1, 0.7), (2, 0.9), (3, 0.8))
    ]
    told = {
        "history": sorted(history, key=lambda point: point["step"]),
        "facts": {"device": "cpu", "precision": "bf16", "effective_batch": 32, "steps": 30, "epochs": 3},
        "notes": ["The weights are those of evaluation 2, the best one."],
    }
    run = TrainingRun.objects.create(
        job=job, classifier=classifier, snapshot=snapshot, family="classic", version=version, **told
    )
    dataset = Dataset.objects.create(
        classifier=classifier, name=f"{HOSTILE}.csv", origin="upload", state="pending", job=waiting, actor="tala"
    )
    item = TrainingDataItem.objects.filter(status="review").last()
    Review.objects.create(item=item, reviewer=trainer, verdict="approve", label=item.label)
    return {"job": job, "waiting_job": waiting, "snapshot": snapshot, "run": run, "dataset": dataset}


@pytest.fixture
def jsonl():
    """An upload of labelled texts."""
    from django.core.files.uploadedfile import SimpleUploadedFile

    rows = [{"text": f"{LABELS[n % 4]} text {n}", "label": LABELS[n % 4]} for n in range(24)]
    return SimpleUploadedFile("texts.jsonl", "\n".join(map(json.dumps, rows)).encode())
