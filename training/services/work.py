"""The folders in which runs work, `var/runs/<job id>/`.

    checkpoints/          survives attempts, so that the next one goes on from it
    trainer.json          which process trains now
    attempt-<token>/      what one attempt was given and reported; its texts are removed when it ends

A finished run leaves nothing; a failed or cancelled one keeps its checkpoints for `train --resume` for a while.
"""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from kalimtak.core.models import Job

KEPT_AFTER_FAILURE = timedelta(days=7)


class WorkFolder:
    """Where job `job_id` trains; made if need be."""

    def __init__(self, job_id: uuid.UUID) -> None:
        self.path = runs_root() / str(job_id)
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def pid_file(self) -> Path:
        return self.path / "trainer.json"

    @property
    def has_checkpoints(self) -> bool:
        return self.checkpoints.is_dir() and any(self.checkpoints.iterdir())

    def attempt(self, token: int) -> Path:
        """A fresh folder for attempt `token`; those of attempts before it go."""
        for older in self.path.glob("attempt-*"):
            shutil.rmtree(older, ignore_errors=True)
        folder = self.path / f"attempt-{token}"
        folder.mkdir()
        return folder

    def adopt_checkpoints(self, job_id: uuid.UUID) -> None:
        """Take over the checkpoints of another run's job, where it left some and this one has none of its own."""
        theirs = runs_root() / str(job_id) / "checkpoints"
        if theirs.is_dir() and not self.checkpoints.exists():
            theirs.rename(self.checkpoints)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def encoder_cache() -> Path:
    """Outputs of frozen encoders by the digest of their text, shared by all runs on this machine; may be emptied."""
    return Path(settings.KALIMTAK_VAR) / "cache" / "encoders"


def runs_root() -> Path:
    return Path(settings.KALIMTAK_VAR) / "runs"


def work_folders() -> Iterator[tuple[uuid.UUID, Path]]:
    """Every folder of a job; what somebody else put beside them is left out."""
    for folder in sorted(runs_root().glob("*")):
        with suppress(ValueError):
            yield uuid.UUID(folder.name), folder


def work_sweep() -> int:
    """Remove the folders of jobs that ended a week ago or are not known any more; how many were removed."""
    removed = 0
    for job_id, folder in work_folders():
        job = Job.objects.filter(pk=job_id).first()
        if job is None or (job.finished_at and job.finished_at < timezone.now() - KEPT_AFTER_FAILURE):
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed
