"""The encoder family: a pretrained Hugging Face encoder, fine-tuned; served by onnxruntime, in int8 where as good.

`package/` is an ordinary transformers folder; `serving/` holds `model.onnx` (fp32, what a GPU would run), mostly
`model.int8.onnx` (then that one answers) and `tokenizer.json`. Nothing here imports torch until `fit` is called.
"""

import hashlib
import json
import os
from pathlib import Path

from registry.families.base import FamilyError, FitRequest, FitResult, Predictor, Stopped, check_examples
from registry.families.base_models import BaseModel, find_base_model
from registry.manifest import Manifest


def fit(request: FitRequest) -> FitResult:
    """Fine-tune, convert, choose between int8 and fp32, calibrate. Raises Stopped (resumable) or FamilyError."""
    check_examples(request)
    if len(request.input_fields) > 2:
        raise FamilyError("An encoder reads one text, or a question and its context; use the classic family for more.")
    request.reporter.progress(0.0, f"Loading {request.recipe.model.model_name}")
    base = find_base_model(request.recipe.model.model_name)

    # Read when torch loads OpenMP. Threads that spin while they wait for each other bring a shared machine to its
    # knees: beside two other busy processes on two cores, 9 texts/s became 62 by letting them sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from registry.families.checkpoints import Checkpoints
    from registry.families.export import export_serving
    from registry.families.finetune import SPAN, finetune

    checkpoints = Checkpoints(request.checkpoints, fingerprint(request, base))
    if not request.resume or checkpoints.newest() is None:
        checkpoints.clear()  # those of other data would stand in for the newest ones, of which only a few are kept
    tuned = finetune(request, base, checkpoints)
    if request.reporter.stop_requested():
        raise Stopped("stopped before the model was converted")
    served = export_serving(request, start=SPAN)
    request.reporter.progress(1.0, "Model written")
    return FitResult(
        calibration=served.calibration,
        parameters=tuned.parameters,
        base_model=base.to_dict(),
        notes=(*tuned.notes, *served.notes, *_absent(request)),
        history=tuned.history,
    )


def load(folder: Path, manifest: Manifest) -> Predictor:
    """The predictor of `serving/`; the caller has verified the files."""
    from registry.families.onnx_predictor import OnnxPredictor

    return OnnxPredictor(folder, manifest)


def fingerprint(request: FitRequest, base: BaseModel) -> str:
    """SHA-256 of all that decides what a run computes: a checkpoint of other data or settings must not be resumed."""
    recipe = request.recipe.to_dict()
    settings = [request.labels, request.input_fields, recipe["model_config"], recipe["training_config"], base.sha256]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for example in (*request.train, *request.valid):
        digest.update(json.dumps([example.fields, example.label, example.weight]).encode())
    return digest.hexdigest()


def _absent(request: FitRequest) -> list[str]:
    absent = sorted(set(request.labels) - {example.label for example in request.train})
    return [f"No training text shows: {', '.join(absent)}; the model will hardly ever answer so."] if absent else []
