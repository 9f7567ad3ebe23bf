"""Job handlers: what a worker or a supervisor runs for each kind of job. Each calls one service."""

from typing import Any

from kalimtak.core.jobs import JobContext
from training import services


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
    evaluations = services.evaluate_all(progress=context.progress)
    return {evaluation.version.ref: {"macro_f1": evaluation.macro_f1} for evaluation in evaluations}
