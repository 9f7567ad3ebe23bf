"""Finding things by the names that people and clients use."""

import re

from kalimtak.core.errors import InvalidInput, NotFound
from registry.models import Classifier, Deployment, ModelVersion

_REFERENCE = re.compile(r"(?P<slug>[a-z0-9][a-z0-9_-]{0,62})/(?P<number>[1-9][0-9]{0,8})")


def classifier_get(slug: str = "") -> Classifier:
    """The enabled classifier with this slug, or the default one. Raises `NotFound`."""
    serving = Classifier.objects.serving()
    classifier = serving.filter(slug=slug).first() if slug else serving.filter(is_default=True).first()
    if classifier is not None:
        return classifier
    if not slug:
        raise NotFound("There is no default classifier; run `manage.py sync_models`, or name one.")
    known = ", ".join(serving.values_list("slug", flat=True)) or "none"
    raise NotFound(f"There is no classifier {slug[:60]!r}; enabled are: {known}.")


def version_get(reference: str) -> ModelVersion:
    """The version written as `emotion/3`. Raises `InvalidInput` for another form and `NotFound`."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        message = f"{reference[:80]!r} does not name a version; write it as emotion/3."
        raise InvalidInput(message, fields={"version": [message]})
    versions = ModelVersion.objects.select_related("classifier")
    version = versions.filter(classifier__slug=match["slug"], number=int(match["number"])).first()
    if version is None:
        raise NotFound(f"There is no version {reference}; `manage.py list_models` shows what there is.")
    return version


def live_deployment(classifier: Classifier) -> Deployment | None:
    """The production deployment in force."""
    return classifier.deployments.live().production().select_related("version__classifier").first()


def live_version(classifier: Classifier) -> ModelVersion | None:
    """The version that answers in production now."""
    deployment = live_deployment(classifier)
    return deployment.version if deployment else None
