"""The encoder family: a pretrained Hugging Face encoder, fine-tuned; served by onnxruntime, in int8 where as good.

`package/` is an ordinary transformers folder; `serving/` holds `model.onnx` (fp32, what a GPU would run), mostly
`model.int8.onnx` (then that one answers) and `tokenizer.json`. Nothing here imports torch until `fit` is called.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from registry.families.base import (
    FitRequest,
    FitResult,
    Predictor,
    Stopped,
    absent_labels,
    check_examples,
    check_pair,
)
from registry.families.base_models import BaseModel, find_base_model
from registry.families.process_environment import prepare_libraries
from registry.manifest import Manifest, manifest_digest


def fit(request: FitRequest) -> FitResult:
    """Fine-tune, convert, choose between int8 and fp32, calibrate. Raises Stopped (resumable) or FamilyError."""
    return tune_and_serve(request, prepare(request))


def prepare(request: FitRequest) -> BaseModel:
    """What comes before torch is imported: refusing what cannot be learnt from, finding the base model."""
    check_examples(request)
    check_pair(request)
    request.reporter.progress(0.0, f"Loading {request.recipe.model.model_name}")
    base = find_base_model(request.recipe.model.model_name)
    prepare_libraries()  # before torch is imported, which follows
    return base


def tune_and_serve(request: FitRequest, base: BaseModel, *, read: Any = None, **own: Any) -> FitResult:
    """All of `fit` that imports torch. `read` is for `export_serving`, what is the family's `own` for `finetune`."""
    from registry.families.checkpoints import Checkpoints
    from registry.families.export import export_serving
    from registry.families.finetune import SPAN, finetune

    checkpoints = Checkpoints(request.checkpoints, fingerprint(request, base))
    if not request.resume or checkpoints.newest() is None:
        checkpoints.clear()  # those of other data would stand in for the newest ones, of which only a few are kept
    tuned = finetune(request, base, checkpoints, **own)
    if request.reporter.stop_requested():
        raise Stopped("stopped before the model was converted")
    served = export_serving(request, SPAN, **({"read": read} if read else {}))
    request.reporter.progress(1.0, "Model written")
    return FitResult(
        calibration=served.calibration.to_dict(),
        parameters=tuned.parameters,
        base_model=base.to_dict(),
        max_length=request.recipe.model.max_length,
        notes=(*tuned.notes, *served.notes, *absent_labels(request)),
        history=tuned.history,
    )


def load(folder: Path, manifest: Manifest) -> Predictor:
    """The predictor of `serving/`; the caller has verified the files."""
    from registry.families.onnx_predictor import OnnxPredictor

    return OnnxPredictor(folder, manifest)


def parent_digest(request: FitRequest) -> str:
    """Which version a run starts from; empty where it starts from the base model."""
    return manifest_digest(request.parent) if request.parent else ""


def fingerprint(request: FitRequest, base: BaseModel) -> str:
    """SHA-256 of all that decides what a run computes: a checkpoint of other data or settings must not be resumed."""
    recipe = request.recipe.to_dict()
    settings = [request.labels, request.input_fields, recipe["model_config"], recipe["training_config"], base.sha256]
    settings += [request.multi_label, parent_digest(request)]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for example in (*request.train, *request.valid):
        digest.update(json.dumps([example.fields, example.label, example.weight]).encode())
    return digest.hexdigest()
