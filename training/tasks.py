"""Job handlers: what a worker or a supervisor runs for each kind of job. Each calls one service."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import NotFound
from kalimtak.core.jobs import RESUME, JobContext
from registry.services import classifier_get
from training import services
from training.models import Dataset, TrainingRun


def train(context: JobContext) -> dict[str, Any]:
    """A training run, from its snapshot to a judged version."""
    return services.run_execute(context)


def fine_tune(context: JobContext) -> dict[str, Any]:
    """The weekly job: start a run for every classifier that has learnt enough new."""
    outcomes = services.fine_tune(key=str(context.job.pk), actor=context.job.actor)
    return {
        one.classifier: {
            "new_items": one.new_items,
            "outcome": one.outcome,
            "job": str(one.run.job_id) if one.run else None,
        }
        for one in outcomes
    }


def evaluate(context: JobContext) -> dict[str, Any]:
    """The monthly job: score every live version on its classifier's golden set as it is now."""
    evaluations = services.evaluate_all(progress=context.progress_or_stop)
    return {evaluation.version.ref: {"macro_f1": evaluation.macro_f1} for evaluation in evaluations}


def cascade(context: JobContext) -> dict[str, Any]:
    """Measure from which confidence a classifier's cascade may answer, for the pair of versions that is live now."""
    row = services.cascade_refresh(classifier_get(context.params["classifier"]), progress=context.progress_or_stop)
    if row is None:
        return {"outcome": "nothing to measure"}
    return {"version": row.version.ref, "cheap": row.cheap.ref, "threshold": row.threshold, **row.figures}


def curate(context: JobContext) -> dict[str, Any]:
    """The daily job, and the curation that staff asked for when much was waiting."""
    slug, job = context.params.get("classifier", ""), context.job
    stats = services.CurationStats.from_dict(context.params.get(RESUME, {}))

    @contextmanager
    def effect() -> Iterator[None]:
        """An attempt that goes on from another's batches also goes on from its figures."""
        with context.effect():
            yield
            job.params[RESUME] = stats.unfinished()
            job.save(update_fields=["params"])

    services.examples_curate(
        classifier=classifier_get(slug) if slug else None,
        dry_run=bool(context.params.get("dry_run")),
        actor=job.actor,
        progress=context.progress_or_stop,
        effect=effect,
        stats=stats,
    )
    if not context.params.get("dry_run"):
        with context.effect():  # what waits now is put in order
            classifier = classifier_get(slug) if slug else None
            services.queue_rank_later(classifier, actor=job.actor, key=f"rank:after:{job.pk}")
    return stats.to_dict()


def rank(context: JobContext) -> dict[str, Any]:
    """After each curation: put what waits for review in the order that teaches most, and draw the audit slice."""
    slug = context.params.get("classifier", "")
    done = services.queues_rank(
        [classifier_get(slug)] if slug else None,
        actor=context.job.actor,
        progress=context.progress_or_stop,
        effect=context.effect,
    )
    return {name: ranking.to_dict() for name, ranking in done.items()}


def dataset_import(context: JobContext) -> dict[str, Any]:
    """Load a data set, and start a training run afterwards where that was asked for."""
    dataset = Dataset.objects.select_related("classifier").filter(pk=context.params["dataset"]).first()
    if dataset is None:
        raise NotFound("The data set was removed before it was loaded.")
    if dataset.report.get("job") != str(context.job.pk):  # an earlier attempt of this job may have loaded it
        services.dataset_load(
            dataset, progress=context.progress_or_stop, effect=context.effect, job=str(context.job.pk)
        )
    result = {"dataset": dataset.pk, "rows": dataset.rows, "errors": dataset.report["error_count"]}
    result |= dataset.report["outcome"]
    if context.params.get("then", "none") != "none":
        crashpoint("import.before_run")
        then = TrainingRun.Then.DEPLOY if context.params["then"] == "deploy" else TrainingRun.Then.NONE
        with context.effect():
            key = f"train:after:{context.job.pk}"
            run = services.run_start(dataset.classifier, actor=context.job.actor, then=then, key=key)
        result["train_job"] = str(run.job_id)
    return result


def import_interactions(context: JobContext) -> dict[str, Any]:
    """Record a log of past interactions with their feedback."""
    dataset = Dataset.objects.select_related("classifier").filter(pk=context.params["dataset"]).first()
    if dataset is None:
        raise NotFound("The log was removed before it was imported.")
    if dataset.report.get("job") != str(context.job.pk):
        services.interactions_load(
            dataset, progress=context.progress_or_stop, effect=context.effect, job=str(context.job.pk)
        )
    return {"dataset": dataset.pk, "errors": dataset.report["error_count"], **dataset.report["outcome"]}


def examine(context: JobContext) -> dict[str, Any]:
    """Look through the items of a data set for what a person should know."""
    dataset = Dataset.objects.select_related("classifier").filter(pk=context.params["dataset"]).first()
    if dataset is None:
        raise NotFound("The data set was removed before it was examined.")
    services.dataset_examine(dataset, progress=context.progress_or_stop, effect=context.effect)
    found = dataset.findings
    return {
        "dataset": dataset.pk,
        "items": found["items"],
        "near_duplicates": found["twins"]["same_label"]["count"] + found["twins"]["other_label"]["count"],
        "in_golden_set": found["golden"]["same"]["count"] + found["golden"]["near"]["count"],
        "doubtful_labels": found["doubtful"]["count"] if found["doubtful"] else 0,
    }
