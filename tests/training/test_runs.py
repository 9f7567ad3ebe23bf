"""Training runs end to end: a real trainer in a real process, and what its death, cancelling or repetition does."""

import json
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from django.db import connection
from django.utils import timezone

from kalimtak.core import jobs
from kalimtak.core.errors import Conflict, InvalidInput
from kalimtak.core.models import AuditEvent, Job
from kalimtak.core.watchdog import Watchdog
from registry import services as registry
from registry import store as artefacts
from registry.families import load
from registry.manifest import verify_manifest
from registry.models import Classifier, Evaluation, ModelVersion
from training import services
from training.models import TrainingRun
from training.run_spec import RunSpec
from training.services import execution
from training.services.work import WorkFolder, runs_root, work_sweep

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ring_for", lambda job: None)


def start(classifier: Classifier, **options: object) -> TrainingRun:
    return services.run_start(classifier, actor="olga", **options)


def finish(run: TrainingRun) -> TrainingRun:
    assert jobs.run(run.job_id) == "succeeded", Job.objects.get(pk=run.job_id).error
    return TrainingRun.objects.select_related("job", "version__classifier", "snapshot").get(pk=run.pk)


class InBackground(threading.Thread):
    """A supervisor in a thread of this process, so that the test can disturb it."""

    def __init__(self, run: TrainingRun) -> None:
        super().__init__(daemon=True)
        self.run_of, self.state = run, ""
        self.contexts: list[jobs.JobContext] = []
        self.start()

    def run(self) -> None:
        try:
            self.state = jobs.run(self.run_of.job_id, on_claim=self.contexts.append)
        finally:
            connection.close()

    def trainer_pid(self) -> int:
        """Of the trainer that works now, once there is one."""
        pid_file = WorkFolder(self.run_of.job_id).pid_file
        for _ in wait():
            if pid_file.exists():
                return json.loads(pid_file.read_text())["pid"]
        raise AssertionError

    def end(self) -> Job:
        self.join(60)
        assert not self.is_alive()
        return Job.objects.get(pk=self.run_of.job_id)


def wait(seconds: float = 30) -> Iterator[None]:
    """Ticks until the time is up, then fails."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def leftovers(store: Path) -> list[Path]:
    return [*(store / "_staging").iterdir(), *(store.parent / "var" / "runs").iterdir()]


# A run -----------------------------------------------------------------------------------------------------------


def test_a_run_makes_a_verified_version_with_figures_and_a_verdict(taught_mood: Classifier, store: Path) -> None:
    run = finish(start(taught_mood, overrides=["training_config.seed=7"]))
    version = run.version
    assert version is not None and version.ref == "mood/1"
    assert version.status == ModelVersion.Status.VERIFIED
    assert version.snapshot_digest == run.snapshot.digest
    assert version.seed == 7
    assert run.job.result["version"] == "mood/1"
    assert run.job.result["verdict"] == "passed"
    assert run.job.result["metrics"]["macro_f1"] == version.metrics["macro_f1"] > 0.8
    evaluation = Evaluation.objects.get(version=version)
    assert evaluation.data_digest == services.golden_digest(taught_mood)
    assert evaluation.rows == 18
    assert sum(part["n"] for part in evaluation.slices["length"]) == 18
    assert not leftovers(store)
    assert registry.live_version(taught_mood) is None
    assert jobs.run(run.job_id) == "", "delivered twice, it runs once"
    assert ModelVersion.objects.count() == 1


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_number_of_labels_that_the_data_contradicts_is_refused_with_both(
    taught_mood: Classifier, is_listed: bool
) -> None:
    if not is_listed:
        Classifier.objects.update(labels=[])
    refusal = (
        r"^model_config\.num_labels is 7, but mood has 3 labels \((glad, sad, calm|calm, glad, sad)\); set it to 3, or "
        r"correct label_config\.labels or the data\.$"
    )
    with pytest.raises(InvalidInput, match=refusal):
        start(taught_mood, overrides=["model_config.num_labels=7"])
    Classifier.objects.update(recipe={"model_config": {"num_labels": 2}})
    with pytest.raises(InvalidInput, match=r"num_labels is 2, but mood has 3 labels"):
        start(taught_mood)
    assert not Job.objects.exists()
    assert start(taught_mood, overrides=["model_config.num_labels=3"]).job.state == Job.State.QUEUED


def test_settings_that_the_type_ignores_are_noted_on_the_run(taught_mood: Classifier) -> None:
    overrides = ["training_config.num_epochs=9", "training_config.start_from=parent", "training_config.C=2"]
    told = ["classic does not use: training_config.num_epochs, training_config.start_from."]
    run = start(taught_mood, overrides=overrides)
    assert run.notes == told
    assert finish(run).job.result["notes"][0] == told[0]
    assert start(taught_mood, overrides=["training_config.num_epochs=3"]).notes == []
    with pytest.raises(
        InvalidInput, match=r"^mood: model_config\.use_8bit: goes with type lora only, not with classic"
    ):
        start(taught_mood, overrides=["model_config.use_8bit=true"])


@pytest.mark.own_servers  # or rather none: a trainer knows no database
def test_a_run_under_way_is_not_to_be_had_by_a_second_worker(taught_mood: Classifier) -> None:
    run = start(taught_mood)
    held = jobs.claim(run.job_id)
    assert held is not None
    assert jobs.run(run.job_id) == "", "the second worker goes away"
    assert jobs.claim(run.job_id) is None
    job = Job.objects.get()
    assert (job.attempt, job.token, job.owner) == (1, held.token, held.owner)
    assert not list(runs_root().glob("*")), "it made no folder and started no trainer"
    assert not ModelVersion.objects.exists()


def test_the_artefact_holds_what_people_and_servers_need(sealed_run: RunSpec) -> None:
    manifest = verify_manifest(sealed_run.out)
    assert manifest.labels == ("glad", "sad", "calm")
    assert {"numpy", "python"} <= manifest.libraries.keys()
    assert {"model_card.md", "confusion_matrix.png", "training_config.json", "probes.json"} <= manifest.files.keys()
    for name in ("confusion_matrix.png", "training_config.json"):
        assert (sealed_run.out / "package" / name).read_bytes() == (sealed_run.out / name).read_bytes()
    config = json.loads((sealed_run.out / "training_config.json").read_text())
    assert config["training_config"]["seed"] == manifest.seed
    card = (sealed_run.out / "model_card.md").read_text()
    assert sealed_run.golden_digest in card
    assert "sunny" not in card
    answer = load(sealed_run.out).predict([("a sunny party with laughter",)])[0]
    assert manifest.labels[answer.probabilities.argmax()] == "glad"


@pytest.mark.own_servers  # or rather none: a trainer knows no database
def test_the_same_seed_and_snapshot_answer_the_same(taught_mood: Classifier) -> None:
    first, second = (finish(start(taught_mood)) for _ in range(2))
    assert first.snapshot_id == second.snapshot_id
    texts = [(text,) for text in ("sunny tea", "alone at home", "a quiet loss", "😀")]
    one, two = (load(artefacts.version_folder("mood", number)).predict(texts) for number in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert a.probabilities.tolist() == b.probabilities.tolist()


def test_labels_that_nobody_listed_are_taken_from_the_data(taught_mood: Classifier) -> None:
    Classifier.objects.update(labels=[])
    run = finish(start(taught_mood))
    assert run.version.labels == ["calm", "glad", "sad"]


def test_a_change_for_one_run_leaves_the_classifier_alone(taught_mood: Classifier) -> None:
    run = start(taught_mood, overrides=["training_config.C=0.5"])
    assert run.recipe["training_config"]["C"] == 0.5
    taught_mood.refresh_from_db()
    assert taught_mood.get_recipe().training.C == 5.0


def test_a_cuda_run_goes_to_the_gpu_cluster(taught_mood: Classifier, settings) -> None:
    assert start(taught_mood).job.cluster == "training"
    assert start(taught_mood, overrides=["training_config.device=cuda"]).job.cluster == "gpu"
    settings.KALIMTAK_DEVICE = "cuda"
    assert start(taught_mood).job.cluster == "gpu"
    assert start(taught_mood, overrides=["training_config.device=cpu"]).job.cluster == "training"


def test_a_run_on_any_device_goes_to_the_gpu_cluster_while_one_is_at_work(taught_mood: Classifier, settings) -> None:
    settings.KALIMTAK_DEVICE = "auto"
    watchdog = Watchdog([], "gpu")
    assert start(taught_mood).job.cluster == "training"
    watchdog._note(os.getpid(), unwell_for=0)
    assert start(taught_mood).job.cluster == "gpu"
    assert start(taught_mood, overrides=["training_config.device=auto"]).job.cluster == "gpu"
    assert start(taught_mood, overrides=["training_config.device=cpu"]).job.cluster == "training"
    assert start(taught_mood, ring=False).job.cluster == "training", "it runs here and now"
    watchdog._note(os.getpid(), unwell_for=61)
    assert start(taught_mood).job.cluster == "training", "it is stuck"
    watchdog._note(os.getpid(), unwell_for=0)
    state = json.loads(watchdog.file.read_text())
    watchdog.file.write_text(json.dumps(state | {"pid": 2**22 + 1}))
    assert start(taught_mood).job.cluster == "training", "it died"
    watchdog.file.write_text("{")
    assert start(taught_mood).job.cluster == "training"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "magic"}, "Type 'magic' cannot be trained here; use one of classic, "),
        ({"overrides": ["training_config.num_epochs=0"]}, "training_config.num_epochs"),
        ({"then": "celebrate"}, "Use one of none, deploy"),
    ],
)
def test_a_run_that_cannot_be_is_refused_and_changes_nothing(
    taught_mood: Classifier, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        start(taught_mood, **options)
    assert not Job.objects.exists()
    assert not services.golden_digest(taught_mood)


def test_a_refused_run_gives_the_golden_items_back(mood: Classifier, teach: Callable[..., object]) -> None:
    teach(mood)
    mood.items.exclude(label="sad").delete()
    with pytest.raises(Conflict) as refused:
        start(mood)
    assert refused.value.code == "one_class"
    assert not mood.items.golden().exists()


def test_the_same_key_starts_one_run(taught_mood: Classifier) -> None:
    assert start(taught_mood, key="monday") == start(taught_mood, key="monday")
    assert TrainingRun.objects.count() == Job.objects.count() == 1


def test_a_start_is_audited(taught_mood: Classifier) -> None:
    run = start(taught_mood)
    event = AuditEvent.objects.get(action="run.start")
    assert (event.actor, event.target, event.data["run"]) == ("olga", "mood", run.pk)


@pytest.mark.parametrize("start_from", ["base", "parent"])
def test_a_run_goes_on_from_the_live_version_where_its_recipe_says_so(
    start_from: str, trained_mood: TrainingRun
) -> None:
    run = start(trained_mood.classifier, overrides=[f"training_config.start_from={start_from}"])
    spec = execution._spec(run, trained_mood.version, WorkFolder(run.job_id), Path("staging"), Path("attempt"))
    assert spec.champion is None, "its figures on this golden set are known"
    assert spec.parent == (artefacts.version_folder("mood", 1) if start_from == "parent" else None)


# Gate and deployment ---------------------------------------------------------------------------------------------


def test_a_worse_version_is_not_deployed_and_the_result_says_why(trained_mood: TrainingRun) -> None:
    items = trained_mood.classifier.items
    trainable = list(items.trainable())
    for item, other in zip(trainable, trainable[31:] + trainable[:31], strict=True):
        items.filter(pk=item.pk).update(fields=other.fields)
    run = finish(start(trained_mood.classifier, then="deploy", overrides=["training_config.seed=99"]))
    assert run.job.result["verdict"] == "refused"
    assert run.job.result["deployed"] is False
    assert "the gate says refused" in run.job.result["deployment"]
    assert registry.live_version(run.classifier) == trained_mood.version


def test_the_live_version_is_scored_again_when_the_golden_set_has_grown(
    trained_mood: TrainingRun, teach: Callable[..., object]
) -> None:
    teach(trained_mood.classifier, count=5, start=500, split="test")
    run = finish(start(trained_mood.classifier, then="deploy"))
    digest = services.golden_digest(run.classifier)
    assert digest == run.snapshot.golden_digest
    scored = Evaluation.objects.filter(data_digest=digest).exclude(scores={})
    assert {evaluation.version.ref for evaluation in scored} == {"mood/1", "mood/2"}
    assert run.job.result["verdict"] == "passed"
    assert "on the same 33 texts" in run.job.result["reasons"][0]
    assert run.job.result["deployed"] is True
    assert registry.live_version(run.classifier) == run.version
    assert run.version.parent == trained_mood.version


def test_figures_go_to_the_version_that_was_scored_whatever_is_deployed_meanwhile(
    trained_mood: TrainingRun, sealed_run: RunSpec, teach: Callable[..., object]
) -> None:
    classifier = trained_mood.classifier
    teach(classifier, count=5, start=500, split="test")
    supervisor = InBackground(start(classifier))
    trainer = supervisor.trainer_pid()
    os.kill(trainer, signal.SIGSTOP)
    staging = artefacts.staging_folder(uuid.uuid4(), 1)
    shutil.copytree(sealed_run.out, staging, dirs_exist_ok=True)
    other = registry.version_register(classifier, staging, parent=None, actor="dina")
    ModelVersion.objects.filter(pk=other.pk).update(status="verified")
    registry.version_deploy(other, actor="dina", force=True, may_force=True, reason="In a hurry.")
    os.kill(trainer, signal.SIGCONT)
    assert supervisor.end().state == "succeeded"
    digest = services.golden_digest(classifier)
    scored = Evaluation.objects.filter(data_digest=digest).exclude(scores={})
    assert {evaluation.version.ref for evaluation in scored} == {"mood/1", "mood/3"}
    assert ModelVersion.objects.get(number=3).parent == trained_mood.version


# Disturbances ----------------------------------------------------------------------------------------------------


def test_a_cancelled_run_ends_its_trainer_and_leaves_no_version(taught_mood: Classifier, store: Path) -> None:
    supervisor = InBackground(start(taught_mood))
    trainer = supervisor.trainer_pid()
    jobs.cancel(Job.objects.get(), actor="olga")
    assert supervisor.end().state == "cancelled"
    assert is_gone(trainer)
    assert not ModelVersion.objects.exists()
    assert not list((store / "_staging").iterdir())
    left = {path.name for path in (store.parent / "var" / "runs").rglob("*.*")}
    assert not left & {"train.jsonl", "valid.jsonl", "golden.jsonl"}


def test_what_a_killed_attempt_had_half_built_is_swept_by_the_next(taught_mood: Classifier, store: Path) -> None:
    run = start(taught_mood)
    half_built = artefacts.staging_folder(run.job_id, 7)
    long_ago = time.time() - 120
    os.utime(half_built, (long_ago, long_ago))
    finish(run)
    assert leftovers(store) == []


@pytest.mark.own_servers  # or rather none: a trainer knows no database
def test_a_killed_trainer_is_started_once_more(taught_mood: Classifier) -> None:
    supervisor = InBackground(start(taught_mood))
    os.kill(supervisor.trainer_pid(), signal.SIGKILL)
    assert supervisor.end().state == "succeeded"
    assert ModelVersion.objects.count() == 1


@pytest.mark.own_servers  # or rather none: a trainer knows no database
def test_a_trainer_that_is_killed_again_fails_the_job_with_the_reason(taught_mood: Classifier) -> None:
    supervisor = InBackground(start(taught_mood))
    first = supervisor.trainer_pid()
    os.kill(first, signal.SIGKILL)
    for _ in wait():
        if (second := supervisor.trainer_pid()) != first:
            break
    os.kill(second, signal.SIGKILL)
    job = supervisor.end()
    assert job.state == "failed"
    assert "killed by signal 9" in job.error
    assert "batch_size" in job.error
    assert not ModelVersion.objects.exists()


def test_a_supervisor_that_must_end_gives_the_run_back_and_the_next_one_ends_what_it_left(
    taught_mood: Classifier,
) -> None:
    run = start(taught_mood)
    supervisor = InBackground(run)
    trainer = supervisor.trainer_pid()
    supervisor.contexts[0].stop_asked.set()
    job = supervisor.end()
    assert (job.state, job.attempt) == ("queued", 0)
    assert is_gone(trainer)
    orphan = psutil.Popen(["sleep", "60"], start_new_session=True)
    note = {"pid": orphan.pid, "started": orphan.create_time()}
    WorkFolder(run.job_id).pid_file.write_text(json.dumps(note))
    assert finish(run).version.ref == "mood/1"
    assert is_gone(orphan.pid)


def test_a_supervisor_that_was_overtaken_commits_nothing(taught_mood: Classifier) -> None:
    run = start(taught_mood)
    supervisor = InBackground(run)
    trainer = supervisor.trainer_pid()
    note = {"pid": 1, "started": 0.0}
    WorkFolder(run.job_id).pid_file.write_text(json.dumps(note))
    Job.objects.update(token=99)
    supervisor.end()
    assert is_gone(trainer)
    assert json.loads(WorkFolder(run.job_id).pid_file.read_text()) == note, "the newer supervisor's note stays"
    assert not ModelVersion.objects.exists()
    assert Job.objects.get().state == "running"


def test_an_attempt_after_the_registration_goes_on_from_there(
    taught_mood: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(taught_mood, then="deploy")
    with monkeypatch.context() as patch:

        def die(*_: object, **__: object) -> None:
            raise jobs.LeaseLost

        patch.setattr(registry, "version_verify", die)
        assert jobs.run(run.job_id) == ""
    assert ModelVersion.objects.get().status == "registered"
    Job.objects.update(state="queued", slot="")
    run = finish(run)
    assert ModelVersion.objects.count() == 1
    assert run.job.result["version"] == "mood/1"
    assert run.job.result["deployed"] is True


@pytest.mark.own_servers  # or rather none: a trainer knows no database
def test_what_the_trainer_cannot_do_is_told_in_one_line(taught_mood: Classifier) -> None:
    run = start(taught_mood, family="encoder", overrides=["model_config.model_name=/nowhere/to/be/found"])
    assert jobs.run(run.job_id) == "failed"
    error = Job.objects.get().error
    assert "/nowhere/to/be/found" in error
    assert "Traceback" not in error


def test_folders_of_runs_long_over_are_swept_and_the_others_stay(taught_mood: Classifier) -> None:
    waiting, failed, old = (start(taught_mood) for _ in range(3))
    unknown, copy = uuid.uuid4(), f"{waiting.job_id}-copy"
    for job_id in (waiting.job_id, failed.job_id, old.job_id, unknown):
        WorkFolder(job_id)
    (runs_root() / copy).mkdir()  # somebody's own
    now = timezone.now()
    Job.objects.filter(pk=failed.job_id).update(state="failed", finished_at=now - timedelta(days=6))
    Job.objects.filter(pk=old.job_id).update(state="failed", finished_at=now - timedelta(days=8))
    assert work_sweep() == 2
    assert {folder.name for folder in runs_root().iterdir()} == {str(waiting.job_id), str(failed.job_id), copy}


# Going on with an old run ----------------------------------------------------------------------------------------


def test_a_cancelled_run_can_be_gone_on_with(taught_mood: Classifier, teach: Callable[..., object]) -> None:
    first = start(taught_mood, overrides=["training_config.C=2.0"])
    jobs.cancel(first.job, actor="olga")
    teach(taught_mood, count=3, start=900)
    second = services.run_resume(taught_mood, actor="olga")
    assert second.snapshot_id == first.snapshot_id
    assert second.recipe == first.recipe
    assert finish(second).version.ref == "mood/1"


def test_only_an_unfinished_run_can_be_gone_on_with(taught_mood: Classifier) -> None:
    with pytest.raises(Conflict, match="never trained") as refused:
        services.run_resume(taught_mood, actor="olga")
    assert refused.value.code == "nothing_to_resume"


def test_a_run_that_made_its_version_cannot_be_gone_on_with(trained_mood: TrainingRun) -> None:
    with pytest.raises(Conflict, match="neither failed nor was cancelled"):
        services.run_resume(trained_mood.classifier, actor="olga")


# The recurring jobs ----------------------------------------------------------------------------------------------


def run_job(kind: str) -> dict[str, object]:
    job = jobs.enqueue(kind, {})
    assert jobs.run(job.pk) == "succeeded", Job.objects.get(pk=job.pk).error
    return Job.objects.get(pk=job.pk).result


def test_the_weekly_job_skips_where_too_little_is_new(trained_mood: TrainingRun, teach: Callable[..., object]) -> None:
    teach(trained_mood.classifier, count=3, start=700)
    result = run_job("fine_tune")
    assert result["mood"]["outcome"] == "skipped, too little new (9 of 50 items)"
    assert TrainingRun.objects.count() == 1


def test_the_weekly_job_trains_where_enough_is_new(trained_mood: TrainingRun, teach: Callable[..., object]) -> None:
    teach(trained_mood.classifier, count=20, start=700)
    result = run_job("fine_tune")
    assert result["mood"] == {
        "new_items": 60,
        "outcome": "training queued",
        "job": str(TrainingRun.objects.first().job_id),
    }
    assert TrainingRun.objects.first().then == "none"


def test_the_weekly_job_deploys_only_where_the_policy_says_so(taught_mood: Classifier) -> None:
    Classifier.objects.update(policy={"auto_deploy": "full"})
    run_job("fine_tune")
    assert TrainingRun.objects.get().then == "deploy"


def test_the_weekly_job_repeated_starts_nothing_twice(taught_mood: Classifier) -> None:
    services.fine_tune(key="week 7")
    (again,) = services.fine_tune(key="week 7")
    assert again.outcome == "training queued already"
    assert TrainingRun.objects.count() == 1


def test_the_weekly_job_starts_no_run_beside_one_that_waits(taught_mood: Classifier) -> None:
    services.fine_tune(key="week 7")
    (next_week,) = services.fine_tune(key="week 8")
    assert (next_week.run, next_week.outcome) == (None, f"not started: run {TrainingRun.objects.get().pk} is under way")


def test_the_weekly_job_goes_on_where_one_classifier_cannot_train(taught_mood: Classifier) -> None:
    poor = Classifier.objects.create(
        slug="poor", name="Poor", family="classic", input_fields=["text"], policy={"min_new_items": 1}
    )
    poor.items.create(fields={"text": "one"}, label="a", content_hash="1", status="approved")
    result = run_job("fine_tune")
    assert "only 1 approved example" in result["poor"]["outcome"]
    assert result["mood"]["outcome"] == "training queued"


def test_the_monthly_job_scores_live_versions_on_todays_golden_set(
    trained_mood: TrainingRun, teach: Callable[..., object]
) -> None:
    teach(trained_mood.classifier, count=5, start=500, split="test")
    result = run_job("evaluate")
    assert result["mood/1"]["macro_f1"] > 0.5
    newest = Evaluation.objects.first()
    assert newest.data_digest == services.golden_digest(trained_mood.classifier)
    assert newest.rows == 33


def test_the_monthly_job_has_nothing_to_do_where_nothing_is_live(taught_mood: Classifier) -> None:
    assert run_job("evaluate") == {}
