"""The classic family: TF-IDF of words and characters under a linear model. Learns in seconds, answers in microseconds.

Each input field has features of its own: word uni- and bigrams, and character 3- to 5-grams inside word boundaries,
which carry spelling, inflection and scripts without blanks. The linear model is logistic regression, one against the
rest, fitted by averaged stochastic gradient descent: as accurate here as a full L-BFGS fit and many times faster.

`package/` holds vocabularies as JSON, weights as safetensors and a note on how to rebuild them in scikit-learn alone;
`serving/` holds the same vocabularies and weights.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kalimtak.core.crashpoints import crashpoint
from registry.calibration import Calibration
from registry.families.base import (
    Answer,
    Example,
    Fields,
    FitRequest,
    FitResult,
    Stopped,
    absent_labels,
    check_examples,
)
from registry.families.features import FieldFeatures, fit_features, read_features, write_features
from registry.families.scikit import lean_import
from registry.families.targets import (
    calibrate,
    example_weights,
    positive_weights,
    truth_index,
    truth_matrix,
    validation_scores,
)
from registry.manifest import Manifest
from registry.text import PREPROCESSING_VERSION, prepare

MAX_PASSES, MIN_PASSES, STEPS = 20, 5, 10**6  # scikit-learn's advice: about a million updates


def fit(request: FitRequest) -> FitResult:
    """Learn features and weights, calibrate on the validation texts, write both folders. Seconds, so no checkpoints."""
    check_examples(request)
    request.reporter.progress(0.0, "Reading words and characters")
    features, matrix = fit_features(request.input_fields, _prepared(request.train), request.recipe.training)
    _stop_if_asked(request)
    validation = features.transform(_prepared(request.valid)) if request.valid else None
    model: _LinearModel = _ManyLabels(request, matrix) if request.multi_label else _OneLabel(request, matrix)
    history = _passes(request, model, validation)
    coefficients, intercepts = model.weights()
    logits = validation @ coefficients + intercepts if validation is not None else np.empty((0, len(request.labels)))
    calibration, notes = calibrate(request, logits, request.valid)
    _write(request, features, coefficients, intercepts)
    request.reporter.progress(1.0, "Model written")
    total = coefficients.size + intercepts.size
    return FitResult(
        calibration=calibration.to_dict(),
        parameters={"total": total, "trainable": total},
        notes=(*notes, *absent_labels(request)),
        history=history,
    )


def load(folder: Path, manifest: Manifest) -> "ClassicPredictor":
    """Rebuild the predictor from `serving/`; the caller has verified the files."""
    features, coefficients, intercepts = read_features(folder / "serving")
    return ClassicPredictor(manifest, features, coefficients, intercepts)


class ClassicPredictor:
    """Answers from sparse features: only the rows of the weights that a text touches are read."""

    batches = True  # a text costs a fraction of a forward pass, so the engine may hand over many at once

    def __init__(
        self,
        manifest: Manifest,
        features: FieldFeatures,
        coefficients: NDArray[np.float32],
        intercepts: NDArray[np.float32],
    ) -> None:
        self.labels = manifest.labels
        self.input_fields = manifest.input_fields
        self._version = manifest.preprocessing
        self.calibration = Calibration.from_dict(manifest.calibration)
        self._features = features
        self._coefficients = coefficients
        self._intercepts = intercepts

    def predict(self, inputs: Sequence[Fields]) -> list[Answer]:
        """`registry.families.base.Predictor`; never truncates."""
        return [self._answer(fields) for fields in inputs]

    def _answer(self, fields: Fields) -> Answer:
        texts = [prepare(text, self._version) for text in fields]
        indices, values = self._features.row(texts)
        logits = self._intercepts + values @ self._coefficients[indices]
        return Answer(self.calibration.probabilities(logits).astype(np.float32), truncated=False)


class _LinearModel(Protocol):
    """What learns in passes; `weights` are coefficients (features, labels) and intercepts (labels,)."""

    def learn(self, number: int) -> None: ...

    def weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...


class _OneLabel:
    """Averaged SGD over the classes that occur, spread over all labels when its weights are taken."""

    def __init__(self, request: FitRequest, matrix: Any) -> None:
        self._matrix = matrix
        self._truth = truth_index(request, request.train)
        self._weights = example_weights(request)
        self._classes = np.unique(self._truth)
        self._labels = len(request.labels)
        self._seed = request.recipe.training.seed
        self._model = _logistic_regression(request)

    def learn(self, number: int) -> None:
        """One pass over the training texts, in an order of its own."""
        self._model.set_params(random_state=(self._seed + number) % 2**32)
        self._model.partial_fit(self._matrix, self._truth, classes=self._classes, sample_weight=self._weights)

    def weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A label without any training text gets no coefficients and the prior of an event not seen in n trials."""
        learned, bias = self._model.coef_, self._model.intercept_
        if len(self._classes) == 2:  # one score for the second class; split, softmax gives the same probability
            learned, bias = np.vstack([-learned, learned]) / 2, np.concatenate([-bias, bias]) / 2
        coefficients = np.zeros((self._matrix.shape[1], self._labels), dtype=np.float32)
        intercepts = np.full(self._labels, -np.log(len(self._truth) + 1), dtype=np.float32)
        coefficients[:, self._classes] = learned.T
        intercepts[self._classes] = bias
        return coefficients, intercepts


class _ManyLabels:
    """A logistic regression of its own for every label that some texts show and some do not."""

    def __init__(self, request: FitRequest, matrix: Any) -> None:
        self._matrix = matrix
        self._truth = truth_matrix(request, request.train)
        weights = example_weights(request)[:, np.newaxis]
        self._weights = np.where(self._truth > 0, weights * positive_weights(request), weights)
        self._seed = request.recipe.training.seed
        shown = self._truth.sum(axis=0)
        self._priors = np.log((shown + 1) / (len(self._truth) - shown + 1))
        self._models = {
            label: _logistic_regression(request) for label in np.flatnonzero((shown > 0) & (shown < len(self._truth)))
        }

    def learn(self, number: int) -> None:
        """One pass for every label, all in the same order."""
        for label, model in self._models.items():
            model.set_params(random_state=(self._seed + number) % 2**32)
            model.partial_fit(
                self._matrix, self._truth[:, label], classes=[0, 1], sample_weight=self._weights[:, label]
            )

    def weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A label that all texts or none show gets no coefficients and its smoothed prior."""
        coefficients = np.zeros((self._matrix.shape[1], len(self._priors)), dtype=np.float32)
        intercepts = self._priors.astype(np.float32)
        for label, model in self._models.items():
            coefficients[:, label], intercepts[label] = model.coef_[0], model.intercept_[0]
        return coefficients, intercepts


def _logistic_regression(request: FitRequest) -> Any:
    with lean_import():
        from sklearn.linear_model import SGDClassifier

    alpha = 1 / (request.recipe.training.C * len(request.train))
    return SGDClassifier(loss="log_loss", alpha=alpha, average=True)


def _passes(request: FitRequest, model: _LinearModel, validation: Any | None) -> list[dict[str, Any]]:
    """Run all passes, reporting validation figures after each; the figures of each pass. Raises Stopped."""
    passes = int(np.clip(np.ceil(STEPS / len(request.train)), MIN_PASSES, MAX_PASSES))
    history: list[dict[str, Any]] = []
    request.reporter.describe(device="cpu", epochs=passes)
    for number in range(1, passes + 1):
        crashpoint("classic.before_pass")
        _stop_if_asked(request)
        model.learn(number)
        if validation is not None and number in (1, passes // 2, passes):
            coefficients, intercepts = model.weights()
            values = validation_scores(request, validation @ coefficients + intercepts, request.valid)
            request.reporter.metrics(number, float(number), values)
            history.append({"epoch": number, **values})
        request.reporter.progress(0.2 + 0.7 * number / passes, f"Pass {number} of {passes}")
    return history


def _write(
    request: FitRequest, features: FieldFeatures, coefficients: NDArray[np.float32], intercepts: NDArray[np.float32]
) -> None:
    package, serving = request.out / "package", request.out / "serving"
    package.mkdir(parents=True, exist_ok=True)
    write_features(package, features, coefficients, intercepts, labels=request.labels)
    crashpoint("classic.during_export")
    shutil.copytree(package, serving, dirs_exist_ok=True)
    (package / "README.md").write_text(_README, encoding="utf-8")


def _prepared(examples: Sequence[Example]) -> list[tuple[str, ...]]:
    return [tuple(prepare(text, PREPROCESSING_VERSION) for text in example.fields) for example in examples]


def _stop_if_asked(request: FitRequest) -> None:
    if request.reporter.stop_requested():
        raise Stopped("stopped on request; a classic model starts anew")


_README = """# A linear text classifier

`features.json` lists the labels and, for each input field, blocks of features. Build each block with
`sklearn.feature_extraction.text.TfidfVectorizer(vocabulary=block["terms"], **block["options"])` (lists become tuples)
and set its `idf_` to the block's share of `idf` in `model.safetensors`, block after block. Put the rows of all blocks
side by side: `scores = rows @ coefficients + intercepts`, one column for each label; divide by the temperature in the
artefact's manifest and take the softmax, or the sigmoid where it says `multi_label`. Texts are first put in Unicode
form C with emoji spelled out.
"""
