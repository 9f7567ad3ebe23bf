"""Figures are stored once; the gate judges from what is stored and its verdicts are kept."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from registry import gate
from registry.gate import Verdict
from registry.metrics import Scores
from registry.models import Evaluation, ModelVersion
from registry.services.classifiers import live_version


def evaluation_record(
    version: ModelVersion,
    *,
    data_digest: str,
    scores: Scores,
    baseline: ModelVersion | None = None,
    verdict: Verdict | None = None,
    slices: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Store the figures of `version` on the data with this digest."""
    return Evaluation.objects.create(
        version=version,
        data_digest=data_digest,
        rows=scores.n,
        scores=scores.to_dict(),
        slices=dict(slices or {}),
        baseline=baseline,
        verdict=verdict.verdict if verdict else "",
        reasons=list(verdict.reasons) if verdict else [],
    )


def version_judge(version: ModelVersion) -> Evaluation:
    """The gate's verdict on `version` against what is live now, from figures both have on the same data.

    A verdict goes onto the newest such figures where they carry none yet; a judged row never changes, so another
    verdict (another live version, another policy) makes a new row.
    """
    champion = live_version(version.classifier)
    candidate, baseline = comparable_evaluations(version, champion)
    verdict = _verdict(version, champion, candidate, baseline)
    outcome = {"baseline": champion, "verdict": verdict.verdict, "reasons": list(verdict.reasons)}
    if candidate is None:
        return _same_verdict(version, outcome) or Evaluation.objects.create(version=version, data_digest="", **outcome)
    if all(getattr(candidate, name) == value for name, value in outcome.items()):
        return candidate
    with transaction.atomic():
        blank = Evaluation.objects.filter(pk=candidate.pk, verdict="")
        if blank.update(**outcome):
            candidate.refresh_from_db()
            return candidate
        figures = {name: getattr(candidate, name) for name in ("data_digest", "rows", "scores", "slices")}
        return Evaluation.objects.create(version=version, **figures, **outcome)


def comparable_evaluations(
    version: ModelVersion, other: ModelVersion | None
) -> tuple[Evaluation | None, Evaluation | None]:
    """The newest figures of `version` on data that `other` was scored on too, with those of `other`.

    Where they have no data in common: the newest of `version`, and None.
    """
    own = list(version.evaluations.exclude(scores={}))
    if other is None:
        return (own[0] if own else None), None
    oldest_first = other.evaluations.exclude(scores={}).order_by("created_at", "pk")
    theirs = {evaluation.data_digest: evaluation for evaluation in oldest_first}
    for evaluation in own:
        if evaluation.data_digest in theirs:
            return evaluation, theirs[evaluation.data_digest]
    return (own[0] if own else None), None


def _verdict(
    version: ModelVersion, champion: ModelVersion | None, candidate: Evaluation | None, baseline: Evaluation | None
) -> Verdict:
    policy = version.classifier.get_policy().gate
    if champion is None:
        return gate.judge({}, None, policy, same_digest=False)
    if candidate is None:
        reason = f"{version.ref} was never evaluated. Run `manage.py evaluate {version.classifier.slug}` for it first."
        return Verdict("insufficient", (reason,))
    if baseline is None:
        return gate.judge(candidate.scores, {}, policy, same_digest=False)
    return gate.judge(candidate.scores, baseline.scores, policy, same_digest=True)


def _same_verdict(version: ModelVersion, outcome: Mapping[str, Any]) -> Evaluation | None:
    last = version.evaluations.filter(scores={}).first()
    return last if last and all(getattr(last, name) == value for name, value in outcome.items()) else None
