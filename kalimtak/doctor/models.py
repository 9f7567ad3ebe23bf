"""Does what is live still load and answer as it did when it was verified?"""

from collections.abc import Iterator

from kalimtak.core.errors import Unavailable
from kalimtak.doctor.diagnosis import Diagnosis, Options, ok, problem, warning
from registry.models import Classifier, Deployment, ModelVersion
from registry.services import artefact_problems, probe_problems

NAME = "models"
LOAD_SECONDS = 60.0


def live_versions_answer(options: Options) -> Iterator[Diagnosis]:
    """Each live version's files are intact, and a fresh process reproduces its probes."""
    live = list(Deployment.objects.live().select_related("version__classifier").order_by("classifier__slug"))
    sound = []
    for deployment in live:
        problems = _problems(deployment.version, options)
        if problems:
            yield problem(NAME, f"{deployment.version.ref} is live and {'; '.join(problems)}", _remedy(deployment))
        else:
            sound.append(deployment.version.ref)
    answered = {deployment.classifier_id for deployment in live if deployment.role == Deployment.Role.PRODUCTION}
    for classifier in Classifier.objects.serving().exclude(pk__in=answered):
        what = f"nothing is deployed for {classifier.slug}"
        yield warning(NAME, what, f"`manage.py train {classifier.slug} --deploy`, or disable it.")
    if sound:
        how = "present" if options.quick else "intact, and load"
        yield ok(NAME, f"{', '.join(sound)}: {how}")
    elif not live:
        yield ok(NAME, "nothing is deployed yet")


def _problems(version: ModelVersion, options: Options) -> list[str]:
    if version.status != ModelVersion.Status.VERIFIED:
        return [f"marked as {version.status}", *map(str, version.problems)]
    if problems := artefact_problems(version, contents=not options.quick):
        return problems
    if options.quick:
        return []
    try:
        return probe_problems(version, seconds=LOAD_SECONDS)
    except Unavailable as error:
        return [error.message]


def _remedy(deployment: Deployment) -> str:
    slug, ref = deployment.classifier.slug, deployment.version.ref
    return (
        f"`manage.py rollback {slug}`; or restore its folder from a backup and run `manage.py verify_model {ref}`. "
        "Web processes that hold it in memory go on answering until they restart."
    )
