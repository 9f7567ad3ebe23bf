"""A disk that is full: clear errors, nothing half-written, answers go on, and all is well when there is space again."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from safetensors import SafetensorError

from registry.families.checkpoints import Checkpoints
from registry.recipe import Recipe, apply_overrides
from tests.installation import LABELS, MODELS, ROOT, Installation
from tests.registry.families.material import LABELS as THINGS
from tests.registry.families.material import sentences, settings_of
from tests.registry.families.tiny import write_tiny_bert
from tests.services import wait_until
from training import runner
from training.run_process import TrainerProcess
from training.run_spec import EXIT_DISK_FULL, RunSpec

pytestmark = [pytest.mark.postgres]

SIZE = 96 * 2**20
RESERVE = 8 * 2**20
QUICK = ("training_config.num_epochs=1", "training_config.save_strategy=no")


class Disk:
    """A file system of its own, which can be filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"mounting a tmpfs needs root: {done.stderr.strip()}")

    @contextmanager
    def filled(self, *, leave: int = 0) -> Iterator[None]:
        """Only `leave` bytes are free meanwhile."""
        filler = self.folder / "filler"
        with filler.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(self.folder).free - leave)
        try:
            yield
        finally:
            filler.unlink()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    made = Disk(tmp_path_factory.mktemp("disk") / "small")
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(disk: Disk) -> Iterator[Installation]:
    """An installation on the small disk with a live version and a web server."""
    installation = Installation(
        disk.folder / "installation",
        models=MODELS + MODELS.replace("topic", "fresh"),
        KALIMTAK_DISK_RESERVE=str(RESERVE),
        OMP_NUM_THREADS="1",
        WEB_CONCURRENCY="1",
    ).set_up()
    for slug in ("topic", "fresh"):
        installation.manage("import_dataset", str(installation.folder / "items.csv"), "--classifier", slug)
    installation.manage("train", "topic", "--deploy")
    scopes = ["predict", "feedback", "admin"]
    key = installation.manage("create_api_key", "carla", "--scope", *scopes).strip().splitlines()[-1]
    with Path("/dev/full").open("wb") as full:  # what it logs is lost, too
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "kalimtak/gunicorn.py", "kalimtak.wsgi"],
            cwd=ROOT,
            env=installation.environment,
            stdout=full,
            stderr=full,
            start_new_session=True,
        )
    installation.processes.append(process)
    wait_until(lambda: requests.get(f"{installation.url}/livez", timeout=2).ok, 60, what="a web server")
    installation.key = key
    yield installation
    installation.close()


def post(installation: Installation, path: str, **given: object) -> requests.Response:
    headers = {"Authorization": f"Bearer {installation.key}"}
    return requests.post(f"{installation.url}{path}", headers=headers, timeout=30, **given)


def ask(installation: Installation, text: str = "rain and wind") -> requests.Response:
    return post(installation, "/api/classify/topic", json={"text": text})


def upload(installation: Installation, content: bytes) -> requests.Response:
    file = {"file": ("rows.csv", io.BytesIO(content))}
    return post(installation, "/api/admin/load-dataset", data={"classifier": "topic"}, files=file)


def rows(count: int = 50, start: int = 10_000) -> bytes:
    labels = list(LABELS)
    lines = [f"sentence number {number},{labels[number % 2]}" for number in range(start, start + count)]
    return ("text,label\n" + "\n".join(lines) + "\n").encode()


def files(installation: Installation) -> set[str]:
    store = installation.folder / "store"
    return {path.relative_to(store).as_posix() for path in store.rglob("*")}


def facts(installation: Installation) -> dict[str, object]:
    code = (
        "import json\n"
        "from interactions.models import UserInteraction\n"
        "from training.models import Dataset, TrainingRun\n"
        "from registry.models import ModelVersion\n"
        "from kalimtak.core.models import Job\n"
        "from kalimtak import fsck\n"
        "print(json.dumps({'answers': UserInteraction.objects.count(), 'datasets': Dataset.objects.count(),\n"
        "    'versions': ModelVersion.objects.count(), 'error': Job.objects.first().error,\n"
        "    'state': Job.objects.first().state, 'fsck': [str(each) for each in fsck.find(settle_seconds=0)]}))"
    )
    return json.loads(installation.python(code).splitlines()[-1])


def test_an_upload_is_refused_before_it_is_written_and_answers_go_on(disk: Disk, served: Installation) -> None:
    before = files(served)
    with disk.filled(leave=RESERVE - 2**20):
        refused = upload(served, rows())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "disk_full")
        assert "MiB" in refused.json()["error"]["message"]
        assert int(refused.headers["Retry-After"]) > 0
        assert ask(served).status_code == 200
        assert files(served) == before
    assert upload(served, rows()).status_code == 202


def test_an_upload_that_fills_the_disk_leaves_nothing(disk: Disk, served: Installation) -> None:
    before = files(served)
    with disk.filled(leave=RESERVE + 2**20):
        refused = upload(served, rows() + b"x" * 2 * RESERVE)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "disk_full")
    assert files(served) == before
    assert ask(served).status_code == 200


def test_no_answer_is_given_that_could_not_be_stored(disk: Disk, served: Installation) -> None:
    if os.environ.get("KALIMTAK_TEST_DATABASE_URL"):
        pytest.skip("the server's disk is not this one: tried in the run on SQLite")
    first = ask(served).json()
    before = facts(served)["answers"]
    answered = 0
    with disk.filled():
        for _ in range(2_000):
            answer = ask(served, "rain and wind " * 300)
            if answer.status_code != 200:
                break
            answered += 1
        assert answer.status_code == 503, "the disk never was full"
        assert int(answer.headers["Retry-After"]) > 0
        said = post(
            served, "/api/feedback", json={"interaction_id": first["interaction_id"], "rating": 1, "comment": "x" * 900}
        )
        assert said.status_code in (201, 503), said.text
        assert requests.get(f"{served.url}/livez", timeout=5).ok
    assert ask(served).status_code == 200
    again = post(served, "/api/feedback", json={"interaction_id": first["interaction_id"], "rating": 2})
    assert again.status_code == (201 if said.status_code == 503 else 200)
    known = facts(served)
    assert known["answers"] == before + answered + 1
    assert known["fsck"] == []


def test_an_import_waits_for_space_and_then_loads_everything_once(disk: Disk, served: Installation) -> None:
    if os.environ.get("KALIMTAK_TEST_DATABASE_URL"):
        pytest.skip("the server's disk is not this one: tried in the run on SQLite")
    queued = upload(served, rows(20_000, start=50_000)).json()
    with disk.filled(leave=2**20):
        served.manage("run_job", queued["job"], code=None)
    code = (
        "from datetime import timedelta\nfrom django.utils import timezone\n"
        "from kalimtak.core.models import Job\nfrom kalimtak.core.reaper import reap\nfrom kalimtak.core import jobs\n"
        f"job = Job.objects.get(pk={queued['job']!r})\n"
        "reap(); Job.objects.filter(pk=job.pk).update(not_before=None)\n"
        "state = job.state\n"
        "jobs.run(job.pk); job.refresh_from_db()\n"
        "print(state, job.state, job.result['loaded'], job.result['rows'])"
    )
    before, state, loaded, held = served.python(code).split()[-4:]
    assert before in ("queued", "running"), "it waits for another attempt"
    assert (state, loaded, held) == ("succeeded", "20000", "20000")
    assert facts(served)["fsck"] == []


@pytest.mark.own_servers  # or none: nothing gets as far as a database
def test_a_run_is_refused_where_there_is_no_room_for_it(disk: Disk, served: Installation) -> None:
    with disk.filled(leave=RESERVE - 2**20):
        said = served.manage("train", "topic", code=1)
    assert "lacks" in said
    assert "MiB" in said
    assert ask(served).status_code == 200


@pytest.mark.own_servers  # or none: the models store alone is full
def test_a_run_that_fills_the_disk_fails_with_the_reason_and_leaves_no_version(
    served: Installation, tmp_path: Path
) -> None:
    """The store alone is on the full disk, so that it is the trainer that cannot write."""
    before = facts(served)
    store = Disk(tmp_path / "store")
    try:
        (store.folder / "_staging").mkdir()
        with store.filled(leave=20_000):
            elsewhere = {"KALIMTAK_MODELS_STORE": str(store.folder), "KALIMTAK_DISK_RESERVE": "1"}
            said = served.manage("train", "fresh", code=1, **elsewhere)
        assert "The disk became full" in said
        assert not list((store.folder / "_staging").iterdir())
        assert not (store.folder / "fresh").exists()
    finally:
        store.close()
    after = facts(served)
    assert (after["state"], after["versions"], after["fsck"]) == ("failed", before["versions"], [])
    assert ask(served).json()["model_version"] == "topic/1"
    assert "Saved in" in served.manage("train", "fresh", "--resume")


@pytest.mark.own_servers  # or none: a trainer knows no database
def test_an_encoder_whose_weights_do_not_fit_says_that_the_disk_is_full(disk: Disk, tmp_path: Path) -> None:
    """safetensors has an error of its own for it, without the system's number."""
    words = sorted({word for told in sentences(60) for word in told.fields[0].lower().split()})
    (tmp_path / "base").mkdir()
    write_tiny_bert(tmp_path / "base", words, layers=1)
    for name in ("work", "checkpoints"):
        (tmp_path / name).mkdir()
    spec = RunSpec(
        classifier="topic",
        description="",
        label_descriptions={},
        family="encoder",
        labels=THINGS,
        input_fields=("text",),
        recipe=apply_overrides(Recipe(), [*settings_of("encoder", tmp_path / "base"), *QUICK]).to_dict(),
        snapshot_digest="a" * 64,
        golden_digest="b" * 64,
        counts={},
        folder=tmp_path / "work",
        out=disk.folder / "out",
        checkpoints=tmp_path / "checkpoints",
        champion=None,
        resume=False,
        supervisor=os.getpid(),
    )
    for split in ("train", "valid", "golden"):
        spec.write_examples(split, sentences(30))
    spec.write()
    with disk.filled(leave=30_000), TrainerProcess(spec, spec.folder / "trainer.json") as trainer:
        wait_until(lambda: trainer.returncode() is not None, 120, what="the trainer's end")
        assert trainer.returncode() == EXIT_DISK_FULL, (trainer.events(), trainer.last_words())
        error = SafetensorError("I/O error: No space left on device (os error 28)")
        assert runner._is_disk_full(error, spec)
    assert not runner._is_disk_full(error, spec), "with room, it was something else"
    shutil.rmtree(spec.out)


@pytest.mark.own_servers  # or none: a log is no table
def test_a_job_finishes_though_its_log_cannot_be_written(served: Installation) -> None:
    job = served.manage("train", "topic", "--queue", "--json")
    with Path("/dev/full").open("wb") as full:
        subprocess.run(
            [sys.executable, "manage.py", "run_job", json.loads(job)["job"]],
            cwd=ROOT,
            env=served.environment,
            stdout=full,
            stderr=full,
            timeout=120,
        )
    assert facts(served)["state"] == "succeeded"


@pytest.mark.own_servers  # or none: a trainer knows no database
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(disk: Disk) -> None:
    checkpoints = Checkpoints(disk.folder / "checkpoints", "run-a")

    def draft(step: int) -> None:
        folder = checkpoints.drafts / f"checkpoint-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"weights" * 10_000)

    draft(1)
    checkpoints.seal_step(1)
    draft(2)
    with disk.filled():
        with pytest.raises(OSError, match="No space left"):
            checkpoints.seal_step(2)
        newest = checkpoints.newest()
        assert newest is not None and newest.name == "checkpoint-1"
    checkpoints.seal_step(2)
    newest = checkpoints.newest()
    assert newest is not None and newest.name == "checkpoint-2"
