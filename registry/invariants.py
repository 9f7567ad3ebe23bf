"""What always holds between classifiers, versions, figures and deployments, and the folders of the models store."""

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, F, Sum

from kalimtak.core.findings import Check, Finding, Look, error, outside, warning
from registry import services, store
from registry.manifest import ArtefactCorrupt, Manifest, read_manifest
from registry.models import Classifier, Deployment, Evaluation, ModelVersion
from registry.recipe import RecipeError

STALE = timedelta(minutes=10)

_Role, _Status = Deployment.Role, ModelVersion.Status
_BY_HAND = "No verb writes this: somebody changed the row by hand, or it is a bug."
_RESTORE = "Restore the folder from a backup and run `manage.py verify_model {0}`, or deploy another version."


# Classifiers -----------------------------------------------------------------------------------------------------


def classifiers_can_be_read(look: Look) -> Iterator[Finding]:
    """Labels, input fields, recipe and policy are of the form that everything else builds upon."""
    remedy = "Correct it in the admin, or in models.yaml and run `manage.py sync_models`."
    for classifier in look.rows(Classifier.objects.all()):
        for what, names in (("labels", classifier.labels), ("input fields", classifier.input_fields)):
            if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
                yield error(f"classifier {classifier.slug}", f"its {what} are no list of names", remedy)
            elif len(set(names)) != len(names):
                yield error(f"classifier {classifier.slug}", f"its {what} name one thing twice", remedy)
        if not classifier.input_fields:
            yield error(f"classifier {classifier.slug}", "it reads no input field", remedy)
        try:
            classifier.get_recipe(), classifier.get_policy(), classifier.get_label_config()
        except RecipeError as problem:
            yield error(f"classifier {classifier.slug}", f"its configuration cannot be read: {problem}", remedy)
            continue
        for name, misfit in services.classifier_problems(classifier) if classifier.enabled else ():
            yield warning(f"classifier {classifier.slug}", f"nobody helps as its policy.{name}: {misfit}", remedy)


# Versions and their folders --------------------------------------------------------------------------------------


def versions_have_their_folders(look: Look) -> Iterator[Finding]:
    """Each version's folder holds, byte for byte, what was registered; its manifest says what the row says."""
    for version in look.rows(ModelVersion.objects.select_related("classifier"), batch=20):
        if problems := services.artefact_problems(version, contents=not look.quick):
            known = version.status == _Status.CORRUPT
            report = warning if known else error
            also = "marked as corrupt; " if known else ""
            yield report(f"version {version.ref}", also + "; ".join(problems), _RESTORE.format(version.ref))
            continue
        if version.status == _Status.CORRUPT:
            yield warning(
                f"version {version.ref}",
                f"marked as corrupt ({'; '.join(map(str, version.problems))}), though its files are intact",
                f"Run `manage.py verify_model {version.ref}`.",
            )
        yield from _differences(version)


def _differences(version: ModelVersion) -> Iterator[Finding]:
    try:
        manifest = read_manifest(store.version_folder(version.classifier.slug, version.number))
    except ArtefactCorrupt:  # removed or replaced while we looked; the next look says so
        return
    for name, differs in _compared(version, manifest).items():
        if differs:
            yield error(f"version {version.ref}", f"its row and its manifest differ in {name}", _BY_HAND)


def _compared(version: ModelVersion, manifest: Manifest) -> dict[str, bool]:
    return {
        "classifier": manifest.classifier != version.classifier.slug,
        "family": manifest.family != version.family,
        "labels": list(manifest.labels) != version.labels,
        "seed": manifest.seed != version.seed,
        "snapshot digest": (manifest.snapshot_digest or "") != version.snapshot_digest,
        "metrics": manifest.metrics != version.metrics,
        "calibration": manifest.calibration != version.calibration,
        "parameters": manifest.parameters != version.parameters,
        "libraries": manifest.libraries != version.libraries,
        "size": sum(entry["size"] for entry in manifest.files.values()) != version.size,
    }


def folders_have_their_versions(look: Look) -> Iterator[Finding]:
    """Nothing lies among the versions that no row knows."""
    folders = list(store.published())  # before the rows: a folder is there a moment earlier than its row
    known = set(ModelVersion.objects.values_list("classifier__slug", "number"))
    for slug, number, folder in folders:
        if (slug, number) not in known:
            yield error(
                f"store {slug}/{number}",
                "a folder without a version, as a crash while registering leaves it",
                f"The next version of {slug} moves it to `_orphans/`; or move {folder} out of the store.",
            )
    for path in store.strangers():
        yield warning(f"store {path.relative_to(store.root())}", "does not belong there", f"Move {path} elsewhere.")


def staging_is_in_use(look: Look) -> Iterator[Finding]:
    """What a crashed attempt or upload left half-built is removed by the next run and by `setup`."""
    for staging in services.staging_stale(STALE):
        age = f"{staging.age.total_seconds() / 3600:.1f} h"
        yield warning(
            f"store _staging/{staging.path.name}",
            f"left behind by a crash; not written to for {age}",
            "`manage.py setup` removes it, and so does the next training run.",
        )


# Relations -------------------------------------------------------------------------------------------------------


def versions_keep_to_their_classifier(look: Look) -> Iterator[Finding]:
    """Parents, baselines and deployments belong to the classifier of their version."""
    for version in ModelVersion.objects.exclude(parent=None).exclude(parent__classifier=F("classifier")):
        yield error(f"version {version.ref}", "its parent is a version of another classifier", _BY_HAND)
    strange = Evaluation.objects.exclude(baseline=None).exclude(baseline__classifier=F("version__classifier"))
    for evaluation in strange:
        yield error(f"evaluation {evaluation.pk}", "its baseline is a version of another classifier", _BY_HAND)
    for deployment in Deployment.objects.exclude(version__classifier=F("classifier")):
        yield error(f"deployment {deployment.pk}", "its version is one of another classifier", _BY_HAND)
    for model, columns in ((ModelVersion, ["status"]), (Evaluation, ["verdict"]), (Deployment, ["role"])):
        for column, value, rows in outside(model, *columns):
            if value:
                yield error(model._meta.verbose_name_plural, f"{rows} with the unknown {column} {value!r}", _BY_HAND)


# Deployments -----------------------------------------------------------------------------------------------------


def live_versions_may_answer(look: Look) -> Iterator[Finding]:
    """Only verified versions answer."""
    for deployment in Deployment.objects.live().select_related("version__classifier"):
        version = deployment.version
        if version.status != _Status.VERIFIED:
            what = f"{version.ref} answers as {deployment.role} and is {version.status}"
            yield error(f"deployment {deployment.pk}", what, _RESTORE.format(version.ref))
        if deployment.forced and not deployment.reason:
            yield error(f"deployment {deployment.pk}", "deployed against the gate without a reason", _BY_HAND)


def shares_add_up(look: Look) -> Iterator[Finding]:
    """One production version per classifier; what the others take is at most everything."""
    live = Deployment.objects.live().order_by()
    several = live.filter(role=_Role.PRODUCTION).values_list("classifier__slug").annotate(n=Count("pk"))
    for slug, count in several.filter(n__gt=1):
        remedy = "Deploy the right one again once the others were ended; look for a second installation on the tables."
        yield error(f"classifier {slug}", f"{count} versions are in production at once", remedy)
    beside = live.filter(role__in=[_Role.CANARY, _Role.SPLIT]).values_list("classifier__slug")
    for slug, total in beside.annotate(total=Sum("share")).filter(total__gt=100):
        yield error(f"classifier {slug}", f"its canaries and splits take {total} percent", "Roll one of them back.")
    for deployment in Deployment.objects.exclude(share__range=(1, 100)):
        yield error(f"deployment {deployment.pk}", f"its share is {deployment.share} percent", _BY_HAND)


def production_is_one_line(look: Look) -> Iterator[Finding]:
    """Who answered at any time has one answer: a production version ends where the next one begins."""
    ended_last: dict[int, Deployment] = {}
    for deployment in look.rows(Deployment.objects.production()):
        before = ended_last.get(deployment.classifier_id)
        if before is not None and (before.ended_at is None or before.ended_at > deployment.started_at):
            what = f"deployment {before.pk} of the same classifier had not ended when it began"
            yield error(f"deployment {deployment.pk}", what, _BY_HAND)
        ended_last[deployment.classifier_id] = deployment


CHECKS: tuple[Check, ...] = (
    classifiers_can_be_read,
    versions_have_their_folders,
    folders_have_their_versions,
    staging_is_in_use,
    versions_keep_to_their_classifier,
    live_versions_may_answer,
    shares_add_up,
    production_is_one_line,
)
