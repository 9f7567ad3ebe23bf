"""What every model family agrees on: what it is given to learn from, and what it answers with.

A family is a module with two functions, `fit(request) -> FitResult` and `load(folder, manifest) -> Predictor`. It knows
files and numbers; it does not know Django, the queue, or where a models store lies.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from registry.calibration import Calibration
from registry.labels import label_set
from registry.manifest import Manifest
from registry.recipe import Recipe
from registry.text import PREPROCESSING_VERSION

Fields = tuple[str, ...]
"""One text per input field, in the classifier's order: one for a text, two for a question and its context."""


class FamilyError(Exception):
    """Training or loading cannot go on; the message is one line that names the remedy."""


class Stopped(Exception):
    """`fit` was asked to stop and did, leaving a checkpoint from which it can go on."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled input; `weight` multiplies its share of the loss (a human correction counts more than an import).

    `label` is one label or, for a multi-label classifier, the text of a set of them (`registry.labels`).
    """

    fields: Fields
    label: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Calibrated probabilities (labels,); `truncated`: the input was longer than the model reads.

    They sum to 1, or are independent of each other where the predictor's calibration says `multi_label`. What follows
    is set where a predictor may let others answer (`inference.healing`): `source` as in the API's results, `flags` that
    the answer earned, and `by`, the reference of the version that gave it where that is another than the one asked.
    """

    probabilities: NDArray[np.float32]
    truncated: bool
    source: str = "model"
    flags: tuple[str, ...] = ()
    by: str = ""


class Predictor(Protocol):
    """Answers raw user text. Safe for one caller at a time: whoever shares one between threads holds a lock."""

    labels: tuple[str, ...]
    input_fields: tuple[str, ...]
    calibration: Calibration

    def predict(self, inputs: Sequence[Fields]) -> list[Answer]:
        """Answer each input on its own (`registry.text.prepare` is applied inside), in the order given."""
        ...


class Reporter(Protocol):
    """Where a running `fit` says how far it is, and hears that it should stop."""

    def progress(self, fraction: float, note: str) -> None:
        """`fraction` is of the whole fit, 0 to 1 and never falling; `note` is one line for people."""
        ...

    def metrics(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Figures of one moment: `loss`, `learning_rate`, `samples_per_second`, `eval_accuracy`, `eval_macro_f1`."""
        ...

    def describe(self, **facts: str | float) -> None:
        """What holds for the whole fit, once it is known, for people.

        `device`, `precision`, `effective_batch` (texts per update), `steps` (updates), `epochs`.
        """
        ...

    def stop_requested(self) -> bool:
        """Asked between steps, so it must be cheap."""
        ...


class Silent:
    """A reporter that says nothing and never stops."""

    def progress(self, fraction: float, note: str) -> None: ...

    def metrics(self, step: int, epoch: float, values: Mapping[str, float]) -> None: ...

    def describe(self, **facts: str | float) -> None: ...

    def stop_requested(self) -> bool:
        return False


@dataclass(frozen=True)
class FitRequest:
    """One training run.

    `out` is the artefact folder being built: a family writes `package/` and `serving/` below it and nothing else.
    `checkpoints` survives a crash; with `resume` the newest one there whose manifest verifies is continued, without
    it what lies there is removed first.

    `target_precision`: the share of answers that shall be right, for which a confidence threshold is chosen. `parent`
    is the verified artefact folder of the version to start from, where the family can. `cache` is a folder for what
    later runs of any classifier can use again; it may be emptied at any time. `members` are the verified artefact
    folders of an ensemble, {classifier: folder}. `loader` names the code of a custom family, `package.module:function`.
    """

    labels: tuple[str, ...]
    input_fields: tuple[str, ...]
    recipe: Recipe
    train: Sequence[Example]
    valid: Sequence[Example]
    out: Path
    checkpoints: Path
    reporter: Reporter
    resume: bool = False
    multi_label: bool = False
    target_precision: float | None = None
    parent: Path | None = None
    cache: Path | None = None
    members: Mapping[str, Path] = field(default_factory=dict)
    loader: str | None = None


@dataclass(frozen=True)
class FitResult:
    """What a fit learned about itself, in JSON types, for the manifest and the model card.

    `calibration` is `Calibration.to_dict()`; `parameters` holds `total` and `trainable`; `base_model` holds `id` and
    `sha256`, or is None where a family starts from nothing; `max_length` is how many tokens of a text the model reads,
    None where it reads all of it; `notes` are lines a person should read
    ("int8 kept: agrees on 99.3 % of 1,997 validation texts").
    """

    calibration: dict[str, Any]
    parameters: dict[str, int]
    base_model: dict[str, str] | None = None
    max_length: int | None = None
    notes: tuple[str, ...] = ()
    history: list[dict[str, Any]] = field(default_factory=list)


def manifest_of(request: FitRequest, result: FitResult, *, classifier: str, family: str, **more: Any) -> Manifest:
    """The manifest of what `fit` built, not sealed yet; `more` are fields that neither request nor result knows."""
    unknown: dict[str, Any] = {"metrics": {}, "snapshot_digest": None, "libraries": {}}
    return Manifest(
        classifier=classifier,
        family=family,
        labels=request.labels,
        input_fields=request.input_fields,
        preprocessing=PREPROCESSING_VERSION,
        max_length=result.max_length,
        recipe=request.recipe.to_dict(),
        calibration=result.calibration,
        seed=request.recipe.training.seed,
        parameters=result.parameters,
        base_model=result.base_model,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **unknown | more,
    )


class Family(Protocol):
    """The two functions of a family module."""

    def fit(self, request: FitRequest) -> FitResult: ...

    def load(self, folder: Path, manifest: Manifest) -> Predictor: ...


def check_examples(request: FitRequest) -> None:
    """Refuse data no family can learn from, before anything slow is imported. Raises FamilyError."""
    if len(request.labels) < 2:
        raise FamilyError("A classifier needs at least two labels; add labels to its label_config.")
    present = {example.label for example in request.train}
    if len(present) < 2:
        found = f"only {present.pop()!r}" if present else "none"
        raise FamilyError(f"The training examples must show at least two labels, found {found}; import more data.")
    known, width = set(request.labels), len(request.input_fields)
    for example in (*request.train, *request.valid):
        for label in labels_of(request, example):
            if label not in known:
                raise FamilyError(f"Label {label!r} is not one of the classifier's labels {sorted(known)}.")
        if len(example.fields) != width:
            names = ", ".join(request.input_fields)
            raise FamilyError(f"An example has {len(example.fields)} fields, the classifier reads {width} ({names}).")
        if not 0 < example.weight < math.inf:
            raise FamilyError(f"An example has the weight {example.weight}; a weight is a number over 0.")


def check_pair(request: FitRequest) -> None:
    """Refuse more fields than a tokenizer joins. Raises FamilyError."""
    if len(request.input_fields) > 2:
        raise FamilyError("An encoder reads one text, or a question and its context; use the classic family for more.")


def check_length(request: FitRequest, limit: int | None) -> None:
    """Refuse a `max_length` over the tokens a model can read (None: any number). Raises FamilyError."""
    if limit is not None and request.recipe.model.max_length > limit:
        raise FamilyError(f"This model reads at most {limit} tokens; set model_config.max_length to {limit} or less.")


def absent_labels(request: FitRequest) -> list[str]:
    """Notes for people where the training texts show a label not at all, or once."""
    shown = Counter(label for example in request.train for label in labels_of(request, example))
    absent, single = ([label for label in sorted(request.labels) if shown[label] == times] for times in (0, 1))
    absent_note = f"No training text shows: {', '.join(absent)}; the model will hardly ever answer so. Import examples."
    single_note = f"Only one training text shows: {', '.join(single)}; little is learnt from it. Import more examples."
    return [note for note, labels in ((absent_note, absent), (single_note, single)) if labels]


def labels_of(request: FitRequest, example: Example) -> tuple[str, ...]:
    """The one label of an example, or the set of them."""
    return label_set(example.label) if request.multi_label else (example.label,)


def balanced_weights(truth: NDArray[np.integer[Any]], labels: int) -> NDArray[np.float64]:
    """Weights (labels,) that give every label that occurs in `truth` (n,) the same share; their mean over n is 1."""
    counts = np.bincount(truth, minlength=labels)
    present = np.count_nonzero(counts)
    weights: NDArray[np.float64] = np.divide(len(truth), counts * present, out=np.zeros(labels), where=counts > 0)
    return weights


def first_line(error: Exception) -> str:
    """What a library said, for a message of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
