"""Asking for training runs: one classifier now, the last one again, or all that have learnt enough new."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Coalesce

from kalimtak.core import audit, jobs
from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import Conflict, InvalidInput, KalimtakError
from kalimtak.core.models import Job
from kalimtak.core.pulses import worker_is_seen
from registry import services as registry
from registry.families import FAMILIES
from registry.models import Classifier
from registry.recipe import Place, Recipe, RecipeError, apply_overrides, check_use_8bit, unused_keys
from training.models import DatasetSnapshot, TrainingDataItem, TrainingRun
from training.services.snapshots import golden_reserve, labels_of, snapshot_freeze


@transaction.atomic
def run_start(
    classifier: Classifier,
    *,
    actor: str,
    overrides: Sequence[str] = (),
    family: str = "",
    then: str = TrainingRun.Then.NONE,
    key: str = "",
    recipe: Recipe | None = None,
    ring: bool = True,
) -> TrainingRun:
    """Freeze what there is to learn from and queue a run over it.

    `recipe` and `family` are the classifier's unless given, `overrides` are assignments such as
    `training_config.num_epochs=2`. The same `key` never starts a second run: the first one is returned. With
    `ring=False` the caller runs the job by itself. Raises `InvalidInput` for a recipe, type, member, number of
    labels or `then` that cannot be, and `Conflict` with code `no_data` or `one_class`.
    """
    if then not in TrainingRun.Then.values:
        _refuse("then", f"Use one of {', '.join(TrainingRun.Then.values)}.")
    locked = Classifier.objects.select_for_update().get(pk=classifier.pk)
    if key and (known := TrainingRun.objects.filter(job__key=key).first()):
        return known
    family = family or locked.family
    if family == "custom" and not locked.loader:
        _refuse("type", f"Type custom runs a loader, and {locked.slug} has none: add it to models.yaml.")
    if family not in FAMILIES:
        _refuse("type", f"Type {family!r} cannot be trained here; use one of {', '.join(sorted(FAMILIES))}.")
    try:
        recipe = apply_overrides(recipe or locked.get_recipe(), overrides)
        check_use_8bit(recipe, family, Place(locked.slug))
    except RecipeError as error:
        raise InvalidInput(str(error)) from error
    if family == "ensemble":
        registry.ensemble_members(locked, recipe.model.members)  # here a person hears of it, in the job later nobody
    golden_reserve(locked)
    snapshot = snapshot_freeze(locked, seed=recipe.training.seed, recipe=recipe, learns=family != "custom")
    _check_num_labels(recipe.model.num_labels, labels_of(snapshot, locked), locked.slug)
    return _queue(locked, snapshot, recipe.to_dict(), family, actor=actor, then=then, key=key, ring=ring)


@transaction.atomic
def run_resume(classifier: Classifier, *, actor: str, then: str = "", ring: bool = True) -> TrainingRun:
    """Queue the classifier's last run once more if it failed or was cancelled: same data, same recipe, its checkpoints.

    Raises `Conflict` with code `nothing_to_resume` where the last run did not end that way.
    """
    last = TrainingRun.objects.filter(classifier=classifier).select_related("job", "snapshot").first()
    unfinished = (Job.State.FAILED, Job.State.CANCELLED, Job.State.QUARANTINED)
    if last is None or last.job.state not in unfinished or last.version_id is not None:
        raise Conflict(
            f"The last run of {classifier.slug} neither failed nor was cancelled; start a new one."
            if last
            else f"{classifier.slug} was never trained; start a run without --resume.",
            code="nothing_to_resume",
        )
    return _queue(
        classifier,
        last.snapshot,
        last.recipe,
        last.family,
        actor=actor,
        then=then or last.then,
        ring=ring,
        resume_of=str(last.job_id),
    )


def _queue(
    classifier: Classifier,
    snapshot: DatasetSnapshot,
    recipe: dict[str, dict[str, Any]],
    family: str,
    *,
    actor: str,
    then: str,
    key: str = "",
    ring: bool,
    resume_of: str = "",
) -> TrainingRun:
    job = jobs.enqueue(
        "train",
        {"classifier": classifier.slug},
        key=key or f"train:{uuid.uuid4()}",
        actor=actor,
        cluster=_cluster_for(recipe["training_config"]["device"], ring=ring),
        ring=ring,
    )
    crashpoint("run.after_job")
    unused = unused_keys(recipe, family)
    run = TrainingRun.objects.create(
        job=job,
        classifier=classifier,
        snapshot=snapshot,
        family=family,
        recipe=recipe,
        then=then,
        notes=[f"{family} does not use: {', '.join(unused)}."] if unused else [],
    )
    job.params |= {"run": run.pk} | ({"resume_of": resume_of} if resume_of else {})
    job.save(update_fields=["params"])
    audit.record(actor, "run.start", classifier.slug, run=run.pk, snapshot=snapshot.digest, then=then)
    crashpoint("run.before_commit")
    return run


def _cluster_for(device: str, *, ring: bool) -> str:
    """Where a run on `device` is queued: `gpu` for cuda, and for auto where a worker of that cluster is at work.

    Where the recipe leaves the device open, the installation's choice counts. What the caller runs by itself (`ring`
    is False) has no need of a worker elsewhere.
    """
    wanted = settings.KALIMTAK_DEVICE if device == "auto" else device
    return "gpu" if wanted == "cuda" or (wanted == "auto" and ring and worker_is_seen("gpu")) else "training"


def _check_num_labels(expected: int | None, labels: Sequence[str], slug: str) -> None:
    """Where `label_config.labels` lists none, only the data says how many there are. Raises `InvalidInput`."""
    if expected is not None and expected != len(labels):
        listed = shorten(", ".join(labels), 200)
        raise InvalidInput(
            f"model_config.num_labels is {expected}, but {slug} has {len(labels)} labels ({listed}); "
            f"set it to {len(labels)}, or correct label_config.labels or the data."
        )


def _refuse(field: str, message: str) -> None:
    raise InvalidInput(message, fields={field: [message]})


# The weekly job --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FineTuning:
    """What the weekly job did about one classifier. `run` is None where none was started; `outcome` says why."""

    classifier: str
    new_items: int
    outcome: str
    run: TrainingRun | None = None


def fine_tune(*, key: str, actor: str = "system") -> list[FineTuning]:
    """Start a run for every enabled classifier that has learnt enough new since its last one.

    "Enough" is `policy.min_new_items`; the run is deployed by itself only where `policy.auto_deploy` says `full` and
    the gate agrees. `key` tells this call from the next week's: repeating it starts nothing twice.
    """
    return [_fine_tune_one(classifier, key=key, actor=actor) for classifier in Classifier.objects.serving()]


def _fine_tune_one(classifier: Classifier, *, key: str, actor: str) -> FineTuning:
    policy = classifier.get_policy()
    run_key = f"fine_tune:{classifier.slug}:{key}"
    if known := TrainingRun.objects.filter(job__key=run_key).first():
        return FineTuning(classifier.slug, new_items_count(classifier), "training queued already", known)
    new_items = new_items_count(classifier)
    if classifier.family == "custom":
        return FineTuning(classifier.slug, new_items, "skipped, type custom is not trained")
    if new_items < policy.min_new_items:
        outcome = f"skipped, too little new ({new_items} of {policy.min_new_items} items)"
        return FineTuning(classifier.slug, new_items, outcome)
    under_way = TrainingRun.objects.filter(classifier=classifier, job__state__in=[Job.State.QUEUED, Job.State.RUNNING])
    if waiting := under_way.first():
        return FineTuning(classifier.slug, new_items, f"not started: run {waiting.pk} is under way")
    then = TrainingRun.Then.DEPLOY if policy.auto_deploy == "full" else TrainingRun.Then.NONE
    try:
        run = run_start(classifier, actor=actor, then=then, key=run_key)
    except KalimtakError as error:
        return FineTuning(classifier.slug, new_items, f"not started: {error.message}")
    crashpoint("fine_tune.run_started")
    return FineTuning(classifier.slug, new_items, "training queued", run)


def new_items_count(classifier: Classifier) -> int:
    """Trainable items approved since the last run that made a version began."""
    items = TrainingDataItem.objects.filter(classifier=classifier, selected=True).trainable()
    last = TrainingRun.objects.filter(classifier=classifier, version__isnull=False).first()
    if last is None:
        return items.count()
    return (
        items.annotate(approved_at=Coalesce("decided_at", "created_at")).filter(approved_at__gt=last.created_at).count()
    )
