"""Scoring versions that exist already: on the golden set, where the figures are stored, or on a file."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from kalimtak.core.errors import Conflict, InvalidInput
from registry import families, store
from registry import services as registry
from registry.families.base import Example, FamilyError
from registry.manifest import ArtefactCorrupt
from registry.models import Classifier, Evaluation, ModelVersion
from training.models import TrainingDataItem
from training.scoring import Judgement, judge_predictor
from training.services.snapshots import data_digest

Progress = Callable[[float, str], None]


class GoldenSet(NamedTuple):
    """The held-out examples of a classifier as they are now."""

    digest: str
    examples: list[Example]


def golden_set(classifier: Classifier) -> GoldenSet:
    items = TrainingDataItem.objects.filter(classifier=classifier).golden().order_by("pk")
    rows = list(items.values_list("content_hash", "fields", "label"))
    examples = [Example(tuple(fields[name] for name in classifier.input_fields), label) for _, fields, label in rows]
    return GoldenSet(data_digest((content_hash, label) for content_hash, _, label in rows), examples)


def version_evaluate(version: ModelVersion, *, progress: Progress, again: bool = False) -> Evaluation:
    """Figures of `version` on its classifier's golden set, stored; those stored before unless `again`.

    Raises `Conflict` with code `no_golden_set`, or `corrupt_artefact` where the version cannot be loaded.
    """
    golden = golden_set(version.classifier)
    if not golden.examples:
        slug = version.classifier.slug
        raise Conflict(
            f"{slug} has no golden set yet; train it once, or run "
            f"`manage.py import_dataset FILE --classifier {slug} --role golden`.",
            code="no_golden_set",
        )
    known = version.evaluations.filter(data_digest=golden.digest).exclude(scores={}).first()
    if known is not None and not again:
        return known
    judged = version_judgement(version, golden.examples, progress=progress)
    return registry.evaluation_record(version, data_digest=golden.digest, scores=judged.scores, slices=judged.slices)


def version_judgement(version: ModelVersion, examples: Sequence[Example], *, progress: Progress) -> Judgement:
    """Figures of `version` on `examples`; nothing is stored. Needs no torch.

    Raises `InvalidInput` where an example's label is not the classifier's, `Conflict` with code `corrupt_artefact`.
    """
    _check_labels(version, (example.label for example in examples))
    try:
        predictor = families.load(store.version_folder(version.classifier.slug, version.number))
    except (ArtefactCorrupt, FamilyError, OSError) as error:
        raise Conflict(f"{version.ref} cannot be loaded: {error}", code="corrupt_artefact") from error
    labels = version.classifier.labels or version.labels
    return judge_predictor(predictor, labels, examples, lambda share: progress(share, f"Scoring {version.ref}"))


def _check_labels(version: ModelVersion, texts: Iterable[str]) -> None:
    known = list(dict.fromkeys([*version.classifier.labels, *version.labels]))
    labels = {label for text in set(texts) for label in version.classifier.label_parts(text)}
    if strange := sorted(labels.difference(known)):
        raise InvalidInput(
            f"{version.classifier.slug} does not have the labels {', '.join(strange[:5])}; it has {', '.join(known)}."
        )


def evaluate_all(*, progress: Progress) -> list[Evaluation]:
    """The live version of every enabled classifier on its golden set as it is now, where both exist."""
    live = [version for classifier in Classifier.objects.serving() if (version := registry.live_version(classifier))]
    evaluations = []
    for index, version in enumerate(live):

        def on_progress(share: float, note: str, done: int = index) -> None:
            progress((done + share) / len(live), note)

        try:
            evaluations.append(version_evaluate(version, progress=on_progress, again=True))
        except Conflict as error:
            if error.code != "no_golden_set":
                raise
    return evaluations
