"""What django-q2 calls: wake-ups for jobs, and the reaper's tick."""

import logging
import subprocess
import sys
from pathlib import Path

from django.conf import settings
from django.utils.module_loading import import_string

from . import jobs, reaper
from .models import Job

logger = logging.getLogger(__name__)
_supervisors: list[subprocess.Popen[bytes]] = []


def job_wake(job_id: str) -> str:
    """Run a short job here; hand a long one to a supervisor process of its own and return at once.

    So no time limit of the queue ever covers real work, and torch never lives in a queue worker.
    """
    job = jobs.ready().filter(pk=job_id).first()
    if job is None:
        return "nothing to do"
    if not jobs.kind_of(job.kind).is_long:
        return jobs.run(job.pk)
    if _slot_is_busy(job):
        return "waits for its slot"
    supervisor_spawn(job)
    return "supervisor started"


def _slot_is_busy(job: Job) -> bool:
    slot = jobs.slot_of(job)
    return bool(slot) and Job.objects.filter(slot=slot, state=Job.State.RUNNING).exists()


def supervisor_spawn(job: Job) -> int:
    """Start `manage.py run_job ID` in a session of its own; its output goes to `var/logs/jobs/<id>.log`."""
    _supervisors[:] = [process for process in _supervisors if process.poll() is None]  # reaps the finished ones
    folder = settings.KALIMTAK_VAR / "logs" / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    manage = Path(settings.BASE_DIR) / "manage.py"
    with (folder / f"{job.pk}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(manage), "run_job", str(job.pk)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=settings.BASE_DIR,
        )
    _supervisors.append(process)
    logger.info("Job %s (%s) handed to process %s", job.pk, job.kind, process.pid)
    return process.pid


def reap() -> int:
    """The reaper's tick, from a schedule; then what else each machine has to look after (`KALIMTAK_CARETAKERS`)."""
    taken_back = reaper.reap()
    for name in settings.KALIMTAK_CARETAKERS:
        import_string(name)()
    return taken_back
