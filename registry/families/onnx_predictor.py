"""Answering from `serving/` with tokenizers and onnxruntime alone.

Each text gets a forward pass of its own. Dynamic int8 takes its scale over everything in a pass, so in company a text
could be answered otherwise than alone; on a CPU a pass for several texts is no cheaper either.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from registry.calibration import Calibration
from registry.families.base import Answer, FamilyError, Fields
from registry.families.tokenisation import Tokenisation, Tokens
from registry.manifest import Manifest

FP32_NAME, INT8_NAME, TOKENIZER_NAME = "model.onnx", "model.int8.onnx", "tokenizer.json"
THREADS_VARIABLE = "KALIMTAK_INFERENCE_THREADS"


class Graph:
    """An ONNX model of one result on the CPU; `run` may be called from several threads at once."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; initialisers the optimiser drops are no news
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = {each.name for each in self._session.get_inputs()}

    def run(self, tokens: Tokens) -> NDArray[np.float32]:
        """Logits (labels,) of one text."""
        logits: NDArray[np.float32] = self.run_batch(feeds_of(tokens))[0]
        return logits

    def run_batch(self, feeds: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Logits (texts, labels) of padded arrays (texts, length); feeds the graph does not know are left out."""
        known = {name: values for name, values in feeds.items() if name in self._inputs}
        logits: NDArray[np.float32] = self._session.run(None, known)[0]
        return logits


def feeds_of(tokens: Tokens) -> dict[str, NDArray[np.int64]]:
    """One text as every input an encoder may have, each (1, length)."""
    feeds = {"input_ids": tokens.ids, "attention_mask": np.ones_like(tokens.ids), "token_type_ids": tokens.types}
    return {name: values[np.newaxis] for name, values in feeds.items()}


class OnnxPredictor:
    """Answers from the int8 graph where training found it as good, else from the fp32 graph."""

    batches = False  # every text costs a forward pass

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        serving = folder / "serving"
        if manifest.max_length is None:
            raise FamilyError("The manifest of an encoder must say its max_length; train again.")
        self.labels = manifest.labels
        self.input_fields = manifest.input_fields
        self.calibration = Calibration.from_dict(manifest.calibration)
        self._tokenisation = Tokenisation.read(serving / TOKENIZER_NAME, manifest.max_length, manifest.preprocessing)
        is_int8 = (serving / INT8_NAME).is_file()
        self._graph = Graph(serving / (INT8_NAME if is_int8 else FP32_NAME), threads=_threads())

    def predict(self, inputs: Sequence[Fields]) -> list[Answer]:
        """`registry.families.base.Predictor`."""
        return [self._answer(fields) for fields in inputs]

    def _answer(self, fields: Fields) -> Answer:
        tokens = self._tokenisation.encode(fields)
        probabilities = self.calibration.probabilities(self._graph.run(tokens))
        return Answer(probabilities.astype(np.float32), tokens.truncated)


def _threads() -> int:
    """One, since a machine is filled with processes; a batch job on an idle machine may ask for more."""
    value = os.environ.get(THREADS_VARIABLE, "1")
    if not value.isdecimal() or not 1 <= int(value) <= 256:
        raise FamilyError(f"{THREADS_VARIABLE} must be a whole number from 1 to 256, got {value!r}.")
    return int(value)
