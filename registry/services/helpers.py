"""The classifiers that a policy names to help another: whether they can, and measuring the cascade of a pair again."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kalimtak.core import jobs
from registry.models import Cascade, Classifier, ModelVersion
from registry.recipe import Policy, RecipeError
from registry.services.classifiers import live_version

HELPER_KEYS = ("backup", "sarcasm", "cascade")
SARCASTIC = "sarcastic"


class Asked(NamedTuple):
    """The classifier that is to be helped, as its configuration wants it, saved or not."""

    slug: str
    labels: Sequence[str]
    input_fields: Sequence[str]
    multi_label: bool


def helper_problems(asked: Asked, policy: Policy) -> Iterator[tuple[str, str]]:
    """(key of the policy, what is wrong with the classifier it names and what to do), nothing where all can help.

    Labels that a helper takes from its data are known after its first training; until then they are not compared.
    """
    for key in HELPER_KEYS:
        slug = getattr(policy, key)
        if slug is None:
            continue
        helper = Classifier.objects.filter(slug=slug).first()
        if problem := _problem(key, asked, slug, helper):
            yield key, problem
    for key, slug in policy.review.helpers.items():
        if problem := _reader_problem(asked, slug, Classifier.objects.filter(slug=slug).first()):
            yield f"review.{key}", problem


def classifier_problems(classifier: Classifier) -> list[tuple[str, str]]:
    """`helper_problems` of a saved classifier. Raises `RecipeError` for a policy that cannot be read."""
    asked = Asked(classifier.slug, classifier.labels, classifier.input_fields, classifier.multi_label)
    return list(helper_problems(asked, classifier.get_policy()))


def _problem(key: str, asked: Asked, slug: str, helper: Classifier | None) -> str:
    if slug == asked.slug:
        return f"names {slug} itself; name another classifier"
    if helper is None:
        return f"there is no classifier {slug!r}; add it, or name one that `manage.py list_models` shows"
    if not helper.enabled:
        return f"{slug} is disabled; enable it, or name another classifier"
    if list(helper.input_fields) != list(asked.input_fields):
        theirs, ours = (", ".join(fields) for fields in (helper.input_fields, asked.input_fields))
        return f"{slug} reads {theirs}, {asked.slug} {ours}; name a classifier that reads the same fields"
    if key == "sarcasm":
        return _sarcasm_problem(helper)
    if helper.multi_label != asked.multi_label:
        kinds = ("one label", "several labels")
        ours, theirs = kinds[asked.multi_label], kinds[helper.multi_label]
        return f"{slug} gives a text {theirs}, {asked.slug} {ours}; name a classifier that answers alike"
    if problem := _label_problem(key, asked, helper):
        return problem
    if path := _cycle(key, asked.slug, helper):
        return f"goes round in a circle: {' → '.join(path)}; take the key out of one of them"
    return ""


def _reader_problem(asked: Asked, slug: str, reader: Classifier | None) -> str:
    """What keeps a classifier from reading the texts of another while those are curated."""
    if slug == asked.slug:
        return f"names {slug} itself; name another classifier"
    if reader is None:
        return f"there is no classifier {slug!r}; add it, or name one that `manage.py list_models` shows"
    if not reader.enabled:
        return f"{slug} is disabled; enable it, or name another classifier"
    if len(reader.input_fields) > 1 and list(reader.input_fields) != list(asked.input_fields):
        return f"{slug} reads {', '.join(reader.input_fields)}; name a classifier that reads one text"
    return ""


def _sarcasm_problem(helper: Classifier) -> str:
    if helper.multi_label or (helper.labels and SARCASTIC not in helper.labels):
        return f"{helper.slug} does not tell one label of several, or has none called {SARCASTIC}; name one that has"
    return ""


def _label_problem(key: str, asked: Asked, helper: Classifier) -> str:
    """A backup may know fewer labels; a cascade that did would never answer the others early, and wrongly often."""
    theirs, ours = set(helper.labels), set(asked.labels)
    if not theirs or not ours or (theirs <= ours if key == "backup" else theirs == ours):
        return ""
    if strange := sorted(theirs - ours):
        return (
            f"{helper.slug} answers {', '.join(strange[:5])}, which {asked.slug} does not; "
            "name a classifier with the same labels"
        )
    missing = ", ".join(sorted(ours - theirs)[:5])
    return f"{helper.slug} never answers {missing}; name a classifier with the same labels"


def _cycle(key: str, start: str, helper: Classifier) -> list[str]:
    """The classifiers from `start` along the key `key` back to it; empty where the way ends elsewhere."""
    path, current = [start], helper
    while current.slug not in path:
        path.append(current.slug)
        try:
            following = getattr(current.get_policy(), key)
        except RecipeError:
            return []
        if following == start:
            return [*path, start]
        found = Classifier.objects.filter(slug=following).first() if following else None
        if found is None:
            return []
        current = found
    return []


# Cascades --------------------------------------------------------------------------------------------------------


def cascade_of(classifier: Classifier) -> Classifier | None:
    """The enabled classifier that its policy names as `cascade`."""
    try:
        slug = classifier.get_policy().cascade
    except RecipeError:
        return None
    return Classifier.objects.serving().filter(slug=slug).first() if slug else None


def cascades_queue(classifiers: Iterable[Classifier], *, actor: str, again: bool = False) -> None:
    """Queue a measurement for each cascade with one of `classifiers` on either side whose live pair has none.

    Only writes job rows, in the caller's transaction. `again` measures pairs that were measured before, too.
    """
    slugs = {classifier.slug for classifier in classifiers}
    for main in Classifier.objects.serving():
        cheap = cascade_of(main)
        if cheap is None or not {main.slug, cheap.slug} & slugs:
            continue
        version, helper = live_version(main), live_version(cheap)
        if version is None or helper is None:
            continue
        if again or not Cascade.objects.filter(version=version, cheap=helper).exists():
            _queue(main, version, helper, actor=actor)


def _queue(main: Classifier, version: ModelVersion, helper: ModelVersion, *, actor: str) -> None:
    """One job per pair waits at a time; one that failed does not keep the next from being asked for."""
    params = {"classifier": main.slug, "pair": [version.ref, helper.ref]}
    if not jobs.ready().filter(kind="cascade", params=params).exists():
        jobs.enqueue("cascade", params, actor=actor)
