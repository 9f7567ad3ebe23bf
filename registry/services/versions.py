"""How an artefact becomes a version, and whether it still is what it was."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from kalimtak.core import audit
from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import Conflict, Unavailable
from kalimtak.core.models import Job
from registry import store
from registry.manifest import ArtefactCorrupt, Manifest, manifest_digest, verify_manifest
from registry.models import Classifier, ModelVersion

logger = logging.getLogger(__name__)

Effect = Callable[[], AbstractContextManager[Any]]

VERIFY_SECONDS = 600
UPLOAD_AGE = timedelta(days=1)  # an upload that nobody wrote to for so long is abandoned


# Registering -----------------------------------------------------------------------------------------------------


def version_register(
    classifier: Classifier,
    staging: Path,
    *,
    parent: ModelVersion | None,
    actor: str,
    effect: Effect = transaction.atomic,
    also: Callable[[ModelVersion], None] | None = None,
) -> ModelVersion:
    """Publish the sealed folder `staging` as the classifier's next version; its status is `registered`.

    Number, folder and row come into being inside `effect()`, a transaction that a job commits only while it holds its
    lease, and so does what `also(version)` writes. A crash between the folder's rename and the commit leaves a folder
    without a row, which the next registration moves aside. Raises `Conflict` where the artefact is corrupt or another
    classifier's.
    """
    manifest = _checked_manifest(classifier, staging)
    with effect():
        # One registration at a time: without this lock two could choose the same number.
        locked = Classifier.objects.select_for_update().get(pk=classifier.pk)
        number = (locked.versions.aggregate(last=Max("number"))["last"] or 0) + 1
        digest = store.publish(staging, locked.slug, number)
        version = ModelVersion.objects.create(
            classifier=classifier,
            number=number,
            family=manifest.family,
            artefact_digest=digest,
            size=sum(entry["size"] for entry in manifest.files.values()),
            labels=list(manifest.labels),
            parameters=manifest.parameters,
            metrics=manifest.metrics,
            calibration=manifest.calibration,
            snapshot_digest=manifest.snapshot_digest or "",
            seed=manifest.seed,
            libraries=manifest.libraries,
            parent=parent,
        )
        if not locked.labels:
            Classifier.objects.filter(pk=locked.pk).update(labels=list(manifest.labels), updated_at=timezone.now())
        audit.record(actor, "version.register", version.ref, digest=digest, family=manifest.family)
        if also is not None:
            also(version)
        crashpoint("version.before_commit")
    classifier.refresh_from_db(fields=["labels"])
    return version


def _checked_manifest(classifier: Classifier, staging: Path) -> Manifest:
    """Hashes take seconds, so they are checked before the transaction is open."""
    try:
        manifest = verify_manifest(staging)
    except ArtefactCorrupt as error:
        raise Conflict(f"The artefact cannot be registered: {error}.", code="corrupt_artefact") from error
    unknown = [label for label in manifest.labels if classifier.labels and label not in classifier.labels]
    differences = {
        "classifier": manifest.classifier != classifier.slug,
        "input fields": list(manifest.input_fields) != list(classifier.input_fields),
        "labels": bool(unknown),
    }
    if wrong := [name for name, differs in differences.items() if differs]:
        raise Conflict(
            f"The artefact does not fit classifier {classifier.slug}: other {', '.join(wrong)}. Train it again.",
            code="wrong_artefact",
        )
    return manifest


# Verifying -------------------------------------------------------------------------------------------------------


def version_verify(version: ModelVersion, *, actor: str = "system") -> list[str]:
    """Check every hash and let a fresh process reproduce the probes; returns the problems found.

    No problems make a version `verified`, any make it `corrupt`; an archived one stays archived unless it is corrupt.
    Raises `Unavailable` where the check itself could not be done; the status then stays as it was.
    """
    problems = artefact_problems(version) or probe_problems(version)
    if problems:
        mark_corrupt(version, problems, actor=actor)
        return problems
    crashpoint("version.before_verified")
    if version.status != ModelVersion.Status.ARCHIVED:
        version.status = ModelVersion.Status.VERIFIED
    version.problems = []
    with transaction.atomic():
        version.save(update_fields=["status", "problems"])
        audit.record(actor, "version.verify", version.ref, digest=version.artefact_digest)
    return []


def artefact_problems(version: ModelVersion, *, contents: bool = True) -> list[str]:
    """What differs from the artefact that was registered: another manifest, or files that are not the manifest's.

    Without `contents` files are compared by name and size alone.
    """
    folder = store.version_folder(version.classifier.slug, version.number)
    if not folder.is_dir():
        return ["the folder is missing from the models store"]
    try:
        if manifest_digest(folder) != version.artefact_digest:
            return ["manifest.json is not the one that was registered"]
        verify_manifest(folder, contents=contents)
    except ArtefactCorrupt as error:
        return [str(error)]
    return []


def mark_corrupt(version: ModelVersion, problems: list[str], *, actor: str) -> None:
    """Keep a version from being deployed until it verifies again (say, after its files were restored)."""
    version.status = ModelVersion.Status.CORRUPT
    version.problems = problems
    logger.error("Version %s is corrupt: %s", version.ref, "; ".join(problems))
    with transaction.atomic():
        version.save(update_fields=["status", "problems"])
        audit.record(actor, "version.corrupt", version.ref, problems=problems)


def probe_problems(version: ModelVersion, *, seconds: float = VERIFY_SECONDS) -> list[str]:
    """What a fresh process answers otherwise than the version's probes say; nothing where it reproduces them all.

    Asks `python -m registry.families.verify`, which ends with one JSON line `{"ok", "problems"}`. Raises `Unavailable`.
    """
    folder = store.version_folder(version.classifier.slug, version.number)
    command = [sys.executable, "-m", "registry.families.verify", str(folder)]
    try:
        done = subprocess.run(
            command,
            cwd=settings.BASE_DIR,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            start_new_session=True,  # a terminal's Ctrl-C is for `train`, which ends in order
        )
        report = json.loads(done.stdout.strip().splitlines()[-1])
        return [] if report["ok"] else [str(problem) for problem in report["problems"]]
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"Checking {version.ref} took over {seconds:.0f} s; try again when the machine is less busy.",
            code="verification_failed",
        ) from error
    except (ValueError, LookupError) as error:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Unavailable(
            f"Checking {version.ref} broke off with exit code {done.returncode}: {last[:300]}",
            code="verification_failed",
        ) from error


# Tidying ---------------------------------------------------------------------------------------------------------


def staging_sweep() -> int:
    """Remove what crashed processes left in the staging area; how many were removed."""
    stale = list(staging_stale())
    for staging in stale:
        store.discard(staging.path)
    return len(stale)


def staging_stale(grace: timedelta = timedelta(minutes=1)) -> Iterator[store.Staging]:
    """What nobody writes to any more.

    An attempt's folder is in use while its job runs under its token; the next attempt has another token and folder.
    The `grace` is for a folder that is older than the transaction that claims its job.
    """
    for staging in store.staged():
        if staging.job_id is None or staging.token is None:
            is_stale = staging.age > UPLOAD_AGE
        else:
            running = Job.objects.filter(pk=staging.job_id, state=Job.State.RUNNING, token=staging.token)
            is_stale = staging.age > grace and not running.exists()
        if is_stale:
            yield staging
