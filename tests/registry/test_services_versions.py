"""Registering and verifying: a row and its folder come into being together, and are checked ever after."""

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from kalimtak.core import audit
from kalimtak.core.errors import Conflict, InvalidInput, NotFound, Unavailable
from kalimtak.core.jobs import JobContext, LeaseLost
from kalimtak.core.models import AuditEvent, Job
from registry import store
from registry.manifest import manifest_digest
from registry.models import Classifier, ModelVersion
from registry.services import (
    classifier_get,
    live_version,
    staging_sweep,
    version_get,
    version_register,
    version_verify,
    versions,
)

pytestmark = pytest.mark.django_db


def folder_of(version: ModelVersion) -> Path:
    return store.version_folder(version.classifier.slug, version.number)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def running_job() -> Job:
    return Job.objects.create(kind="train", key=str(uuid.uuid4()), state=Job.State.RUNNING, token=1)


# Registering -----------------------------------------------------------------------------------------------------


def test_a_version_carries_what_its_manifest_says(emotion: Classifier, make_staging: Callable[..., Path]) -> None:
    version = version_register(emotion, make_staging(), parent=None, actor="tala")
    assert (version.ref, version.status, version.family) == ("emotion/1", "registered", "classic")
    assert version.artefact_digest == manifest_digest(folder_of(version))
    assert (version.labels, version.seed, version.snapshot_digest) == (["joy", "sadness"], 13, "a" * 64)
    assert version.metrics == {"macro_f1": 0.9, "accuracy": 0.91}
    assert version.size == sum(path.stat().st_size for path in (folder_of(version) / "serving").iterdir())
    event = AuditEvent.objects.get(action="version.register")
    assert (event.actor, event.target, event.data["digest"]) == ("tala", "emotion/1", version.artefact_digest)


def test_numbers_go_up_and_parents_are_kept(emotion: Classifier, make_staging: Callable[..., Path]) -> None:
    first = version_register(emotion, make_staging(), parent=None, actor="tala")
    second = version_register(emotion, make_staging(), parent=first, actor="tala")
    assert (second.number, second.parent) == (2, first)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("window", ["before the rename", "between rename and commit"])
def test_a_process_killed_while_registering_costs_a_folder_and_no_number(
    emotion: Classifier, make_staging: Callable[..., Path], models_store: Path, window: str
) -> None:
    @contextmanager
    def killed() -> Iterator[None]:
        with transaction.atomic():
            if window == "before the rename":
                os.kill(os.getpid(), signal.SIGKILL)
            yield
            os.kill(os.getpid(), signal.SIGKILL)

    staging = make_staging()
    in_child_process(lambda: version_register(emotion, staging, parent=None, actor="tala", effect=killed))
    left_over = window == "between rename and commit"
    assert store.version_folder("emotion", 1).is_dir() == left_over
    assert not ModelVersion.objects.exists()
    assert not AuditEvent.objects.exists()

    version = version_register(emotion, make_staging(), parent=None, actor="tala")
    assert version.number == 1
    assert version.artefact_digest == manifest_digest(folder_of(version))
    orphans = models_store / "_orphans"
    assert (len(list(orphans.iterdir())) if orphans.exists() else 0) == left_over
    assert audit.verify() == []


def in_child_process(act: Callable[[], Any]) -> None:
    """Run `act` in a fork, which must end by SIGKILL."""
    connection.close()
    if connection.vendor == "postgresql":
        connection.close_pool()
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_what_cannot_be_noted_with_a_version_undoes_its_row(
    emotion: Classifier, make_staging: Callable[..., Path]
) -> None:
    def fail(version: ModelVersion) -> None:
        assert version.number == 1
        raise RuntimeError

    with pytest.raises(RuntimeError):
        version_register(emotion, make_staging(), parent=None, actor="tala", also=fail)
    assert not ModelVersion.objects.exists()


def test_an_attempt_that_was_overtaken_registers_nothing(
    emotion: Classifier, make_staging: Callable[..., Path]
) -> None:
    job = running_job()
    context = JobContext(job, timedelta(minutes=1))
    Job.objects.filter(pk=job.pk).update(token=2)
    staging = make_staging()
    with pytest.raises(LeaseLost):
        version_register(emotion, staging, parent=None, actor="tala", effect=context.effect)
    assert not ModelVersion.objects.exists()
    assert list(store.published()) == []
    assert staging.is_dir()


def test_a_corrupt_artefact_is_not_registered(emotion: Classifier, make_staging: Callable[..., Path]) -> None:
    staging = make_staging()
    flip_a_bit(staging / "serving" / "model.safetensors")
    with pytest.raises(Conflict, match="altered") as refused:
        version_register(emotion, staging, parent=None, actor="tala")
    assert refused.value.code == "corrupt_artefact"


@pytest.mark.parametrize(
    "changes", [{"classifier": "intent"}, {"input_fields": ("a", "b")}, {"labels": ("joy", "gloom")}]
)
def test_another_classifiers_artefact_is_not_registered(
    emotion: Classifier, make_staging: Callable[..., Path], changes: dict[str, Any]
) -> None:
    with pytest.raises(Conflict) as refused:
        version_register(emotion, make_staging(**changes), parent=None, actor="tala")
    assert refused.value.code == "wrong_artefact"


def test_a_classifier_without_labels_takes_those_of_its_first_version(
    emotion: Classifier, make_staging: Callable[..., Path]
) -> None:
    Classifier.objects.update(labels=[])
    emotion.refresh_from_db()
    version_register(emotion, make_staging(), parent=None, actor="tala")
    assert emotion.labels == ["joy", "sadness"] == Classifier.objects.get().labels


# Verifying -------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_makes_a_version_corrupt(make_version: Callable[..., ModelVersion]) -> None:
    version = make_version()
    flip_a_bit(folder_of(version) / "serving" / "model.safetensors")
    (problem,) = version_verify(version, actor="olga")
    assert "model.safetensors was altered" in problem
    version.refresh_from_db()
    assert (version.status, version.problems) == ("corrupt", [problem])
    assert AuditEvent.objects.filter(actor="olga", action="version.corrupt", target="emotion/1").exists()


def test_another_whole_artefact_in_its_place_is_noticed_and_not_loaded(
    make_version: Callable[..., ModelVersion], make_staging: Callable[..., Path]
) -> None:
    version = make_version()
    store.publish(make_staging(), "emotion", version.number)
    assert version_verify(version) == ["manifest.json is not the one that was registered"]


def test_a_missing_folder_is_a_problem(make_version: Callable[..., ModelVersion]) -> None:
    version = make_version()
    folder_of(version).rename(folder_of(version).with_name("9"))
    assert version_verify(version) == ["the folder is missing from the models store"]


def test_a_check_that_breaks_off_changes_no_status(
    make_version: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make_version()
    monkeypatch.setattr(versions.sys, "executable", "/bin/false")
    with pytest.raises(Unavailable, match="broke off with exit code 1"):
        version_verify(version)
    version.refresh_from_db()
    assert version.status == "verified"


# Finding ---------------------------------------------------------------------------------------------------------


def test_a_version_is_found_by_its_reference(make_version: Callable[..., ModelVersion]) -> None:
    version = make_version()
    assert version_get("emotion/1") == version


@pytest.mark.parametrize(
    "reference", ["emotion", "emotion/", "emotion/0", "emotion/-1", "emotion/1/2", "../1", "", "emotion/1٣"]
)
def test_what_is_no_reference_is_refused_with_the_form(db: None, reference: str) -> None:
    with pytest.raises(InvalidInput, match="emotion/3"):
        version_get(reference)


def test_an_unknown_version_is_not_found(make_version: Callable[..., ModelVersion]) -> None:
    make_version()
    with pytest.raises(NotFound):
        version_get("emotion/2")


def test_classifiers_are_found_by_slug_or_as_the_default(emotion: Classifier) -> None:
    assert classifier_get() == classifier_get("emotion") == emotion
    assert live_version(emotion) is None
    with pytest.raises(NotFound, match="enabled are: emotion"):
        classifier_get("intent")
    Classifier.objects.update(enabled=False)
    with pytest.raises(NotFound, match="default"):
        classifier_get()


# Tidying ---------------------------------------------------------------------------------------------------------


def test_only_folders_of_attempts_that_are_over_are_swept(
    emotion: Classifier, models_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = running_job()
    in_use, overtaken = store.staging_folder(job.pk, 1), store.staging_folder(job.pk, 0)
    assert staging_sweep() == 0  # all too fresh to judge
    monkeypatch.setattr(store.time, "time", lambda: in_use.stat().st_mtime + 120)
    assert staging_sweep() == 1
    assert in_use.is_dir()
    assert not overtaken.exists()
