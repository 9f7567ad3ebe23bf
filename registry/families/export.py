"""From `package/` to `serving/`: an ONNX graph that is checked against torch, and an int8 one where it is as good.

Imports torch: reached from `encoder.fit` alone.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from kalimtak.core.crashpoints import crashpoint
from registry.calibration import Calibration
from registry.families.agreement import MAX_COMPARED, evenly, judge_int8
from registry.families.architecture import use_linear_layers
from registry.families.base import FamilyError, FitRequest, Stopped
from registry.families.first_token import read_first_token_only
from registry.families.graph_export import Inputs, OneResult, write_graph
from registry.families.onnx_predictor import FP32_NAME, INT8_NAME, TOKENIZER_NAME, Graph
from registry.families.quantisation import CALIBRATION_TEXTS, quantise
from registry.families.targets import calibrate
from registry.families.tokenisation import Tokenisation, Tokens
from registry.text import PREPROCESSING_VERSION

DYNAMIC = "int8 takes its scales from each text, as fixed ones were not as good, so each has a forward pass of its own."
_CHUNK = 128  # texts between two looks at whether to stop


@dataclass(frozen=True)
class Served:
    """`calibration` and what the notes of a fit say about the graphs."""

    calibration: Calibration
    notes: tuple[str, ...]


Read = Callable[[Path], PreTrainedModel]
"""Reads the classifier out of a package, in 32 bits and ready to answer."""


def read_package(package: Path) -> PreTrainedModel:
    """The classifier of a package that plain transformers can load."""
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        package, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, attn_implementation="eager"
    )
    model.train(False)
    return model


def export_serving(request: FitRequest, start: float, read: Read = read_package) -> Served:
    """Write `serving/`; progress goes from `start` to 1. Raises FamilyError where the graph differs, or Stopped."""
    package, serving = request.out / "package", request.out / "serving"
    serving.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(package / TOKENIZER_NAME, serving / TOKENIZER_NAME)
    request.reporter.progress(start, "Converting for serving")
    export_onnx(package, serving / FP32_NAME, request.recipe.model.max_length, read, request.cache)
    crashpoint("encoder.during_export")
    if not request.valid:
        calibration, notes = calibrate(request, np.empty((0, len(request.labels))), [])
        return Served(calibration, ("Without validation texts fp32 answers.", *notes))
    tokenisation = Tokenisation.read(serving / TOKENIZER_NAME, request.recipe.model.max_length, PREPROCESSING_VERSION)
    return _choose(request, serving, tokenisation, start + (1 - start) / 2)


def export_onnx(
    package: Path, target: Path, max_length: int, read: Read = read_package, cache: Path | None = None
) -> None:
    """Write the classifier in `package` as fp32 ONNX with free batch and length, and compare it with torch."""
    model = read(package)
    model.config.use_cache = False  # of what was read so far, for models that go on to write
    use_linear_layers(model)
    read_first_token_only(model)
    inputs = Inputs.of(AutoTokenizer.from_pretrained(package, trust_remote_code=False), model)
    write_graph(OneResult(model, _logits_alone), inputs, target, output="logits", max_length=max_length, cache=cache)


def _logits_alone(answer: Any, _: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = answer.logits
    return logits


def _choose(request: FitRequest, serving: Path, tokenisation: Tokenisation, start: float) -> Served:
    """Keep int8 if it answers the validation texts as fp32 does; calibrate whichever will answer."""
    examples = evenly(request.valid, MAX_COMPARED)
    texts = tokenisation.encode_all([example.fields for example in examples])
    shown = tokenisation.encode_all([example.fields for example in evenly(request.train, CALIBRATION_TEXTS)])
    fp32 = _logits(request, serving / FP32_NAME, texts)
    for static in (True, False):
        quantise(serving / FP32_NAME, serving / INT8_NAME, shown, static=static)
        int8 = _logits(request, serving / INT8_NAME, texts)
        if not (np.isfinite(fp32).all() and np.isfinite(int8).all()):
            raise FamilyError("The trained model answers with numbers that are not finite; lower the learning rate.")
        verdict = judge_int8(request, fp32, int8, examples)
        if verdict.is_as_good:
            break
        for path in serving.glob(f"{INT8_NAME}*"):
            path.unlink()
    request.reporter.progress((1 + start) / 2, "Calibrating")
    calibration, notes = calibrate(request, int8 if verdict.is_as_good else fp32, examples)
    own = (DYNAMIC,) if verdict.is_as_good and not static else ()
    return Served(calibration, (verdict.note, *own, *notes))


def _logits(request: FitRequest, path: Path, texts: Sequence[Tokens]) -> NDArray[np.float32]:
    """Logits (texts, labels), each text in a forward pass of its own; on all cores."""
    graph = Graph(path)
    rows: list[NDArray[np.float32]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(texts), _CHUNK):
            if request.reporter.stop_requested():
                raise Stopped("stopped while comparing the converted model")
            rows.extend(pool.map(graph.run, texts[start : start + _CHUNK]))
    return np.stack(rows)
