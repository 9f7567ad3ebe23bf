"""Which versions an ensemble is made of."""

from collections.abc import Sequence
from typing import NoReturn

from kalimtak.core.errors import InvalidInput
from registry.families.ensemble import NEVER_MEMBERS
from registry.models import Classifier, ModelVersion
from registry.services.classifiers import live_version


def ensemble_members(classifier: Classifier, slugs: Sequence[str]) -> dict[str, ModelVersion]:
    """The version of each classifier in `slugs` with which an ensemble called `classifier` can be trained now.

    It is the live one, or where none is live the newest that was verified. Raises `InvalidInput` in one line for a
    member that is unknown, has no such version, is an ensemble or runs code of its own, or is `classifier` itself, and
    for one with other labels, other fields or another kind of answer.
    """
    if len(slugs) < 2:
        _refuse(f"{classifier.slug} names no members; set model_config.members to at least two classifiers.")
    if classifier.slug in slugs:
        _refuse(f"{classifier.slug} names itself; an ensemble is made of other classifiers.")
    known = {member.slug: member for member in Classifier.objects.filter(slug__in=slugs)}
    if unknown := [slug for slug in slugs if slug not in known]:
        _refuse(f"There is no classifier {unknown[0]!r}; `manage.py list_models` shows what there is.")
    return {slug: _version_of(known[slug], classifier) for slug in slugs}


def _version_of(member: Classifier, ensemble: Classifier) -> ModelVersion:
    verified = member.versions.filter(status=ModelVersion.Status.VERIFIED).order_by("-number")
    version = live_version(member) or verified.first()
    if version is None:
        _refuse(f"{member.slug} has no version that could be a member; train it first.")
    if version.family in NEVER_MEMBERS:
        _refuse(f"{version.ref} is of type {version.family}, which cannot be a member; name another classifier.")
    if ensemble.labels and set(version.labels) != set(ensemble.labels):
        theirs, ours = (", ".join(sorted(labels)) for labels in (version.labels, ensemble.labels))
        _refuse(f"{version.ref} answers {theirs}, {ensemble.slug} {ours}; train {member.slug} with the same labels.")
    if member.input_fields != ensemble.input_fields:
        theirs, ours = (", ".join(each.input_fields) for each in (member, ensemble))
        _refuse(f"{member.slug} reads {theirs}, {ensemble.slug} {ours}; name a member that reads the same fields.")
    if member.multi_label != ensemble.multi_label:
        kinds = ("one label", "several labels")
        _refuse(
            f"{member.slug} gives a text {kinds[member.multi_label]}, {ensemble.slug} {kinds[ensemble.multi_label]}; "
            "name a member that answers alike."
        )
    return version


def _refuse(message: str) -> NoReturn:
    raise InvalidInput(message, fields={"members": [message]})
