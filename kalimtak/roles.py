"""The five roles of staff, as groups with permissions. `setup` keeps them; rights given by hand are left alone."""

from django.contrib.auth.models import Group, Permission
from django.db import transaction

LOOK = (
    "core.view_alert",
    "core.view_job",
    "registry.view_classifier",
    "registry.view_modelversion",
    "registry.view_evaluation",
    "registry.view_deployment",
    "interactions.view_userinteraction",
    "interactions.view_feedback",
    "training.view_dataset",
    "training.view_trainingdataitem",
    "training.view_review",
    "training.view_blockedword",
    "training.view_datasetsnapshot",
    "training.view_snapshotitem",
    "training.view_trainingrun",
)
REVIEW = ("training.review_trainingdataitem",)
TRAIN = (
    "registry.train_classifier",
    "registry.curate_classifier",
    "training.add_dataset",
    "training.add_trainingrun",
    "training.add_blockedword",
    "training.delete_blockedword",
    "core.change_job",
    "core.change_alert",
)
DEPLOY = ("registry.deploy_modelversion", "registry.rollback_modelversion", "core.change_alert")
GOVERN = (
    "registry.change_classifier",
    "registry.force_deploy_modelversion",
    "interactions.view_personalrecord",
    "interactions.view_subject",
    "interactions.delete_subject",
    "core.view_apikey",
    "core.add_apikey",
    "core.change_apikey",
    "core.view_auditevent",
    "django_q.view_schedule",
    "django_q.change_schedule",
    "auth.view_user",
    "auth.view_group",
)

ROLES: dict[str, tuple[str, ...]] = {
    "viewer": LOOK,
    "annotator": LOOK + REVIEW,
    "trainer": LOOK + REVIEW + TRAIN,
    "deployer": LOOK + DEPLOY,
    "admin": LOOK + REVIEW + TRAIN + DEPLOY + GOVERN,
}


@transaction.atomic
def roles_ensure() -> list[str]:
    """Make each role's group and give it what it lacks; the names of groups that were new. Safe to repeat.

    Raises `LookupError` for a permission that does not exist (migrations were not applied).
    """
    created = []
    known = permissions_by_name()
    for name, codes in ROLES.items():
        if missing := sorted(set(codes) - set(known)):
            raise LookupError(f"No such permission: {', '.join(missing)}. Run `manage.py migrate` first.")
        group, is_new = Group.objects.get_or_create(name=name)
        group.permissions.add(*(known[code] for code in codes))
        if is_new:
            created.append(name)
    return created


def permissions_by_name() -> dict[str, int]:
    """The key of every permission, by `app.codename`."""
    named = Permission.objects.order_by().values_list("content_type__app_label", "codename", "pk")
    return {f"{app}.{codename}": key for app, codename, key in named}
