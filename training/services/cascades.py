"""Measuring a cascade: both versions of a pair answer the validation texts of the one that is to be helped."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kalimtak.core.errors import Conflict
from registry import cascade, families, store
from registry import services as registry
from registry.families.base import Answer, Example, FamilyError, Predictor, first_line
from registry.manifest import ArtefactCorrupt
from registry.models import Cascade, Classifier, ModelVersion
from training.models import SnapshotItem, TrainingDataItem, TrainingRun

CHUNK = 8  # texts at a time, as a serving process takes them from one request
MOST_TEXTS = 2_000

Progress = Callable[[float, str], None]
_Split = TrainingDataItem.Split


def cascade_refresh(classifier: Classifier, *, progress: Progress) -> Cascade | None:
    """Measure the cascade of `classifier` as it is live now; None where there is no such pair."""
    cheap = registry.cascade_of(classifier)
    version = registry.live_version(classifier)
    helper = registry.live_version(cheap) if cheap else None
    return cascade_measure(version, helper, progress=progress) if version and helper else None


def cascades_prepare(version: ModelVersion, *, progress: Progress) -> list[Cascade]:
    """Measure every pair that will be live once `version` is deployed, so that the deployment finds it measured."""
    classifier, pairs = version.classifier, []
    cheap = registry.cascade_of(classifier)
    if cheap and (helper := registry.live_version(cheap)):
        pairs.append((version, helper))
    for main in Classifier.objects.serving().exclude(pk=classifier.pk):
        if registry.cascade_of(main) == classifier and (live := registry.live_version(main)):
            pairs.append((live, version))
    measured = Cascade.objects.all()
    return [
        measured.filter(version=pair[0], cheap=pair[1]).first() or cascade_measure(*pair, progress=progress)
        for pair in pairs
    ]


def cascade_measure(version: ModelVersion, cheap: ModelVersion, *, progress: Progress) -> Cascade:
    """Choose the pair's threshold and keep it with its figures.

    Without one, the pair's row says why. Raises `Conflict` (`corrupt_artefact`) where one of them cannot be loaded.
    """
    examples = validation_examples(version, cheap)
    if len(examples) < cascade.LEAST_TEXTS:
        choice = cascade.Choice(len(examples), reason=_too_few(version, cheap, len(examples)))
        return _keep(version, cheap, None, choice.to_dict())
    models = [_load(each) for each in (version, cheap)]
    labels, asked = models[0].labels, [example.fields for example in examples]
    if set(models[1].labels) != set(labels):
        reason = f"{version.ref} and {cheap.ref} answer different labels; train the older one again"
        return _keep(version, cheap, None, cascade.Choice(len(examples), reason=reason).to_dict())
    truth = np.array([labels.index(example.label) if example.label in labels else -1 for example in examples])
    (slow, slow_ms), (quick, quick_ms) = (_answers(model, labels, asked, progress) for model in models)
    choice = cascade.choose(quick, slow, truth)
    figures = choice.to_dict() | {"main_ms": round(slow_ms, 3), "cheap_ms": round(quick_ms, 3)}
    saved = cascade.saving(choice.early, quick_ms, slow_ms)
    if choice.threshold is not None and saved <= 0:
        figures["reason"] = f"{cheap.ref} costs {quick_ms:.1f} ms a text, more than it would save"
        return _keep(version, cheap, None, figures)
    return _keep(version, cheap, choice.threshold, figures | {"saving": round(saved, 4)})


def validation_examples(version: ModelVersion, cheap: ModelVersion) -> list[Example]:
    """The texts that the run of `version` held out for validation, without those that `cheap` learnt from.

    Never those of the golden set: a threshold that was chosen on it could not be judged by it.
    """
    run, other = (TrainingRun.objects.filter(version=each).first() for each in (version, cheap))
    if run is None:
        return []
    rows = SnapshotItem.objects.filter(snapshot=run.snapshot_id, split=_Split.VALID, item__isnull=False)
    if other is not None:
        learnt = SnapshotItem.objects.filter(snapshot=other.snapshot_id, split=_Split.TRAIN)
        rows = rows.exclude(content_hash__in=learnt.values("content_hash"))
    names = version.classifier.input_fields
    columns = rows.order_by("content_hash").values_list("item__fields", "label")[:MOST_TEXTS]
    return [Example(tuple(fields[name] for name in names), label) for fields, label in columns]


def _too_few(version: ModelVersion, cheap: ModelVersion, texts: int) -> str:
    return (
        f"{version.ref} has {texts} validation texts that {cheap.ref} did not learn from, and "
        f"{cascade.LEAST_TEXTS} are needed; train it with more examples"
    )


def _load(version: ModelVersion) -> Predictor:
    try:
        return families.load(store.version_folder(version.classifier.slug, version.number))
    except (ArtefactCorrupt, FamilyError, OSError) as error:
        raise Conflict(f"{version.ref} cannot be loaded: {error}", code="corrupt_artefact") from error


def _answers(
    predictor: Predictor, labels: Sequence[str], asked: Sequence[tuple[str, ...]], progress: Progress
) -> tuple[NDArray[np.float64], float]:
    """Probabilities (texts, labels) and milliseconds per text. Raises `Conflict` (`model_failed`)."""
    order = [predictor.labels.index(label) for label in labels]
    rows, seconds = [], 0.0
    _predict(predictor, asked[:1])  # the first one pays for what is made once
    for start in range(0, len(asked), CHUNK):
        before = time.perf_counter()
        answers = _predict(predictor, asked[start : start + CHUNK])
        seconds += time.perf_counter() - before
        rows += [answer.probabilities[order] for answer in answers]
        progress(len(rows) / len(asked), "Measuring the cascade")
    return np.array(rows, dtype=np.float64), seconds * 1000 / len(asked)


def _predict(predictor: Predictor, asked: Sequence[tuple[str, ...]]) -> list[Answer]:
    try:
        return predictor.predict(asked)
    except Exception as error:  # whatever a library makes of a text
        raise Conflict(f"A model failed on a validation text: {first_line(error)}", code="model_failed") from error


def _keep(version: ModelVersion, cheap: ModelVersion, threshold: float | None, figures: dict[str, Any]) -> Cascade:
    row, _ = Cascade.objects.update_or_create(
        version=version, cheap=cheap, defaults={"threshold": threshold, "figures": figures}
    )
    return row
