"""The custom family: code of the installation's own, named in models.yaml as `loader: package.module:function`.

`loader(config)` returns an object with `predict(list of {field: text}) -> list of {label: score}`. `config` holds
`labels`, `input_fields`, `multi_label` and the sections of the recipe. The code is not trained: `fit` checks it and
notes the SHA-256 of its file, and `load` refuses a file that is not that one, so that a version always answers as it
did when it was judged. What the file imports in turn is not hashed; the version's probes notice where that matters.

`package/loader.json` holds the name, the hash and the configuration. Nothing of the code itself is copied.
"""

import hashlib
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.calibration import Calibration
from registry.families.base import Answer, FamilyError, Fields, FitRequest, FitResult, Stopped
from registry.families.probes import probe_inputs
from registry.manifest import Manifest
from registry.text import PREPROCESSING_VERSION, prepare

LOADER_NAME = "loader.json"
SUM_TOLERANCE = 1e-3  # scores that are further from a sum of 1 are worth a note
SAME = 1e-4  # of a probability, as with the probes of every family
_LONGEST_REASON = 300


def fit(request: FitRequest) -> FitResult:
    """Check the code on the probes and write down which it is; nothing is learnt. Raises FamilyError or Stopped."""
    if request.loader is None:
        raise FamilyError("Type custom needs a loader: write `loader: package.module:function` into models.yaml.")
    if len(request.labels) < 2:
        raise FamilyError("A classifier needs at least two labels; add labels to its label_config.")
    request.reporter.progress(0.0, f"Loading {request.loader}")
    config = {
        "labels": list(request.labels),
        "input_fields": list(request.input_fields),
        "multi_label": request.multi_label,
        **request.recipe.to_dict(),
    }
    source = source_of(request.loader)
    described: dict[str, Any] = {"loader": request.loader, "sha256": source.sha256, "config": config}
    calibration = Calibration(multi_label=request.multi_label)
    predictor = _predictor(source, described, request.labels, request.input_fields, calibration)
    if request.reporter.stop_requested():
        raise Stopped("stopped before the code was checked")
    request.reporter.progress(0.5, "Checking its answers")
    notes = _check(predictor)
    package = request.out / "package"
    package.mkdir(parents=True, exist_ok=True)
    text = json.dumps(described, ensure_ascii=False, indent=2)
    (package / LOADER_NAME).write_text(text + "\n", encoding="utf-8")
    request.reporter.progress(1.0, "Code checked")
    return FitResult(
        calibration=predictor.calibration.to_dict(),
        parameters={"total": 0, "trainable": 0},
        base_model={"id": request.loader, "sha256": described["sha256"]},
        notes=("Type custom is not trained; its code was checked and evaluated.", *notes),
    )


def load(folder: Path, manifest: Manifest) -> "CustomPredictor":
    """Load the code that the version names, if it is still the same; the caller has verified the files."""
    described = json.loads((folder / "package" / LOADER_NAME).read_text(encoding="utf-8"))
    source = source_of(described["loader"])
    if source.sha256 != described["sha256"]:
        remedy = f"run `manage.py train {manifest.classifier}` to make a new version of it"
        raise FamilyError(f"The code of {source.name} changed; {remedy}.")
    calibration = Calibration.from_dict(manifest.calibration)
    return _predictor(source, described, manifest.labels, manifest.input_fields, calibration, manifest.preprocessing)


class CustomPredictor:
    """Asks the code, and believes none of its answers unseen."""

    def __init__(
        self,
        model: Any,
        name: str,
        labels: tuple[str, ...],
        input_fields: tuple[str, ...],
        calibration: Calibration,
        version: int,
    ) -> None:
        self.labels = labels
        self.input_fields = input_fields
        self.calibration = calibration
        self._model, self._name, self._version = model, name, version
        self._position = {label: index for index, label in enumerate(labels)}
        self.most_off = 0.0  # how far the scores of an answer were from a sum of 1, at most

    def predict(self, inputs: Sequence[Fields]) -> list[Answer]:
        """`registry.families.base.Predictor`; never truncates. Raises FamilyError for an answer that is none."""
        if not inputs:
            return []
        rows = [
            {name: prepare(text, self._version) for name, text in zip(self.input_fields, fields, strict=True)}
            for fields in inputs
        ]
        answers = _call(self._name, lambda: list(self._model.predict(rows)))
        if len(answers) != len(rows):
            raise FamilyError(f"{self._name} gave {len(answers)} answers to {len(rows)} inputs.")
        return [Answer(self._probabilities(answer), truncated=False) for answer in answers]

    def _probabilities(self, answer: Any) -> NDArray[np.float32]:
        """The scores (labels,) of one answer; a label that it leaves out has 0."""
        if not isinstance(answer, Mapping):
            raise self._odd(f"it is a {type(answer).__name__}, not {{label: score}}")
        scores = np.zeros(len(self.labels))
        for label, value in answer.items():
            if label not in self._position:
                raise self._odd(f"it knows no label {str(label)[:60]!r}; the labels are {', '.join(self.labels)}")
            scores[self._position[label]] = self._score(label, value)
        if self.calibration.multi_label:
            if scores.max() > 1:
                raise self._odd(f"a score of {scores.max():g}; those of a multi-label classifier lie in 0 to 1")
            return scores.astype(np.float32)
        total = float(scores.sum())
        if total <= 0:
            raise self._odd("no label has a score over 0")
        self.most_off = max(self.most_off, abs(total - 1))
        return (scores / total).astype(np.float32)

    def _score(self, label: str, value: Any) -> float:
        try:
            score = float(value)
        except (TypeError, ValueError, OverflowError):
            raise self._odd(f"the score of {label!r} is a {type(value).__name__}, not a number") from None
        if not 0 <= score < math.inf:  # not a number is not in there either
            raise self._odd(f"the score of {label!r} is {score:g}; a score is finite and not under 0")
        return score

    def _odd(self, why: str) -> FamilyError:
        return FamilyError(f"{self._name} gave an odd answer: {why}.")


class Source(SourceFileLoader):
    """A Python file that was read once: the bytes that are hashed are those that run.

    Neither a bytecode cache nor an earlier import stands in for them, so that a process that serves an older version
    of the file can load the newer one beside it.
    """

    def __init__(self, module: str, path: Path) -> None:
        super().__init__(module, str(path))
        self.source = path.read_bytes()
        self.sha256 = hashlib.sha256(self.source).hexdigest()

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.source, self.path)
        return code

    def run(self) -> ModuleType:
        spec = importlib.util.spec_from_loader(self.name, self)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[self.name] = module  # what the file defines may look itself up
        self.exec_module(module)
        return module


def source_of(loader: str) -> Source:
    """The Python file that `package.module:function` names; the module itself is not imported. Raises FamilyError."""
    module = loader.partition(":")[0]
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise FamilyError(f"{module} is part of Python; a loader is code of the installation's own.")
    spec = _call(loader, lambda: importlib.util.find_spec(module))
    if spec is None or spec.origin is None or not spec.origin.endswith(".py") or not Path(spec.origin).is_file():
        raise FamilyError(f"There is no Python file for {module}; put it beside manage.py or install it into .venv.")
    return Source(module, Path(spec.origin))


def _predictor(
    source: Source,
    described: Mapping[str, Any],
    labels: tuple[str, ...],
    input_fields: tuple[str, ...],
    calibration: Calibration,
    version: int = PREPROCESSING_VERSION,
) -> CustomPredictor:
    """Run the loader that `described` names."""
    name = described["loader"]
    function = name.partition(":")[2]
    load_model = getattr(_call(name, source.run), function, None)
    if not callable(load_model):
        raise FamilyError(f"{source.name} has no function {function}.")
    model = _call(name, lambda: load_model(described["config"]))
    if not callable(getattr(model, "predict", None)):
        raise FamilyError(f"{name} returned a {type(model).__name__} without a method `predict`.")
    return CustomPredictor(model, name, labels, input_fields, calibration, version)


def _check(predictor: CustomPredictor) -> list[str]:
    """Ask for the probes together, again, and one by one; notes for people. Raises FamilyError where answers differ."""
    inputs = probe_inputs(len(predictor.input_fields))
    together = predictor.predict(inputs)
    again = predictor.predict(inputs)
    alone = [predictor.predict([fields])[0] for fields in inputs]
    for others, how in ((again, "asked twice"), (alone, "asked alone")):
        for one, other in zip(together, others, strict=True):
            if np.abs(one.probabilities - other.probabilities).max() > SAME:
                why = f"answers a text otherwise when it is {how}; an answer may depend on its text alone"
                raise FamilyError(f"{predictor._name} {why}.")
    notes = ["Its scores are taken as they come; they are not calibrated."]
    if predictor.most_off > SUM_TOLERANCE:
        notes.append("Its scores do not sum to 1; they are divided by their sum.")
    return notes


def _call(name: str, ask: Callable[[], Any]) -> Any:
    """What `ask` returns; whatever the code raises becomes one line. Messages may quote the text, so they are cut."""
    try:
        return ask()
    except FamilyError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise FamilyError(f"{name} failed: {type(error).__name__}: {reason}") from error
