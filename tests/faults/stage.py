"""What a case of `test_crashpoints` plays in an installation: something under way, a death, and what comes next.

`die` forks, so that the process that dies is a whole one with its own connections, and what comes next runs in another.
`python -m tests.faults.stage` does the same for every case: it has Django and the trainer's libraries loaded, which
takes seconds, and forks a process for each order that moves into the installation it is for, and for each trainer.
"""

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import dj_database_url
import django
from django.conf import settings

if __name__ == "__main__":
    django.setup()

from django.db import connections, transaction

from interactions import spool, spooling
from interactions.models import Feedback, RequestMemo, UserInteraction
from interactions.services import NewAnswer, NewInteraction, NewMemo, spool_folder
from kalimtak import fsck
from kalimtak.core import audit, jobs
from kalimtak.core.auth import Caller
from kalimtak.core.errors import Conflict
from kalimtak.core.models import AuditEvent, Job
from kalimtak.core.reaper import reap
from registry import services as registry
from registry import store
from registry.models import Classifier, Deployment, Evaluation, ModelVersion
from registry.services import artefact_problems
from tests.faults.forking import ForkingPopen
from training import services
from training.etl.extract import BATCH
from training.models import Dataset, DatasetSnapshot, DuplicateBand, TrainingDataItem, TrainingRun
from training.services import datasets
from training.services.snapshots import rows_digest
from training.services.work import runs_root

FEEDBACK = BATCH + 20
PRELOADED = (
    *("training.analysis", "training.importers", "training.runner", "registry.families.verify"),
    *("sklearn.feature_extraction.text", "sklearn.linear_model", "matplotlib.backends.backend_agg"),
)


class Scenario(NamedTuple):
    """`act` is under way when the process dies; `again` is what happens next, by itself or at the user's next try."""

    act: Callable[[], object]
    again: Callable[[], object]


# Preparing --------------------------------------------------------------------------------------------------------


def topic() -> Classifier:
    return Classifier.objects.get(slug="topic")


def rows_file() -> Path:
    return Path(settings.KALIMTAK_VAR).parent / "rows.csv"


def load_rows() -> None:
    """The data that all scenarios start from."""
    dataset = services.dataset_add(topic(), source=rows_file(), name="rows.csv", actor="olga")
    services.dataset_load(dataset)


def deploy_first_and_verify_second() -> None:
    """Two versions; the second one is a copy of the first."""
    run = services.run_start(topic(), actor="olga", then="deploy", ring=False)
    assert jobs.run(run.job_id) == "succeeded", Job.objects.get(pk=run.job_id).error
    first = ModelVersion.objects.get()
    staging = store.staging_folder(run.job_id, 99)
    store.discard(staging)
    shutil.copytree(store.version_folder("topic", 1), staging)
    figures = first.evaluations.exclude(scores={}).first()
    second = registry.version_register(topic(), staging, parent=first, actor="olga")
    Evaluation.objects.create(
        version=second, **{name: getattr(figures, name) for name in ("data_digest", "rows", "scores", "slices")}
    )
    assert registry.version_verify(second) == []
    give_feedback(first)


def give_feedback(version: ModelVersion) -> None:
    """Corrections of many people, each on another text, and one example without an interaction."""
    asked = [
        UserInteraction(
            classifier=version.classifier,
            version=version,
            deployment=version.deployments.get(),
            fields={"text": f"A view on the number {number} from the house in lane {number * 7}."},
            label="food",
            rating=5,
            confidence=0.6,
            created_at=version.created_at,
        )
        for number in range(FEEDBACK)
    ]
    UserInteraction.objects.bulk_create(asked)
    Feedback.objects.bulk_create(
        Feedback(
            interaction=interaction,
            source=f"subject:{number}",
            trusted=True,
            rating=5,
            updated_at=version.created_at,
        )
        for number, interaction in enumerate(asked)
    )
    caller = Caller(kind="key", name="carla")
    services.example_add(topic(), fields={"text": "Hail on the roof."}, label="weather", caller=caller, source="key:1")


def queue_import(then: str = "train") -> None:
    """Another file, waiting to be loaded."""
    more = rows_file().with_name("more.csv")
    dataset = services.dataset_add(topic(), source=more, name="more.csv", actor="olga")
    services.dataset_import_queue(dataset, actor="olga", then=then)


def queue_past() -> None:
    """A log of answers, every second one rated, waiting to be imported."""
    head, *lines = rows_file().with_name("more.csv").read_text().splitlines()
    log = "\n".join([f"{head},rating", *(f"{line},{'up' if number % 2 else ''}" for number, line in enumerate(lines))])
    services.interactions_add(topic(), source=BytesIO(log.encode()), name="log.csv", actor="olga")


def queue_download() -> None:
    settings.KALIMTAK_DATASET_HOSTS = ["data.example"]
    dataset = services.dataset_add_url(topic(), url="https://data.example/more.csv", actor="olga")
    services.dataset_import_queue(dataset, actor="olga")


def queue_run(*overrides: str, family: str = "") -> None:
    services.run_start(topic(), actor="olga", then="deploy", overrides=overrides, family=family)


# What is under way ------------------------------------------------------------------------------------------------


def upload() -> None:
    """As the API does it: the file, its row and its job, then an answer to the client."""
    with transaction.atomic():
        dataset = services.dataset_add(topic(), source=rows_file(), name="rows.csv", actor="olga")
        services.dataset_import_queue(dataset, actor="olga")


def work() -> None:
    """A worker takes what is ready, until nothing is."""
    while ready := Job.objects.filter(state=Job.State.QUEUED).order_by("created_at").first():
        assert jobs.run(ready.pk) or ready.kind == "train", "a run may wait for its slot, nothing else"


def fetch_and_work() -> None:
    """The same, where the other host's file comes from a folder."""

    def copy(url: str, target: Any, **_: object) -> None:
        target.write(rows_file().with_name("more.csv").read_bytes())

    datasets.download = copy
    work()


def reap_and(work_on: Callable[[], object]) -> Callable[[], object]:
    def again() -> None:
        assert reap() == 1, "the dead process' job was taken back"
        work_on()

    return again


def start_run() -> None:
    services.run_start(topic(), actor="olga", key="monday", then="deploy")


def fine_tune() -> None:
    jobs.enqueue("fine_tune", {}, key="sunday")
    first_job("fine_tune")


def first_job(kind: str) -> None:
    jobs.run(Job.objects.get(kind=kind).pk)


def curate() -> None:
    jobs.enqueue("curate", {"classifier": "topic"}, key="tonight")
    first_job("curate")


def deploy_second() -> None:
    registry.version_deploy(ModelVersion.objects.get(number=2), actor="dina")


def roll_back() -> None:
    registry.version_rollback(topic(), actor="dina", to=1)


def answer_without_database() -> None:
    """Three questions, each asked again by a client that got no answer; then the database is back."""
    version = ModelVersion.objects.get(number=1)
    for number in range(3):
        row = NewInteraction(
            classifier_id=version.classifier_id,
            version_id=version.pk,
            deployment_id=version.deployments.get().pk,
            fields={"text": f"question {number}"},
            label="food",
            confidence=0.6,
            scores={"food": 0.6, "weather": 0.4},
            threshold=0.5,
            abstained=False,
        )
        memo = NewMemo("key:carla", f"r{number}", "d", {"results": [{"interaction_id": str(row.id)}]})
        if spooling.first_response(*memo.key, memo.body_digest) is None:
            assert spooling.answers_spool([NewAnswer([row], memo)]) == [None]
    spooling.SPOOL.stop()
    spooling.left_behind_record()


def unless_done(act: Callable[[], object]) -> Callable[[], object]:
    """The same click once more; the system may find that it was done."""

    def again() -> None:
        with suppress(Conflict):
            act()

    return again


SCENARIOS = {
    "upload": Scenario(upload, upload),
    "import": Scenario(lambda: first_job("import"), reap_and(lambda: first_job("import"))),
    "past": Scenario(lambda: first_job("import_interactions"), reap_and(lambda: first_job("import_interactions"))),
    "download": Scenario(fetch_and_work, reap_and(fetch_and_work)),
    "start": Scenario(start_run, start_run),
    "fine_tune": Scenario(fine_tune, reap_and(lambda: first_job("fine_tune"))),
    "curate": Scenario(curate, reap_and(lambda: first_job("curate"))),
    "train": Scenario(work, reap_and(work)),
    "conclude": Scenario(reap_and(work), reap_and(work)),
    "spool": Scenario(answer_without_database, answer_without_database),
    "deploy": Scenario(deploy_second, unless_done(deploy_second)),
    "roll_back": Scenario(roll_back, unless_done(roll_back)),
}


# Playing ----------------------------------------------------------------------------------------------------------


def die(act: Callable[[], object], at: str) -> None:
    """Let a process of its own do `act` and die at `at`."""
    connections.close_all()  # two processes must not share one
    if hasattr(connections["default"], "close_pool"):
        connections["default"].close_pool()
    child = os.fork()
    if child == 0:
        os.environ["KALIMTAK_CRASHPOINT"] = at
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == -9, f"{at}: ended with {status} instead of being killed there"


def play(name: str, at: str = "") -> None:
    """Let scenario `name` die at `at`, then go on; or without a death. Prints what there is in the end."""
    scenario = SCENARIOS[name]
    if at:
        die(scenario.act, at)
        nothing_is_half_visible()
        scenario.again()
    else:
        scenario.act()
    tell()


def nothing_is_half_visible() -> None:
    for version in ModelVersion.objects.all():
        assert artefact_problems(version) == [], f"{version.ref} is listed and not whole"
    live = Deployment.objects.live().filter(role="production")
    assert live.count() <= 1, "two versions are live"
    assert all(deployment.version.status == "verified" for deployment in live)
    for snapshot in DatasetSnapshot.objects.all():
        frozen = sum(sum(each.values()) for split, each in snapshot.counts.items() if split != "left_out")
        assert snapshot.rows.count() == frozen, f"snapshot {snapshot} lacks rows"


def tell() -> None:
    """Everything that an interruption could have changed, without keys and times."""
    nothing_is_half_visible()
    assert audit.verify() == []
    sweep()
    live = registry.live_version(topic())
    items = TrainingDataItem.objects.values_list("label", "status", "split", "dataset__name", "compared", "cluster")
    facts = {
        "jobs": sorted(Job.objects.values_list("kind", "state")),
        "datasets": list(Dataset.objects.order_by("pk").values_list("name", "state", "rows")),
        "outcomes": [each.report.get("outcome") for each in Dataset.objects.order_by("pk")],
        "items": sorted([*map(str, key), count] for key, count in Counter(items).items()),
        "bands": DuplicateBand.objects.count(),
        "feedback waiting": services.evidence_waiting(topic()),
        "answers": [UserInteraction.objects.count(), RequestMemo.objects.count()],
        "spool": [path.suffix for path in spool.files(spool_folder(), "")],
        "snapshots": [seen_in(each) for each in DatasetSnapshot.objects.all()],
        "runs": [str(each) if each else None for each in runs_versions()],
        "results": sorted(json.dumps(each, sort_keys=True) for each in results()),
        "versions": sorted(ModelVersion.objects.values_list("number", "status", "metrics__macro_f1")),
        "evaluations": sorted(Evaluation.objects.values_list("version__number", "rows", "verdict")),
        "live": live.ref if live else None,
        "deployments": list(Deployment.objects.order_by("pk").values_list("version__number", "rolled_back")),
        "audit": Counter(AuditEvent.objects.values_list("action", flat=True)),
        "staging": [path.name for path in (store.root() / "_staging").iterdir()],
        "files": len(list((store.root() / "_datasets").iterdir())),
        "work": [path.name for path in runs_root().iterdir()] if runs_root().exists() else [],
        "fsck": [str(finding) for finding in fsck.find(settle_seconds=0)],
    }
    print("\n" + json.dumps(facts), flush=True)


def seen_in(snapshot: DatasetSnapshot) -> str:
    """What a run sees in it, without the items' numbers: PostgreSQL skips those that a death took with it."""
    rows = snapshot.rows.order_by("content_hash", "label").values_list("content_hash", "label", "split", "weight")
    return rows_digest(rows)


def runs_versions() -> list[ModelVersion | None]:
    return [run.version for run in TrainingRun.objects.order_by("pk").select_related("version__classifier")]


def results() -> list[dict[str, Any]]:
    """What jobs say of themselves; keys of rows and figures of time differ from one play to the next."""
    different = {"train_job", "dataset", "notes", "job"}
    return [
        {key: value for key, value in (job.result or {}).items() if key not in different}
        for job in Job.objects.exclude(kind="fine_tune")
    ]


def sweep() -> None:
    """A day later: what was left half-written is old enough to be swept."""
    staging = store.root() / "_staging"
    for path in [staging, *staging.rglob("*")] if staging.exists() else []:
        os.utime(path, (0, 0))
    registry.staging_sweep()


# Serving orders ---------------------------------------------------------------------------------------------------


def serve() -> None:
    """Run the code of each order (a line of JSON) in a process of its own; answer with its exit status."""
    for name in PRELOADED:
        import_module(name)
    subprocess.Popen = ForkingPopen  # type: ignore[misc]
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            obey(order)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def obey(order: dict[str, Any]) -> None:
    """Move into the installation, then run the code with its output in a file."""
    output = os.open(order["output"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(order["environment"])
    settings.KALIMTAK_VAR = Path(os.environ["KALIMTAK_VAR"])
    settings.KALIMTAK_MODELS_STORE = Path(os.environ["KALIMTAK_MODELS_STORE"])
    connections["default"].settings_dict["NAME"] = dj_database_url.parse(os.environ["DATABASE_URL"])["NAME"]
    try:
        exec(order["code"], globals())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    serve()
