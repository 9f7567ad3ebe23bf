"""From `package/` to `serving/`: an ONNX graph that is checked against torch, and an int8 one where it is as good.

Imports torch: reached from `encoder.fit` alone. Only the newer exporter (`dynamo=True`) is used; the older one gave
silently wrong answers at other lengths or with padding.
"""

import os
import shutil
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kalimtak.core.crashpoints import crashpoint
from registry.calibration import fit_temperature, softmax
from registry.families.base import Example, FamilyError, FitRequest, Stopped
from registry.families.onnx_predictor import FP32_NAME, INT8_NAME, TOKENIZER_NAME, Graph
from registry.families.quantisation import CALIBRATION_TEXTS, quantise
from registry.families.tokenisation import Tokenisation, Tokens
from registry.metrics import score
from registry.text import PREPROCESSING_VERSION

PARITY = 1e-4  # of a logit, between torch and the fp32 graph
MIN_AGREEMENT, MAX_F1_DROP = 0.98, 0.005
MAX_COMPARED = 4000  # validation texts; more would only take time
FEW = 50  # texts that show little
_CHUNK = 128  # texts between two looks at whether to stop


@dataclass(frozen=True)
class Served:
    """`calibration` and what the notes of a fit say about the graphs."""

    calibration: dict[str, float]
    notes: tuple[str, ...]


def export_serving(request: FitRequest, start: float) -> Served:
    """Write `serving/`; progress goes from `start` to 1. Raises FamilyError where the graph differs, or Stopped."""
    package, serving = request.out / "package", request.out / "serving"
    serving.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(package / TOKENIZER_NAME, serving / TOKENIZER_NAME)
    request.reporter.progress(start, "Converting for serving")
    export_onnx(package, serving / FP32_NAME, request.recipe.model.max_length)
    crashpoint("encoder.during_export")
    if not request.valid:
        return Served({"temperature": 1.0}, ("No validation texts: fp32 answers, and confidence is not calibrated.",))
    tokenisation = Tokenisation.read(serving / TOKENIZER_NAME, request.recipe.model.max_length, PREPROCESSING_VERSION)
    shown = tokenisation.encode_all([example.fields for example in _spread(request.train, CALIBRATION_TEXTS)])
    quantise(serving / FP32_NAME, serving / INT8_NAME, shown)
    return _choose(request, serving, tokenisation, start + (1 - start) / 2)


def export_onnx(package: Path, target: Path, max_length: int) -> None:
    """Write the classifier in `package` as fp32 ONNX with free batch and length, and compare it with torch."""
    model = AutoModelForSequenceClassification.from_pretrained(
        package, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(package, trust_remote_code=False)
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokenizer.model_input_names]
    classifier = _Logits(model)
    sample = _sample(7, names, model.config.vocab_size, tokenizer.pad_token_id)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about operators of libraries that are not installed
        program = torch.onnx.export(
            classifier,
            tuple(sample.values()),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=tuple(free for _ in names),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(str(target), external_data=False)
    graph = Graph(target)
    for length in sorted({3, max(3, max_length // 4), max_length}):
        sample = _sample(length, names, model.config.vocab_size, tokenizer.pad_token_id)
        with torch.inference_mode():
            expected = classifier(*sample.values()).numpy()
        _check_parity(expected, graph.run_batch({name: value.numpy() for name, value in sample.items()}), length)


class _Logits(torch.nn.Module):
    """The classifier without anything else that transformers returns."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits


def _sample(length: int, names: Sequence[str], vocabulary: int, pad_id: int) -> dict[str, torch.Tensor]:
    """Three random texts, one of them padded to half of `length`, one of two parts."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(0, vocabulary, (3, length), generator=generator)
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    mask[1, (length + 1) // 2 :] = 0
    ids[1, (length + 1) // 2 :] = pad_id
    types[2, length // 2 :] = 1
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: every[name] for name in names}


def _check_parity(expected: NDArray[np.float32], got: NDArray[np.float32], length: int) -> None:
    distance = float(np.abs(expected - got).max())
    if not distance <= PARITY:
        raise FamilyError(
            f"The converted model differs from torch by {distance:.2g} at {length} tokens; "
            "this base model cannot be served, take another one such as minilm."
        )


def _choose(request: FitRequest, serving: Path, tokenisation: Tokenisation, start: float) -> Served:
    """Keep int8 if it answers the validation texts as fp32 does; calibrate whichever will answer."""
    examples = _spread(request.valid, MAX_COMPARED)
    texts = tokenisation.encode_all([example.fields for example in examples])
    position = {label: index for index, label in enumerate(request.labels)}
    truth = np.array([position[example.label] for example in examples])
    fp32, int8 = (_logits(request, serving / name, texts) for name in (FP32_NAME, INT8_NAME))
    if not (np.isfinite(fp32).all() and np.isfinite(int8).all()):
        raise FamilyError("The trained model answers with numbers that are not finite; lower the learning rate.")
    request.reporter.progress((1 + start) / 2, "Calibrating")
    agreement = float((fp32.argmax(axis=1) == int8.argmax(axis=1)).mean())
    drop = _macro_f1(request.labels, truth, fp32) - _macro_f1(request.labels, truth, int8)
    keeps = agreement >= MIN_AGREEMENT and drop <= MAX_F1_DROP
    if not keeps:
        (serving / INT8_NAME).unlink()
    temperature = fit_temperature(int8 if keeps else fp32, truth)
    shown = f"{len(examples):,} validation texts" + (", which is few" if len(examples) < FEW else "")
    verdict = "int8 answers" if keeps else "fp32 answers, int8 is not as good"
    note = f"{verdict}: int8 agrees with fp32 on {agreement:.1%} of {shown}; macro-F1 {-100 * drop:+.2f} points."
    return Served({"temperature": temperature}, (note,))


def _spread(examples: Sequence[Example], most: int) -> list[Example]:
    """At most `most` examples, evenly spread over all."""
    step = max(1, -(-len(examples) // most))
    return list(examples[::step])


def _logits(request: FitRequest, path: Path, texts: Sequence[Tokens]) -> NDArray[np.float32]:
    """Logits (texts, labels), each text in a forward pass of its own, as it will be served; on all cores."""
    graph = Graph(path)
    rows: list[NDArray[np.float32]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(texts), _CHUNK):
            if request.reporter.stop_requested():
                raise Stopped("stopped while comparing the converted model")
            rows.extend(pool.map(graph.run, texts[start : start + _CHUNK]))
    return np.stack(rows)


def _macro_f1(labels: Sequence[str], truth: NDArray[np.intp], logits: NDArray[np.float32]) -> float:
    return score(labels, [labels[index] for index in truth], softmax(logits)).macro_f1
