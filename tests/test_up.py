"""`manage.py up`: what it starts it also stops, in time and nothing else."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from django.db import OperationalError

from kalimtak.core.errors import InvalidInput
from kalimtak.core.models import Job
from kalimtak.core.owners import owner_of
from kalimtak.management.commands import up
from training.run_process import STOP_SECONDS

# A worker that has just handed a job to a supervisor, which is still starting.
WORKER = """
import subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(60)", "run_job", "01990f9e"]
print(subprocess.Popen(sleeper, start_new_session=True).pid, file=open(sys.argv[1], "w"), flush=True)
time.sleep(60)
"""


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor, by its command line."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "run_job", "01990f9e"])
    yield process
    process.kill()
    process.wait()


def own(process: subprocess.Popen[bytes], kind: str) -> None:
    """A running job that `process` holds."""
    Job.objects.create(kind=kind, key=kind, state=Job.State.RUNNING, owner=owner_of(process.pid))


@pytest.mark.django_db
def test_a_supervisor_that_has_not_claimed_its_job_yet_is_stopped_too(tmp_path: Path) -> None:
    script, noted = tmp_path / "worker.py", tmp_path / "pid"
    script.write_text(WORKER)
    worker = up.Supervised("worker", f"{sys.executable} {script} {noted}", 0)
    until = time.monotonic() + 20
    while not (noted.exists() and noted.read_text().strip()):
        assert time.monotonic() < until
        time.sleep(0.02)
    supervisor = int(noted.read_text())
    assert not is_gone(supervisor)
    up.stop_all([worker])
    assert is_gone(supervisor)
    assert is_gone(worker.process.pid)


@pytest.mark.django_db
def test_who_holds_a_long_job_is_asked_to_stop(sleeper: subprocess.Popen[bytes]) -> None:
    own(sleeper, "train")
    up.stop_all([])
    assert is_gone(sleeper.pid)


@pytest.mark.django_db
def test_who_holds_a_short_job_may_finish_it(sleeper: subprocess.Popen[bytes]) -> None:
    own(sleeper, "fine_tune")
    up.stop_all([])
    assert not is_gone(sleeper.pid)


@pytest.mark.django_db
def test_a_training_in_another_terminal_goes_on() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        own(process, "train")
        up.stop_all([])
        assert not is_gone(process.pid)
        process.kill()


@pytest.mark.django_db
def test_all_is_stopped_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OperationalError("the server closed the connection")

    worker = up.Supervised("worker", "sleep 60", 0)
    monkeypatch.setattr(up.Job.objects, "filter", lambda **_: SimpleNamespace(values_list=lambda *_, flat: away()))
    up.stop_all([worker])
    assert is_gone(worker.process.pid)


def test_a_trainer_is_given_less_time_than_its_supervisor() -> None:
    assert STOP_SECONDS + 3 < up.GRACE_SECONDS


def test_a_line_that_names_no_process_is_refused(tmp_path: Path) -> None:
    procfile = tmp_path / "Procfile"
    procfile.write_text("# comment\nweb: true\nnonsense\n")
    with pytest.raises(InvalidInput, match="line 3"):
        up.read_procfile(procfile)
