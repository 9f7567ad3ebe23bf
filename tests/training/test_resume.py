"""A supervisor that is killed takes its trainer along, and the next attempt goes on from the checkpoint."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from django.conf import settings as configured
from django.db import connection

from kalimtak.core import jobs, reaper
from kalimtak.core.models import Job
from registry.models import Classifier, ModelVersion
from training import services
from training.models import TrainingRun
from training.services.work import WorkFolder

# Supervisors that die are tried on every database in `tests/faults`; here it is the encoder that goes on.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.own_servers]

EPOCHS = 16
TINY_BERT = """
import sys
from pathlib import Path
from transformers import BertConfig, BertModel, BertTokenizerFast
folder = Path(sys.argv[1])
letters = [*"abcdefghijklmnopqrstuvwxyz0123456789"]
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
(folder / "vocab.txt").write_text("\\n".join(words))
BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
size = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **size)).save_pretrained(folder)
"""


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of a few thousand random weights, made in a process of its own: torch stays out of this one."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    subprocess.run([sys.executable, "-c", TINY_BERT, str(folder)], check=True, capture_output=True)
    return folder


def database_url() -> str:
    """Of the test database, for a process of its own."""
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return f"{configured.DATABASE_URL.rpartition('/')[0]}/{name}"


def supervisor(run: TrainingRun) -> subprocess.Popen[bytes]:
    """`manage.py run_job ID`, as a worker starts it."""
    places = {name: str(getattr(configured, name)) for name in ("KALIMTAK_VAR", "KALIMTAK_MODELS_STORE")}
    return subprocess.Popen(
        [sys.executable, str(configured.BASE_DIR / "manage.py"), "run_job", str(run.job_id)],
        env=os.environ | places | {"DATABASE_URL": database_url()},
        start_new_session=True,
    )


def wait(seconds: float = 90) -> Iterator[None]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def steps_reported(work: WorkFolder, token: int) -> list[int]:
    """By the trainer of the attempt with this token, so far."""
    path = work.path / f"attempt-{token}" / "events.jsonl"
    events = map(json.loads, path.read_text().splitlines()[:-1]) if path.exists() else ()
    return [event["step"] for event in events if event["event"] == "metric"]


@pytest.fixture
def run(
    mood: Classifier, teach: Callable[..., object], tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> TrainingRun:
    monkeypatch.setattr(jobs, "ring_for", lambda job: None)
    teach(mood)
    recipe = {
        "model_config.model_name": tiny_bert,
        "model_config.max_length": 32,
        "training_config.num_epochs": EPOCHS,
        "training_config.batch_size": 8,
    }
    overrides = [f"{name}={value}" for name, value in recipe.items()]
    return services.run_start(mood, actor="olga", family="encoder", overrides=overrides)


def test_a_killed_supervisor_takes_its_trainer_along_and_the_next_attempt_goes_on(run: TrainingRun) -> None:
    work = WorkFolder(run.job_id)
    first = supervisor(run)
    for _ in wait():
        if work.has_checkpoints and len(steps_reported(work, token=1)) > 5:
            break
        assert first.poll() is None, Job.objects.get().error
    reached = steps_reported(work, token=1)[-1]
    trainer = json.loads(work.pid_file.read_text())["pid"]
    first.kill()
    first.wait()
    for _ in wait(5):
        if is_gone(trainer):
            break
    assert reaper.reap() == 1
    assert Job.objects.get().state == "queued"

    second = supervisor(run)
    for _ in wait():
        if goes_on := steps_reported(work, token=3):
            break
    assert goes_on[0] > 1, "it began from the start"
    assert second.wait(240) == 0
    job = Job.objects.get()
    assert (job.state, job.attempt) == ("succeeded", 2), job.error
    assert ModelVersion.objects.count() == 1
    assert not work.path.exists() or not any(work.path.iterdir())
    run.refresh_from_db()
    steps = [point["step"] for point in run.history]
    assert steps == sorted(steps)
    assert steps[-1] > reached
