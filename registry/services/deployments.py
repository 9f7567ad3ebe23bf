"""Who answers from now on: putting a version in front of users, and taking it back.

Both verbs first look at what is live, decide, and then replace exactly that row in one transaction. Whoever comes
second finds it ended and gets `deployment_race`. Neither needs the queue or a cache: the servers read the row.
"""

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from kalimtak.core import audit
from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import Conflict, InvalidInput, NotAllowed, NotFound
from registry.models import Classifier, Deployment, Evaluation, ModelVersion
from registry.services.classifiers import live_deployment
from registry.services.evaluations import version_judge
from registry.services.helpers import cascades_queue
from registry.services.versions import artefact_problems, mark_corrupt

STRATEGIES = ("full", "canary", "shadow", "split")
MAX_REASON = 300
_Status = ModelVersion.Status


# Forward ---------------------------------------------------------------------------------------------------------


def version_deploy(
    version: ModelVersion,
    *,
    actor: str,
    strategy: str = "full",
    share: int = 100,
    force: bool = False,
    may_force: bool = False,
    reason: str = "",
) -> Deployment:
    """Let `version` answer for its classifier from now on, if it is intact and the gate agrees.

    `force` overrides the gate's verdict, never the checks of the artefact. Raises `InvalidInput`, `NotAllowed`, and
    `Conflict` with code `not_available`, `not_verified`, `corrupt_artefact`, `already_live`, `gate_refused` (the
    reasons in `fields`) or `deployment_race`.
    """
    _check_request(strategy, share, force, may_force, reason)
    _check_status(version)
    live = live_deployment(version.classifier)
    if live is not None and live.version_id == version.pk:
        raise Conflict(f"{version.ref} is live already.", code="already_live")
    _check_artefact(version, actor)
    evaluation = version_judge(version)
    passed = evaluation.verdict == Evaluation.Verdict.PASSED
    if not passed and not force:
        raise Conflict(
            f"The gate does not let {version.ref} through: {' '.join(evaluation.reasons)}",
            code="gate_refused",
            fields={"gate": list(evaluation.reasons)},
        )
    return _replace(live, version, actor=actor, reason=reason.strip(), action="version.deploy", forced=not passed)


def _check_request(strategy: str, share: int, force: bool, may_force: bool, reason: str) -> None:
    if strategy not in STRATEGIES:
        _refuse("strategy", f"Unknown strategy; use one of {', '.join(STRATEGIES)}.")
    if strategy != "full":
        raise Conflict(f"Strategy {strategy} is not available yet; deploy with strategy full.", code="not_available")
    if share != 100:
        _refuse("share", "With strategy full the share is 100.")
    _check_reason(reason)
    if force and not may_force:
        raise NotAllowed("Deploying against the gate needs a permission of its own; ask an administrator.")
    if force and not reason.strip():
        _refuse("reason", "Say why the gate's verdict should not count; it is kept in the audit trail.")


def _check_reason(reason: str) -> None:
    if len(reason) > MAX_REASON:
        _refuse("reason", f"Keep the reason under {MAX_REASON} characters.")


def _refuse(field: str, message: str) -> None:
    raise InvalidInput(message, fields={field: [message]})


def _check_status(version: ModelVersion) -> None:
    # The caller may hold a row read long ago; a version found corrupt meanwhile must not slip through.
    version.refresh_from_db(fields=["status", "problems"])
    if version.status == _Status.CORRUPT:
        raise _corrupt(version)
    if version.status != _Status.VERIFIED:
        raise Conflict(
            f"{version.ref} is {version.status}, and only verified versions answer; "
            f"run `manage.py verify_model {version.ref}`.",
            code="not_verified",
        )


def _check_artefact(version: ModelVersion, actor: str) -> None:
    if problems := artefact_problems(version):
        mark_corrupt(version, problems, actor=actor)
        raise _corrupt(version)


def _corrupt(version: ModelVersion) -> Conflict:
    return Conflict(
        f"{version.ref} is corrupt: {'; '.join(version.problems)}. Restore its files from a backup and run "
        f"`manage.py verify_model {version.ref}`, or train again.",
        code="corrupt_artefact",
    )


# Back ------------------------------------------------------------------------------------------------------------


def version_rollback(classifier: Classifier, *, actor: str, to: int | None = None, reason: str = "") -> Deployment:
    """Undo the newest deployment; returns the one now in force.

    A canary is ended first. Else the production version before this one answers again that was not itself rolled back
    from, or version number `to`. No verdict is asked for, only intact files. Raises `NotFound` and `Conflict` with code
    `nothing_to_roll_back`, `already_live`, `not_a_rollback`, `not_verified`, `corrupt_artefact`, `deployment_race`.
    """
    _check_reason(reason)
    live = live_deployment(classifier)
    if live is None:
        raise Conflict(f"Nothing is deployed for {classifier.slug}.", code="nothing_to_roll_back")
    if to is None and _end_canary(classifier, actor, reason.strip()):
        return live
    target = _earlier_version(live, actor) if to is None else _chosen_version(live, to, actor)
    return _replace(live, target, actor=actor, reason=reason.strip(), action="version.rollback", rolled_back=True)


def _end_canary(classifier: Classifier, actor: str, reason: str) -> bool:
    """Send the canary's share back to production; False where there is no canary."""
    canary = classifier.deployments.live().filter(role=Deployment.Role.CANARY).first()
    if canary is None:
        return False
    with transaction.atomic():
        _end(canary, rolled_back=True)
        audit.record(actor, "version.rollback", canary.version.ref, role="canary", reason=reason)
    return True


def _earlier_version(live: Deployment, actor: str) -> ModelVersion:
    """The nearest earlier version whose own last time in production did not end in a rollback, files intact."""
    seen = {live.version_id}
    earlier = live.classifier.deployments.production().filter(pk__lt=live.pk).order_by("-pk")
    for deployment in earlier.select_related("version__classifier"):
        version = deployment.version
        if version.pk in seen:
            continue
        seen.add(version.pk)
        if deployment.rolled_back or version.status != _Status.VERIFIED:
            continue
        if problems := artefact_problems(version):
            mark_corrupt(version, problems, actor=actor)
            continue
        return version
    raise Conflict(
        f"There is no earlier version of {live.classifier.slug} to go back to; name one with `to`.",
        code="nothing_to_roll_back",
    )


def _chosen_version(live: Deployment, number: int, actor: str) -> ModelVersion:
    """Version `number`, which was in production before or is at least older than what is live.

    A newer one that never was would bypass the gate: that is a deployment.
    """
    version = live.classifier.versions.select_related("classifier").filter(number=number).first()
    if version is None:
        raise NotFound(f"There is no version {live.classifier.slug}/{number}.")
    if version.pk == live.version_id:
        raise Conflict(f"{version.ref} is live already.", code="already_live")
    was_deployed = version.deployments.filter(role=Deployment.Role.PRODUCTION).exists()
    if not was_deployed and number > live.version.number:
        raise Conflict(f"{version.ref} was never in production; deploy it instead.", code="not_a_rollback")
    _check_status(version)
    _check_artefact(version, actor)
    return version


# Both ------------------------------------------------------------------------------------------------------------


def _replace(
    live: Deployment | None,
    version: ModelVersion,
    *,
    actor: str,
    reason: str,
    action: str,
    forced: bool = False,
    rolled_back: bool = False,
) -> Deployment:
    """End exactly `live` and begin `version` in production, or raise `Conflict` if somebody else was faster.

    The conditional unique constraint (one live production row per classifier) decides between two that both saw
    nothing live.
    """
    crashpoint("deployment.before_row")
    try:
        with transaction.atomic():
            if live is not None:
                _end(live, rolled_back=rolled_back)
            deployment = Deployment.objects.create(
                classifier=version.classifier, version=version, actor=actor[:150], reason=reason, forced=forced
            )
            if live is not None:  # no moment between the two: "who answered at that time" has one answer
                Deployment.objects.filter(pk=live.pk).update(ended_at=deployment.started_at)
            audit.record(
                actor,
                action,
                version.ref,
                deployment=deployment.pk,
                replaced=live.version.ref if live else None,
                reason=reason,
                forced=forced,
            )
            cascades_queue([version.classifier], actor=actor)
            crashpoint("deployment.before_commit")
    except IntegrityError as error:
        raise _race(version.classifier) from error
    crashpoint("deployment.after_commit")
    return deployment


def _end(deployment: Deployment, *, rolled_back: bool) -> None:
    """Raises `Conflict` where it was ended already."""
    still_live = Deployment.objects.filter(pk=deployment.pk, ended_at=None)
    if not still_live.update(ended_at=Now(), rolled_back=rolled_back):
        raise _race(deployment.classifier)


def _race(classifier: Classifier) -> Conflict:
    return Conflict(
        f"Somebody else changed what is deployed for {classifier.slug} just now; look again, then decide.",
        code="deployment_race",
    )
