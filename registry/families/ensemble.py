"""The ensemble family: several versions of other classifiers, of the same labels, answer together as one.

Nothing of the members is trained. What is learnt, from the validation texts, is how far to believe each of them
(`registry.families.combination`). The artefact is whole in itself: `serving/members/<classifier>/` is a copy of what a
member's version serves, with its manifest, so members may change or go later. `serving/ensemble.json` says how they are
combined and which versions they were; `serving/model.safetensors` holds the weights. `package/` holds both again.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.calibration import Calibration
from registry.families.agreement import MAX_COMPARED, evenly
from registry.families.base import (
    Answer,
    Example,
    FamilyError,
    Fields,
    FitRequest,
    FitResult,
    Predictor,
    Stopped,
    absent_labels,
    check_examples,
)
from registry.families.combination import LEAST_TEXTS, STACK, VOTE, Choice, Combiner, choose, combiner_of, log_loss
from registry.families.targets import calibrate, truth_matrix, validation_scores
from registry.manifest import Manifest, manifest_digest, verify_manifest, write_manifest

FORMAT = 1
DESCRIPTION_NAME, WEIGHTS_NAME, MEMBERS = "ensemble.json", "model.safetensors", "members"
NEVER_MEMBERS = ("ensemble", "custom")  # copies of copies; code that is not in the artefact
_METHODS = {VOTE: "vote", STACK: "stacking"}
_CHUNK = 32  # texts between two looks at whether to stop
_ASKED, _CHOSEN = 0.8, 0.9  # shares of the whole fit


def fit(request: FitRequest) -> FitResult:
    """Ask the members about the validation texts, choose how to combine them, copy them.

    Raises Stopped, FamilyError, and ArtefactCorrupt for a member that is not whole.
    """
    check_examples(request)
    request.reporter.describe(device="cpu", epochs=1)
    request.reporter.progress(0.0, "Loading the members")
    members = {name: _checked(request, name, folder) for name, folder in request.members.items()}
    if len(members) < 2:
        raise FamilyError("An ensemble needs at least two members; name them in model_config.members.")
    _stop_if_asked(request)
    predictors = {name: _load(request.members[name], manifest) for name, manifest in members.items()}
    valid = evenly(request.valid, MAX_COMPARED)
    opinions = _ask_all(request, predictors, valid)
    truth = truth_matrix(request, valid)
    request.reporter.progress(_ASKED, "Choosing how to combine them")
    _stop_if_asked(request)
    choice = choose(opinions, truth, multi_label=request.multi_label, seed=request.recipe.training.seed)
    history = []
    if valid:
        values = validation_scores(request, choice.held_out, valid)
        request.reporter.metrics(1, 1.0, values)
        history.append({"epoch": 1, **values})
    request.reporter.progress(_CHOSEN, "Copying the members")
    _stop_if_asked(request)
    calibration, calibrating = calibrate(request, choice.held_out, valid)
    _write(request, members, choice.combiner)
    request.reporter.progress(1.0, "Model written")
    trainable = sum(array.size for array in choice.combiner.arrays().values())
    return FitResult(
        calibration=calibration.to_dict(),
        parameters={
            "total": trainable + sum(manifest.parameters["total"] for manifest in members.values()),
            "trainable": trainable,
        },
        notes=(*_notes(request, choice, opinions, truth), *calibrating, *absent_labels(request)),
        history=history,
    )


def load(folder: Path, manifest: Manifest) -> Predictor:
    """The members and what combines them, from `serving/`; the caller has verified the files."""
    from safetensors.numpy import load_file

    serving = folder / "serving"
    described = json.loads((serving / DESCRIPTION_NAME).read_text(encoding="utf-8"))
    if described.get("format") != FORMAT:
        raise FamilyError(f"{DESCRIPTION_NAME} has format {described.get('format')!r}; this release reads {FORMAT}.")
    calibration = Calibration.from_dict(manifest.calibration)
    combiner = combiner_of(
        described["method"], load_file(str(serving / WEIGHTS_NAME)), multi_label=calibration.multi_label
    )
    members = [_load_copy(serving / MEMBERS / member["classifier"]) for member in described["members"]]
    return EnsemblePredictor(manifest, members, combiner)


class EnsemblePredictor:
    """Asks every member, then combines what they say, one text at a time."""

    def __init__(self, manifest: Manifest, members: Sequence[Predictor], combiner: Combiner) -> None:
        self.labels = manifest.labels
        self.input_fields = manifest.input_fields
        self.calibration = Calibration.from_dict(manifest.calibration)
        self.batches = all(getattr(member, "batches", False) for member in members)
        self._members = [(member, _order(member.labels, self.labels)) for member in members]
        self._combiner = combiner

    def accelerate(self, device: str) -> None:
        """Let every member that can use a GPU do so (`registry.families.onnx_predictor`)."""
        for member, _ in self._members:
            if hasattr(member, "accelerate"):
                member.accelerate(device)
        self.batches = all(getattr(member, "batches", False) for member, _ in self._members)

    def predict(self, inputs: Sequence[Fields]) -> list[Answer]:
        """`registry.families.base.Predictor`."""
        answers = [(member.predict(inputs), order) for member, order in self._members]
        return [self._combine([(each[index], order) for each, order in answers]) for index in range(len(inputs))]

    def _combine(self, answers: Sequence[tuple[Answer, list[int]]]) -> Answer:
        # A text alone, as in company a product of matrices may be rounded otherwise.
        opinions = np.stack([answer.probabilities[order] for answer, order in answers]).astype(np.float64)
        probabilities = self.calibration.probabilities(self._combiner.logits(opinions[np.newaxis])[0])
        return Answer(probabilities.astype(np.float32), truncated=any(answer.truncated for answer, _ in answers))


# ---- fitting ---------------------------------------------------------------------------------------------------------


def _checked(request: FitRequest, name: str, folder: Path) -> Manifest:
    """The manifest of a member that can be one. Raises ArtefactCorrupt or FamilyError."""
    manifest = verify_manifest(folder)
    reference = _reference(folder)
    if manifest.family in NEVER_MEMBERS:
        raise FamilyError(
            f"{reference} is of type {manifest.family}, which cannot be a member; name another classifier."
        )
    if set(manifest.labels) != set(request.labels):
        theirs, ours = (", ".join(sorted(labels)) for labels in (manifest.labels, request.labels))
        raise FamilyError(
            f"{reference} answers {theirs}, the ensemble {ours}; "
            f"train {name} again with the same labels, or name another member."
        )
    if manifest.input_fields != request.input_fields:
        raise FamilyError(
            f"{reference} reads {', '.join(manifest.input_fields)}, the ensemble {', '.join(request.input_fields)}; "
            "name a member that reads the same fields."
        )
    if Calibration.from_dict(manifest.calibration).multi_label != request.multi_label:
        kind = "one label" if request.multi_label else "several labels"
        raise FamilyError(f"{reference} gives a text {kind}, unlike the ensemble; name another member.")
    return manifest


def _ask_all(
    request: FitRequest, predictors: Mapping[str, Predictor], examples: Sequence[Example]
) -> NDArray[np.float64]:
    """Probabilities (texts, members, labels) in the request's order of labels."""
    opinions = np.zeros((len(examples), len(predictors), len(request.labels)))
    done, total = 0, max(1, len(examples) * len(predictors))
    for member, (name, predictor) in enumerate(predictors.items()):
        order = _order(predictor.labels, request.labels)
        for start in range(0, len(examples), _CHUNK):
            _stop_if_asked(request)
            chunk = examples[start : start + _CHUNK]
            for row, answer in enumerate(predictor.predict([example.fields for example in chunk]), start):
                opinions[row, member] = answer.probabilities[order]
            done += len(chunk)
            request.reporter.progress(_ASKED * done / total, f"Asked {name} about {start + len(chunk):,} texts")
    return opinions


def _order(known: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where each of the `wanted` labels stands among the `known` ones."""
    position = {label: index for index, label in enumerate(known)}
    return [position[label] for label in wanted]


def _notes(request: FitRequest, choice: Choice, opinions: NDArray[np.float64], truth: NDArray[np.float32]) -> list[str]:
    """Which versions answer, how they are combined, and why so."""
    references = [_reference(folder) for folder in request.members.values()]
    notes = [f"Made of {', '.join(references)}."]
    if not choice.losses:
        return [*notes, f"All members count alike: fewer than {LEAST_TEXTS} validation texts say too little of them."]
    alone = [_loss_alone(request, opinions[:, member], truth) for member in range(len(references))]
    best = int(np.argmin(alone))
    tried = ", ".join(f"{_METHODS[method]} {loss:.3f}" for method, loss in choice.losses.items())
    compared = f"{tried}, {references[best]} {alone[best]:.3f}"
    name = "Stacking" if choice.combiner.method == STACK else "A weighted vote"
    notes.append(f"{name} answers. Log loss on {len(truth):,} validation texts, held out: {compared} alone.")
    if STACK not in choice.losses:
        notes.append(
            "Stacking was not tried: the validation texts show hardly more than one label. Add examples of the others."
        )
    if choice.combiner.method == VOTE:
        shares = zip(references, choice.combiner.arrays()["weights"], strict=True)
        notes.append(f"Weights: {', '.join(f'{reference} {share:.0%}' for reference, share in shares)}.")
    return notes


def _loss_alone(request: FitRequest, probabilities: NDArray[np.float64], truth: NDArray[np.float32]) -> float:
    bounded = np.clip(probabilities, 1e-6, 1 - 1e-6)
    logits = np.log(bounded / (1 - bounded)) if request.multi_label else np.log(bounded)
    return log_loss(logits, truth, multi_label=request.multi_label)


def _stop_if_asked(request: FitRequest) -> None:
    if request.reporter.stop_requested():
        raise Stopped("stopped on request; an ensemble starts anew")


# ---- files -----------------------------------------------------------------------------------------------------------


def _load(folder: Path, manifest: Manifest) -> Predictor:
    from registry.families import family

    return family(manifest.family).load(folder, manifest)


def _load_copy(folder: Path) -> Predictor:
    from registry.families import load as load_artefact

    return load_artefact(folder, verify=False)  # its files are those of the ensemble's own manifest


def _reference(folder: Path) -> str:
    """`emotion/3`: an artefact is named by its last two folders."""
    return "/".join(folder.parts[-2:])


def _write(request: FitRequest, members: Mapping[str, Manifest], combiner: Combiner) -> None:
    from safetensors.numpy import save_file

    package, serving = request.out / "package", request.out / "serving"
    described: dict[str, Any] = {"format": FORMAT, "labels": list(request.labels), "method": combiner.method}
    described["members"] = [
        {"classifier": name, "version": _reference(folder), "artefact_digest": manifest_digest(folder)}
        for name, folder in request.members.items()
    ]
    for target in (package, serving):
        target.mkdir(parents=True, exist_ok=True)
        text = json.dumps(described, ensure_ascii=False, indent=1)
        (target / DESCRIPTION_NAME).write_text(text + "\n", encoding="utf-8")
        save_file(combiner.arrays(), str(target / WEIGHTS_NAME))
    (package / "README.md").write_text(_README, encoding="utf-8")
    for name, manifest in members.items():
        _stop_if_asked(request)
        copy = serving / MEMBERS / name
        shutil.copytree(request.members[name] / "serving", copy / "serving")
        write_manifest(copy, dataclasses.replace(manifest, files={}))


_README = """# Several models that answer together

`ensemble.json` names the versions it was made of, in order, and the method. `../serving/members/` holds what each of
them serves. `vote`: `weights` in `model.safetensors` (members,) mix the members' probabilities. `stack`: the logarithms
of the members' probabilities (of their odds where the manifest says `multi_label`), member after member, each in the
order of `labels`, are a vector; `vector @ coefficients + intercepts` are scores. Take the logarithm of the mixed
probabilities (or odds), or the scores, divide by the temperature in the artefact's manifest, and take the softmax, or
the sigmoid where it says `multi_label`.
"""
