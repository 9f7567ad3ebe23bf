"""From `package/` to `serving/`: an ONNX graph that is checked against torch, and an int8 one where it is as good.

Imports torch: reached from `encoder.fit` alone. Only the newer exporter (`dynamo=True`) is used; the older one gave
silently wrong answers at other lengths or with padding.
"""

import os
import shutil
import warnings
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
from registry.families.architecture import reads_token_types, use_linear_layers
from registry.families.base import FamilyError, FitRequest, Stopped
from registry.families.onnx_predictor import FP32_NAME, INT8_NAME, TOKENIZER_NAME, Graph
from registry.families.quantisation import CALIBRATION_TEXTS, MOST_BYTES_IN_ONE, quantise
from registry.families.targets import calibrate
from registry.families.tokenisation import Tokenisation, Tokens
from registry.text import PREPROCESSING_VERSION

PARITY = 1e-4  # between torch and the fp32 graph, of the largest logit where that is over 1
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
    export_onnx(package, serving / FP32_NAME, request.recipe.model.max_length, read)
    crashpoint("encoder.during_export")
    if not request.valid:
        calibration, notes = calibrate(request, np.empty((0, len(request.labels))), [])
        return Served(calibration, ("Without validation texts fp32 answers.", *notes))
    tokenisation = Tokenisation.read(serving / TOKENIZER_NAME, request.recipe.model.max_length, PREPROCESSING_VERSION)
    shown = tokenisation.encode_all([example.fields for example in evenly(request.train, CALIBRATION_TEXTS)])
    quantise(serving / FP32_NAME, serving / INT8_NAME, shown)
    return _choose(request, serving, tokenisation, start + (1 - start) / 2)


def export_onnx(package: Path, target: Path, max_length: int, read: Read = read_package) -> None:
    """Write the classifier in `package` as fp32 ONNX with free batch and length, and compare it with torch."""
    model = read(package)
    model.config.use_cache = False  # of what was read so far, for models that go on to write
    use_linear_layers(model)
    tokenizer = AutoTokenizer.from_pretrained(package, trust_remote_code=False)
    write_graph(_Logits(model), Inputs.of(tokenizer, model), target, output="logits", max_length=max_length)


@dataclass(frozen=True)
class Inputs:
    """What an encoder is fed: the `names` of its inputs, how many token ids there are, and the one that pads."""

    names: tuple[str, ...]
    vocabulary: int
    pad_id: int

    @classmethod
    def of(cls, tokenizer: Any, model: Any) -> "Inputs":
        types = ("token_type_ids",) if reads_token_types(model, tokenizer) else ()
        return cls(("input_ids", "attention_mask", *types), model.config.vocab_size, tokenizer.pad_token_id)

    def sample(self, length: int) -> dict[str, torch.Tensor]:
        """Three random texts, one of them padded to half of `length`, one of two parts."""
        generator = torch.Generator().manual_seed(length)
        ids = torch.randint(0, self.vocabulary, (3, length), generator=generator)
        mask, types = torch.ones_like(ids), torch.zeros_like(ids)
        mask[1, (length + 1) // 2 :] = 0
        ids[1, (length + 1) // 2 :] = self.pad_id
        types[2, length // 2 :] = 1
        every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: every[name] for name in self.names}


def write_graph(module: torch.nn.Module, inputs: Inputs, target: Path, *, output: str, max_length: int) -> None:
    """Write `module`, whose one result is named `output`, with free batch and length; raise FamilyError if it differs.

    It is compared with torch at three lengths up to `max_length`, with padding.
    """
    sample = inputs.sample(7)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about operators of libraries that are not installed
        program = torch.onnx.export(
            module,
            tuple(sample.values()),
            input_names=inputs.names,
            output_names=[output],
            dynamic_shapes=tuple(free for _ in inputs.names),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(str(target), external_data=_is_large(module))
    graph = Graph(target)
    for length in sorted({3, max(3, max_length // 4), max_length}):
        sample = inputs.sample(length)
        with torch.inference_mode():
            expected = module(*sample.values()).numpy()
        _check_parity(expected, graph.run_batch({name: value.numpy() for name, value in sample.items()}), length)


def _is_large(model: torch.nn.Module) -> bool:
    """Whether one protobuf file cannot hold all weights; then they lie beside it."""
    return sum(each.numel() * each.element_size() for each in model.parameters()) > MOST_BYTES_IN_ONE


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


def _check_parity(expected: NDArray[np.float32], got: NDArray[np.float32], length: int) -> None:
    distance = float(np.abs(expected - got).max())
    if not distance <= PARITY * max(1.0, float(np.abs(expected).max())):
        raise FamilyError(
            f"The converted model differs from torch by {distance:.2g} at {length} tokens; "
            "this base model cannot be served, take another one such as minilm."
        )


def _choose(request: FitRequest, serving: Path, tokenisation: Tokenisation, start: float) -> Served:
    """Keep int8 if it answers the validation texts as fp32 does; calibrate whichever will answer."""
    examples = evenly(request.valid, MAX_COMPARED)
    texts = tokenisation.encode_all([example.fields for example in examples])
    fp32, int8 = (_logits(request, serving / name, texts) for name in (FP32_NAME, INT8_NAME))
    if not (np.isfinite(fp32).all() and np.isfinite(int8).all()):
        raise FamilyError("The trained model answers with numbers that are not finite; lower the learning rate.")
    request.reporter.progress((1 + start) / 2, "Calibrating")
    verdict = judge_int8(request, fp32, int8, examples)
    if not verdict.is_as_good:
        for path in serving.glob(f"{INT8_NAME}*"):
            path.unlink()
    calibration, notes = calibrate(request, int8 if verdict.is_as_good else fp32, examples)
    return Served(calibration, (verdict.note, *notes))


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
