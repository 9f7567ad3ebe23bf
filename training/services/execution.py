"""The supervisor's side of a training run: start the trainer, follow it, publish, verify, judge, maybe deploy.

May be killed at any moment. What an attempt committed is never done twice: the version is registered in the same
transaction that notes it on the run, so a later attempt goes on after that point.
"""

import dataclasses
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings

from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import KalimtakError, is_disk_full
from kalimtak.core.jobs import DATABASE_AWAY, JobCancelled, JobContext, JobInterrupted, drop_broken_connection
from registry import services as registry
from registry import store
from registry.families.base import Example
from registry.metrics import Scores
from registry.models import Evaluation, ModelVersion
from training.board_server import BoardServer
from training.history import rewound
from training.models import SnapshotItem, TrainingDataItem, TrainingRun
from training.run_process import TrainerProcess, end_orphan
from training.run_spec import EXIT_DISK_FULL, EXIT_DONE, EXIT_STOPPED, RunSpec
from training.services.boards import board_beside, board_folder, boards_sweep
from training.services.cascades import cascades_prepare
from training.services.snapshots import labels_of
from training.services.work import WorkFolder, encoder_cache, work_sweep

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
HISTORY_SECONDS = 2.0
HISTORY_POINTS = 2_000  # beyond that every second one is dropped, evaluations excepted
TRAINER_STARTS = 2  # a trainer that was killed is started once more within an attempt
ROWS_PER_QUERY = 1_000
PATIENCE_SECONDS = 240.0  # with a database that is away when training ends; the lease is longer
DATABASE_POLL_SECONDS = 1.0

_Split = TrainingDataItem.Split


_NO_SPACE = "The disk became full. Free some space, then go on from the last checkpoint with `train --resume`."


class TrainerFailed(KalimtakError):
    """The trainer ended without an artefact; the message is what it said last."""

    code = "training_failed"


def run_execute(context: JobContext) -> dict[str, Any]:
    """Run the training run of `context.job`; the job's result names the version, the verdict and the figures.

    Raises `KalimtakError` where training failed, `JobCancelled`, `JobInterrupted` (the checkpoint is kept and the next
    attempt goes on from it) and `LeaseLost`.
    """
    run = TrainingRun.objects.select_related("classifier", "snapshot", "version__classifier").get(job=context.job)
    work_sweep()
    registry.staging_sweep()  # half-built artefacts of attempts that were killed
    work = WorkFolder(context.job.pk)
    if run.version is None:
        _train(context, run, work)
    result = _conclude(context, run)
    crashpoint("supervisor.before_cleanup")
    work.remove()
    return result


# Training --------------------------------------------------------------------------------------------------------


def _train(context: JobContext, run: TrainingRun, work: WorkFolder) -> None:
    """Let a trainer build the artefact and register it."""
    end_orphan(work.pid_file)
    if resumed := context.params.get("resume_of"):
        work.adopt_checkpoints(uuid.UUID(resumed))
    champion = registry.live_version(run.classifier)
    store.free_space_check(2 * champion.size if champion else 0)
    staging = store.staging_folder(context.job.pk, context.token)
    spec = _spec(run, champion, work, staging, work.attempt(context.token))
    try:
        _write_examples(run, spec)
        _run_trainer(context, run, spec, work)
        crashpoint("supervisor.trainer_done")
        outcome = json.loads(spec.result.read_text(encoding="utf-8"))
        context.progress(0.98, "Publishing")
        _await_database(context)
        _register(context, run, staging, outcome, champion)
    except OSError as error:
        raise TrainerFailed(_NO_SPACE) if is_disk_full(error) else error from error
    finally:
        spec.forget_examples()
        store.discard(staging)
        boards_sweep(run.classifier)


def _await_database(context: JobContext) -> None:
    """A model that was just trained is not thrown away because the database is being restarted."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return _check_lease(context)
        except DATABASE_AWAY:
            if time.monotonic() > until or context.stopping:
                raise
            drop_broken_connection()
            time.sleep(DATABASE_POLL_SECONDS)


def _spec(run: TrainingRun, champion: ModelVersion | None, work: WorkFolder, staging: Path, folder: Path) -> RunSpec:
    classifier, snapshot = run.classifier, run.snapshot
    parent = champion if run.recipe["training_config"].get("start_from") == "parent" else None
    if champion is not None and champion.evaluations.filter(data_digest=snapshot.golden_digest).exists():
        champion = None
    return RunSpec(
        classifier=classifier.slug,
        description=classifier.description,
        label_descriptions=dict(classifier.get_label_config().descriptions),
        family=run.family,
        labels=labels_of(snapshot, classifier),
        input_fields=tuple(classifier.input_fields),
        recipe=_recipe_here(run),
        snapshot_digest=snapshot.digest,
        golden_digest=snapshot.golden_digest,
        counts={split: snapshot.counts.get(split, {}) for split in _Split.values},
        folder=folder,
        out=staging,
        checkpoints=work.checkpoints,
        champion=store.version_folder(classifier.slug, champion.number) if champion else None,
        resume=work.has_checkpoints,
        supervisor=os.getpid(),
        multi_label=classifier.get_label_config().multi_label,
        target_precision=classifier.get_policy().target_precision,
        parent=store.version_folder(classifier.slug, parent.number) if parent else None,
        cache=encoder_cache(),
        board=board_folder(run),
        members=_members(run),
        loader=(classifier.loader or None) if run.family == "custom" else None,
    )


def _members(run: TrainingRun) -> dict[str, Path]:
    """The artefact folders of an ensemble's members, of the versions that are live now."""
    if run.family != "ensemble":
        return {}
    members = registry.ensemble_members(run.classifier, run.recipe["model_config"]["members"])
    for version in members.values():
        if problems := registry.artefact_problems(version, contents=False):  # the trainer reads all of it
            raise TrainerFailed(f"{version.ref} cannot be a member: {'; '.join(problems)}.")
    return {slug: store.version_folder(slug, version.number) for slug, version in members.items()}


def _recipe_here(run: TrainingRun) -> dict[str, Any]:
    """The run's recipe with this installation's device where it leaves the choice open."""
    recipe: dict[str, Any] = run.recipe
    training = recipe["training_config"]
    if training["device"] != "auto":
        return recipe
    return recipe | {"training_config": training | {"device": settings.KALIMTAK_DEVICE}}


def _write_examples(run: TrainingRun, spec: RunSpec) -> None:
    """The snapshot's texts, in order of item id; an item whose person was erased meanwhile is gone."""
    for name, split in (("train", _Split.TRAIN), ("valid", _Split.VALID), ("golden", _Split.TEST)):
        spec.write_examples(name, _examples(run, split))
    spec.write()


def _examples(run: TrainingRun, split: str) -> Iterator[Example]:
    names = run.classifier.input_fields
    rows = SnapshotItem.objects.filter(snapshot=run.snapshot_id, split=split, item__isnull=False).order_by("item_id")
    columns = rows.values_list("item__fields", "label", "weight")
    for fields, label, weight in columns.iterator(chunk_size=ROWS_PER_QUERY):
        yield Example(tuple(fields[name] for name in names), label, weight)


def _run_trainer(context: JobContext, run: TrainingRun, spec: RunSpec, work: WorkFolder) -> None:
    """Until `spec.out` is sealed. A trainer that something killed goes on once from its last checkpoint."""
    with board_beside(run, spec.folder) as board:
        _run_trainers(_Watch(context, run, board), context, spec, work)


def _run_trainers(watch: "_Watch", context: JobContext, spec: RunSpec, work: WorkFolder) -> None:
    for start in range(1, TRAINER_STARTS + 1):
        with TrainerProcess(spec, work.pid_file) as trainer:
            code = watch.follow(trainer)
            if code == EXIT_DONE:
                return
            if code == EXIT_STOPPED:  # the machine is going down and told it before it told us
                raise JobInterrupted
            last_words = trainer.last_words()
        if code == EXIT_DISK_FULL:
            raise TrainerFailed(_NO_SPACE)
        if code > 0 or start == TRAINER_STARTS:
            raise TrainerFailed(watch.error or _obituary(code, last_words))
        crashpoint("supervisor.trainer_killed")
        watch.tell(f"The trainer was killed (signal {-code}) and went on from its last checkpoint.")
        _check_lease(context)
        spec = dataclasses.replace(spec, resume=work.has_checkpoints)
        _empty(spec.out)
        spec.write()


def _obituary(code: int, last_words: str) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    hint = " The machine may be short of memory: try a smaller training_config.batch_size." if code == -9 else ""
    return f"The trainer {how}.{hint}" + (f"\n{last_words}" if last_words else "")


def _empty(folder: Path) -> None:
    store.discard(folder)
    folder.mkdir()


class _Watch:
    """What a supervisor knows of its trainers: how far they are, their figures and notes, what went wrong."""

    def __init__(self, context: JobContext, run: TrainingRun, board: BoardServer | None) -> None:
        self._context, self._run, self._board = context, run, board
        self._history: list[dict[str, Any]] = list(run.history)
        self._facts: dict[str, Any] = {"tensorboard": board.url} if board else {}  # those of an earlier attempt go
        self._notes: list[str] = list(run.notes)
        self._next_save = 0.0
        self._is_saved = board is None
        self.fraction, self.note, self.error = 0.0, "Starting", ""

    def follow(self, trainer: TrainerProcess) -> int:
        """Until it ends; its exit code. Stops it when cancelling was asked for or this process must end."""
        while True:
            code = trainer.returncode()  # asked before reading, so that its last words are not missed
            for event in trainer.events():
                self._take(event)
            if self._board is not None and (problem := self._board.problem()):
                self._board = None
                del self._facts["tensorboard"]
                self.tell(problem)
            self._save(is_last=code is not None)
            try:
                self._context.progress(self.fraction, self.note)
            except JobCancelled:
                trainer.stop()
                raise
            if code is not None:
                return code
            if self._context.stopping:
                trainer.stop()
                raise JobInterrupted
            time.sleep(POLL_SECONDS)

    def _take(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "progress":
                self.fraction, self.note = event["fraction"], event["note"]
            case "note":
                self.tell(event["text"])
            case "facts":
                self._facts |= event["facts"]
                self._is_saved = False
            case "metric":
                self._history = rewound(self._history, event["step"], event["values"])
                self._history.append({"step": event["step"], "epoch": event["epoch"], **event["values"]})
                self._is_saved = False
            case "error":
                self.error = event["message"]

    def tell(self, note: str) -> None:
        """Keep a note for people with the run; what an earlier attempt said already is not said again."""
        self.note = note
        if note not in self._notes:
            self._notes.append(note)
            self._is_saved = False

    def _save(self, *, is_last: bool) -> None:
        if self._is_saved or (time.monotonic() < self._next_save and not is_last):
            return
        if len(self._history) > HISTORY_POINTS:
            self._history = [point for index, point in enumerate(self._history) if index % 2 or _is_evaluation(point)]
        self._next_save = time.monotonic() + HISTORY_SECONDS
        try:
            with self._context.effect():
                TrainingRun.objects.filter(pk=self._run.pk).update(
                    history=self._history, facts=self._facts, notes=self._notes
                )
            self._is_saved = True
        except DATABASE_AWAY:  # the training goes on, and what is missing is saved with the next figures
            drop_broken_connection()


def _is_evaluation(point: dict[str, Any]) -> bool:
    return any(name.startswith("eval_") for name in point)


# What follows ----------------------------------------------------------------------------------------------------


def _register(
    context: JobContext, run: TrainingRun, staging: Path, outcome: dict[str, Any], champion: ModelVersion | None
) -> None:
    """Version, figures and the run's link to them, all or nothing.

    `champion` is the version that was live when the trainer started, hence the one it scored: another one may be live
    by now.
    """
    digest = run.snapshot.golden_digest

    def note(version: ModelVersion) -> None:
        if outcome["scores"]:  # without a golden set nothing was judged
            scores = Scores.from_dict(outcome["scores"])
            registry.evaluation_record(version, data_digest=digest, scores=scores, slices=outcome["slices"])
        if champion is not None and (judged := outcome["champion"]):
            scores = Scores.from_dict(judged["scores"])
            registry.evaluation_record(champion, data_digest=digest, scores=scores, slices=judged["slices"])
        run.version = version
        run.save(update_fields=["version"])

    registry.version_register(
        run.classifier, staging, parent=champion, actor=context.job.actor, effect=context.effect, also=note
    )


def _conclude(context: JobContext, run: TrainingRun) -> dict[str, Any]:
    """Verify, judge, deploy where that was asked for; the job's result. Safe to repeat."""
    version = run.version
    assert version is not None
    crashpoint("supervisor.registered")
    if version.status == ModelVersion.Status.REGISTERED:
        context.progress(0.99, "Verifying in a fresh process")
        if problems := registry.version_verify(version, actor=context.job.actor):
            raise TrainerFailed(f"{version.ref} did not verify: {'; '.join(problems)}")
    crashpoint("supervisor.verified")
    _measure_cascades(context, version)
    evaluation = _judge(version)
    crashpoint("supervisor.judged")
    result: dict[str, Any] = {
        "version": version.ref,
        "verdict": evaluation.verdict,
        "reasons": evaluation.reasons,
        "metrics": version.metrics,
        "notes": TrainingRun.objects.values_list("notes", flat=True).get(pk=run.pk),
    }
    if run.then == TrainingRun.Then.DEPLOY:
        result |= _deploy(context, version, evaluation)
    return result


def _measure_cascades(context: JobContext, version: ModelVersion) -> None:
    """Pairs with the new version are measured before it answers; what fails here is measured after its deployment."""
    try:
        cascades_prepare(version, progress=lambda _, note: context.progress(0.99, note))
    except KalimtakError as error:
        logger.warning("A cascade with %s was not measured: %s", version.ref, error.message)


def _judge(version: ModelVersion) -> Evaluation:
    """The gate's verdict; of a version that a former attempt deployed, the one that let it through."""
    before = version.evaluations.exclude(verdict="").first() if version.deployments.exists() else None
    return before or registry.version_judge(version)


def _check_lease(context: JobContext) -> None:
    """Raise `LeaseLost` where another attempt has taken over, without waiting for the next report."""
    with context.effect():
        pass


def _deploy(context: JobContext, version: ModelVersion, evaluation: Evaluation) -> dict[str, Any]:
    """Deploy if the gate agrees; else say why not. A version that a former attempt deployed is left as it is."""
    if evaluation.verdict != Evaluation.Verdict.PASSED:
        return {"deployed": False, "deployment": f"Not deployed, the gate says {evaluation.verdict}."}
    if version.deployments.exists():
        return {"deployed": True, "deployment": "production"}
    _check_lease(context)
    try:
        registry.version_deploy(version, actor=context.job.actor, reason="Trained and let through by the gate.")
    except KalimtakError as error:
        return {"deployed": False, "deployment": f"Not deployed: {error.message}"}
    return {"deployed": True, "deployment": "production"}
